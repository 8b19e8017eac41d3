import { dirname } from 'node:path';
import type { Disk, DiskFile } from '../../src/storage/disk/disk.ts';
import { type DirectoryOperation, MemoryDirectory } from './memory-directory.ts';
import { MemoryFile } from './memory-file.ts';

/**
 * A disk in memory that keeps a real one's bad habits, for tests and for the simulator.
 *
 * ```
 *  write ──► page cache ──sync──► platter          per sector of 512 bytes (memory-file.ts)
 *  create, rename, remove ──► cache ──syncDirectory──► platter     per operation (memory-directory.ts)
 * ```
 *
 * - `crash` is power loss: of what was not synced, and of a write in flight, every sector and every directory operation
 *   survives or not by itself. `kill` is the end of the process only: the page cache stays, a write in flight may be torn.
 *   After either, files opened before are dead: nothing they started ever calls back. Open again and recover.
 * - A failed sync forgets what was dirty, as Linux does: later syncs succeed, and the bytes never reach the platter.
 * - Every operation asks `fault` whether it fails, and `schedule` when it completes. By default none fails, and each
 *   completes in a microtask, in order. Give both, and `random`, from one seed, and a run can be replayed exactly.
 */
export type OperationKind =
  | 'makeDirectory'
  | 'list'
  | 'open'
  | 'rename'
  | 'remove'
  | 'syncDirectory'
  | 'write'
  | 'read'
  | 'sync'
  | 'size'
  | 'close';

export interface DiskOperation {
  readonly kind: OperationKind;
  readonly path: string;
  /** Of a write or read; 0 otherwise. */
  readonly position: number;
  readonly length: number;
  /** True for a write that is durable when it completes. */
  readonly dataSync: boolean;
}

export interface MemoryDiskOptions {
  /** Called once for every operation as it starts; to call `complete` once, later, but never from inside. */
  readonly schedule?: (operation: DiskOperation, complete: () => void) => void;
}

export class MemoryDisk implements Disk {
  /** Asked when an operation completes; the error code that it returns, as `EIO`, makes the operation fail. */
  fault: (operation: DiskOperation) => string | null = () => null;
  /** Writes that would make the files together longer than this fail with ENOSPC. */
  capacityBytes = Number.POSITIVE_INFINITY;
  /** Told of every write that fails because of `capacityBytes`. */
  onFull: () => void = () => {};

  /** As in `MemoryDiskOptions`. */
  schedule: (operation: DiskOperation, complete: () => void) => void;
  readonly #directories = new Map<string, MemoryDirectory>();
  readonly #inFlight = new Set<WriteInFlight>();
  /** Which incarnation of the process this is. What an earlier one started never completes. */
  #incarnation = 0;

  constructor(options: MemoryDiskOptions = {}) {
    this.schedule = options.schedule ?? ((_, complete) => queueMicrotask(complete));
  }

  /** Makes the next operation for which `matches` holds fail with `code`, and none after it. */
  failOnce(code: string, matches: (operation: DiskOperation) => boolean): void {
    const before = this.fault;
    this.fault = (operation) => {
      if (!matches(operation)) return before(operation);
      this.fault = before;
      return code;
    };
  }

  /** Power loss. `random` decides, sector by sector and name by name, what of the unsynced survives. */
  crash(random: () => number): void {
    for (const { file, buffer, position } of this.#inFlight) file.tearDurable(buffer, position, random);
    this.#endIncarnation();
    for (const directory of this.#directories.values()) directory.crash(random);
    for (const file of this.#files()) file.crash(random);
  }

  /** The process ends, the system goes on: what was written stays readable, though it may be nowhere but in the cache. */
  kill(random: () => number): void {
    for (const { file, buffer, position } of this.#inFlight) {
      const sectors = Math.floor(random() * (Math.ceil(buffer.length / 512) + 1));
      file.write(buffer.subarray(0, sectors * 512), position);
    }
    this.#endIncarnation();
  }

  /** Turns over one bit of a file, on the platter and in the cache. */
  flipBit(path: string, bit: number): void {
    this.#existing(path).flipBit(bit);
  }

  /** A copy of what a reader would see. */
  contentOf(path: string): Buffer {
    return Buffer.from(this.#existing(path).content());
  }

  /** Puts a file in place whole and durable, as an operator who restores one. */
  plant(path: string, content: Buffer): void {
    const file = new MemoryFile();
    file.write(content, 0);
    file.sync();
    this.#directory(dirname(path)).plant(path, file);
  }

  /** Takes a file away durably, as an operator who deletes one. */
  wipe(path: string): void {
    this.#existing(path);
    this.#directory(dirname(path)).plant(path, null);
  }

  /** Another disk, with nothing on it: unlike files that were only removed, none comes back after power loss. */
  wipeAll(): void {
    this.#directories.clear();
  }

  /** An independent copy of what is durable and what is cached, to try something else on it. */
  clone(): MemoryDisk {
    const copy = new MemoryDisk();
    const files = new Map<MemoryFile, MemoryFile>();
    for (const [path, directory] of this.#directories) copy.#directories.set(path, directory.clone(files));
    return copy;
  }

  paths(): string[] {
    return [...this.#directories.values()].flatMap((directory) => [...directory.names()]).sort();
  }

  makeDirectory(path: string): Promise<void> {
    return this.#operate('makeDirectory', path, () => {
      this.#directory(path);
    });
  }

  list(path: string): Promise<string[]> {
    return this.#operate('list', path, () =>
      [...(this.#directories.get(path)?.names() ?? [])].map((name) => name.slice(path.length + 1)).sort(),
    );
  }

  open(path: string, { create, dataSync }: { create: boolean; dataSync: boolean }): Promise<DiskFile> {
    return this.#operate('open', path, () => {
      const directory = this.#directories.get(dirname(path));
      if (directory === undefined) throw failure('ENOENT', 'open', path);
      let file = directory.get(path);
      if (file !== undefined && create) throw failure('EEXIST', 'open', path);
      if (file === undefined && !create) throw failure('ENOENT', 'open', path);
      if (file === undefined) {
        file = new MemoryFile();
        directory.do({ kind: 'link', path, file });
      }
      return this.#opened(path, file, dataSync);
    });
  }

  rename(from: string, to: string): Promise<void> {
    return this.#operate('rename', from, () => {
      const file = this.#existing(from);
      if (dirname(from) === dirname(to)) return this.#change({ kind: 'rename', path: from, to, file });
      // Two folders, two operations: power loss may keep one of them only.
      this.#change({ kind: 'link', path: to, file });
      this.#change({ kind: 'unlink', path: from, file });
    });
  }

  remove(path: string): Promise<void> {
    return this.#operate('remove', path, () => this.#change({ kind: 'unlink', path, file: this.#existing(path) }));
  }

  syncDirectory(path: string): Promise<void> {
    return this.#operate('syncDirectory', path, () => this.#directories.get(path)?.sync());
  }

  #change(operation: DirectoryOperation): void {
    this.#directory(dirname(operation.path)).do(operation);
  }

  #directory(path: string): MemoryDirectory {
    let directory = this.#directories.get(path);
    if (directory === undefined) {
      directory = new MemoryDirectory();
      this.#directories.set(path, directory);
    }
    return directory;
  }

  #existing(path: string): MemoryFile {
    const file = this.#directories.get(dirname(path))?.get(path);
    if (file === undefined) throw failure('ENOENT', 'access', path);
    return file;
  }

  #files(): Set<MemoryFile> {
    return new Set([...this.#directories.values()].flatMap((directory) => [...directory.files()]));
  }

  #usedBytes(): number {
    let bytes = 0;
    for (const file of this.#files()) bytes += file.length;
    return bytes;
  }

  #endIncarnation(): void {
    this.#incarnation++;
    this.#inFlight.clear();
  }

  /** Waits for the operation's turn, lets it fail where it must, and does it. Never ends where its process has. */
  #operate<T>(
    kind: OperationKind,
    path: string,
    body: () => T,
    position = 0,
    length = 0,
    dataSync = false,
  ): Promise<T> {
    const incarnation = this.#incarnation;
    const operation: DiskOperation = { kind, path, position, length, dataSync };
    return new Promise((resolve, reject) => {
      this.schedule(operation, () => {
        if (incarnation !== this.#incarnation) return;
        try {
          const code = this.fault(operation);
          if (code !== null) throw failure(code, kind, path);
          resolve(body());
        } catch (error) {
          reject(error);
        }
      });
    });
  }

  #opened(path: string, file: MemoryFile, dataSync: boolean): DiskFile {
    const incarnation = this.#incarnation;
    let writing = false;
    let closed = false;
    const alive = (kind: string) => {
      if (closed) throw failure('EBADF', kind, path);
    };
    /** What a dead process asks for is never answered. */
    const operate = <T>(kind: OperationKind, body: () => T, position = 0, length = 0): Promise<T> => {
      if (incarnation !== this.#incarnation) return new Promise(() => {});
      return this.#operate(
        kind,
        path,
        () => {
          alive(kind);
          return body();
        },
        position,
        length,
      );
    };
    return {
      write: (buffer, offset, length, position, done) => {
        if (incarnation !== this.#incarnation) return;
        if (writing) throw new Error(`${path} was given a second write while one was running`);
        writing = true;
        // The caller must leave the buffer alone; a copy lets a test see where it does not.
        const flight = { file, buffer: Buffer.from(buffer.subarray(offset, offset + length)), position };
        this.#inFlight.add(flight);
        const operation: DiskOperation = { kind: 'write', path, position, length, dataSync };
        this.schedule(operation, () => {
          if (incarnation !== this.#incarnation) return;
          writing = false;
          this.#inFlight.delete(flight);
          const error = closed ? failure('EBADF', 'write', path) : this.#land(flight, operation);
          if (error === null && !flight.buffer.equals(buffer.subarray(offset, offset + length))) {
            throw new Error(`the buffer of a write to ${path} changed while it was in flight`);
          }
          done(error);
        });
      },
      read: (buffer, offset, length, position) =>
        operate('read', () => file.read(buffer, offset, length, position), position, length),
      sync: () =>
        operate('sync', () => file.sync()).catch((error: unknown) => {
          file.forgetDirty();
          throw error;
        }),
      size: () => operate('size', () => file.length),
      close: () =>
        operate('close', () => {
          closed = true;
        }),
    };
  }

  #land({ file, buffer, position }: WriteInFlight, operation: DiskOperation): Error | null {
    const growth = Math.max(0, position + buffer.length - file.length);
    const full = growth > 0 && this.#usedBytes() + growth > this.capacityBytes;
    const code = this.fault(operation);
    if (full) {
      this.onFull();
      return failure('ENOSPC', 'write', operation.path);
    }
    if (code !== null) {
      // The worst case: readers see it, nothing marks it as dirty, and it will never reach the platter.
      file.write(buffer, position);
      file.forgetDirty();
      return failure(code, 'write', operation.path);
    }
    file.write(buffer, position);
    if (operation.dataSync) file.syncRange(position, buffer.length);
    return null;
  }
}

interface WriteInFlight {
  readonly file: MemoryFile;
  readonly buffer: Buffer;
  readonly position: number;
}

function failure(code: string, call: string, path: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: ${call} '${path}'`), { code });
}
