import { basename, dirname } from 'node:path';
import { RaftkvError } from '../../base/errors.ts';
import { type Disk, type DiskFile, writeFully } from '../disk/disk.ts';
import { CLUSTER_NAME_BYTES_MAX } from '../segments/format.ts';
import {
  CHUNK_HEADER_BYTES,
  encodeChunkHeader,
  encodeSnapshotHead,
  encodeSnapshotTrailer,
  readSnapshotHeader,
  SNAPSHOT_CHUNK_BYTES_MAX,
  SNAPSHOT_CONFIGURATION_BYTES_MAX,
  SNAPSHOT_TRAILER_BYTES,
} from './format.ts';
import type { SnapshotHead } from './types.ts';

/** Writes snapshot files: under a temporary name, in synced steps, and under their own only once they are durable. */

/**
 * How much is written between two syncs. The log syncs on the same disk, and waits behind what a snapshot has made
 * dirty: hundreds of megabytes at once held it up for 130 ms where this did for 20. Smaller steps gain nothing more,
 * and a quarter of this makes a snapshot take twice as long; four times as much lets the log wait longer again.
 */
const SYNC_STEP_BYTES = 1024 * 1024;
/** The size of one write: large enough for a small cost per byte, small enough not to matter as memory. */
const STAGING_BYTES = 256 * 1024;

/**
 * A file that grows at its end under a temporary name, and is then moved to its own. One call at a time, but for
 * `discard`. Where the disk is full it removes itself before the call fails; any other failure leaves it to `discard`.
 */
export class GrowingFile {
  readonly #disk: Disk;
  readonly path: string;
  readonly #file: DiskFile;
  #state: 'open' | 'sealed' | 'gone' = 'open';
  /** After a failure, or once it is to be discarded: nothing more is written. */
  #stopped = false;
  #busy = false;
  #byteLength = 0;
  #unsyncedBytes = 0;
  /** Ends, and never fails, when the call that runs does. */
  #running: Promise<void> = Promise.resolve();

  private constructor(disk: Disk, path: string, file: DiskFile) {
    this.#disk = disk;
    this.path = path;
    this.#file = file;
  }

  static async create(disk: Disk, path: string): Promise<GrowingFile> {
    return new GrowingFile(disk, path, await disk.open(path, { create: true, dataSync: false }));
  }

  get byteLength(): number {
    return this.#byteLength;
  }

  get gone(): boolean {
    return this.#state === 'gone';
  }

  /** Resolves, and never fails, when the call that runs has ended. */
  idle(): Promise<void> {
    return this.#running;
  }

  /** `bytes` must stay as they are until this resolves. */
  append(bytes: Buffer): Promise<void> {
    return this.#run('open', async () => {
      for (let from = 0; from < bytes.length; ) {
        const length = Math.min(bytes.length - from, SYNC_STEP_BYTES - this.#unsyncedBytes);
        await writeFully(this.#file, bytes.subarray(from, from + length), length, this.#byteLength);
        from += length;
        this.#byteLength += length;
        this.#unsyncedBytes += length;
        if (this.#unsyncedBytes < SYNC_STEP_BYTES) continue;
        await this.#file.sync();
        this.#unsyncedBytes = 0;
      }
    });
  }

  /** All of it is durable then, though not its name. */
  seal(): Promise<void> {
    return this.#run('open', async () => {
      await this.#file.sync();
      await this.#file.close();
      this.#state = 'sealed';
    });
  }

  /** Gives the file its name, durably. Replaces what had it. */
  async moveTo(path: string): Promise<void> {
    await this.#run('sealed', async () => {
      await this.#disk.rename(this.path, path);
      this.#state = 'gone';
    });
    await this.#disk.syncDirectory(dirname(path));
  }

  /** Removes the file once the call that runs has ended; harmless where it is gone. */
  async discard(): Promise<void> {
    this.#stopped = true;
    await this.#running;
    await this.#drop();
  }

  #run(wanted: 'open' | 'sealed', work: () => Promise<void>): Promise<void> {
    if (this.#state !== wanted || this.#stopped || this.#busy) {
      const state = this.#busy ? 'busy' : this.#stopped ? 'given up' : this.#state;
      return Promise.reject(new RaftkvError('INVARIANT_BROKEN', `${this.path} is ${state}, but must be ${wanted}`));
    }
    const result = this.#guard(work);
    this.#running = result.catch(() => {});
    return result;
  }

  async #guard(work: () => Promise<void>): Promise<void> {
    this.#busy = true;
    try {
      await work();
    } catch (error) {
      this.#stopped = true;
      if ((error as NodeJS.ErrnoException).code === 'ENOSPC') await this.#drop();
      throw error;
    } finally {
      this.#busy = false;
    }
  }

  async #drop(): Promise<void> {
    const state = this.#state;
    if (state === 'gone') return;
    this.#state = 'gone';
    if (state === 'open') await this.#file.close();
    await this.#disk.remove(this.path);
  }
}

/** Encodes a snapshot into a growing file. One call at a time. */
export class SnapshotEncoder {
  readonly #file: GrowingFile;
  readonly #staging = Buffer.allocUnsafeSlow(STAGING_BYTES);
  #staged = 0;
  #chain: number;
  #chunks = 0;
  readonly #chunkHeader = Buffer.alloc(CHUNK_HEADER_BYTES);

  private constructor(file: GrowingFile, chain: number) {
    this.#file = file;
    this.#chain = chain;
  }

  static async begin(file: GrowingFile, head: SnapshotHead, clusterName: string): Promise<SnapshotEncoder> {
    const tooLong = (what: string) => new RaftkvError('INVARIANT_BROKEN', `the ${what} is too long for a snapshot`);
    if (Buffer.byteLength(clusterName) > CLUSTER_NAME_BYTES_MAX) throw tooLong('cluster name');
    if (head.configuration.length > SNAPSHOT_CONFIGURATION_BYTES_MAX) throw tooLong('configuration');
    const bytes = encodeSnapshotHead(head.index, head.term, clusterName, head.configuration);
    const encoder = new SnapshotEncoder(file, readChain(bytes));
    await encoder.#stage(bytes);
    return encoder;
  }

  async write(chunk: Buffer): Promise<void> {
    if (chunk.length > SNAPSHOT_CHUNK_BYTES_MAX) {
      throw new RaftkvError('INVARIANT_BROKEN', `a chunk of ${chunk.length} bytes is too long for a snapshot`);
    }
    this.#chain = encodeChunkHeader(this.#chunkHeader, 0, chunk, this.#chain);
    this.#chunks++;
    await this.#stage(this.#chunkHeader);
    await this.#stage(chunk);
  }

  /** Ends the file and seals it. */
  async end(): Promise<void> {
    const byteLength = this.#file.byteLength + this.#staged + SNAPSHOT_TRAILER_BYTES;
    await this.#stage(encodeSnapshotTrailer({ chunks: this.#chunks, byteLength, chain: this.#chain }));
    await this.#flush();
    await this.#file.seal();
  }

  async #stage(bytes: Buffer): Promise<void> {
    for (let from = 0; from < bytes.length; ) {
      const copied = bytes.copy(this.#staging, this.#staged, from);
      from += copied;
      this.#staged += copied;
      if (this.#staged === STAGING_BYTES) await this.#flush();
    }
  }

  async #flush(): Promise<void> {
    await this.#file.append(this.#staging.subarray(0, this.#staged));
    this.#staged = 0;
  }
}

/**
 * Writes a snapshot file at `path`, for tools. `produce` gives the chunks, each once the one before was taken:
 * `(write) => readSnapshotFile(disk, other, write)` copies one under another head. Where anything fails, no file is left.
 */
export async function writeSnapshotFile(
  disk: Disk,
  path: string,
  head: SnapshotHead & { readonly clusterName: string },
  produce: (write: (chunk: Buffer) => Promise<void>) => Promise<unknown>,
): Promise<{ readonly byteLength: number }> {
  const temporary = `${path}.tmp`;
  // Left by a run that was interrupted.
  if ((await disk.list(dirname(path))).includes(basename(temporary))) await disk.remove(temporary);
  const file = await GrowingFile.create(disk, temporary);
  try {
    const encoder = await SnapshotEncoder.begin(file, head, head.clusterName);
    await produce((chunk) => encoder.write(chunk));
    await encoder.end();
    await file.moveTo(path);
    return { byteLength: file.byteLength };
  } catch (error) {
    await file.discard();
    throw error;
  }
}

function readChain(head: Buffer): number {
  const header = readSnapshotHeader(head);
  if (header === null) throw new RaftkvError('INVARIANT_BROKEN', 'a new snapshot header is corrupt');
  return header.chain;
}
