/**
 * The language of the Raft core: what goes in, what comes out, and what travels between cores. All of it is plain
 * data in closed unions, so that a run can be recorded, replayed and compared.
 */

/** A node's number in the cluster; positive. */
export type NodeId = number;
/** No node: no vote given, no leader known. */
export const NOBODY: NodeId = 0;

/** What must be on disk before anything that depends on it is said (dissertation §3.8). */
export interface HardState {
  readonly term: number;
  readonly vote: NodeId;
  /** A hint: entries up to here were committed when this was written. Lets a restart apply them without waiting. */
  readonly commitIndex: number;
}

/**
 * Who decides. A majority of `voters`, and while a change of members runs also one of `votersOutgoing`
 * (joint consensus, §4.3). Learners replicate but neither vote nor count.
 */
export interface Configuration {
  readonly voters: readonly NodeId[];
  readonly votersOutgoing: readonly NodeId[];
  readonly learners: readonly NodeId[];
}

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

export interface PreVote extends Envelope {
  readonly kind: 'preVote';
  readonly lastIndex: number;
  readonly lastTerm: number;
}
export interface PreVoteReply extends Envelope {
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
export interface VoteReply extends Envelope {
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
export interface AppendReply extends Envelope {
  readonly kind: 'appendReply';
  readonly success: boolean;
  /** On success: the last index this very append verified, durable on the sender. On refusal: the `prevIndex` refused. */
  readonly index: number;
  /** On refusal: the last index at which the logs may still agree, and the sender's term there (§3.5, conflict by term). */
  readonly hintIndex: number;
  readonly hintTerm: number;
}
export interface Heartbeat extends Envelope {
  readonly kind: 'heartbeat';
  /** Never above what the receiver is known to hold, so a stale tail is never committed. */
  readonly commitIndex: number;
  /** Which round of the leader's this belongs to; the reply proves that the receiver followed after it began (§6.4). */
  readonly round: number;
}
export interface HeartbeatReply extends Envelope {
  readonly kind: 'heartbeatReply';
  readonly round: number;
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
interface ReadIndex extends Envelope {
  readonly kind: 'readIndex';
  readonly id: number;
}
export interface ReadIndexReply extends Envelope {
  readonly kind: 'readIndexReply';
  readonly id: number;
  /** Read once this is applied; -1 where the receiver does not lead and the reader must ask again. */
  readonly index: number;
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
  | ReadIndexReply;

export type Input =
  /** One tick of the clock has passed. */
  | { readonly kind: 'tick' }
  | { readonly kind: 'receive'; readonly message: Message }
  /** Leader only: append these encoded entries (header room included, see `entry.ts`), in order. */
  | { readonly kind: 'propose'; readonly batches: readonly Buffer[] }
  /** A linearizable read; `id` must never be used twice by this node in its life. */
  | { readonly kind: 'read'; readonly id: number }
  /** The disk holds the log up to `index`, whose entry then had `term`; and every hard state emitted before it. */
  | { readonly kind: 'persisted'; readonly term: number; readonly index: number; readonly hardState: HardState | null }
  /** The state machine has applied up to `index`. */
  | { readonly kind: 'applied'; readonly index: number }
  /** Entries that `fetch` asked for, read back from the disk. Empty where they are no longer wanted. */
  | { readonly kind: 'fetched'; readonly peer: NodeId; readonly entries: readonly Entry[] }
  /** The link to a peer broke: its process has most likely died. */
  | { readonly kind: 'linkLost'; readonly peer: NodeId }
  /** A link to a peer stands: whatever was in flight to it is gone, so probe at once. */
  | { readonly kind: 'linkUp'; readonly peer: NodeId }
  /** Leader only: hand over to `to`, or to the most advanced voter where it is 0. */
  | { readonly kind: 'transferLeadership'; readonly to: NodeId };

export interface ReadState {
  readonly id: number;
  readonly index: number;
}
export interface Fetch {
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
  fetch: Fetch[];
  /** Reads that may be served once their index is applied. */
  reads: ReadState[];
  /** Reads that could not be confirmed; ask again under a new id. */
  readsRejected: number[];
  /** True where a `propose` was refused because this node does not lead. */
  proposeRejected: boolean;
}

export type Role = 'follower' | 'preCandidate' | 'candidate' | 'leader';
