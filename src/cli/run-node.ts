import { join } from 'node:path';
import { RaftkvError } from '../base/errors.ts';
import { systemClock } from '../base/system-clock.ts';
import { findNode } from '../config/load.ts';
import type { Config, NodeConfig } from '../config/schema.ts';
import { NodeReplica } from '../replica/node-replica.ts';
import { LogRecovery } from '../replica/recovery.ts';
import { type AdminPort, openAdminPort } from '../server/admin-port.ts';
import { openClientPort } from '../server/client-port.ts';
import { RECOVERING, watchReadiness } from '../server/readiness.ts';
import { fileDisk } from '../storage/file-disk.ts';
import { lockDataDir } from '../storage/lock.ts';
import { openMeta } from '../storage/meta.ts';
import { openWal } from '../storage/wal.ts';
import { createTcpTransport } from '../transport/transport.ts';
import type { NodeContext, RunNode, RunningNode } from './node-types.ts';
import { readVersion } from './version.ts';

/**
 * Puts one node together from its floors, from the disk upwards, and takes it apart again from the clients downwards.
 *
 *   LOCK ─▶ meta (boot count) ─▶ log file ─▶ core and state machine ─▶ links to peers ─▶ client port
 */

/** A turn that gathers more writes than this makes several log entries; with the largest item behind it, one still fits a frame. */
const BATCH_BYTES_MAX = 1024 * 1024;

export const runNode: RunNode = async (config, nodeId, context) => {
  const node = findNode(config, nodeId);
  if (node === undefined) throw new RaftkvError('CONFIG_INVALID', `the cluster has no node ${nodeId}`);
  /** What is open, in the order of opening. */
  const open: (() => Promise<void>)[] = [];
  const close = async () => {
    for (const closeOne of open.reverse()) await closeOne();
  };
  try {
    return await assemble(config, node, context, open, close);
  } catch (error) {
    await close();
    throw error;
  }
};

async function assemble(
  config: Config,
  node: NodeConfig,
  { logger, onEvent }: NodeContext,
  open: (() => Promise<void>)[],
  close: () => Promise<void>,
): Promise<RunningNode> {
  let replica: NodeReplica | null = null;
  let readiness = () => RECOVERING;
  const admin: AdminPort = await openAdminPort({
    host: node.host,
    port: node.adminPort,
    clock: systemClock,
    logger,
    identity: identityOf(config, node),
    status: () => replica?.status() ?? null,
    readiness: () => readiness(),
  });
  open.push(() => admin.close());

  const onFatal = (error: unknown) => onEvent({ kind: 'fatal', error });
  const { wal, recovery, bootCount } = await openDataDir(config, node, logger, onFatal, open);
  const transport = createTcpTransport({
    selfId: node.id,
    clusterId: config.cluster,
    bootCount,
    listen: { host: node.host, port: node.peerPort },
    peers: config.nodes.map(({ id, host, peerPort }) => ({ id, host, port: peerPort })),
    clock: systemClock,
    random: Math.random,
    logger,
  });
  const { heartbeatIntervalMs, electionTimeoutMs, requestTimeoutMs, limits } = config;
  const started = new NodeReplica({
    nodeId: node.id,
    bootCount,
    configuration: { voters: config.nodes.map(({ id }) => id), votersOutgoing: [], learners: [] },
    timing: { heartbeatIntervalMs, electionTimeoutMs, requestTimeoutMs },
    limits: { ...limits, batchBytesMax: BATCH_BYTES_MAX },
    clock: systemClock,
    random: Math.random,
    transport,
    wal,
    ...recovery,
    onFatal,
    onLeaderChanged: (leader, term) => onEvent({ kind: 'leaderChanged', leader, term }),
  });
  replica = started;
  open.push(() => transport.stop());
  open.push(async () => started.stop());
  await transport.start(started);
  readiness = watchReadiness(started, () => onEvent({ kind: 'serving' }));

  const clients = await openClientPort({
    host: node.host,
    port: node.clientPort,
    clock: systemClock,
    logger,
    replica: started,
    version: readVersion(),
    storeBytesMax: limits.storeBytesMax,
    limits: { itemBytesMax: limits.itemBytesMax, connectionsMax: limits.connectionsMax },
  });
  open.push(() => clients.stop());
  onEvent({ kind: 'listening' });
  return {
    async stop() {
      readiness = () => ({ ready: false, reason: 'stopping' });
      // Leadership goes first: the others' clients then wait for one short election, not for this node's to finish.
      await started.handOver();
      await close();
    },
  };
}

/** Everything below the replica: whose folder it is, that nobody else uses it, and what the log tells. */
async function openDataDir(
  config: Config,
  node: NodeConfig,
  logger: NodeContext['logger'],
  onFatal: (error: unknown) => void,
  open: (() => Promise<void>)[],
) {
  const directory = join(config.dataDir, `node-${node.id}`);
  await fileDisk.makeDirectory(directory);
  const lock = lockDataDir(directory, Math.random);
  open.push(async () => lock.release());
  const meta = await openMeta({ disk: fileDisk, directory, clusterId: config.cluster, nodeId: node.id });
  const recovery = new LogRecovery();
  const { wal } = await openWal({
    disk: fileDisk,
    clock: systemClock,
    directory: join(directory, 'wal'),
    clusterId: config.cluster,
    mustExist: meta.logCreated,
    random: Math.random,
    onFatal,
    logger,
    sink: recovery,
    limits: { walSegmentBytes: config.walSegmentBytes },
  });
  open.push(() => wal.close());
  recovery.finish();
  await meta.noteLogCreated();
  const { log, hardState, stateMachine } = recovery;
  return { wal, bootCount: meta.bootCount, recovery: { log, hardState, stateMachine } };
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
