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
/**
 * Which history this is: 128 random bits, drawn when a cluster is bootstrapped, restored or recovered by force, as 32 hexadecimal
 * digits. Empty where none is known yet. Nodes with different cluster ids exchange no messages (ADR 0014).
 */
export type ClusterId = string;

export const NO_CLUSTER: ClusterId = '';

export interface MemberDetail {
  readonly id: NodeId;
  /** Null where only `cluster.json` knows it. */
  readonly address: NodeAddress | null;
  /**
   * The data directory that has this member's rights, as in Kafka's KRaft: a random number that the directory drew when it
   * was made or damaged. Rights belong to a directory, not to a node id: a directory that may have forgotten votes or
   * acknowledgements has another id, and starts as a learner.
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
  /** The same in all configurations of one history. */
  readonly clusterId: ClusterId;
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
  /** As a learner; with `joins` it is promoted once it has caught up, and then takes the place of `replaces` (0: none). */
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
 * The lifecycle status of a node's data directory. `uninitialized`: its data directory is empty, and it does not know yet whether
 * there is a cluster. `recovering`: it may have lost what it had promised, or is new; it neither votes nor has rights until
 * a committed configuration names its directory. `normal`: it has kept all it promised.
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

/**
 * The messages between cores. To add one: its interface and its place in `Message` here, its row in `messages.ts` (what an
 * older, a higher and the present term do), its handler, its bytes in the replica's `wire.ts`, and its text in
 * test/raft/describe.ts. The compiler names every place that is missing but the decoder, which the test of `wire.ts` finds.
 */
interface Envelope {
  readonly from: NodeId;
  readonly to: NodeId;
  /** The sender's term; in a pre-vote and its grant, the term that would be campaigned for (§9.6). */
  readonly term: number;
}

/**
 * In every answer that can count towards a quorum: for which directory the sender speaks. The answer counts only if the
 * receiver's configuration names that directory, because a sender may not know yet that its rights went to another one.
 */
interface Speaker {
  readonly directoryId: number;
  /** The sender knows that it has no rights: it is uninitialized or recovering, or they were given to another directory. */
  readonly withoutRights: boolean;
}

/**
 * From a follower whose election timer ran out, to the other voters: would they vote for it in `term`? Receivers say so
 * and change nothing. Keeps a partitioned node from raising the term of a cluster that works (§9.6).
 */
export interface PreVote extends Envelope {
  readonly kind: 'preVote';
  readonly lastIndex: number;
  readonly lastTerm: number;
}
/** The answer to a pre-vote. A quorum of grants makes the receiver campaign. */
export interface PreVoteReply extends Envelope, Speaker {
  readonly kind: 'preVoteReply';
  readonly granted: boolean;
}
/**
 * The paper's RequestVote: from a candidate to the other voters, once its own term and vote are on its disk. A receiver
 * that hears a leader ignores it, unless that leader asked for the election.
 */
export interface Vote extends Envelope {
  readonly kind: 'vote';
  readonly lastIndex: number;
  readonly lastTerm: number;
  /** The old leader asked for this election, so a voter does not protect it (§4.2.3). */
  readonly transfer: boolean;
}
/** The answer to a vote request, once the vote is on the sender's disk. A quorum of grants makes the receiver the leader. */
export interface VoteReply extends Envelope, Speaker {
  readonly kind: 'voteReply';
  readonly granted: boolean;
}
/**
 * The part of the paper's AppendEntries that carries entries; without entries it only asks whether the logs agree at
 * `prevIndex`. From the leader whenever it has entries for a follower. The receiver compares, writes, and answers.
 */
export interface Append extends Envelope {
  readonly kind: 'append';
  readonly prevIndex: number;
  readonly prevTerm: number;
  readonly commitIndex: number;
  readonly entries: readonly Entry[];
}
/** The answer to an append: an acknowledgement, once the entries are on the sender's disk, or a refusal. */
export interface AppendReply extends Envelope, Speaker {
  readonly kind: 'appendReply';
  readonly success: boolean;
  /** On success: the last index that is verified and durable on the sender. On refusal: the `prevIndex` refused. */
  readonly index: number;
  /** On refusal: the last index at which the logs may still agree, and the sender's term there (§3.5, conflict by term). */
  readonly hintIndex: number;
  readonly hintTerm: number;
  /** The sender's disk is full. */
  readonly diskFull: boolean;
}
/**
 * The part of the paper's AppendEntries that shows that the leader lives: from the leader to every follower, at each
 * interval and when reads need proof that it still leads. Answered at once, without the disk.
 */
export interface Heartbeat extends Envelope {
  readonly kind: 'heartbeat';
  /** Never above what the receiver's directory `directoryId` is known to hold, so a stale tail is never committed. */
  readonly commitIndex: number;
  readonly directoryId: number;
  /** To which round this belongs. The answer proves that the receiver followed the leader after the round began (§6.4). */
  readonly round: number;
  /** No quorum of members has room on its disk: no node should accept writes from its clients. */
  readonly clusterFull: boolean;
}
/** The answer to a heartbeat. Counts for CheckQuorum and for the reads of its round. */
export interface HeartbeatReply extends Envelope, Speaker {
  readonly kind: 'heartbeatReply';
  readonly round: number;
  readonly diskFull: boolean;
}
/**
 * The part of the paper's AppendEntries that carries leaderCommit: from the leader as soon as more is committed, without an
 * answer. If the receiver's entry at `index` has `indexTerm`, its log matches the leader's up to there (§3.5) and
 * everything up to `min(index, commitIndex)` is committed.
 */
export interface Commit extends Envelope {
  readonly kind: 'commit';
  readonly index: number;
  readonly indexTerm: number;
  readonly commitIndex: number;
}
/**
 * From a leader that hands over, to a voter that holds its whole log: campaign at once, without a pre-vote (§3.10). A leader
 * whose disk hangs, or that has left the configuration, sends it to the most advanced voter.
 */
export interface TimeoutNow extends Envelope {
  readonly kind: 'timeoutNow';
}
/** From a follower whose clients read: which index must it apply before it may answer them? (§6.4, ReadIndex) */
export interface ReadIndex extends Envelope, Speaker {
  readonly kind: 'readIndex';
  readonly id: number;
}
/** The leader's answer, once it is sure that it leads. */
export interface ReadIndexReply extends Envelope {
  readonly kind: 'readIndexReply';
  readonly id: number;
  /** Read once this is applied; -1 if the receiver of the question does not lead, and the reader must ask again. */
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
/** From a node without rights to the leader: make this directory a learner, so that it can earn its vote again. */
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
  /** Leader only, otherwise ignored: append these encoded entries (header room included, see `entry.ts`), in order. */
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
  /** A link to a peer is up: whatever was in flight to it is lost, so probe at once. */
  | { readonly kind: 'linkUp'; readonly peer: NodeId }
  /** Leader only: hand over to `to`, or to the most advanced voter if it is NO_NODE. */
  | { readonly kind: 'transferLeadership'; readonly to: NodeId }
  /** Leader only. `id` comes back in the outcome. */
  | { readonly kind: 'changeMembers'; readonly id: number; readonly change: MemberChange }
  /** A snapshot of this node's own state up to `index` is durable. */
  | { readonly kind: 'snapshotStored'; readonly index: number; readonly term: number }
  /** The log up to `index` may be compacted: at most up to the newest snapshot, and less while a follower needs it. */
  | { readonly kind: 'compact'; readonly index: number }
  /** A snapshot that `wantSnapshot` asked for is durable and verified, and ready to replace the state. */
  | {
      readonly kind: 'snapshotReceived';
      readonly index: number;
      readonly term: number;
      readonly configuration: Configuration;
    }
  /** A follower has not asked for a piece of its snapshot for too long: probe for where it is. */
  | { readonly kind: 'snapshotStalled'; readonly peer: NodeId }
  /** It is durable that this directory is a member by the first configuration of its cluster (ADR 0014). Its log is empty. */
  | { readonly kind: 'begin'; readonly first: Configuration }
  /** It is durable that an uninitialized directory belongs to an existing cluster, or that a recovering one is normal. */
  | { readonly kind: 'lifecycle'; readonly lifecycle: 'recovering' | 'normal'; readonly directoryId: number }
  | { readonly kind: 'diskFull'; readonly full: boolean };

interface ReadState {
  readonly id: number;
  readonly index: number;
}
export interface ReadBack {
  readonly peer: NodeId;
  readonly fromIndex: number;
  readonly bytesMax: number;
}

/** What one step asks of its caller. `Raft.step` says in which order. */
export interface Effects {
  /** To be written with, or before, `append`. */
  hardState: HardState | null;
  /** To be written. If the first of them is not behind the end of the log file, the file is truncated there first. */
  append: Entry[];
  /** Messages that depend on nothing that is not on disk yet. */
  sendNow: Message[];
  /** Promises of durability: to be sent once everything that was emitted up to this step is on disk. */
  sendAfterPersist: Message[];
  /** Entries to be read back from disk for a slow follower. */
  readBacks: ReadBack[];
  /** Reads that may be served once their index is applied. */
  reads: ReadState[];
  /** Reads that could not be confirmed; ask again under a new id. */
  readsRejected: number[];
  /** The configuration in force, if this step changed it. */
  configuration: Configuration | null;
  memberChanges: MemberChangeOutcome[];
  /** To be fetched from the leader, unless that is under way; answer with `snapshotReceived`. */
  wantSnapshot: WantSnapshot | null;
  /** The state is to be replaced by the snapshot received. With `resetLog`, the log now begins behind it. */
  install: Install | null;
  /**
   * Once in an incarnation: a committed configuration names this directory. It has rights again from when its new
   * status is durable: answer with `lifecycle` then.
   */
  recovered: boolean;
}

/** What a durable snapshot stands for: everything up to the entry at `index`, which has `term`. */
export interface SnapshotMark {
  readonly index: number;
  readonly term: number;
}
export interface WantSnapshot extends SnapshotMark {
  readonly from: NodeId;
}
interface Install extends SnapshotMark {
  readonly resetLog: boolean;
}

export type Role = 'follower' | 'preCandidate' | 'candidate' | 'leader';
