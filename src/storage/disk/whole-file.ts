import { join } from 'node:path';
import { type Disk, writeFully } from './disk.ts';

/** Small files that are read and replaced as a whole. */

const TEMPORARY_SUFFIX = '.tmp';

/** Replaces a file, or makes it, durably: whenever this is interrupted, there is what was there before, or this. */
export async function replaceFile(disk: Disk, directory: string, name: string, bytes: Buffer): Promise<void> {
  const temporaryName = name + TEMPORARY_SUFFIX;
  const temporary = join(directory, temporaryName);
  // Left where this was interrupted; the file under the right name is the one that counts.
  if ((await disk.list(directory)).includes(temporaryName)) await disk.remove(temporary);
  const file = await disk.open(temporary, { create: true, dataSync: false });
  await writeFully(file, bytes, bytes.length, 0);
  await file.sync();
  await file.close();
  await disk.rename(temporary, join(directory, name));
  await disk.syncDirectory(directory);
}

/** What is in a file, up to `bytesMax`. */
export async function readFile(disk: Disk, path: string, bytesMax: number): Promise<Buffer> {
  const file = await disk.open(path, { create: false, dataSync: false });
  const buffer = Buffer.alloc(Math.min(await file.size(), bytesMax));
  const bytes = await file.read(buffer, 0, buffer.length, 0);
  await file.close();
  return buffer.subarray(0, bytes);
}
