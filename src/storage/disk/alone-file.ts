import { join } from 'node:path';
import type { Disk } from './disk.ts';
import { readFile, replaceFile } from './whole-file.ts';

/**
 * The file `alone` of a data directory says whether its node is the only voter of its cluster, so that no other node could
 * restore what it loses: `yes` or `no`, and a line feed. Who the members are is in the log and in snapshots; but this has to
 * be known where those, or `meta`, turn out to be damaged.
 */
const NAME = 'alone';
const BYTES_MAX = 16;

/** Null where the file is missing, or says neither. */
export async function readAlone(disk: Disk, directory: string): Promise<boolean | null> {
  if (!(await disk.list(directory)).includes(NAME)) return null;
  const text = (await readFile(disk, join(directory, NAME), BYTES_MAX)).toString('latin1');
  if (text === 'yes\n') return true;
  return text === 'no\n' ? false : null;
}

/** Durable when it returns. One call at a time. */
export async function writeAlone(disk: Disk, directory: string, alone: boolean): Promise<void> {
  if ((await readAlone(disk, directory)) === alone) return;
  await replaceFile(disk, directory, NAME, Buffer.from(alone ? 'yes\n' : 'no\n'));
}
