import type { WriteCommand } from '../kv/batch.ts';
import type { ChangeObserver } from '../kv/changes.ts';
import type { Item, ResultCode } from '../kv/types.ts';
import type {
  ClusterId,
  Configuration,
  LifecycleStatus,
  MemberChange,
  NodeAddress,
  NodeId,
  Role,
} from '../raft/state/types.ts';
import type { SnapshotInfo } from '../storage/snapshots/types.ts';

/** Why a request got no result. */
export type Failure =
  /** The request timeout passed without a quorum. A write may still take effect; a read has not happened. */
  | 'timeout'
  /** The node is stopping. The same caution holds for writes. */
  | 'stopping'
  /** This node installed a snapshot that already contains the write: it took effect, but its result is lost. */
  | 'overtaken'
  /** Refused, and certainly without effect: no quorum of nodes has room on its disk. */
  | 'diskFull';

/** Receives the outcome of one proposed command: exactly one of the two calls, once, in the order of proposing. */
export interface WriteCompletion {
  written(code: ResultCode, item: Item | null, text: string): void;
  writeFailed(failure: Failure): void;
}

/** Told when one linearizable read may be served, or that it failed: exactly one of the two calls, once. */
export interface ReadCompletion {
  /** From this call on, `Replica.get` is linearizable for this read: the state can only be newer. */
  readable(): void;
  readFailed(failure: Failure): void;
}

/**
 * A node's door to the replicated store, for the ports above. Commands proposed in one turn of the event loop become
 * one batch and one log entry; reads asked for in one turn share one ReadIndex request. Both may be called at any time;
 * results come in a later turn, or in this one's end, but never from inside the call.
 */
export interface Replica {
  /** Copies what it needs before it returns, so that the caller may fill `command` again. */
  propose(command: WriteCommand, completion: WriteCompletion): void;
  read(completion: ReadCompletion): void;
  /** The item as of the last applied entry; undefined if there is none or it has expired. */
  get(key: string): Item | undefined;
  /** False while too much waits to be applied: stop reading sockets until `onceAccepting` calls back. */
  accepting(): boolean;
  onceAccepting(callback: () => void): void;
  status(): ReplicaStatus;
  /** The keys of the store with their items, as of now, for listings. */
  entries(): IterableIterator<[string, Item]>;
  /** Sets the observer of every change that this node applies from now on; null for none, which costs nothing. */
  observe(observer: ChangeObserver | null): void;
  /**
   * Changes the members, if this node leads. Resolves once the change is committed; what follows of itself (catching up,
   * promotion, leaving the joint configuration) is seen by `members`.
   * @throws RaftkvError NOT_LEADER (a `NotLeaderError`, which names the leader), MEMBER_CHANGE_REFUSED
   */
  changeMembers(change: MemberChange): Promise<void>;
  /** The members as the leader sees them. @throws NotLeaderError if this node does not lead. */
  members(): MembersView;
  /** A snapshot that holds everything acknowledged before the call. @throws RaftkvError BACKUP_INVALID if no snapshot can be taken. */
  backup(): Promise<Backup>;
}

/** A snapshot file, kept until it is released. */
export interface Backup {
  readonly info: SnapshotInfo;
  read(offset: number, length: number): Promise<Buffer>;
  release(): void;
}

export interface MembersView {
  readonly leader: NodeId;
  readonly term: number;
  readonly lastIndex: number;
  readonly configuration: Configuration;
  /** A change is not committed yet, or its joint configuration not left. */
  readonly changing: boolean;
  readonly members: readonly MemberView[];
}

export interface MemberView {
  readonly id: NodeId;
  /** `leaving`: votes only until the change that runs is through. */
  readonly role: 'voter' | 'learner' | 'leaving';
  readonly address: NodeAddress | null;
  /** The leader promotes the learner by itself, in the place of `replaces` (0: of no node). */
  readonly joins: boolean;
  readonly replaces: NodeId;
  /** Its log is known to equal the leader's up to this index. */
  readonly matchIndex: number;
  readonly state: 'leader' | 'probe' | 'replicate' | 'snapshot' | 'unreachable';
  /** False while it is recovering: it has no vote then, whatever its role. */
  readonly hasRights: boolean;
}

export interface ReplicaStatus {
  readonly nodeId: NodeId;
  readonly role: Role;
  readonly term: number;
  /** 0 where unknown. */
  readonly leader: NodeId;
  readonly commitIndex: number;
  readonly appliedIndex: number;
  readonly lastLogIndex: number;
  readonly logBytes: number;
  readonly items: number;
  readonly storeBytes: number;
  /** Items ever stored, as memcached's total_items. */
  readonly totalItems: number;
  /** Cluster time of the last applied entry. */
  readonly clusterTimeMs: number;
  readonly pendingWrites: number;
  readonly pendingReads: number;
  /** Members other than this node whose links stand. */
  readonly peersConnected: readonly NodeId[];
  /** The history that this node belongs to; empty while it belongs to none. */
  readonly clusterId: ClusterId;
  readonly lifecycle: LifecycleStatus;
  readonly voters: readonly NodeId[];
  readonly learners: readonly NodeId[];
  /** Index of the newest snapshot; 0 if there is none. */
  readonly snapshotIndex: number;
  readonly snapshotBytes: number;
  /** Whether a snapshot is being written. */
  readonly snapshotting: boolean;
  /** The oldest entry that the log still has. */
  readonly firstLogIndex: number;
  /** Why the cluster, as this node sees it, can't serve or can't take writes; empty where it can. */
  readonly healthProblem: string;
}
