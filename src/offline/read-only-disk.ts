import * as fs from 'node:fs';
import type { Disk, DiskFile } from '../storage/disk/disk.ts';

/**
 * A disk on which nothing can be changed: for looking at data that must stay as it is, also where this process may not
 * write. Whatever is written, renamed or removed seems to be done, and is not.
 */
export const readOnlyDisk: Disk = {
  async makeDirectory() {},
  async list(path) {
    try {
      return (await fs.promises.readdir(path)).sort();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
  },
  async open(path, { create }) {
    return create ? NOTHING : fileOf(await fs.promises.open(path, 'r'));
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

function fileOf(handle: fs.promises.FileHandle): DiskFile {
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
