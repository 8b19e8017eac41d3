import { existsSync, promises, readdirSync, rmdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { RaftkvError } from '../base/errors.ts';
import type { Disk, DiskFile } from '../storage/disk/disk.ts';
import { type DataDirLock, lockDataDir } from '../storage/disk/lock.ts';

/** Data directories that tools work on while no node does. */

const LOCK_FOLDER = 'LOCK';

export function nodeDirectory(dataDir: string, nodeId: number): string {
  return join(dataDir, `node-${nodeId}`);
}

/**
 * Runs `work` while no node uses the directory. A directory that was never locked, or that is not writable, cannot be
 * locked, so it is used as it is.
 * @throws RaftkvError DATA_DIR_LOCKED
 */
export async function withNodeStopped<T>(directory: string, work: () => Promise<T>): Promise<T> {
  const lock = existsSync(join(directory, LOCK_FOLDER)) ? lockIfWritable(directory) : null;
  try {
    return await work();
  } finally {
    lock?.release();
  }
}

function lockIfWritable(directory: string): DataDirLock | null {
  try {
    return lockDataDir(directory, Math.random);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'EROFS' || code === 'EACCES' || code === 'EPERM') return null;
    throw error;
  }
}

/** @throws RaftkvError BACKUP_INVALID where there is anything in it but what a lock leaves. */
export function refuseNonEmpty(directory: string): void {
  if (!existsSync(directory)) return;
  const names = readdirSync(directory).filter((name) => name !== LOCK_FOLDER);
  if (names.length === 0) return;
  throw new RaftkvError(
    'BACKUP_INVALID',
    `${directory} is not empty: it contains ${names.slice(0, 3).join(', ')}${names.length > 3 ? ', …' : ''}; nothing was written`,
    'Restore into a new cluster, or move the old data away first. Nothing is overwritten.',
  );
}

/** Removes an empty directory, so that another can be renamed to its name. At most it holds a stale lock. */
export function removeEmptyDirectory(directory: string): void {
  if (!existsSync(directory)) return;
  if (existsSync(join(directory, LOCK_FOLDER))) {
    lockDataDir(directory, Math.random).release();
    rmSync(join(directory, LOCK_FOLDER), { recursive: true });
  }
  rmdirSync(directory);
}

/**
 * A disk on which nothing can be changed: for looking at data that must stay as it is, also where this process may not
 * write. Whatever is written, renamed or removed seems to be done, and is not.
 */
export const readOnlyDisk: Disk = {
  async makeDirectory() {},
  async list(path) {
    try {
      return (await promises.readdir(path)).sort();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
  },
  async open(path, { create }) {
    return create ? NOTHING : fileOf(await promises.open(path, 'r'));
  },
  async rename() {},
  async remove() {},
  async syncDirectory() {},
};

const unchanged: Pick<DiskFile, 'write' | 'sync'> = {
  write: (_buffer, _offset, _length, _position, done) => void setImmediate(done, null),
  async sync() {},
};

const NOTHING: DiskFile = {
  ...unchanged,
  read: async () => 0,
  size: async () => 0,
  async close() {},
};

function fileOf(handle: promises.FileHandle): DiskFile {
  return {
    ...unchanged,
    async read(buffer, offset, length, position) {
      let total = 0;
      while (total < length) {
        const { bytesRead } = await handle.read(buffer, offset + total, length - total, position + total);
        if (bytesRead === 0) break;
        total += bytesRead;
      }
      return total;
    },
    size: async () => (await handle.stat()).size,
    close: () => handle.close(),
  };
}
