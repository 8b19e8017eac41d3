import { join } from 'node:path';

/**
 * The file system. `file-disk.ts` implements it for the machine; the simulator has a disk that loses unsynced writes,
 * tears sectors and flips bits. Paths are absolute. `DiskFile.write` takes a callback, because it is on the hot path;
 * all other calls return promises. Failures of the system are Errors with Node's `code` (`ENOSPC`, `EIO`, …).
 */
export interface Disk {
  /** Creates the folder and its parents, durably. */
  makeDirectory(path: string): Promise<void>;
  /** Returns the names in a folder, sorted; empty if there is no such folder. */
  list(path: string): Promise<string[]>;
  /**
   * `create` fails with `EEXIST` if the file exists. With `dataSync`, a write is durable when it calls back (O_DSYNC).
   */
  open(path: string, options: { readonly create: boolean; readonly dataSync: boolean }): Promise<DiskFile>;
  /**
   * Moves a file, and replaces the one at `to` if there is one. A crash leaves either the old or the new file at `to`.
   */
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** Makes creations, renames and removals in a folder durable. */
  syncDirectory(path: string): Promise<void>;
}

export interface DiskFile {
  /**
   * Writes all of `length` bytes from `buffer[offset]` at `position`, and then calls `done`, never synchronously. The
   * buffer must not change until then. Only one write at a time is allowed per open file, so that a write needs no
   * closure.
   */
  write(buffer: Buffer, offset: number, length: number, position: number, done: (error: Error | null) => void): void;
  /** Reads `length` bytes at `position`, or fewer if the file ends. Returns their number. */
  read(buffer: Buffer, offset: number, length: number, position: number): Promise<number>;
  /**
   * Makes all written bytes, and the length of the file, durable. A failed sync must not be repeated: the system may
   * have dropped the bytes, and the second sync would succeed without them.
   */
  sync(): Promise<void>;
  size(): Promise<number>;
  close(): Promise<void>;
}

/** `DiskFile.write` as a promise, for everything except the hot path. */
export function writeFully(file: DiskFile, buffer: Buffer, length: number, position: number): Promise<void> {
  return new Promise((resolve, reject) => {
    file.write(buffer, 0, length, position, (error) => (error === null ? resolve() : reject(error)));
  });
}

const TEMPORARY_SUFFIX = '.tmp';

/** Writes a small file as a whole, durably. After a crash, the file has its old or its new content. */
export async function replaceFile(disk: Disk, directory: string, name: string, bytes: Buffer): Promise<void> {
  const temporaryName = name + TEMPORARY_SUFFIX;
  const temporary = join(directory, temporaryName);
  // The temporary file of an earlier call that was interrupted.
  if ((await disk.list(directory)).includes(temporaryName)) await disk.remove(temporary);
  const file = await disk.open(temporary, { create: true, dataSync: false });
  await writeFully(file, bytes, bytes.length, 0);
  await file.sync();
  await file.close();
  await disk.rename(temporary, join(directory, name));
  await disk.syncDirectory(directory);
}

/** Returns the content of a file, but at most its first `bytesMax` bytes. */
export async function readFile(disk: Disk, path: string, bytesMax: number): Promise<Buffer> {
  const file = await disk.open(path, { create: false, dataSync: false });
  const buffer = Buffer.alloc(Math.min(await file.size(), bytesMax));
  const bytes = await file.read(buffer, 0, buffer.length, 0);
  await file.close();
  return buffer.subarray(0, bytes);
}
