/**
 * The language of the Raft core: what goes in, what comes out, and what travels between cores. All of it is plain
 * data in closed unions, so that a run can be recorded, replayed and compared.
 */

/** A node's number in the cluster; positive. */
export type NodeId = number;
/** No node: no vote given, no leader known. */
export const NO_NODE: NodeId = 0;

/** What must be on disk before anything that depends on it is said (dissertation §3.8). */
export interface HardState {
  readonly term: number;
  readonly vote: NodeId;
  /** A hint: entries up to here were committed when this was written. Lets a restart apply them without waiting. */
  readonly commitIndex: number;
}

/** Where a node listens. The core only carries it: configurations travel through the log, addresses with them. */
export interface NodeAddress {
  readonly host: string;
  readonly clientPort: number;
  readonly peerPort: number;
  readonly adminPort: number;
}

/** What a configuration says of one member beside its role. */
export interface MemberDetail {
  readonly id: NodeId;
  /** Null where only `cluster.json` knows it. */
  readonly address: NodeAddress | null;
  /**
   * The data directory that has this member's rights, as in Kafka's KRaft: 0 for a directory with which the cluster was
   * bootstrapped, otherwise a random number that the directory drew when it was empty or damaged. Rights belong to a
   * directory, not to a node id: a directory that may have forgotten votes or acknowledgements has another id, and starts
   * as a learner.
   */
  readonly directoryId: number;
  /** A learner that the leader promotes by itself once it has caught up. */
  readonly joins: boolean;
  /** The voter that leaves when this one is promoted; 0 for none. */
  readonly replaces: NodeId;
}

/**
 * Who decides. A majority of `voters`, and while a change of members runs also one of `votersOutgoing`
 * (joint consensus, §4.3). Learners replicate but neither vote nor count. A configuration is in force from the moment
 * that its entry is in the log, committed or not (§4.1).
 */
export interface Configuration {
  readonly voters: readonly NodeId[];
  /** Empty exactly while no change of voters runs. */
  readonly votersOutgoing: readonly NodeId[];
  readonly learners: readonly NodeId[];
  /** Outgoing voters that are learners once the joint configuration is left. */
  readonly learnersNext: readonly NodeId[];
  /** The leader leaves the joint configuration by itself once it is committed. */
  readonly autoLeave: boolean;
  /** By id, ascending; every member has one. */
  readonly details: readonly MemberDetail[];
  /** Ids that were removed and not added again, newest last; so that they can be told. */
  readonly removed: readonly NodeId[];
}

/** One change of members, as an operator asks for it. */
export type MemberChange =
  /** As a learner; with `joins` it is promoted once it has caught up, and then takes the place of `replaces` (0: no node). */
  | {
      readonly op: 'add';
      readonly id: NodeId;
      readonly address: NodeAddress;
      readonly joins: boolean;
      readonly replaces: NodeId;
    }
  | { readonly op: 'remove'; readonly id: NodeId }
  /** A learner that was added without `joins`. */
  | { readonly op: 'promote'; readonly id: NodeId };

export type MemberRefusal =
  | 'NOT_LEADER'
  /** Nothing of this leader's term is committed yet (copycat 23); ask again in a moment. */
  | 'LEADER_NOT_READY'
  | 'CHANGE_RUNNING'
  | 'MEMBER_UNKNOWN'
  | 'MEMBER_EXISTS'
  /** What would be left has no quorum that is there. */
  | 'WOULD_LOSE_QUORUM'
  /** The learner has not caught up. */
  | 'NOT_CAUGHT_UP'
  | 'TOO_MANY_MEMBERS';

/** What became of a `changeMembers` input: in the log, or refused. */
export interface MemberChangeOutcome {
  readonly id: number;
  readonly refusal: MemberRefusal | null;
  /** For people: empty where it is in the log. */
  readonly text: string;
}

/**
 * The lifecycle status of a node's data directory. `uninitialized`: it is empty, and the node does not know yet whether a
 * cluster exists. `recovering`: it is new, or may have lost votes and acknowledgements; it has no rights until a committed
 * configuration names its directory id. `normal`: it has kept every promise.
 */
export type LifecycleStatus = 'uninitialized' | 'recovering' | 'normal';

export type EntryKind = 'noop' | 'data' | 'configuration';

/**
 * One log entry. `bytes` is its one encoding (see `entry.ts`), made once by the leader: the same bytes go to every
 * disk and over every link.
 */
export interface Entry {
  readonly term: number;
  readonly index: number;
  readonly kind: EntryKind;
  readonly bytes: Buffer;
}

interface Envelope {
  readonly from: NodeId;
  readonly to: NodeId;
  /** The sender's term; in a pre-vote and its grant, the term that would be campaigned for (§9.6). */
  readonly term: number;
}

/**
 * Which directory of the sender speaks. A reply counts towards a quorum only if the receiver's configuration names this
 * directory id, because the sender may not know yet that its rights were given to another directory.
 */
interface Speaker {
  readonly directoryId: number;
  /** The sender knows that it has no rights: it is uninitialized or recovering, or they were given to another directory. */
  readonly withoutRights: boolean;
}

export interface PreVote extends Envelope {
  readonly kind: 'preVote';
  readonly lastIndex: number;
  readonly lastTerm: number;
}
export interface PreVoteReply extends Envelope, Speaker {
  readonly kind: 'preVoteReply';
  readonly granted: boolean;
}
export interface Vote extends Envelope {
  readonly kind: 'vote';
  readonly lastIndex: number;
  readonly lastTerm: number;
  /** The old leader asked for this election, so a voter does not protect it (§4.2.3). */
  readonly transfer: boolean;
}
export interface VoteReply extends Envelope, Speaker {
  readonly kind: 'voteReply';
  readonly granted: boolean;
}
export interface Append extends Envelope {
  readonly kind: 'append';
  readonly prevIndex: number;
  readonly prevTerm: number;
  readonly commitIndex: number;
  readonly entries: readonly Entry[];
}
export interface AppendReply extends Envelope, Speaker {
  readonly kind: 'appendReply';
  readonly success: boolean;
  /** On success: the last index this very append verified, durable on the sender. On refusal: the `prevIndex` refused. */
  readonly index: number;
  /** On refusal: the last index at which the logs may still agree, and the sender's term there (§3.5, conflict by term). */
  readonly hintIndex: number;
  readonly hintTerm: number;
  /** The sender's disk is full. */
  readonly diskFull: boolean;
}
export interface Heartbeat extends Envelope {
  readonly kind: 'heartbeat';
  /** Never above what the receiver's directory `directoryId` is known to hold, so a stale tail is never committed. */
  readonly commitIndex: number;
  readonly directoryId: number;
  /** Which round of the leader's this belongs to; the reply proves that the receiver followed after it began (§6.4). */
  readonly round: number;
  /** No quorum of members has room on its disk: no node should accept writes from its clients. */
  readonly clusterFull: boolean;
}
export interface HeartbeatReply extends Envelope, Speaker {
  readonly kind: 'heartbeatReply';
  readonly round: number;
  readonly diskFull: boolean;
}
/**
 * News of commitment, at once and without an answer: where the receiver's entry at `index` has `indexTerm`, its log
 * matches the leader's up to there (§3.5) and everything up to `min(index, commitIndex)` is committed.
 */
export interface Commit extends Envelope {
  readonly kind: 'commit';
  readonly index: number;
  readonly indexTerm: number;
  readonly commitIndex: number;
}
export interface TimeoutNow extends Envelope {
  readonly kind: 'timeoutNow';
}
/** The request is an acknowledgement, too, if its sender has rights. */
export interface ReadIndex extends Envelope, Speaker {
  readonly kind: 'readIndex';
  readonly id: number;
}
export interface ReadIndexReply extends Envelope {
  readonly kind: 'readIndexReply';
  readonly id: number;
  /** Read once this is applied; -1 where the receiver does not lead and the reader must ask again. */
  readonly index: number;
}
/**
 * The leader offers a snapshot because its log no longer holds what the receiver needs (§5). The receiver fetches it from
 * the leader unless its log already reaches as far. The paper's InstallSnapshot, without the data.
 */
export interface SnapshotOffer extends Envelope {
  readonly kind: 'snapshotOffer';
  readonly snapshotIndex: number;
  readonly snapshotTerm: number;
}
/** A recovering node asks the leader to make its directory a learner, so that it can earn its vote. */
export interface Recovering extends Envelope {
  readonly kind: 'recovering';
  readonly directoryId: number;
}

export type Message =
  | PreVote
  | PreVoteReply
  | Vote
  | VoteReply
  | Append
  | AppendReply
  | Heartbeat
  | HeartbeatReply
  | Commit
  | TimeoutNow
  | ReadIndex
  | ReadIndexReply
  | SnapshotOffer
  | Recovering;

export type Input =
  /** One tick of the clock has passed. */
  | { readonly kind: 'tick' }
  | { readonly kind: 'receive'; readonly message: Message }
  /** Leader only: append these encoded entries (header room included, see `entry.ts`), in order. */
  | { readonly kind: 'propose'; readonly batches: readonly Buffer[] }
  /** A linearizable read; `id` must never be used twice by this node in this incarnation. */
  | { readonly kind: 'read'; readonly id: number }
  /** The disk holds the log up to `index`, whose entry then had `term`; and every hard state emitted before it. */
  | { readonly kind: 'persisted'; readonly term: number; readonly index: number; readonly hardState: HardState | null }
  /** The state machine has applied up to `index`. */
  | { readonly kind: 'applied'; readonly index: number }
  /** Entries that `readBacks` asked for. Empty if they are no longer in the log. */
  | { readonly kind: 'readBack'; readonly peer: NodeId; readonly entries: readonly Entry[] }
  /** The link to a peer broke: its process has most likely died. */
  | { readonly kind: 'linkLost'; readonly peer: NodeId }
  /** A link to a peer stands: whatever was in flight to it is gone, so probe at once. */
  | { readonly kind: 'linkUp'; readonly peer: NodeId }
  /** Leader only: hand over to `to`, or to the most advanced voter where it is 0. */
  | { readonly kind: 'transferLeadership'; readonly to: NodeId }
  /** Leader only. `id` comes back in the outcome. */
  | { readonly kind: 'changeMembers'; readonly id: number; readonly change: MemberChange }
  /** A snapshot of this node's own state up to `index` is durable. */
  | { readonly kind: 'snapshotStored'; readonly index: number; readonly term: number }
  /** The log up to `index` may be forgotten; at most up to the newest snapshot, and less while a transfer needs it. */
  | { readonly kind: 'compact'; readonly index: number }
  /** A snapshot that `wantSnapshot` asked for is durable and verified, and ready to replace the state. */
  | {
      readonly kind: 'snapshotReceived';
      readonly index: number;
      readonly term: number;
      readonly configuration: Configuration;
    }
  /** A follower has not asked for a piece of its snapshot for too long: probe again where its log ends. */
  | { readonly kind: 'snapshotStalled'; readonly peer: NodeId }
  /** An uninitialized node has decided what it is, or a recovering node has persisted `normal`. An initial member has directory id 0. */
  | { readonly kind: 'lifecycle'; readonly lifecycle: 'recovering' | 'normal'; readonly directoryId: number }
  | { readonly kind: 'diskFull'; readonly full: boolean };

export interface ReadState {
  readonly id: number;
  readonly index: number;
}
export interface ReadBack {
  readonly peer: NodeId;
  readonly fromIndex: number;
  readonly bytesMax: number;
}

/** What one step asks of the world, in the order of the fields. */
export interface Effects {
  /** To be written with, or before, `append`. */
  hardState: HardState | null;
  /** First index to forget before `append` is written; 0 for none. */
  truncateFrom: number;
  append: Entry[];
  /** Need nothing on disk. */
  sendNow: Message[];
  /** Promises of durability: to be sent once everything emitted up to this step is on disk. */
  sendAfterPersist: Message[];
  /** Entries to be read back from disk for a slow follower. */
  readBacks: ReadBack[];
  /** Reads that may be served once their index is applied. */
  reads: ReadState[];
  /** Reads that could not be confirmed; ask again under a new id. */
  readsRejected: number[];
  /** True where a `propose` was refused because this node does not lead. */
  proposeRejected: boolean;
  /** The configuration in force, where this step changed it. */
  configuration: Configuration | null;
  memberChanges: MemberChangeOutcome[];
  /** To be fetched from the leader, unless that is under way; answer with `snapshotReceived`. */
  wantSnapshot: WantSnapshot | null;
  /** The state is to be replaced by the snapshot received. With `resetLog`, the log now begins behind it. */
  install: Install | null;
  /**
   * Once in an incarnation: a committed configuration names this directory id. The node has rights from when `normal` is
   * durable: answer with `lifecycle` then.
   */
  recovered: boolean;
  /** A committed configuration no longer has this node: its process should say so and end. */
  removed: boolean;
}

export interface WantSnapshot {
  readonly from: NodeId;
  readonly index: number;
  readonly term: number;
}
interface Install {
  readonly index: number;
  readonly term: number;
  readonly resetLog: boolean;
}

export type Role = 'follower' | 'preCandidate' | 'candidate' | 'leader';
