import { isDeepStrictEqual } from 'node:util';
import { type CoreSummary, checkCore, checkStep } from '../../src/raft/invariants.ts';
import { decodeConfiguration, detailOf } from '../../src/raft/state/configuration.ts';
import { type Core, isQuorumOf } from '../../src/raft/state/core.ts';
import { ENTRY_HEADER_BYTES } from '../../src/raft/state/entry.ts';
import type { Configuration, Effects, Entry, Message, NodeId } from '../../src/raft/state/types.ts';
import { describeMessage, payloadOf } from './describe.ts';
import type { SimulatedDisk, StoredSnapshot } from './simulated-disk.ts';

/** What the checks look at: every node of the cluster, running (`core`) or not. */
export interface CheckedNode {
  readonly id: NodeId;
  readonly core: Core | null;
  readonly disk: SimulatedDisk;
}

/**
 * What must be true of a cluster (the paper's figure 3), watched from outside and all-knowing:
 *
 * - election safety: one leader a term, one vote a node and term;
 * - log matching: the same index and term mean the same entry after the same log;
 * - leader completeness: a leader holds everything that was committed in an earlier term;
 * - state-machine safety: the entry at an index is committed once and for ever, and lay on the disks of a quorum then;
 * - linearizable reads: a read sees everything that was committed anywhere when it was asked for;
 * - promises of durability: what a message vouches for is on its sender's disk when it leaves;
 * - rights: no node votes, acknowledges or vouches for a read with a directory that may have forgotten something, and leaders
 *   are elected by a quorum of the configuration that they have, of the directories that it names;
 * - snapshots: they stand for what is committed, and nothing goes from a disk that no snapshot stands for.
 */
export class ClusterChecks {
  /** Committed on at least one node: `committed[i]` is the term of the entry at index i + 1. */
  readonly committed: number[] = [];
  /** Payloads as first committed, in the same places. */
  readonly committedPayloads: string[] = [];
  /** The term of the leader that first committed each of them. */
  private readonly committedIn: number[] = [];
  private readonly leaders = new Map<number, NodeId>();
  private readonly votes = new Map<string, NodeId>();
  private readonly entries = new Map<string, { readonly prevTerm: number; readonly payload: string }>();
  /** Of the configuration entries among them. */
  private readonly configurations = new Map<string, Configuration>();
  /** What each open read must see at the least. */
  private readonly readFloors = new Map<number, number>();
  private readonly nodes: readonly CheckedNode[];

  constructor(nodes: readonly CheckedNode[]) {
    this.nodes = nodes;
  }

  afterStart(node: CheckedNode, core: Core): void {
    checkCore(core);
    this.checkMatching(node, core, node.disk.entries);
    this.checkCommitted(node, core, 0, [core.configurations.current]);
  }

  afterStep(node: CheckedNode, core: Core, before: CoreSummary, effects: Effects): void {
    checkCore(core);
    checkStep(before, core);
    this.checkHardState(node, core, before, effects);
    if (effects.recovered) this.checkRecovered(node, core);
    this.checkAppended(node, core, effects);
    if (core.role === 'leader') this.checkLeader(core, before.role !== 'leader' || before.term !== core.term);
    // A step may leave a joint configuration, and either side of that may have decided.
    const inForce = [before.configuration, core.configurations.current];
    if (core.log.commitIndex > before.commitIndex) this.checkCommitted(node, core, before.commitIndex, inForce);
    for (const { id, index } of effects.reads) this.checkRead(node, id, index);
  }

  /** A read was asked for: from now on it must see all that is committed. */
  readAsked(id: number): void {
    this.readFloors.set(id, this.committed.length);
  }

  /** `message` leaves its sender, whose disk is `disk`. */
  released(message: Message, disk: SimulatedDisk): void {
    const { from, term } = message;
    // A pre-vote and its grant speak of a term that no node may have entered yet.
    const hypothetical = message.kind === 'preVote' || (message.kind === 'preVoteReply' && message.granted);
    const durableTerm = disk.hardState.term;
    check(hypothetical || durableTerm >= term, message, 'speaks of a term that its sender may forget');
    this.checkRights(message, disk);
    check(
      termsIn(message).every((known) => known >= 0),
      message,
      'speaks of a place that is not in the log',
    );
    if (message.kind === 'vote') this.checkVote(message, from, from, disk);
    if (message.kind === 'voteReply' && message.granted) this.checkVote(message, from, message.to, disk);
    if (message.kind === 'appendReply' && message.success && durableTerm === term) {
      check(disk.lastIndex >= message.index, message, 'acknowledges what its sender may lose');
    }
  }

  /** The state machine of `node` applies `entry`. */
  applied(node: CheckedNode, entry: Entry): void {
    const place = entry.index - 1;
    if (this.committed[place] === entry.term && this.committedPayloads[place] === payloadOf(entry)) return;
    fail(`node ${node.id} applies ${entry.index}@${entry.term} "${payloadOf(entry)}", committed was another`);
  }

  /** `snapshot` is in `node`'s directory, of its own state or received, and durable. */
  snapshotStored(node: CheckedNode, snapshot: StoredSnapshot): void {
    const { index, term } = snapshot;
    if (this.committed[index - 1] !== term)
      fail(`node ${node.id} stores a snapshot of what is not committed: ${index}@${term}`);
    const expected = this.configurationAsOf(index);
    if (expected === undefined || isDeepStrictEqual(snapshot.configuration, expected)) return;
    fail(`node ${node.id} stores a snapshot of ${index}@${term} with a configuration of another time`);
  }

  /** What the newest configuration entry up to `index` says; undefined where there is none, and all began otherwise. */
  private configurationAsOf(index: number): Configuration | undefined {
    for (let at = index; at > 0; at--) {
      const configuration = this.configurations.get(`${at}@${this.committed[at - 1]}`);
      if (configuration !== undefined) return configuration;
    }
    return undefined;
  }

  private checkRights(message: Message, disk: SimulatedDisk): void {
    if (disk.lifecycle === 'normal') return;
    if ('withoutRights' in message) check(message.withoutRights, message, 'speaks for a directory without rights');
    const isOfVoters = message.kind === 'vote' || message.kind === 'preVote' || message.kind === 'timeoutNow';
    check(!isOfVoters && !('granted' in message && message.granted), message, 'has a directory without rights vote');
  }

  private checkVote(message: Message, voter: NodeId, candidate: NodeId, disk: SimulatedDisk): void {
    const key = `${voter}.${disk.directoryId}:${message.term}`;
    const earlier = this.votes.get(key) ?? candidate;
    check(earlier === candidate, message, `is node ${voter}'s second vote in its term, the first was for ${earlier}`);
    this.votes.set(key, candidate);
    const { term, vote } = disk.hardState;
    check(term > message.term || vote === candidate, message, 'tells of a vote that its sender may forget');
  }

  private checkRecovered(node: CheckedNode, core: Core): void {
    const named = core.configurations.entries.findLast(({ index }) => index <= core.log.commitIndex);
    const isNamed =
      named !== undefined && detailOf(named.configuration, node.id)?.directoryId === node.disk.directoryId;
    if (isNamed && node.disk.holds(named.index, core.log.termAt(named.index))) return;
    fail(`node ${node.id} takes itself for a member, which no configuration that is committed and on its disk says`);
  }

  private checkHardState(node: CheckedNode, core: Core, before: CoreSummary, { hardState }: Effects): void {
    if (hardState === null) return;
    if (hardState.term !== core.term || hardState.vote !== core.vote)
      fail(`node ${node.id} writes another's hard state`);
    // It reaches the disk before the entries of this step do, and before what they replace is truncated.
    if (hardState.commitIndex <= before.commitIndex) return;
    fail(`node ${node.id} writes that ${hardState.commitIndex} is committed before it has written what that is`);
  }

  private checkAppended(node: CheckedNode, core: Core, effects: Effects): void {
    this.checkMatching(node, core, effects.append);
  }

  private checkMatching(node: CheckedNode, core: Core, entries: readonly Entry[]): void {
    for (const entry of entries) {
      const key = `${entry.index}@${entry.term}`;
      const mine = { prevTerm: core.log.termAt(entry.index - 1), payload: payloadOf(entry) };
      const known = this.entries.get(key);
      if (known === undefined) {
        this.entries.set(key, mine);
        if (entry.kind !== 'configuration') continue;
        this.configurations.set(key, decodeConfiguration(entry.bytes, ENTRY_HEADER_BYTES));
      } else if (known.prevTerm !== mine.prevTerm || known.payload !== mine.payload) {
        fail(
          `log matching: node ${node.id} holds ${key} "${mine.payload}" after term ${mine.prevTerm}, another node holds "${known.payload}" after term ${known.prevTerm}`,
        );
      }
    }
  }

  private checkLeader(core: Core, isNew: boolean): void {
    const known = this.leaders.get(core.term);
    if (known !== undefined && known !== core.id)
      fail(`election safety: ${known} and ${core.id} lead in term ${core.term}`);
    this.leaders.set(core.term, core.id);
    if (!isNew) return;
    this.checkElected(core);
    this.checkHoldsCommitted(core, 0);
  }

  /** Whether directories that had a say voted for this leader, in each half of the configuration that it has. */
  private checkElected({ configurations, id: leader, term, rights }: Core): void {
    const configuration = configurations.current;
    const hasVoted = (id: NodeId) =>
      this.votes.get(`${id}.${detailOf(configuration, id)?.directoryId}:${term}`) === leader;
    // A candidate that votes alone sends nothing.
    const votesAlone = (id: NodeId) => id === leader && detailOf(configuration, id)?.directoryId === rights.directoryId;
    if (isQuorumOf(configuration, (id) => votesAlone(id) || hasVoted(id))) return;
    fail(`node ${leader} leads in term ${term} without the votes of a quorum`);
  }

  private checkHoldsCommitted(core: Core, from: number): void {
    const { log } = core;
    // What is behind the log's start is in a snapshot; that it is what was committed, its last entry shows.
    for (let place = Math.max(from, log.snapshotIndex - 1); place < this.committed.length; place++) {
      // A node may be elected late, in a term that others have left behind: it can't know what they did since.
      if ((this.committedIn[place] ?? 0) > core.term) continue;
      if (log.termAt(place + 1) === this.committed[place]) continue;
      fail(`leader completeness: ${core.id} leads in term ${core.term} without ${place + 1}@${this.committed[place]}`);
    }
  }

  private checkCommitted(node: CheckedNode, core: Core, from: number, inForce: readonly Configuration[]): void {
    const knownBefore = this.committed.length;
    const { snapshotIndex } = core.log;
    if (snapshotIndex > knownBefore)
      fail(`node ${node.id} has a snapshot up to ${snapshotIndex}, which no node has committed`);
    for (let index = Math.max(from + 1, snapshotIndex, 1); index <= core.log.commitIndex; index++) {
      const term = core.log.termAt(index);
      const known = this.committed[index - 1];
      if (known === undefined) {
        this.committed.push(term);
        this.committedIn.push(core.term);
        this.committedPayloads.push(this.entries.get(`${index}@${term}`)?.payload ?? '');
      } else if (known !== term) {
        fail(`state-machine safety: node ${node.id} commits ${index}@${term}, committed was ${index}@${known}`);
      }
    }
    if (this.committed.length === knownBefore) return;
    this.checkOnDisks(node, core, inForce);
    for (const other of this.nodes) {
      if (other.core?.role === 'leader' && other.core.term >= core.term)
        this.checkHoldsCommitted(other.core, knownBefore);
    }
  }

  private checkOnDisks(node: CheckedNode, core: Core, inForce: readonly Configuration[]): void {
    const index = core.log.commitIndex;
    const term = core.log.termAt(index);
    // A directory that was lost after it had acknowledged the entry counts; one that took its place does not.
    const holds = (configuration: Configuration, id: NodeId) => {
      const directoryId = detailOf(configuration, id)?.directoryId;
      const disk = this.nodes.find((each) => each.id === id)?.disk;
      return directoryId !== undefined && disk?.ofDirectory(directoryId)?.holds(index, term) === true;
    };
    if (inForce.some((configuration) => isQuorumOf(configuration, (id) => holds(configuration, id)))) return;
    const holders = this.nodes.filter(({ disk }) => disk.holds(index, term)).map(({ id }) => id);
    fail(`node ${node.id} commits ${index}@${term}, which is on the disks of ${holders.join(', ') || 'no node'} only`);
  }

  private checkRead(node: CheckedNode, id: number, index: number): void {
    const floor = this.readFloors.get(id) ?? 0;
    if (index < floor)
      fail(`stale read: node ${node.id} may serve read ${id} at ${index}; ${floor} was committed before`);
    if (index > this.committed.length)
      fail(`node ${node.id} may serve read ${id} at ${index}, which no node has committed`);
  }
}

/** The terms of the entries that a message says something about; -1 is what a log gives for one that it does not have. */
function termsIn(message: Message): number[] {
  switch (message.kind) {
    case 'append':
      return [message.prevTerm];
    case 'appendReply':
      return [message.hintTerm];
    case 'commit':
      return [message.indexTerm];
    case 'snapshotOffer':
      return [message.snapshotTerm];
    default:
      return [];
  }
}

function check(holds: boolean, message: Message, what: string): void {
  if (!holds) fail(`"${describeMessage(message)}" ${what}`);
}

function fail(what: string): never {
  throw new Error(what);
}
