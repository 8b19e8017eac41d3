import { join } from 'node:path';
import { RaftkvError } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import type { Disk } from '../disk/disk.ts';
import { readSnapshotFile, readSnapshotHead, type SnapshotFileHead, snapshotDamaged } from './reader.ts';
import type {
  SnapshotHead,
  SnapshotInfo,
  SnapshotPiece,
  SnapshotReceiver,
  Snapshots,
  SnapshotWriter,
} from './types.ts';
import { GrowingFile, SnapshotEncoder } from './writer.ts';

/**
 * The snapshots of a node: a folder that contains the newest one, and older ones only while a transfer needs them.
 *
 * ```
 *  chunks of the state ──► <name>.tmp  ──┐                                     ┌──► load, at a start: verifies all
 *                                        ├── sync ──► rename ──► <name> ───────┤
 *  pieces from a leader ─► <name>.part ──┘   (received: verified first)          └──► read, in pieces, for a follower
 * ```
 *
 * - A file is renamed only when its content is durable, and older ones are removed only when the name is. So after a
 *   crash at any moment, the newest snapshot is the old one or the new one.
 * - A damaged file is moved aside, never deleted. The next older intact snapshot, if there is one, is then the newest.
 *
 * `snapshots/format.ts` describes the bytes.
 */
export interface SnapshotsOptions {
  readonly disk: Disk;
  /** The folder of the snapshots. It is created if it doesn't exist. */
  readonly directory: string;
  readonly clusterName: string;
  readonly logger: Logger;
  /**
   * Called if a snapshot is damaged, before anything is changed on the disk. Returns the folder to which the file is
   * moved. If it is null, the damage is thrown as an error and no file is moved.
   */
  readonly onDamage: ((error: RaftkvError) => Promise<string>) | null;
}

/**
 * The bytes of the longest piece that `read` returns. It bounds the memory of a request, whose length a peer chooses.
 */
export const SNAPSHOT_PIECE_BYTES_MAX = 4 * 1024 * 1024;

const SNAPSHOT_NAME = /^\d{16}-\d+\.snapshot$/;
const WRITING_SUFFIX = '.tmp';
const RECEIVING_SUFFIX = '.part';
/** The name of a file whose writing or receiving was interrupted. */
const LEFTOVER_NAME = /^\d{16}-\d+\.snapshot\.(tmp|part)$/;

export function snapshotName(index: number, term: number): string {
  return `${String(index).padStart(16, '0')}-${term}.snapshot`;
}

/** Whether this is the name of a complete snapshot file. */
export function isSnapshotName(name: string): boolean {
  return SNAPSHOT_NAME.test(name);
}

/**
 * Opens the folder of the snapshots and removes unfinished files.
 * @throws RaftkvError SNAPSHOT_DAMAGED if `onDamage` is null, FORMAT_UNSUPPORTED, DATA_DIR_FOREIGN; errors of the disk
 */
export async function openSnapshots(options: SnapshotsOptions): Promise<Snapshots> {
  const { disk, directory } = options;
  await disk.makeDirectory(directory);
  // The previous process may have died before the name of the newest file was durable. It must be durable before older
  // snapshots and the log are removed.
  await disk.syncDirectory(directory);
  const names = await disk.list(directory);
  const store = new SnapshotFiles(options);
  for (const name of names.filter(isSnapshotName)) await store.take(name);
  // Only now, so that nothing was changed if a damaged snapshot makes this function throw.
  for (const name of names.filter((name) => LEFTOVER_NAME.test(name))) await disk.remove(join(directory, name));
  return store;
}

interface StoredFile {
  readonly info: SnapshotInfo;
  /** The number of readers. The file is not removed while it is above 0. */
  holds: number;
}

interface Receiving {
  readonly index: number;
  readonly term: number;
  readonly file: GrowingFile;
  readonly receiver: SnapshotReceiver;
}

class SnapshotFiles implements Snapshots {
  readonly #options: SnapshotsOptions;
  readonly #disk: Disk;
  /** Ascending by index; the last one is the newest. */
  readonly #files: StoredFile[] = [];
  #writing: GrowingFile | null = null;
  #receiving: Receiving | null = null;
  /** The last operation that changes the set of files. Such operations run one after the other. Never rejects. */
  #turns: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(options: SnapshotsOptions) {
    this.#options = options;
    this.#disk = options.disk;
  }

  get newest(): SnapshotInfo | null {
    return this.#files.at(-1)?.info ?? null;
  }

  /** Adds a file of the folder to the list, or moves it aside if it is damaged. To be called at the start only. */
  async take(name: string): Promise<void> {
    const path = join(this.#options.directory, name);
    try {
      const head = await readSnapshotHead(this.#disk, path);
      this.#refuseForeign(head, path);
      if (snapshotName(head.index, head.term) !== name) {
        throw snapshotDamaged(path, 16, `the file is ${snapshotName(head.index, head.term)}, but has another name`);
      }
      this.#add(infoOf(head, path));
    } catch (error) {
      if (!isDamage(error)) throw error;
      await this.#moveAside(name, error);
    }
  }

  write(head: SnapshotHead): Promise<SnapshotWriter> {
    return this.#inTurn(async () => {
      if (this.#writing !== null && !this.#writing.gone) {
        throw new RaftkvError('INVARIANT_BROKEN', 'a second snapshot was begun while one was running');
      }
      const path = this.#pathOf(head.index, head.term);
      const file = await this.#create(path + WRITING_SUFFIX);
      this.#writing = file;
      const encoder = await SnapshotEncoder.begin(file, head, this.#options.clusterName);
      return {
        write: (chunk) => encoder.write(chunk),
        finish: async () => {
          await encoder.end();
          return this.#inTurn(() => this.#install(file, { ...head, path, byteLength: file.byteLength }));
        },
        abandon: () => file.discard(),
      };
    });
  }

  async load(onChunk: (chunk: Buffer) => void | Promise<void>): Promise<void> {
    const stored = this.#files.at(-1);
    if (stored === undefined) throw new RaftkvError('INVARIANT_BROKEN', 'there is no snapshot to load');
    stored.holds++;
    try {
      await readSnapshotFile(this.#disk, stored.info.path, onChunk);
    } catch (error) {
      if (isDamage(error)) await this.#inTurn(() => this.#expel(stored, error));
      throw error;
    } finally {
      stored.holds--;
    }
    // Older files that a crash has left can be removed now: they are no longer needed in place of a damaged newest one.
    await this.#inTurn(() => this.#removeOlder());
  }

  async read(index: number, term: number, offset: number, length: number): Promise<SnapshotPiece | null> {
    const stored = this.#find(index, term);
    if (stored === undefined || (stored.holds === 0 && stored !== this.#files.at(-1))) return null;
    const { path, byteLength } = stored.info;
    const wanted = Math.max(0, Math.min(length, SNAPSHOT_PIECE_BYTES_MAX, byteLength - offset));
    stored.holds++;
    try {
      const file = await this.#disk.open(path, { create: false, dataSync: false });
      const bytes = Buffer.allocUnsafeSlow(wanted);
      const count = await file.read(bytes, 0, wanted, offset).finally(() => file.close());
      if (count < wanted) throw snapshotDamaged(path, offset + count, 'the file was truncated');
      return { bytes, byteLength };
    } catch (error) {
      // The file was found to be damaged in the meantime and moved aside.
      if (!this.#files.includes(stored)) return null;
      throw error;
    } finally {
      this.#releaseHold(stored);
    }
  }

  hold(index: number, term: number): boolean {
    const stored = this.#find(index, term);
    if (stored === undefined) return false;
    stored.holds++;
    return true;
  }

  release(index: number, term: number): void {
    const stored = this.#find(index, term);
    // It is undefined if the file was found to be damaged in the meantime.
    if (stored !== undefined && stored.holds > 0) this.#releaseHold(stored);
  }

  receive(index: number, term: number): Promise<SnapshotReceiver> {
    return this.#inTurn(async () => {
      const running = this.#receiving;
      await running?.file.idle();
      if (running !== null && !running.file.gone) {
        if (running.index === index && running.term === term) return running.receiver;
        await running.file.discard();
      }
      const path = this.#pathOf(index, term);
      const file = await this.#create(path + RECEIVING_SUFFIX);
      const receiver = this.#receiverOf(index, term, file, path);
      this.#receiving = { index, term, file, receiver };
      return receiver;
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#inTurn(async () => {
      await this.#writing?.discard();
      await this.#receiving?.file.discard();
    });
  }

  #receiverOf(index: number, term: number, file: GrowingFile, path: string): SnapshotReceiver {
    return {
      get byteLength() {
        return file.byteLength;
      },
      append: (bytes) => file.append(bytes),
      finish: () =>
        this.#inTurn(async () => {
          await file.seal();
          try {
            const head = await readSnapshotFile(this.#disk, file.path, () => {});
            this.#refuseForeign(head, file.path);
            if (head.index !== index || head.term !== term) {
              throw snapshotDamaged(file.path, 16, `the snapshot requested was ${snapshotName(index, term)}`);
            }
            return await this.#install(file, infoOf(head, path));
          } catch (error) {
            if (error instanceof RaftkvError) await file.discard();
            throw error;
          }
        }),
      abandon: () => file.discard(),
    };
  }

  /** Gives a sealed file its name and removes older files. To be called only within `#inTurn`. */
  async #install(file: GrowingFile, info: SnapshotInfo): Promise<SnapshotInfo> {
    const { newest } = this;
    if (newest !== null && newest.index >= info.index) {
      await file.discard();
      return newest;
    }
    await file.moveTo(info.path);
    this.#add(info);
    await this.#removeOlder();
    return info;
  }

  async #removeOlder(): Promise<void> {
    const newest = this.#files.at(-1);
    for (const stored of [...this.#files]) {
      if (stored === newest || stored.holds > 0) continue;
      // The file is removed from the list first, so that no new reader uses it.
      this.#files.splice(this.#files.indexOf(stored), 1);
      try {
        await this.#disk.remove(stored.info.path);
      } catch (error) {
        this.#files.unshift(stored);
        throw error;
      }
    }
  }

  #releaseHold(stored: StoredFile): void {
    stored.holds--;
    if (stored.holds > 0 || !this.#files.includes(stored) || stored === this.#files.at(-1)) return;
    this.#inTurn(() => this.#removeOlder()).catch((error: unknown) => {
      // The file stays in the list, so the next snapshot tries to remove it again and reports a further failure.
      this.#options.logger.error({ path: stored.info.path, err: error }, 'cannot remove an old snapshot');
    });
  }

  /** Removes a damaged file from the list and moves it aside. */
  async #expel(stored: StoredFile, error: RaftkvError): Promise<void> {
    const place = this.#files.indexOf(stored);
    // Two loads at the same time may find the same damage.
    if (place < 0 || this.#options.onDamage === null) return;
    this.#files.splice(place, 1);
    await this.#moveAside(snapshotName(stored.info.index, stored.info.term), error);
  }

  async #moveAside(name: string, error: RaftkvError): Promise<void> {
    const { directory, onDamage, logger } = this.#options;
    if (onDamage === null) throw error;
    const folder = await onDamage(error);
    await this.#disk.makeDirectory(folder);
    await this.#disk.rename(join(directory, name), join(folder, name));
    await this.#disk.syncDirectory(folder);
    await this.#disk.syncDirectory(directory);
    logger.error({ name, folder, err: error }, 'moved a damaged snapshot aside');
  }

  #create(path: string): Promise<GrowingFile> {
    if (this.#closed) throw new RaftkvError('INVARIANT_BROKEN', 'a snapshot was begun after its folder was closed');
    return GrowingFile.create(this.#disk, path);
  }

  #add(info: SnapshotInfo): void {
    this.#files.push({ info, holds: 0 });
    this.#files.sort((a, b) => a.info.index - b.info.index || a.info.term - b.info.term);
  }

  #find(index: number, term: number): StoredFile | undefined {
    return this.#files.find(({ info }) => info.index === index && info.term === term);
  }

  #pathOf(index: number, term: number): string {
    return join(this.#options.directory, snapshotName(index, term));
  }

  #refuseForeign(head: SnapshotFileHead, path: string): void {
    if (head.clusterName === this.#options.clusterName) return;
    throw new RaftkvError(
      'DATA_DIR_FOREIGN',
      `${path} belongs to cluster "${head.clusterName}", not "${this.#options.clusterName}"`,
      'Point dataDir to the data of this cluster, or to an empty folder.',
    );
  }

  /** Runs `work` after all earlier operations that change the set of files. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turns.then(work);
    this.#turns = result.catch(() => {});
    return result;
  }
}

function infoOf({ index, term, configuration, byteLength }: SnapshotFileHead, path: string): SnapshotInfo {
  return { index, term, configuration, byteLength, path };
}

function isDamage(error: unknown): error is RaftkvError {
  return error instanceof RaftkvError && error.code === 'SNAPSHOT_DAMAGED';
}
