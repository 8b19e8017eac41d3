import { systemClock } from '../../base/clock.ts';
import { RaftkvError } from '../../base/errors.ts';
import { findNode, memberOf, nodeDirectory } from '../../config/load.ts';
import type { Config, NodeConfig } from '../../config/schema.ts';
import type { NodeReplica } from '../../replica/loop/node-replica.ts';
import { openReplica } from '../../replica/loop/open-replica.ts';
import { type AdminPort, openAdminPort } from '../../server/admin/admin-port.ts';
import { RECOVERING, watchReadiness } from '../../server/admin/readiness.ts';
import { openClientPort } from '../../server/clients/client-port.ts';
import type { ClientLimits } from '../../server/clients/limits.ts';
import { fileDisk } from '../../storage/disk/file-disk.ts';
import { guardedDisk } from '../../storage/lock/guarded-disk.ts';
import { lockDataDir } from '../../storage/lock/lock.ts';
import { TcpTransport } from '../../transport/transport.ts';
import { readVersion } from '../terminal/output.ts';
import { guardedClock, guardedTransport } from './guards.ts';
import { loadSecrets, type Secrets } from './secrets.ts';
import type { NodeContext, RunNode, RunningNode } from './types.ts';

/**
 * Puts one node together from its floors, from the disk upwards, and takes it apart again from the clients downwards.
 *
 *   LOCK ─▶ openReplica: meta, log file, core and state machine, links to peers ─▶ client port
 */

/** A turn that gathers more writes than this makes several log entries; with the largest item behind it, one still fits a frame. */
const BATCH_BYTES_MAX = 1024 * 1024;

export const runNode: RunNode = async (config, nodeId, context) => {
  const node = findNode(config, nodeId);
  if (node === undefined) throw new RaftkvError('CONFIG_INVALID', `the cluster has no node ${nodeId}`);
  /** Closes what was opened; in the order of opening. */
  const open: (() => Promise<void>)[] = [];
  const close = async () => {
    for (const closeOne of open.reverse()) await closeOne();
  };
  try {
    return await assemble(config, node, context, open, close);
  } catch (error) {
    await close();
    throw isDiskFull(error) ? noRoomToStart(config, nodeId, error) : error;
  }
};

function isDiskFull(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOSPC';
}

/** A start is counted, durably: that much room it needs (ADR 0011). */
function noRoomToStart({ dataDir }: Config, nodeId: number, cause: unknown): RaftkvError {
  return new RaftkvError(
    'DISK_FULL',
    `node ${nodeId} cannot start: the disk of ${dataDir} is full`,
    'Free disk space and start the node again.',
    cause,
  );
}

async function assemble(
  config: Config,
  node: NodeConfig,
  { join: isJoining, logger, onEvent }: NodeContext,
  open: (() => Promise<void>)[],
  close: () => Promise<void>,
): Promise<RunningNode> {
  let replica: NodeReplica | null = null;
  let stopping = false;
  let readiness = () => RECOVERING;
  const secrets = await loadSecrets(config, node.id, logger);
  const admin: AdminPort = await openAdminPort({
    host: node.host,
    port: node.adminPort,
    clock: systemClock,
    logger,
    identity: identityOf(config, node),
    listedNodes: config.nodes,
    status: () => replica?.status() ?? null,
    readiness: () => readiness(),
    door: () => (stopping ? null : replica),
    tls: secrets.tls.admin,
  });
  open.push(() => admin.close());

  const directory = nodeDirectory(config, node.id);
  await fileDisk.makeDirectory(directory);
  const onFatal = (error: unknown) => onEvent({ kind: 'fatal', error });
  const lock = await lockDataDir(directory, { clock: systemClock, logger, onLost: onFatal });
  open.push(() => lock.release());
  const isLocked = () => lock.check();

  let transport: TcpTransport | null = null;
  const { heartbeatIntervalMs, electionTimeoutMs, requestTimeoutMs, limits } = config;
  const opened = await openReplica({
    nodeId: node.id,
    clusterName: config.cluster,
    directory,
    initial: { kind: isJoining ? 'join' : 'bootstrap', nodes: config.nodes.map(memberOf) },
    timing: { heartbeatIntervalMs, electionTimeoutMs, requestTimeoutMs },
    limits: { ...limits, batchBytesMax: BATCH_BYTES_MAX },
    walLimits: { walSegmentBytes: config.walSegmentBytes },
    snapshotLimits: { snapshotLogBytes: config.snapshotLogBytes },
    disk: guardedDisk(fileDisk, isLocked, directory),
    clock: guardedClock(systemClock, isLocked),
    random: Math.random,
    logger,
    createTransport(incarnation, clusterId) {
      transport = transportOf(config, node, { incarnation, clusterId }, secrets, logger);
      return guardedTransport(transport, isLocked);
    },
    onFatal,
    onLeaderChanged: (leader, term) => onEvent({ kind: 'leaderChanged', leader, term }),
    onRemoved: () => onEvent({ kind: 'removed' }),
  });
  open.push(() => opened.close());
  const started = opened.replica;
  replica = started;
  readiness = watchReadiness(started, () => onEvent({ kind: 'serving' }));

  const clients = await openClientPort({
    host: node.host,
    port: node.clientPort,
    clock: systemClock,
    logger,
    replica: started,
    version: readVersion(),
    storeBytesMax: limits.storeBytesMax,
    credentials: secrets.credentials,
    tls: secrets.tls.clients,
    limits: clientLimits(limits),
  });
  open.push(() => clients.stop());
  onEvent({ kind: 'listening' });
  return {
    reload() {
      secrets.reload((identity) => {
        for (const port of [admin, transport, clients]) port?.replaceIdentity(identity);
      });
    },
    async stop() {
      stopping = true;
      readiness = () => ({ ready: false, reason: 'stopping' });
      // Leadership goes first: the others' clients then wait for one short election, not for this node's to finish.
      await started.handOver();
      await close();
    },
  };
}

function clientLimits(limits: Config['limits']): Partial<ClientLimits> {
  const { itemBytesMax, connectionsMax, connectionIdleMsMax, unsentBytesMax, multiGetLineBytesMax } = limits;
  const { watchersMax, watchedBytesMax } = limits;
  return {
    itemBytesMax,
    connectionsMax,
    connectionIdleMsMax,
    unsentBytesMax,
    multiGetLineBytesMax,
    watchersMax,
    watchedBytesMax,
  };
}

function transportOf(
  config: Config,
  node: NodeConfig,
  identity: { readonly incarnation: number; readonly clusterId: string },
  secrets: Secrets,
  logger: NodeContext['logger'],
): TcpTransport {
  return new TcpTransport({
    selfId: node.id,
    clusterName: config.cluster,
    ...identity,
    listen: { host: node.host, port: node.peerPort },
    peers: config.nodes.map(({ id, host, peerPort }) => ({ id, host, port: peerPort })),
    clock: systemClock,
    random: Math.random,
    logger,
    tls: secrets.tls.peers,
  });
}

function identityOf(config: Config, node: NodeConfig) {
  return {
    version: readVersion(),
    cluster: config.cluster,
    nodeId: node.id,
    pid: process.pid,
    addresses: {
      client: `${node.host}:${node.clientPort}`,
      peer: `${node.host}:${node.peerPort}`,
      admin: `${node.host}:${node.adminPort}`,
    },
  };
}
