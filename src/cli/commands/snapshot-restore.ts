import { mkdirSync, renameSync, rmSync } from 'node:fs';
import { systemClock } from '../../base/clock.ts';
import { RaftkvError } from '../../base/errors.ts';
import { findNode, loadConfig } from '../../config/load.ts';
import type { Config, NodeConfig } from '../../config/schema.ts';
import { type ReadBackup, readBackup } from '../../offline/backup.ts';
import { buildNode } from '../../offline/build.ts';
import { nodeDirectory, refuseNonEmpty, removeEmptyDirectory } from '../../offline/directory.ts';
import { readOnlyDisk } from '../../offline/read-only-disk.ts';
import { configurationOf } from '../../raft/state/configuration.ts';
import { fileDisk } from '../../storage/disk/file-disk.ts';
import { readSnapshotFile } from '../../storage/snapshots/reader.ts';
import { UsageError } from '../terminal/output.ts';

/**
 * `raftkv snapshot restore`: begins a new cluster with the contents of a backup. Every node of the configuration gets
 * the same state, with the configuration's nodes as its members, so all start as members that agree already.
 *
 *   FILE, verified ─▶ node-N.restoring: snapshot, log begun behind it, meta ─▶ node-N
 */

export interface SnapshotRestoreOptions {
  readonly config: string;
  readonly dataDir?: string;
  /** Only this node: where each machine has one. Without, all of the configuration. */
  readonly id?: number;
}

/** @throws RaftkvError BACKUP_INVALID, SNAPSHOT_DAMAGED, FORMAT_UNSUPPORTED, DATA_DIR_LOCKED. */
export async function snapshotRestoreCommand(file: string, options: SnapshotRestoreOptions): Promise<void> {
  const { config } = loadConfig({ file: options.config, environment: process.env, flags: options });
  const nodes = nodesToRestore(config, options.id);
  for (const { id } of nodes) refuseNonEmpty(nodeDirectory(config.dataDir, id));
  const backup = await readBackup(file);
  for (const { id } of nodes) await restoreNode(config, id, file, backup);
  const ids = nodes.map(({ id }) => id).join(', ');
  const rest =
    nodes.length === config.nodes.length
      ? 'Start the cluster.'
      : `Restore the same file on the machines of all other nodes of cluster ${config.cluster} before you start any of them.`;
  const what = `${backup.state.items} items, as of entry ${backup.head.index}`;
  process.stdout.write(
    `Restored ${what}, into ${nodes.length === 1 ? 'node' : 'nodes'} ${ids} of cluster ${config.cluster}. ${rest}\n`,
  );
}

function nodesToRestore(config: Config, id: number | undefined): readonly NodeConfig[] {
  if (id === undefined) return config.nodes;
  const node = findNode(config, id);
  if (node !== undefined) return [node];
  throw new UsageError(
    `cluster ${config.cluster} has no node ${id}; it has ${config.nodes.map((each) => each.id).join(', ')}`,
  );
}

async function restoreNode(config: Config, id: number, file: string, { head, state }: ReadBackup): Promise<void> {
  const directory = nodeDirectory(config.dataDir, id);
  const building = `${directory}.restoring`;
  // Left by a restore that was interrupted.
  rmSync(building, { recursive: true, force: true });
  mkdirSync(config.dataDir, { recursive: true });
  const details = config.nodes.map(({ id: member, host, clientPort, peerPort, adminPort }) => ({
    id: member,
    address: { host, clientPort, peerPort, adminPort },
    directoryId: 0,
    joins: false,
    replaces: 0,
  }));
  const sessionId = state.session(id)?.sessionId ?? 0;
  await buildNode({
    disk: fileDisk,
    clock: systemClock,
    random: Math.random,
    directory: building,
    clusterId: config.cluster,
    nodeId: id,
    index: head.index,
    term: head.term,
    currentTerm: head.term,
    configuration: configurationOf(
      details.map((detail) => detail.id).sort((a, b) => a - b),
      details,
    ),
    directoryId: 0,
    incarnation: Math.max(Math.floor(Date.now() / 1000), sessionId + 1),
    walSegmentBytes: config.walSegmentBytes,
    async produce(write) {
      const again = await readSnapshotFile(readOnlyDisk, file, write);
      if (again.index === head.index && again.byteLength === head.byteLength) return;
      throw new RaftkvError('BACKUP_INVALID', `${file} changed while it was read`, 'Restore it again.');
    },
  });
  removeEmptyDirectory(directory);
  renameSync(building, directory);
  await fileDisk.syncDirectory(config.dataDir);
}
