import type { ConfigurationTracker } from './configuration-tracker.ts';
import type { FlowLimits } from './inflights.ts';
import type { RaftLog } from './log.ts';
import type { Progress } from './progress.ts';
import { jointVoteResult } from './quorum.ts';
import {
  type Configuration,
  type Effects,
  type HardState,
  type LifecycleStatus,
  type Message,
  NO_NODE,
  type NodeId,
  type Role,
  type SnapshotMark,
} from './types.ts';

/**
 * Everything that one Raft node knows: the box "State" of the paper's figure 2. Only the functions of this folder change
 * it. `commitIndex` and `lastApplied` of the figure are in `log`, `nextIndex` and `matchIndex` in `leading.progress`.
 */
export interface Core {
  readonly id: NodeId;
  readonly options: CoreOptions;
  role: Role;
  /** The paper's currentTerm. Never goes back (§3.3). */
  term: number;
  /** The paper's votedFor: for whom this node voted in `term`. Changes only from NO_NODE to a node, or with the term. */
  vote: NodeId;
  /** The leader of `term`, if known. */
  leader: NodeId;
  readonly log: RaftLog;
  /** Which configuration is in force, and which is committed (§4.1). */
  readonly configurations: ConfigurationTracker;
  /** What only a leader has; null otherwise. */
  leading: Leadership | null;
  /** The newest durable snapshot of this node. The log reaches back to it at least. */
  snapshot: SnapshotMark | null;
  /** Time: the number of ticks that have passed. All deadlines below are values of it. */
  now: number;
  /** The tick at which the leader was last heard, a vote was given or a campaign began. */
  timerStartedAt: number;
  /** A follower campaigns when so many ticks have passed since then. Drawn again for each wait (§3.4). */
  electionTimeout: number;
  /** Quick pre-votes that are still allowed after the link to the leader broke. */
  quickCampaignsLeft: number;
  /** Who has answered this campaign: the directory id that granted its vote, or `NO_DIRECTORY` for a refusal. */
  votes: Map<NodeId, number>;
  /** Term and vote as last emitted. If `term` or `vote` differ, the next effects must carry them. */
  emitted: HardState;
  /** Term and vote that the disk is known to hold. */
  persisted: HardState;
  /** The newest heartbeat round begun. Rises during an incarnation, over all terms, so that an old answer never confirms a new read. */
  round: number;
  /** Whether this node's words count, and why not (see `rights.ts`). On a first reading, take it for `normal`. */
  readonly rights: Rights;
  /** This node's disk is full. */
  diskFull: boolean;
  /** No quorum has room on its disk, as far as this leader knows, or as the last one said. */
  clusterFull: boolean;
  /** The effects of the step that runs. */
  effects: Effects;
}

/** What decides whether this node's votes, acknowledgements and reads count towards a quorum. */
interface Rights {
  lifecycle: LifecycleStatus;
  /** The id of this node's data directory; see `MemberDetail.directoryId`. */
  directoryId: number;
  /** The newest committed configuration gives this node's rights to another directory, and no later one gives them back. */
  isSuperseded: boolean;
  /** Do not ask the leader before this tick to make this directory a learner. */
  askAgainAt: number;
  /** It was reported once that a committed configuration names this directory. */
  recoveryReported: boolean;
}

/** What only a leader has. All of it is lost with the leadership. */
export interface Leadership {
  /** By follower: the members of every configuration that can turn out to be in force. */
  readonly progress: Map<NodeId, Progress>;
  /** Index of the no-op that opened the term. Nothing is read before it is committed (§6.4). */
  readonly firstIndex: number;
  /** Reads that wait for the no-op, or for their heartbeat round to be answered by a quorum. */
  readonly reads: PendingRead[];
  /** Leadership is being handed over; no proposals are taken meanwhile. */
  transfer: Transfer | null;
  heartbeatDueAt: number;
  quorumCheckDueAt: number;
  /** The last tick at which this node's own disk was not behind, or made progress; and how far it was then. */
  diskProgressAt: number;
  diskProgressIndex: number;
  /** The tick since when a leader that is no voter of the new configuration waits for another node to take over. */
  handOverSince: number | null;
  /** A leader whose disk is full does not offer leadership to a node with room before this tick. */
  offerLeadershipAt: number;
}

interface Transfer {
  readonly to: NodeId;
  /** The target campaigns with the log that it has, because this node's disk cannot give it what it lacks. */
  readonly force: boolean;
  readonly deadline: number;
}

export interface PendingRead {
  readonly id: number;
  readonly from: NodeId;
  /** The directory whose acknowledgement the request is; `NO_DIRECTORY` if it is none. */
  readonly directoryId: number;
  /** The round that confirms the read, one that began after it arrived; 0 while the read waits for the no-op. */
  round: number;
  index: number;
}

export interface CoreOptions {
  /** Followers campaign after at least this many ticks of silence, and after less than twice as many. */
  readonly electionTimeoutTicks: number;
  readonly heartbeatIntervalTicks: number;
  /** Bytes of entries in one append: large enough to use the link well, small enough not to delay a heartbeat. */
  readonly appendBytesMax: number;
  readonly flow: FlowLimits;
  /** Uniform in [0, 1). */
  readonly random: () => number;
}

export function emptyEffects(): Effects {
  return {
    hardState: null,
    append: [],
    sendNow: [],
    sendAfterPersist: [],
    readBacks: [],
    reads: [],
    readsRejected: [],
    configuration: null,
    memberChanges: [],
    wantSnapshot: null,
    install: null,
    recovered: false,
  };
}

/** Whether the nodes that `agrees` names form a quorum of the configuration in force, of both halves if it is joint. */
export function isQuorum(core: Core, agrees: (id: NodeId) => boolean): boolean {
  return isQuorumOf(core.configurations.current, agrees);
}

export function isQuorumOf({ voters, votersOutgoing }: Configuration, agrees: (id: NodeId) => boolean): boolean {
  const votes = new Map<NodeId, boolean>();
  for (const id of voters) if (agrees(id)) votes.set(id, true);
  for (const id of votersOutgoing) if (agrees(id)) votes.set(id, true);
  return jointVoteResult(voters, votersOutgoing, votes) === 'won';
}

/** Term or vote changed in memory but are not on disk yet: messages that speak for them must wait. */
export function hardStateIsPending({ persisted, term, vote }: Core): boolean {
  return persisted.term !== term || persisted.vote !== vote;
}

/**
 * For messages that promise nothing about this node's log. They wait only for the term and vote that they speak for: a
 * node that answers in term 5, crashes and comes back in term 4 could vote in term 5 again.
 */
export function send(core: Core, message: Message): void {
  if (hardStateIsPending(core)) core.effects.sendAfterPersist.push(message);
  else core.effects.sendNow.push(message);
}

/** For votes and acknowledgements, which must survive a crash: they wait for everything that was emitted so far. */
export function sendAfterPersist(core: Core, message: Message): void {
  core.effects.sendAfterPersist.push(message);
}

/** Restarts the election timer with a timeout drawn at random, so that split votes are rare (§3.4). */
export function resetElectionTimer(core: Core): void {
  const { electionTimeoutTicks, random } = core.options;
  core.timerStartedAt = core.now;
  core.electionTimeout = electionTimeoutTicks + Math.floor(random() * electionTimeoutTicks);
}

/**
 * Follows `leader` (NO_NODE if it is not known yet) in `term`. The vote is kept within a term and forgotten with it. If it
 * were cleared on every step-down, a node could vote twice in one term and elect two leaders (CCF 5891): node 3 votes for
 * node 1 in term 5, loses its link to node 1, gives its own campaign up, and votes for node 2 in term 5.
 */
export function becomeFollower(core: Core, term: number, leader: NodeId): void {
  const wasLeading = core.leading;
  if (term > core.term) {
    core.term = term;
    core.vote = NO_NODE;
  }
  core.role = 'follower';
  core.leader = leader;
  // A new leader is told at once that this node wants its rights back.
  core.rights.askAgainAt = core.now;
  core.leading = null;
  core.votes.clear();
  core.quickCampaignsLeft = 0;
  resetElectionTimer(core);
  if (wasLeading !== null) for (const read of wasLeading.reads) answerRead(core, read, -1);
}

/** Tells the reader that its read may be served once `index` is applied, or that it cannot be confirmed here (-1). */
export function answerRead(core: Core, read: PendingRead, index: number): void {
  if (read.from !== core.id) {
    send(core, { kind: 'readIndexReply', from: core.id, to: read.from, term: core.term, id: read.id, index });
    return;
  }
  if (index < 0) core.effects.readsRejected.push(read.id);
  else core.effects.reads.push({ id: read.id, index });
}
