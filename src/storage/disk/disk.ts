import { join } from 'node:path';

/**
 * The file system as storage sees it. `file-disk.ts` is the machine's own; the simulator has one that loses unsynced
 * writes, tears sectors and flips bits. Paths are absolute. Start-up calls are promises; the one call on the hot path,
 * `write`, takes a callback. Every failure is an Error with Node's `code` (`ENOSPC`, `EIO`, …).
 */
export interface Disk {
  /** Creates the folder and its parents, durably. */
  makeDirectory(path: string): Promise<void>;
  /** Names in a folder, sorted; empty where there is no such folder. */
  list(path: string): Promise<string[]>;
  /** `create` fails with `EEXIST` where the file exists. With `dataSync`, a write is durable when it calls back (O_DSYNC). */
  open(path: string, options: { readonly create: boolean; readonly dataSync: boolean }): Promise<DiskFile>;
  /** Replaces the file at `to`, completely or not at all. */
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** Makes creations, renames and removals in a folder durable. */
  syncDirectory(path: string): Promise<void>;
}

export interface DiskFile {
  /**
   * Writes all of `length` bytes from `buffer[offset]` at `position`, then calls back, never from inside this call. The
   * buffer must not change before. One write at a time per open file: it lets the write path go without a closure.
   */
  write(buffer: Buffer, offset: number, length: number, position: number, done: (error: Error | null) => void): void;
  /** Reads up to `length` bytes at `position`, fewer only at the end of the file. Returns their number. */
  read(buffer: Buffer, offset: number, length: number, position: number): Promise<number>;
  /** Makes all written bytes, and the length of the file, durable. A failure is final: never call it again to "retry". */
  sync(): Promise<void>;
  size(): Promise<number>;
  close(): Promise<void>;
}

/** `DiskFile.write` as a promise, for everything that is not the hot path. */
export function writeFully(file: DiskFile, buffer: Buffer, length: number, position: number): Promise<void> {
  return new Promise((resolve, reject) => {
    file.write(buffer, 0, length, position, (error) => (error === null ? resolve() : reject(error)));
  });
}

/** Small files that are read and replaced as a whole. */

const TEMPORARY_SUFFIX = '.tmp';

/** Replaces or makes a file, durably. If it is interrupted, the file has its old or its new content. */
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

/** The content of a file, up to `bytesMax`. */
export async function readFile(disk: Disk, path: string, bytesMax: number): Promise<Buffer> {
  const file = await disk.open(path, { create: false, dataSync: false });
  const buffer = Buffer.alloc(Math.min(await file.size(), bytesMax));
  const bytes = await file.read(buffer, 0, buffer.length, 0);
  await file.close();
  return buffer.subarray(0, bytes);
}
