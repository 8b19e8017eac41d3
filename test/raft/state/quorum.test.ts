import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { committedIndex, jointCommittedIndex, jointVoteResult, voteResult } from '../../../src/raft/state/quorum.ts';

const idsArbitrary = fc.uniqueArray(fc.integer({ min: 1, max: 12 }), { maxLength: 9 });
const indexesArbitrary = fc.dictionary(fc.integer({ min: 1, max: 12 }).map(String), fc.nat({ max: 20 }));
const votesArbitrary = fc
  .array(fc.tuple(fc.integer({ min: 1, max: 12 }), fc.boolean()))
  .map((pairs) => new Map<number, boolean>(pairs));

/** Tries every index instead of sorting: how many voters hold it? */
function committedNaively(voters: readonly number[], indexOf: (id: number) => number): number {
  if (voters.length === 0) return Number.POSITIVE_INFINITY;
  let index = 0;
  while (voters.filter((id) => indexOf(id) >= index + 1).length * 2 > voters.length) index++;
  return index;
}

/** Lets the missing voters all say yes, then all say no. */
function voteNaively(voters: readonly number[], votes: ReadonlyMap<number, boolean>) {
  const wins = (missing: boolean) =>
    voters.length === 0 || voters.filter((id) => votes.get(id) ?? missing).length * 2 > voters.length;
  if (wins(false)) return 'won';
  return wins(true) ? 'pending' : 'lost';
}

describe('quorum', () => {
  it('commits what a majority holds, in whatever order the voters stand (openraft 1802)', () => {
    fc.assert(
      fc.property(idsArbitrary, indexesArbitrary, (voters, indexes) => {
        const indexOf = (id: number) => indexes[String(id)] ?? 0;
        expect(committedIndex(voters, indexOf)).toBe(committedNaively(voters, indexOf));
      }),
      { numRuns: 2000 },
    );
  });

  it('commits jointly what both majorities hold', () => {
    fc.assert(
      fc.property(idsArbitrary, idsArbitrary, indexesArbitrary, (voters, outgoing, indexes) => {
        const indexOf = (id: number) => indexes[String(id)] ?? 0;
        const naive = Math.min(committedNaively(voters, indexOf), committedNaively(outgoing, indexOf));
        expect(jointCommittedIndex(voters, outgoing, indexOf)).toBe(naive);
      }),
    );
  });

  it('decides an election as soon as the missing votes cannot change it', () => {
    fc.assert(
      fc.property(idsArbitrary, votesArbitrary, (voters, votes) => {
        expect(voteResult(voters, votes)).toBe(voteNaively(voters, votes));
      }),
      { numRuns: 1000 },
    );
  });

  it('needs both halves to win jointly, and loses with either', () => {
    fc.assert(
      fc.property(idsArbitrary, idsArbitrary, votesArbitrary, (voters, outgoing, votes) => {
        const halves = [voteNaively(voters, votes), voteNaively(outgoing, votes)];
        const expected = halves.includes('lost') ? 'lost' : halves.includes('pending') ? 'pending' : 'won';
        expect(jointVoteResult(voters, outgoing, votes)).toBe(expected);
      }),
    );
  });

  it('keeps nothing of an earlier, larger group', () => {
    expect(committedIndex([1, 2, 3, 4, 5, 6, 7], () => 90)).toBe(90);
    expect(committedIndex([1, 2, 3], (id) => id)).toBe(2);
    expect(committedIndex([1], () => 0)).toBe(0);
  });

  it('lets an empty group agree with everything', () => {
    expect(committedIndex([], () => 5)).toBe(Number.POSITIVE_INFINITY);
    expect(voteResult([], new Map())).toBe('won');
    expect(jointCommittedIndex([1, 2, 3], [], (id) => id)).toBe(2);
    expect(jointVoteResult([1], [], new Map([[1, false]]))).toBe('lost');
  });
});
