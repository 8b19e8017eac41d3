import { existsSync, promises, readdirSync, renameSync, rmdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { systemClock } from '../base/clock.ts';
import { RaftkvError } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import type { Disk, DiskFile } from '../storage/disk/disk.ts';
import { type DataDirLock, LOCK_FOLDER, lockDataDir } from '../storage/lock/lock.ts';

/** Data directories that tools work on while no node does. */

/**
 * Runs `work` while no node uses the directory. A directory that was never locked, or that is not writable, cannot be
 * locked, so it is used as it is.
 * @throws RaftkvError DATA_DIR_LOCKED
 */
export async function withNodeStopped<T>(directory: string, work: () => Promise<T>): Promise<T> {
  const lock = existsSync(join(directory, LOCK_FOLDER)) ? await lockIfWritable(directory) : null;
  try {
    return await work();
  } finally {
    await lock?.release();
  }
}

/**
 * Takes a directory for a tool, which ends with the error as soon as the lock is lost.
 * @throws RaftkvError DATA_DIR_LOCKED
 */
export function lockForTool(directory: string): Promise<DataDirLock> {
  return lockDataDir(directory, {
    clock: systemClock,
    logger: toolLogger,
    onLost(error) {
      throw error;
    },
  });
}

/** A tool's output is its result; what it waits for goes to the terminal beside it. */
const say = (_fields: object, message: string) => void process.stderr.write(`${message}\n`);
const toolLogger: Logger = { debug() {}, info() {}, warn: say, error: say };

async function lockIfWritable(directory: string): Promise<DataDirLock | null> {
  try {
    return await lockForTool(directory);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'EROFS' || code === 'EACCES' || code === 'EPERM') return null;
    throw error;
  }
}

/** @throws RaftkvError BACKUP_INVALID if it contains anything but the files of a lock. */
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

/**
 * Puts `built` in the place of an empty directory, or of one that holds a stale lock at most, or of none.
 * @throws RaftkvError DATA_DIR_LOCKED
 */
export async function replaceEmptyDirectory(directory: string, built: string): Promise<void> {
  if (existsSync(directory)) {
    if (existsSync(join(directory, LOCK_FOLDER))) {
      await (await lockForTool(directory)).continueIn(built);
      rmSync(join(directory, LOCK_FOLDER), { recursive: true });
    }
    // Fails if a node has begun to use it.
    rmdirSync(directory);
  }
  renameSync(built, directory);
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
