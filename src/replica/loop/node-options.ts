import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/logger.ts';
import type { CoreOptions } from '../../raft/state/core.ts';
import type { LifecycleStatus, NodeId } from '../../raft/state/types.ts';
import type { Snapshots } from '../../storage/snapshots/types.ts';
import type { LogBase, Wal } from '../../storage/wal/types.ts';
import type { PeerAddress, Transport } from '../../transport/types.ts';
import type { LogRecovery } from '../log/recovery.ts';
import type { ReplicaObserver } from '../observer.ts';
import type { TransferLimits } from '../snapshots/exchange.ts';
import type { SnapshotLimits } from '../snapshots/snapshotter.ts';
import type { ProposerLimits } from '../writes/proposer.ts';

/** What a replica is made of: `open-replica.ts` gathers it from the data directory and the configuration. */

export interface ReplicaTiming {
  readonly heartbeatIntervalMs: number;
  readonly electionTimeoutMs: number;
  readonly requestTimeoutMs: number;
  /** The core's unit of time. Other than the default only where time is simulated. */
  readonly tickMs?: number;
}

/** What a leader sends to one follower at once. */
export type SendLimits = Pick<CoreOptions, 'appendBytesMax' | 'flow'>;

export const SEND_LIMITS: SendLimits = {
  // Larger appends are split, so that a heartbeat behind one never waits long.
  appendBytesMax: 1024 * 1024,
  flow: { inflightMessagesMax: 256, inflightBytesMax: 16 * 1024 * 1024 },
};

export interface NodeReplicaOptions {
  readonly nodeId: NodeId;
  /** The number of this incarnation of the node: its session id to begin with. */
  readonly incarnation: number;
  /** What this node's data directory is good for, as its meta file says. */
  readonly lifecycle: LifecycleStatus;
  readonly directoryId: number;
  /** All nodes of the cluster to be formed where there is none yet; null for a newcomer, which waits to be added. */
  readonly initialMembers: readonly NodeId[] | null;
  /** Where the nodes are that the configuration file lists. */
  readonly peerAddresses: readonly PeerAddress[];
  readonly timing: ReplicaTiming;
  readonly limits: ProposerLimits;
  readonly sendLimits: SendLimits;
  readonly snapshotLimits: SnapshotLimits;
  readonly transfer: TransferLimits;
  readonly clock: Clock;
  readonly random: () => number;
  readonly logger: Logger;
  readonly transport: Transport;
  readonly wal: Wal;
  readonly snapshots: Snapshots;
  /** What snapshot and log file held, after `finish`. */
  readonly recovered: Pick<LogRecovery, 'log' | 'hardState' | 'stateMachine' | 'configurations' | 'bytesBehindBase'>;
  /** The point at which the log file must be reset before anything else is written to it; null if it is as it should be. */
  readonly logReset: LogBase | null;
  /** Persists that this node has bootstrapped the cluster and is a member; resolves once that is durable. */
  readonly persistBootstrapped: () => Promise<void>;
  /** Persists the lifecycle status; resolves once that is durable. */
  readonly persistLifecycle: (lifecycle: 'recovering' | 'normal', directoryId: number) => Promise<void>;
  /** Makes the next incarnation's number higher than `incarnation`; resolves once that is durable. */
  readonly raiseIncarnation: (incarnation: number) => Promise<void>;
  /** Remembers whether this node is the only voter; resolves once that is durable. */
  readonly persistAlone: (alone: boolean) => Promise<void>;
  /** The node can't go on: its process must end. Called once. */
  readonly onFatal: (error: unknown) => void;
  readonly onLeaderChanged: (leader: NodeId, term: number) => void;
  /** The node is no longer a member: its process should say so and end. Called once. */
  readonly onRemoved: () => void;
  /** Null but for tests that watch the replica at work. */
  readonly observer: ReplicaObserver | null;
}

/** Directories are told apart by a random number below this, never 0. */
const DIRECTORY_IDS = 2 ** 48;

/** The id of a data directory that is empty or has lost something. */
export function newDirectoryId(random: () => number): number {
  return 1 + Math.floor(random() * (DIRECTORY_IDS - 1));
}
