import * as fs from 'node:fs';
import { dirname } from 'node:path';
import { RaftkvError } from '../../base/errors.ts';
import type { Disk, DiskFile } from './disk.ts';

/**
 * The disk of the machine. If the platform has O_DSYNC (Linux), a durable write is one system call; otherwise (macOS,
 * Windows) it is a write and an fdatasync.
 */
export const fileDisk: Disk = {
  async makeDirectory(path) {
    const topmost = (await fs.promises.mkdir(path, { recursive: true })) ?? path;
    // The parent is synced even if the folder existed: the process that made it may have died before its name was
    // durable.
    for (let made = path; made.length >= topmost.length; made = dirname(made)) await this.syncDirectory(dirname(made));
  },

  async list(path) {
    try {
      return (await fs.promises.readdir(path)).sort();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
  },

  async open(path, { create, dataSync }) {
    const { O_RDWR, O_CREAT, O_EXCL } = fs.constants;
    // Undefined on platforms without O_DSYNC, although its declared type is number.
    const O_DSYNC: number | undefined = fs.constants.O_DSYNC;
    let flags = O_RDWR;
    if (create) flags |= O_CREAT | O_EXCL;
    if (dataSync && O_DSYNC !== undefined) flags |= O_DSYNC;
    const descriptor = await new Promise<number>((resolve, reject) => {
      fs.open(path, flags, 0o644, (error, opened) => (error === null ? resolve(opened) : reject(error)));
    });
    return new OpenFile(descriptor, dataSync && O_DSYNC === undefined);
  },

  rename: (from, to) => fs.promises.rename(from, to),
  remove: (path) => fs.promises.rm(path),

  async syncDirectory(path) {
    // Windows can't open a folder for syncing. Its file system journals names.
    if (process.platform === 'win32') return;
    const handle = await fs.promises.open(path, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  },
};

class OpenFile implements DiskFile {
  readonly #descriptor: number;
  readonly #syncAfterWrite: boolean;

  // The write in flight. `#done` is null if there is none.
  #done: ((error: Error | null) => void) | null = null;
  #buffer: Buffer | null = null;
  #offset = 0;
  #left = 0;
  #position = 0;

  constructor(descriptor: number, syncAfterWrite: boolean) {
    this.#descriptor = descriptor;
    this.#syncAfterWrite = syncAfterWrite;
  }

  write(buffer: Buffer, offset: number, length: number, position: number, done: (error: Error | null) => void): void {
    if (this.#done !== null)
      throw new RaftkvError('INVARIANT_BROKEN', 'a second write was started on a file while one was running');
    this.#done = done;
    this.#buffer = buffer;
    this.#offset = offset;
    this.#left = length;
    this.#position = position;
    fs.write(this.#descriptor, buffer, offset, length, position, this.#written);
  }

  readonly #written = (error: Error | null, bytes: number): void => {
    if (error !== null) this.#finish(error);
    else if (bytes < this.#left) this.#writeRest(bytes);
    else if (this.#syncAfterWrite) fs.fdatasync(this.#descriptor, this.#finish);
    else this.#finish(null);
  };

  #writeRest(bytes: number): void {
    if (bytes === 0) {
      this.#finish(new Error('the write wrote no bytes and reported no error'));
      return;
    }
    this.#offset += bytes;
    this.#left -= bytes;
    this.#position += bytes;
    fs.write(this.#descriptor, this.#buffer as Buffer, this.#offset, this.#left, this.#position, this.#written);
  }

  readonly #finish = (error: Error | null): void => {
    const done = this.#done;
    this.#done = null;
    this.#buffer = null;
    done?.(error);
  };

  async read(buffer: Buffer, offset: number, length: number, position: number): Promise<number> {
    let total = 0;
    while (total < length) {
      const bytes = await this.#readOnce(buffer, offset + total, length - total, position + total);
      if (bytes === 0) break;
      total += bytes;
    }
    return total;
  }

  #readOnce(buffer: Buffer, offset: number, length: number, position: number): Promise<number> {
    return new Promise((resolve, reject) => {
      fs.read(this.#descriptor, buffer, offset, length, position, (error, bytes) =>
        error === null ? resolve(bytes) : reject(error),
      );
    });
  }

  sync(): Promise<void> {
    return this.#call((done) => fs.fdatasync(this.#descriptor, done));
  }

  async size(): Promise<number> {
    return new Promise((resolve, reject) => {
      fs.fstat(this.#descriptor, (error, stats) => (error === null ? resolve(stats.size) : reject(error)));
    });
  }

  close(): Promise<void> {
    return this.#call((done) => fs.close(this.#descriptor, done));
  }

  #call(start: (done: (error: Error | null | undefined) => void) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      start((error) => (error === null || error === undefined ? resolve() : reject(error)));
    });
  }
}
