import { closeSync, createWriteStream, existsSync, fsyncSync, mkdirSync, openSync, renameSync, rmSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { dirname, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { systemClock } from '../../base/clock.ts';
import { RaftkvError } from '../../base/errors.ts';
import { findNode, loadConfig, memberOf, nodeDirectory } from '../../config/load.ts';
import type { Config, NodeConfig } from '../../config/schema.ts';
import { SnapshotLoader } from '../../kv/snapshot.ts';
import type { StateMachine } from '../../kv/state-machine.ts';
import { type Beginning, beginHistory } from '../../offline/beginning.ts';
import { readOnlyDisk, refuseNonEmpty, replaceEmptyDirectory } from '../../offline/directory.ts';
import { decodeConfiguration } from '../../raft/state/configuration.ts';
import type { Configuration } from '../../raft/state/types.ts';
import { fileDisk } from '../../storage/disk/file-disk.ts';
import { readSnapshotFile, type SnapshotFileHead } from '../../storage/snapshots/reader.ts';
import { type AdminTarget, explainFailure, operatorTls, readText, requestAdmin } from '../admin/admin-client.ts';
import { UsageError } from '../terminal/output.ts';

/**
 * `raftkv snapshot save`: a backup of a running cluster.
 *
 *   a node's GET /snapshot ─▶ FILE.part ─▶ synced ─▶ read back, all of it verified ─▶ FILE
 */

export interface SnapshotSaveOptions {
  readonly config: string;
  /** Whom to ask; without, the nodes of the configuration in turn. */
  readonly node?: number;
}

/** A node first takes a snapshot, which takes a while for a large store. */
const FIRST_BYTE_MS_MAX = 300_000;
/** A node that sends nothing for this long is gone. */
const STALLED_MS_MAX = 60_000;
const ERROR_BYTES_MAX = 64 * 1024;

/** @throws RaftkvError BACKUP_INVALID, PEER_UNREACHABLE, SNAPSHOT_DAMAGED. */
export async function snapshotSaveCommand(file: string, options: SnapshotSaveOptions): Promise<void> {
  const { config } = loadConfig({ file: options.config, environment: process.env });
  const nodes = nodesToAsk(config, options.node);
  if (existsSync(file)) {
    throw new RaftkvError('BACKUP_INVALID', `${file} already exists; nothing was written`, 'Name another file.');
  }
  const part = `${file}.part`;
  try {
    const node = await download(config, nodes, part);
    const { head, state } = await readBackup(part);
    if (head.clusterName !== config.cluster) {
      throw new RaftkvError('BACKUP_INVALID', `node ${node.id} sent a snapshot of cluster "${head.clusterName}"`);
    }
    renameSync(part, file);
    syncFolder(dirname(resolve(file)));
    process.stdout.write(
      `Saved ${state.items} items, up to entry ${head.index}, from node ${node.id} to ${file} (${head.byteLength} bytes, verified).\n`,
    );
  } finally {
    rmSync(part, { force: true });
  }
}

function nodesToAsk(config: Config, id: number | undefined): readonly NodeConfig[] {
  if (id === undefined) return config.nodes;
  const node = findNode(config, id);
  if (node !== undefined) return [node];
  throw new UsageError(`--node ${id}: the configuration lists ${config.nodes.map((each) => each.id).join(', ')}`);
}

/** Downloads the backup from the first node that gives one, and returns that node. */
async function download(config: Config, nodes: readonly NodeConfig[], part: string): Promise<NodeConfig> {
  const tls = await operatorTls(config);
  const failures: string[] = [];
  for (const node of nodes) {
    const why = await downloadFrom({ node, cluster: config.cluster, tls }, part);
    if (why === '') return node;
    failures.push(`  node ${node.id} (${node.host}:${node.adminPort}): ${why}`);
  }
  throw new RaftkvError(
    'PEER_UNREACHABLE',
    `no node could send a snapshot:\n${failures.join('\n')}`,
    '`raftkv status` shows which nodes are up, and whether they can serve.',
  );
}

/** Why there is none; empty where it is complete and durable in `part`. */
async function downloadFrom(target: AdminTarget, part: string): Promise<string> {
  const stop = new AbortController();
  let timer = setTimeout(() => stop.abort(), FIRST_BYTE_MS_MAX);
  try {
    const response = await requestAdmin(target, { path: '/snapshot', signal: stop.signal });
    if (response.statusCode !== 200) return await refusalOf(response);
    response.on('data', () => {
      clearTimeout(timer);
      timer = setTimeout(() => stop.abort(), STALLED_MS_MAX);
    });
    // A connection that breaks before the announced length is an error of the stream.
    await pipeline(response, createWriteStream(part, { flags: 'w', flush: true }));
    return '';
  } catch (error) {
    return explainFailure(error, FIRST_BYTE_MS_MAX);
  } finally {
    clearTimeout(timer);
  }
}

async function refusalOf(response: IncomingMessage): Promise<string> {
  const text = await readText(response, ERROR_BYTES_MAX);
  try {
    const body: unknown = JSON.parse(text);
    if (typeof body === 'object' && body !== null && 'error' in body) return String(body.error);
  } catch {
    // No answer of ours; the status says enough.
  }
  return `answers ${response.statusCode}`;
}

/** So that the name is durable, too. */
function syncFolder(folder: string): void {
  if (process.platform === 'win32') return;
  const descriptor = openSync(folder, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/**
 * `raftkv snapshot restore`: begins a new history with the contents of a backup (ADR 0014). One node is filled; it is the only
 * voter of a cluster whose other members start empty, and are brought in by it.
 *
 *   FILE, verified ─▶ node-N.restoring: snapshot, log begun behind it, meta with a new cluster id ─▶ node-N
 */

export interface SnapshotRestoreOptions {
  readonly config: string;
  readonly dataDir?: string;
  /** The node to fill; without, the one with the lowest id. */
  readonly id?: number;
}

/** @throws RaftkvError BACKUP_INVALID, SNAPSHOT_DAMAGED, FORMAT_UNSUPPORTED, DATA_DIR_LOCKED. */
export async function snapshotRestoreCommand(file: string, options: SnapshotRestoreOptions): Promise<void> {
  const { config } = loadConfig({ file: options.config, environment: process.env, flags: options });
  const id = nodeToRestore(config, options.id);
  // The others have to start empty, too. Those on other machines can't be seen; they are refused by their cluster id.
  for (const node of config.nodes) refuseNonEmpty(nodeDirectory(config, node.id));
  const backup = await readBackup(file);
  const { clusterId } = await restoreNode(config, id, file, backup);
  const others = config.nodes.map((node) => node.id).filter((other) => other !== id);
  const rest =
    others.length === 0
      ? 'Start the node.'
      : `Start all nodes. Nodes ${others.join(', ')} start with empty data directories; node ${id} fills them and makes them voters.`;
  const what = `${backup.state.items} items, as of entry ${backup.head.index}`;
  process.stdout.write(
    `Restored ${what}, into node ${id} of cluster ${config.cluster}, which has the cluster id ${clusterId} now.\n${rest}\n`,
  );
}

function nodeToRestore(config: Config, id: number | undefined): number {
  const ids = config.nodes.map((node) => node.id);
  if (id === undefined) return Math.min(...ids);
  if (ids.includes(id)) return id;
  throw new UsageError(`cluster ${config.cluster} has no node ${id}; it has ${ids.join(', ')}`);
}

async function restoreNode(
  config: Config,
  id: number,
  file: string,
  { head, state }: ReadBackup,
): Promise<Configuration> {
  const directory = nodeDirectory(config, id);
  const building = `${directory}.restoring`;
  // Left by a restore that was interrupted.
  rmSync(building, { recursive: true, force: true });
  mkdirSync(config.dataDir, { recursive: true });
  const { index, term, byteLength } = head;
  const beginning: Beginning = {
    ...{ state, index, term, currentTerm: term, incarnation: 0 },
    async produce(write) {
      const again = await readSnapshotFile(readOnlyDisk, file, write);
      if (again.index === index && again.byteLength === byteLength) return;
      throw new RaftkvError('BACKUP_INVALID', `${file} changed while it was read`, 'Restore it again.');
    },
  };
  const configuration = await beginHistory(beginning, {
    disk: fileDisk,
    clock: systemClock,
    random: Math.random,
    directory: building,
    clusterName: config.cluster,
    nodeId: id,
    members: config.nodes.map(memberOf),
    walSegmentBytes: config.walSegmentBytes,
  });
  await replaceEmptyDirectory(directory, building);
  await fileDisk.syncDirectory(config.dataDir);
  return configuration;
}

/** `raftkv snapshot inspect`: what a backup holds, after all of it was verified. */

export interface SnapshotInspectOptions {
  readonly json: boolean;
}

/** @throws RaftkvError as `readBackup`. */
export async function snapshotInspectCommand(file: string, { json }: SnapshotInspectOptions): Promise<void> {
  const { head, configuration, state } = await readBackup(file);
  const { clusterName, index, term, byteLength, chunks } = head;
  const { clusterId, voters, learners } = configuration;
  const { items, storeBytes, timeMs } = state;
  const facts = {
    cluster: clusterName,
    clusterId,
    index,
    term,
    byteLength,
    chunks,
    items,
    storeBytes,
    timeMs,
    voters,
    learners,
  };
  if (json) {
    process.stdout.write(`${JSON.stringify(facts, null, 2)}\n`);
    return;
  }
  const lines = [
    ['cluster', clusterName],
    ['id', clusterId],
    ['up to', `entry ${index} of term ${term}`],
    [
      'taken at',
      timeMs === 0 ? 'unknown: there was no write before' : `${new Date(timeMs).toISOString()} (the cluster's time)`,
    ],
    ['items', `${items}, which take ${storeBytes} bytes in memory`],
    ['file', `${byteLength} bytes in ${chunks} chunks`],
    ['voters', voters.join(', ')],
    ...(learners.length > 0 ? [['learners', learners.join(', ')]] : []),
  ];
  const text = lines.map(([name = '', value]) => `${name.padEnd(9)} ${value}`).join('\n');
  process.stdout.write(`${text}\n\nThe file is intact.\n`);
}

/** Backup files: a snapshot as a node has it, byte by byte. */

export interface ReadBackup {
  readonly head: SnapshotFileHead;
  readonly configuration: Configuration;
  readonly state: StateMachine;
}

/** Reads and verifies all of a file. @throws RaftkvError BACKUP_INVALID, SNAPSHOT_DAMAGED, FORMAT_UNSUPPORTED. */
export async function readBackup(file: string): Promise<ReadBackup> {
  if (!existsSync(file)) {
    throw new RaftkvError(
      'BACKUP_INVALID',
      `${file} does not exist`,
      'Pass a file that `raftkv snapshot save` has written.',
    );
  }
  const loader = new SnapshotLoader();
  const head = await readSnapshotFile(readOnlyDisk, file, (chunk) => loader.push(chunk));
  return { head, configuration: decodeConfiguration(head.configuration, 0), state: loader.finish() };
}
