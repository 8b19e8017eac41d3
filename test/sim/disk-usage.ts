import type { Plan } from './plan.ts';
import type { SimNode } from './processes.ts';
import type { World } from './world.ts';

/** The disk of a node that has been left alone for a while holds a snapshot, the log behind it, and little else. */

/** Batches are padded to sectors of 512 bytes; few entries are shorter than this share of one. */
const PADDING_FACTOR = 12;
/** In election timeouts: until a snapshot without readers is released, or one is tried again. */
const PATIENCE_TIMEOUTS = 25;
const PATIENCE_MS = 30_000;

export function checkDiskUsage(world: World, plan: Plan, nodes: readonly SimNode[]): void {
  const limitMs = world.nowMs + PATIENCE_TIMEOUTS * plan.timing.electionTimeoutMs + PATIENCE_MS;
  world.run(limitMs, () => nodes.every((node) => tooMuch(plan, node) === ''));
  for (const node of nodes) {
    const what = tooMuch(plan, node);
    if (what !== '') world.fail('disks stay small', `node ${node.id} ${what}`);
  }
}

/** What a node keeps that it should not; empty where there is nothing. */
function tooMuch(plan: Plan, { disk, running }: SimNode): string {
  if (running === null) return '';
  const paths = disk.memory.paths().filter((path) => !path.includes('/damaged/'));
  const snapshots = paths.filter((path) => path.includes('/snapshots/') && !path.endsWith('.part'));
  if (snapshots.length > 1) return `keeps ${snapshots.join(', ')}`;
  const logBytes = disk.bytesOf((path) => paths.includes(path) && path.includes('/wal/'));
  const { snapshotBytes, commitIndex, snapshotIndex, firstLogIndex } = running.replica.status();
  const max = logBytesMax(plan, snapshotBytes);
  if (logBytes <= max) return '';
  const what = `committed to ${commitIndex}, snapshot to ${snapshotIndex}, log from ${firstLogIndex}`;
  return `has a log of ${logBytes} bytes, at most ${max} expected: ${what}`;
}

function logBytesMax({ walLimits, snapshotLimits }: Plan, snapshotBytes: number): number {
  const { walSegmentBytes = 0, walFillAheadBytes = 0 } = walLimits;
  const { snapshotLogBytes = 0, logTailBytes = 0 } = snapshotLimits;
  const entries = Math.max(snapshotLogBytes, snapshotBytes) + logTailBytes;
  // The segment where the kept log begins, the active one, and spares for the room ahead.
  return entries * PADDING_FACTOR + 3 * walSegmentBytes + walFillAheadBytes;
}
