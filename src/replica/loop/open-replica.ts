import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { RaftkvError } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import { SnapshotLoader } from '../../kv/snapshot.ts';
import { StateMachine } from '../../kv/state-machine.ts';
import { decodeConfiguration, EMPTY_CONFIGURATION, isMember } from '../../raft/state/configuration.ts';
import type { ClusterId, NodeId } from '../../raft/state/types.ts';
import type { Disk } from '../../storage/disk/disk.ts';
import { type Meta, openMeta, SNAPSHOTS_FOLDER, WAL_FOLDER } from '../../storage/meta.ts';
import { openSnapshots } from '../../storage/snapshots/files.ts';
import type { Snapshots } from '../../storage/snapshots/types.ts';
import { openWal, type WalLimits } from '../../storage/wal/wal.ts';
import type { Transport } from '../../transport/types.ts';
import type { InitialMember } from '../lifecycle/bootstrap.ts';
import { newDirectoryId } from '../lifecycle/identity.ts';
import { LogRecovery, type RecoveryBase } from '../log/recovery.ts';
import type { ReplicaObserver } from '../observer.ts';
import { TRANSFER_LIMITS, type TransferLimits } from '../snapshots/exchange.ts';
import { SNAPSHOT_LIMITS, type SnapshotLimits } from '../snapshots/snapshotter.ts';
import type { ProposerLimits } from '../writes/proposer.ts';
import { type ReplicaTiming, SEND_LIMITS, type SendLimits } from './node-options.ts';
import { NodeReplica } from './node-replica.ts';

/**
 * Brings a replica up from its data directory: who it is and how often it started, its newest snapshot, what its log
 * holds, then its links. The program and the simulator start their nodes through here, on their own disk, clock and
 * transport.
 *
 *   meta ─▶ newest snapshot that verifies ─▶ log behind it ─▶ replica ─▶ links
 *     ▲              │ damaged                    │ damaged, or does not reach back to the snapshot
 *     └── "recovering", durable, before ◀─────────┴── damaged files are moved aside; the good prefix stays
 */
export interface OpenReplicaOptions {
  readonly nodeId: NodeId;
  readonly clusterName: string;
  /** The node's own data directory. The caller has made sure that no other process uses it. */
  readonly directory: string;
  readonly initial: InitialCluster;
  readonly timing: ReplicaTiming;
  readonly limits: ProposerLimits;
  /** See `SEND_LIMITS`. */
  readonly sendLimits?: SendLimits;
  readonly walLimits?: Partial<WalLimits>;
  readonly snapshotLimits?: Partial<SnapshotLimits>;
  readonly transferLimits?: Partial<TransferLimits>;
  /** See `LOG_CACHE_BYTES_MAX`. */
  readonly logCacheBytesMax?: number;
  readonly disk: Disk;
  readonly clock: Clock;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  readonly logger: Logger;
  /** Called once that is known which the handshake carries. */
  readonly createTransport: (incarnation: number, clusterId: ClusterId) => Transport;
  readonly onFatal: (error: unknown) => void;
  readonly onLeaderChanged: (leader: NodeId, term: number) => void;
  readonly onRemoved: () => void;
  /** Told what the replica does; for tests. */
  readonly observer?: ReplicaObserver;
}

/**
 * What the configuration file says of the cluster. Its members are in `meta`, in the log and in snapshots as soon as the
 * cluster has begun; then this only tells where the nodes are that it lists.
 */
export interface InitialCluster {
  /** `join`: this node never begins a cluster, but waits to be added to the one of `nodes`. */
  readonly kind: 'bootstrap' | 'join';
  readonly nodes: readonly InitialMember[];
}

export interface OpenedReplica {
  readonly replica: NodeReplica;
  /** Ends the loop, closes the links and then the files. */
  close(): Promise<void>;
}

/** @throws RaftkvError as `openMeta`, `openSnapshots`, `openWal` and `Transport.start` do; what was opened is closed again. */
export async function openReplica(options: OpenReplicaOptions): Promise<OpenedReplica> {
  const { disk, clock, random, logger, directory, clusterName, nodeId, onFatal } = options;
  const damage = damageKeeper(options);
  const incarnationMin = Math.max(1, Math.floor(clock.wallMs() / 1000));
  const meta = await openMeta({
    disk,
    directory,
    clusterName,
    nodeId,
    incarnationMin,
    onDamage: isOnlyNode(options) ? null : damage.folder,
    newDirectoryId: () => newDirectoryId(random),
  });
  damage.knows(meta);
  const keeper = (meta.onlyVoter ?? isOnlyNode(options)) ? null : damage;
  const snapshots = await openSnapshots({
    ...{ disk, clusterName, logger },
    directory: join(directory, SNAPSHOTS_FOLDER),
    onDamage: keeper?.folder ?? null,
  });
  const base = await loadBase(options, meta, snapshots);
  const recovery = new LogRecovery(base, options.logCacheBytesMax, () => meta.lifecycle === 'recovering');
  let replica: NodeReplica | null = null;
  const { wal } = await openWal({
    ...{ disk, clock, clusterName, random, logger, sink: recovery },
    directory: join(directory, WAL_FOLDER),
    mustExist: meta.logCreated,
    begin: { index: base.index, term: base.term },
    onDamage: keeper?.markLoss ?? null,
    onFatal: (error: RaftkvError) => onFatal(error),
    onFull: (full) => replica?.diskFull(full),
    ...(options.walLimits === undefined ? {} : { limits: options.walLimits }),
  });
  try {
    if (!meta.logCreated) await meta.persist({ logCreated: true });
    const logReset = recovery.finish();
    warnOfNonMembers(options, recovery);
    const { initial, createTransport } = options;
    const transport = createTransport(meta.incarnation, meta.clusterId);
    const opened = new NodeReplica({
      ...options,
      incarnation: meta.incarnation,
      lifecycle: meta.lifecycle,
      directoryId: meta.directoryId,
      initialMembers: initial.kind === 'join' ? null : initial.nodes,
      meta,
      peerAddresses: initial.nodes.map(({ id, address }) => ({ id, host: address.host, port: address.peerPort })),
      observer: options.observer ?? null,
      sendLimits: options.sendLimits ?? SEND_LIMITS,
      snapshotLimits: { ...SNAPSHOT_LIMITS, ...options.snapshotLimits },
      transfer: { ...TRANSFER_LIMITS, ...options.transferLimits },
      transport,
      wal,
      snapshots,
      recovered: recovery,
      logReset,
    });
    replica = opened;
    if (wal.full) opened.diskFull(true);
    const close = async () => {
      opened.stop();
      await transport.stop();
      await opened.whenIdle();
      await wal.close();
      await snapshots.close();
    };
    await transport.start(opened).catch(async (error) => {
      await close();
      throw error;
    });
    opened.begin();
    return { replica: opened, close };
  } catch (error) {
    await wal.close();
    throw error;
  }
}

/** The newest snapshot that verifies, loaded; or nothing. */
async function loadBase(options: OpenReplicaOptions, meta: Meta, snapshots: Snapshots): Promise<RecoveryBase> {
  const { logger, clock } = options;
  for (let info = snapshots.newest; info !== null; info = snapshots.newest) {
    const startedMs = clock.monotonicMs();
    const stateMachine = await loadState(snapshots);
    // Damaged: it has been moved aside, and the one before it is the newest now.
    if (stateMachine === null) continue;
    const { index, term, byteLength, configuration } = info;
    const tookMs = Math.round(clock.monotonicMs() - startedMs);
    logger.info({ index, items: stateMachine.items, bytes: byteLength, tookMs }, 'loaded a snapshot');
    return { index, term, configuration: decodeConfiguration(configuration, 0), stateMachine };
  }
  const configuration = meta.first ?? EMPTY_CONFIGURATION;
  return { index: 0, term: 0, configuration, stateMachine: new StateMachine() };
}

async function loadState(snapshots: Snapshots): Promise<StateMachine | null> {
  const damaged = snapshots.newest;
  const loader = new SnapshotLoader();
  try {
    await snapshots.load((chunk) => loader.push(chunk));
    return loader.finish();
  } catch (error) {
    const isGone = error instanceof RaftkvError && error.code === 'SNAPSHOT_DAMAGED' && snapshots.newest !== damaged;
    if (!isGone) throw error;
    return null;
  }
}

function warnOfNonMembers({ initial, nodeId, logger }: OpenReplicaOptions, { configurations }: LogRecovery): void {
  const configuration = configurations.at(-1)?.configuration;
  if (configuration === undefined || !isMember(configuration, nodeId)) return;
  const nonMembers = initial.nodes.map(({ id }) => id).filter((id) => !isMember(configuration, id));
  if (nonMembers.length === 0) return;
  logger.warn(
    { nodes: nonMembers },
    'the configuration file lists nodes that are not members of the cluster; `raftkv member add` adds one',
  );
}

interface DamageKeeper {
  /** The meta file is open: from now on damage can be recorded there. */
  knows(meta: Meta): void;
  /** The folder for damaged files whose loss breaks no promise: a snapshot only repeats committed entries. */
  folder(error: RaftkvError): Promise<string>;
  /** The folder for other damaged files. First makes durable that the directory has lost promises, and so has no vote. */
  markLoss(error: RaftkvError): Promise<string>;
}

/**
 * No other node could restore what a node without others lost, so it refuses to start on damage and changes nothing. Who its
 * others are, the configuration file says only if the node itself has not recorded it, or can't read that any more.
 */
function isOnlyNode({ initial }: OpenReplicaOptions): boolean {
  return initial.kind === 'bootstrap' && initial.nodes.length === 1;
}

function damageKeeper({ directory, clock, random, logger }: OpenReplicaOptions): DamageKeeper {
  let meta: Meta | null = null;
  const folder = async (error: RaftkvError) => {
    const aside = join(directory, 'damaged', new Date(clock.wallMs()).toISOString().replaceAll(':', '-'));
    logger.error({ code: error.code, movedTo: aside }, `${error.message}; moving it aside`);
    return aside;
  };
  return {
    knows(opened) {
      meta = opened;
    },
    folder,
    async markLoss(error) {
      // A recovering directory gets a new id, too: the cluster may already have given it rights for the log that it had.
      await meta?.persist({ lifecycle: 'recovering', directoryId: newDirectoryId(random) });
      return folder(error);
    },
  };
}
