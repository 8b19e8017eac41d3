import { closeSync, createWriteStream, existsSync, fsyncSync, openSync, renameSync, rmSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { dirname, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { RaftkvError } from '../../base/errors.ts';
import { findNode, loadConfig } from '../../config/load.ts';
import type { Config, NodeConfig } from '../../config/schema.ts';
import { readBackup } from '../../offline/backup.ts';
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
    if (head.clusterId !== config.cluster) {
      throw new RaftkvError('BACKUP_INVALID', `node ${node.id} sent a snapshot of cluster "${head.clusterId}"`);
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

/** From the first node that gives one; which that was. */
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
