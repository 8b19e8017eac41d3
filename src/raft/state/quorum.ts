import type { NodeId } from './types.ts';

/**
 * What a majority has decided: how far the log is committed, and how an election stands. The joint forms ask for a
 * majority of each of two groups of voters (joint consensus, §4.3). No id may stand twice in one group.
 *
 * An empty group agrees with everything, so that a joint quorum with an empty half is the other half alone.
 */

export type VoteResult = 'won' | 'lost' | 'pending';

/** Reused by every call: the scan runs for each acknowledgement. Holds match indexes, largest first. */
const descending: number[] = [];

/**
 * The largest index that a majority of `voters` holds; `Infinity` for no voters. `matchIndexOf` gives 0 for a voter
 * of which nothing is known. Of five voters that hold 9, 7, 7, 4 and 0, three hold 7 or more: 7 is the answer.
 */
export function committedIndex(voters: readonly NodeId[], matchIndexOf: (id: NodeId) => number): number {
  if (voters.length === 0) return Number.POSITIVE_INFINITY;
  let count = 0;
  for (const id of voters) {
    const matchIndex = matchIndexOf(id);
    let place = count++;
    for (; place > 0; place--) {
      const before = descending[place - 1] ?? 0;
      if (before >= matchIndex) break;
      descending[place] = before;
    }
    descending[place] = matchIndex;
  }
  return descending[majorityOf(count) - 1] ?? 0;
}

/** The largest index that is committed by both groups. */
export function jointCommittedIndex(
  voters: readonly NodeId[],
  votersOutgoing: readonly NodeId[],
  matchIndexOf: (id: NodeId) => number,
): number {
  return Math.min(committedIndex(voters, matchIndexOf), committedIndex(votersOutgoing, matchIndexOf));
}

/** How an election stands: `votes` holds the replies so far, true for a vote granted; ids that are no voters do not count. */
export function voteResult(voters: readonly NodeId[], votes: ReadonlyMap<NodeId, boolean>): VoteResult {
  if (voters.length === 0) return 'won';
  let granted = 0;
  let missing = 0;
  for (const id of voters) {
    const vote = votes.get(id);
    if (vote === undefined) missing++;
    else if (vote) granted++;
  }
  const needed = majorityOf(voters.length);
  if (granted >= needed) return 'won';
  return granted + missing >= needed ? 'pending' : 'lost';
}

/** Won once both groups are won; lost as soon as one is. */
export function jointVoteResult(
  voters: readonly NodeId[],
  votersOutgoing: readonly NodeId[],
  votes: ReadonlyMap<NodeId, boolean>,
): VoteResult {
  const result = voteResult(voters, votes);
  const outgoing = voteResult(votersOutgoing, votes);
  if (result === 'lost' || outgoing === 'lost') return 'lost';
  return result === 'won' && outgoing === 'won' ? 'won' : 'pending';
}

/** More than half: two majorities of one group always share a member, which is what all of Raft's safety rests on. */
function majorityOf(count: number): number {
  return Math.floor(count / 2) + 1;
}
