import { join } from 'node:path';
import type { Clock } from '../base/clock.ts';
import type { RaftkvError } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import type { Configuration, NodeId } from '../raft/types.ts';
import type { Disk } from '../storage/disk.ts';
import { openMeta } from '../storage/meta.ts';
import { openWal, type WalLimits } from '../storage/wal.ts';
import type { Transport } from '../transport/types.ts';
import { NodeReplica, type ReplicaTiming } from './node-replica.ts';
import type { OriginLimits } from './origin.ts';
import { LogRecovery } from './recovery.ts';

/**
 * Brings a replica up from its data directory: who it is and how often it started, what its log holds, then its links.
 * The program and the simulator start their nodes through here, on their own disk, clock and transport.
 */
export interface OpenReplicaOptions {
  readonly nodeId: NodeId;
  readonly clusterId: string;
  /** The node's own data directory. Whoever calls has made sure that no other process uses it. */
  readonly directory: string;
  readonly configuration: Configuration;
  readonly timing: ReplicaTiming;
  readonly limits: OriginLimits;
  readonly walLimits?: Partial<WalLimits>;
  /** See `LOG_CACHE_BYTES_MAX`. */
  readonly logCacheBytesMax?: number;
  readonly disk: Disk;
  readonly clock: Clock;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  readonly logger: Logger;
  /** Called once the boot count, which the handshake shows, is known. */
  readonly createTransport: (bootCount: number) => Transport;
  readonly onFatal: (error: unknown) => void;
  readonly onLeaderChanged: (leader: NodeId, term: number) => void;
}

export interface OpenedReplica {
  readonly replica: NodeReplica;
  /** Ends the loop, closes the links and then the files. */
  close(): Promise<void>;
}

/** @throws RaftkvError as `openMeta`, `openWal` and `Transport.start` do; what was opened is closed again. */
export async function openReplica(options: OpenReplicaOptions): Promise<OpenedReplica> {
  const { disk, clock, random, logger, directory, clusterId, nodeId, onFatal } = options;
  const meta = await openMeta({ disk, directory, clusterId, nodeId });
  const recovery = new LogRecovery(options.logCacheBytesMax);
  const { wal } = await openWal({
    disk,
    clock,
    directory: join(directory, 'wal'),
    clusterId,
    mustExist: meta.logCreated,
    random,
    onFatal: (error: RaftkvError) => onFatal(error),
    logger,
    sink: recovery,
    ...(options.walLimits === undefined ? {} : { limits: options.walLimits }),
  });
  try {
    await meta.noteLogCreated();
    const transport = options.createTransport(meta.bootCount);
    const { log, hardState, stateMachine } = recovery;
    const replica = new NodeReplica({
      ...options,
      bootCount: meta.bootCount,
      transport,
      wal,
      log,
      hardState,
      stateMachine,
    });
    const close = async () => {
      replica.stop();
      await transport.stop();
      await wal.close();
    };
    await transport.start(replica).catch(async (error) => {
      await close();
      throw error;
    });
    return { replica, close };
  } catch (error) {
    await wal.close();
    throw error;
  }
}
