import { existsSync, renameSync, rmSync } from 'node:fs';
import { createInterface } from 'node:readline/promises';
import { systemClock } from '../../base/clock.ts';
import { RaftkvError } from '../../base/errors.ts';
import { findNode, loadConfig, memberOf, nodeDirectory } from '../../config/load.ts';
import type { Config } from '../../config/schema.ts';
import { lockForTool, readOnlyDisk } from '../../offline/directory.ts';
import { examineNode } from '../../offline/examination.ts';
import { type Remains, readAllOf, rebuildAlone } from '../../offline/recovery.ts';
import { fileDisk } from '../../storage/disk/file-disk.ts';
import type { DataDirLock } from '../../storage/lock/lock.ts';
import { UsageError } from '../terminal/output.ts';

/**
 * `raftkv recover --force-new-cluster`: what to do when a majority of the nodes is gone for good. Makes a cluster of one
 * node out of what that node has.
 *
 *   node-N: newest good snapshot ─▶ every entry behind it, committed or not ─▶ node-N.recovering ─▶ node-N
 *                                                                  the old one ─▶ node-N.before-recovery-<time>
 */

export interface RecoverOptions {
  readonly config: string;
  readonly dataDir?: string;
  readonly id: number;
  readonly forceNewCluster: boolean;
  /** Without, it asks. */
  readonly yes: boolean;
}

/** @throws RaftkvError DATA_DIR_LOCKED, DATA_DIR_FOREIGN, BACKUP_INVALID where there is nothing to recover. */
export async function recoverCommand(options: RecoverOptions): Promise<void> {
  const { config } = loadConfig({ file: options.config, environment: process.env, flags: options });
  const { id } = options;
  if (!options.forceNewCluster) {
    throw new UsageError(
      '--force-new-cluster is required: it makes a new cluster of one node from the data of node --id',
    );
  }
  if (findNode(config, id) === undefined) {
    throw new UsageError(
      `cluster ${config.cluster} has no node ${id}; it has ${config.nodes.map((node) => node.id).join(', ')}`,
    );
  }
  const directory = nodeDirectory(config, id);
  if (!existsSync(directory)) {
    throw new RaftkvError(
      'BACKUP_INVALID',
      `${directory} does not exist`,
      'Pass the data directory of the nodes with --data-dir.',
    );
  }
  const lock = await lockForTool(directory);
  try {
    process.stdout.write(await describeBefore(config, id, directory));
    if (!options.yes) await confirm();
    await recover(config, id, directory, lock);
  } finally {
    await lock.release();
  }
}

async function describeBefore(config: Config, id: number, directory: string): Promise<string> {
  const { meta, snapshots, log, findings } = await examineNode({ disk: readOnlyDisk, directory });
  const lines = [`Node ${id} of cluster ${config.cluster}, in ${directory}:`];
  const newest = snapshots.at(-1);
  const { lastIndex, lastTerm } = log ?? { lastIndex: newest?.index ?? 0, lastTerm: newest?.term ?? 0 };
  const committed = Math.max(log?.hardState?.commitIndex ?? 0, newest?.index ?? 0);
  lines.push(
    `  the log ends with entry ${lastIndex} of term ${lastTerm}; entries up to ${committed} are known to be committed`,
  );
  for (const { fault } of findings) if (fault !== null) lines.push(`  damaged: ${fault.message}`);
  if (meta !== null && meta.lifecycle !== 'normal') {
    lines.push('  the node had lost data and was recovering: another node probably has more');
  }
  lines.push(
    '',
    'This makes a new cluster from this one node. Writes that other nodes had and this node had not are lost,',
    'acknowledged ones included. Writes that were never acknowledged may appear. Compare the other nodes first with',
    '`raftkv log verify`: take the one whose last entry has the highest term, and of those the one with the highest entry.',
    'Afterwards the old data of all other nodes belongs to another history: such a node is refused until it is empty.',
    '',
  );
  return `${lines.join('\n')}\n`;
}

async function confirm(): Promise<void> {
  if (process.stdin.isTTY !== true)
    throw new UsageError('stdin is not a terminal, so the question cannot be asked: give --yes');
  const prompt = createInterface({ input: process.stdin, output: process.stdout });
  const answer = await prompt.question('Type "yes" to continue: ').finally(() => prompt.close());
  if (answer.trim() !== 'yes') throw new UsageError('nothing was changed');
}

async function recover(config: Config, id: number, directory: string, lock: DataDirLock): Promise<void> {
  const when = new Date().toISOString().replaceAll(':', '-');
  const building = `${directory}.recovering`;
  const aside = `${directory}.before-recovery-${when}`;
  rmSync(building, { recursive: true, force: true });
  const where = { disk: fileDisk, clusterName: config.cluster, nodeId: id, walSegmentBytes: config.walSegmentBytes };
  const remains: Remains = await readAllOf({
    ...where,
    view: readOnlyDisk,
    directory,
    damagedFolder: `${directory}/damaged/${when}`,
    random: Math.random,
  });
  await rebuildAlone(remains, {
    ...where,
    directory: building,
    members: config.nodes.map(memberOf),
    clock: systemClock,
    random: Math.random,
  });
  await lock.continueIn(building);
  renameSync(directory, aside);
  renameSync(building, directory);
  await fileDisk.syncDirectory(config.dataDir);
  const { items } = remains.state;
  const others = config.nodes.filter((other) => other.id !== id).map((other) => other.id);
  process.stdout.write(
    `Node ${id} begins a new history, with ${items} items. Its old files are in ${aside}.\n${nextSteps(id, others)}`,
  );
}

function nextSteps(id: number, others: readonly number[]): string {
  const next = `Next: start node ${id} (raftkv node --id ${id}) and check its data.\n`;
  if (others.length === 0) return next;
  const rest = `node${others.length === 1 ? '' : 's'} ${others.join(', ')}`;
  return `${next}Then empty the data directories of ${rest} and start them as usual: they are filled and become voters by themselves.\n`;
}
