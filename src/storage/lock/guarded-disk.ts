import { RaftkvError } from '../../base/errors.ts';
import type { Disk, DiskFile } from '../disk/disk.ts';

/**
 * Returns a disk for the holder of a lock. Once the lock is lost, it begins no change, and doesn't report as done a
 * change that completed after that, because another process may be writing to the same files. Then every change fails
 * with DATA_DIR_LOST, except that `DiskFile.write` never calls back: the process is ending.
 * @param check whether the lock is still held (`DataDirLock.check`)
 * @param directory the locked directory, for messages
 */
export function guardedDisk(disk: Disk, check: () => boolean, directory: string): Disk {
  const lost = () => new RaftkvError('DATA_DIR_LOST', `this process no longer holds the lock of ${directory}`);
  const guard = async <T>(change: () => Promise<T>): Promise<T> => {
    if (!check()) throw lost();
    const result = await change();
    if (!check()) throw lost();
    return result;
  };
  return {
    makeDirectory: (path) => guard(() => disk.makeDirectory(path)),
    list: (path) => disk.list(path),
    open: async (path, options) => new GuardedFile(await guard(() => disk.open(path, options)), check, guard),
    rename: (from, to) => guard(() => disk.rename(from, to)),
    remove: (path) => guard(() => disk.remove(path)),
    syncDirectory: (path) => guard(() => disk.syncDirectory(path)),
  };
}

type Guard = <T>(change: () => Promise<T>) => Promise<T>;

class GuardedFile implements DiskFile {
  readonly #file: DiskFile;
  readonly #check: () => boolean;
  readonly #guard: Guard;
  /** The callback of the write in flight; null if there is none. */
  #done: ((error: Error | null) => void) | null = null;

  constructor(file: DiskFile, check: () => boolean, guard: Guard) {
    this.#file = file;
    this.#check = check;
    this.#guard = guard;
  }

  write(buffer: Buffer, offset: number, length: number, position: number, done: (error: Error | null) => void): void {
    if (!this.#check()) return;
    this.#done = done;
    this.#file.write(buffer, offset, length, position, this.#written);
  }

  readonly #written = (error: Error | null): void => {
    const done = this.#done;
    this.#done = null;
    if (this.#check()) done?.(error);
  };

  read(buffer: Buffer, offset: number, length: number, position: number): Promise<number> {
    return this.#file.read(buffer, offset, length, position);
  }

  sync(): Promise<void> {
    return this.#guard(() => this.#file.sync());
  }

  size(): Promise<number> {
    return this.#file.size();
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}
