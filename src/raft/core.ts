import type { RaftLog } from './log.ts';
import type { FlowLimits, Progress } from './progress.ts';
import { jointVoteResult } from './quorum.ts';
import type { SnapshotMark } from './snapshot.ts';
import {
  type Configuration,
  type Effects,
  type HardState,
  type LifecycleStatus,
  type Message,
  NO_NODE,
  type NodeId,
  type ReadState,
  type Role,
} from './types.ts';

/** Everything one Raft node knows. Only the functions of this folder change it. */
export interface Core {
  readonly id: NodeId;
  readonly options: CoreOptions;
  readonly log: RaftLog;
  /** The newest durable snapshot of this node; the log reaches back to it at the least. */
  snapshot: SnapshotMark | null;
  /**
   * By index, ascending, never empty: those in the log, and before them the newest that the log no longer holds. All of
   * them at or below the last index.
   */
  configurations: IndexedConfiguration[];
  /** The newest of them, committed or not: the one in force (§4.1). */
  configuration: Configuration;
  /** Index of the newest of them that is committed. */
  committedConfigurationIndex: number;
  lifecycle: LifecycleStatus;
  /** The id of this node's data directory; see `MemberDetail.directoryId`. */
  directoryId: number;
  /** This directory is superseded: the newest committed configuration gives the node's rights to another directory, and no later one gives them back. */
  isSuperseded: boolean;
  /** Ticks since the leader was last asked to make this directory a learner. */
  recoveringElapsed: number;
  /** The highest commit index that any leader has spoken of: this node may still be behind it. */
  heardCommitIndex: number;
  /** The removal of this node was reported. */
  removalReported: boolean;
  /** That a committed configuration names this directory was reported. */
  recoveryReported: boolean;
  diskFull: boolean;
  /** No quorum has room on its disk, by what this leader knows, or the last one said. */
  clusterFull: boolean;
  role: Role;
  /** Never goes back (§3.3). */
  term: number;
  /** The node that this one voted for in `term`; set at most once per term. */
  vote: NodeId;
  /** The leader of `term`, where known. */
  leader: NodeId;
  /** Term and vote as last emitted; the difference to `term` and `vote` is what the next effects must carry. */
  emitted: HardState;
  /** Term and vote that the disk is known to hold. */
  persistedTerm: number;
  persistedVote: NodeId;
  /** Ticks since the leader was heard, a vote was given or a campaign began. */
  electionElapsed: number;
  /** When `electionElapsed` reaches this, a follower campaigns. Drawn again each time (§3.4). */
  electionDeadline: number;
  /** Quick pre-votes still allowed since the link to the leader broke. */
  quickCampaignsLeft: number;
  /** Who has answered this campaign: by directory id, if it grants its vote, or `NO_DIRECTORY` where it does not. */
  votes: Map<NodeId, number>;
  /** The newest heartbeat round begun. Rises during an incarnation, so that an old answer never fits a new read. */
  round: number;
  leading: Leadership | null;
  effects: Effects;
}

export interface IndexedConfiguration {
  readonly index: number;
  readonly configuration: Configuration;
}

/** What only a leader has. */
export interface Leadership {
  /** Of every other member, and of those that left a short while ago. */
  readonly progress: Map<NodeId, Progress>;
  /** Since it began to lead. */
  ticks: number;
  /** Index of the no-op that opened the term; nothing is read before it is committed (§6.4). */
  readonly firstIndex: number;
  heartbeatElapsed: number;
  quorumCheckElapsed: number;
  /** Reads that wait for the no-op, or for their round to be answered by a quorum. */
  readonly reads: PendingRead[];
  /** Ticks during which this node's own disk has made no progress on entries that wait for it. */
  persistStalledTicks: number;
  lastPersistedIndex: number;
  transfer: Transfer | null;
  /** Ticks for which a leader that is no voter of the new configuration has waited for somebody to take over. */
  handOverElapsed: number;
  /** Ticks since leadership was last offered to a node that has room on its disk. */
  diskFullElapsed: number;
}

interface Transfer {
  readonly to: NodeId;
  /** The target campaigns with the log that it has, because this disk cannot read back what it lacks. */
  readonly force: boolean;
  elapsed: number;
}

export interface PendingRead {
  readonly id: number;
  readonly from: NodeId;
  /** The directory whose acknowledgement the request is; `NO_DIRECTORY` where it is none. */
  readonly directoryId: number;
  /** The round that confirms it: one that began after it arrived; 0 while it waits for the no-op. */
  round: number;
  index: number;
}

export interface CoreOptions {
  /** Followers campaign after this many ticks of silence at the least, and less than twice as many at the most. */
  readonly electionTimeoutTicks: number;
  readonly heartbeatIntervalTicks: number;
  /** Bytes of entries in one append: large enough to use the link well, small enough not to delay a heartbeat. */
  readonly appendBytesMax: number;
  readonly flow: FlowLimits;
  /** Uniform in [0, 1). */
  readonly random: () => number;
}

export { members } from './configuration.ts';

export function emptyEffects(): Effects {
  return {
    hardState: null,
    truncateFrom: 0,
    append: [],
    sendNow: [],
    sendAfterPersist: [],
    readBacks: [],
    reads: [],
    readsRejected: [],
    proposeRejected: false,
    configuration: null,
    memberChanges: [],
    wantSnapshot: null,
    install: null,
    recovered: false,
    removed: false,
  };
}

/** Whether the nodes that `agrees` names form a quorum of every configuration in force. */
export function isQuorum(core: Core, agrees: (id: NodeId) => boolean): boolean {
  return isQuorumOf(core.configuration, agrees);
}

export function isQuorumOf({ voters, votersOutgoing }: Configuration, agrees: (id: NodeId) => boolean): boolean {
  const votes = new Map<NodeId, boolean>();
  for (const id of voters) if (agrees(id)) votes.set(id, true);
  for (const id of votersOutgoing) if (agrees(id)) votes.set(id, true);
  return jointVoteResult(voters, votersOutgoing, votes) === 'won';
}

/** Term and vote changed in memory but not yet on disk: what depends on them must wait for it. */
export function hardStateIsPending(core: Core): boolean {
  return core.persistedTerm !== core.term || core.persistedVote !== core.vote;
}

/** For messages that promise nothing about this node's log; they wait only for the term and vote they speak for. */
export function send(core: Core, message: Message): void {
  if (hardStateIsPending(core)) core.effects.sendAfterPersist.push(message);
  else core.effects.sendNow.push(message);
}

/** For votes and acknowledgements: promises that must survive a crash. */
export function sendAfterPersist(core: Core, message: Message): void {
  core.effects.sendAfterPersist.push(message);
}

export function resetElectionTimer(core: Core): void {
  const { electionTimeoutTicks, random } = core.options;
  core.electionElapsed = 0;
  core.electionDeadline = electionTimeoutTicks + Math.floor(random() * electionTimeoutTicks);
}

/** Follows `leader` (`NO_NODE` if it is not known yet) in `term`. The vote is kept within a term and forgotten with it (§3.4). */
export function becomeFollower(core: Core, term: number, leader: NodeId): void {
  const wasLeading = core.leading;
  if (term > core.term) {
    core.term = term;
    core.vote = NO_NODE;
  }
  core.role = 'follower';
  core.leader = leader;
  // A newly known leader is told at once what this node needs.
  core.recoveringElapsed = core.options.electionTimeoutTicks;
  core.leading = null;
  core.votes.clear();
  core.quickCampaignsLeft = 0;
  resetElectionTimer(core);
  if (wasLeading !== null) rejectReads(core, wasLeading.reads);
}

function rejectReads(core: Core, reads: readonly PendingRead[]): void {
  for (const read of reads) answerRead(core, read, -1);
}

/** Answers a read: it may be served at `index`, or cannot be confirmed here (-1). */
export function answerRead(core: Core, read: PendingRead, index: number): void {
  if (read.from !== core.id) {
    send(core, { kind: 'readIndexReply', from: core.id, to: read.from, term: core.term, id: read.id, index });
    return;
  }
  if (index < 0) {
    core.effects.readsRejected.push(read.id);
    return;
  }
  const state: ReadState = { id: read.id, index };
  core.effects.reads.push(state);
}
