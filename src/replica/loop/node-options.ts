import type { CoreOptions } from '../../raft/state/core.ts';
import type { LifecycleStatus, NodeId } from '../../raft/state/types.ts';
import type { LogBase } from '../../storage/wal/types.ts';
import type { Transport } from '../../transport/types.ts';
import type { LifecycleOptions } from '../lifecycle/node-lifecycle.ts';
import type { LogRecovery } from '../log/recovery.ts';
import type { SnapshotOptions } from '../snapshots/exchange.ts';
import type { WriteOptions } from '../writes/write-path.ts';

/** The options of a replica. `open-replica.ts` gathers them from the data directory and the configuration. */

export interface ReplicaTiming {
  readonly heartbeatIntervalMs: number;
  readonly electionTimeoutMs: number;
  readonly requestTimeoutMs: number;
  /** The core's unit of time. Other than the default only where time is simulated. */
  readonly tickMs?: number;
}

/** How much a leader sends to one follower at once. */
export type SendLimits = Pick<CoreOptions, 'appendBytesMax' | 'flow'>;

export const SEND_LIMITS: SendLimits = {
  // Larger appends are split, so that a heartbeat behind one never waits long.
  appendBytesMax: 1024 * 1024,
  flow: { inflightMessagesMax: 256, inflightBytesMax: 16 * 1024 * 1024 },
};

export interface NodeReplicaOptions extends LifecycleOptions, WriteOptions, SnapshotOptions {
  readonly timing: ReplicaTiming;
  /** The lifecycle status in the meta file. */
  readonly lifecycle: LifecycleStatus;
  readonly directoryId: number;
  readonly sendLimits: SendLimits;
  readonly transport: Transport;
  /** The content of the snapshot and the log file, after `finish`. */
  readonly recovered: Pick<LogRecovery, 'log' | 'hardState' | 'stateMachine' | 'configurations' | 'bytesBehindBase'>;
  /** The point at which the log file must be reset before anything else is written to it; null if it is as it should be. */
  readonly logReset: LogBase | null;
  /** The node can't go on: its process must end. Called once. */
  readonly onFatal: (error: unknown) => void;
  readonly onLeaderChanged: (leader: NodeId, term: number) => void;
}
