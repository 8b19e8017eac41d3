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

/**
 * The bytes that are written between two syncs. A sync of the log on the same disk waits for the unsynced bytes of a
 * snapshot: 130 ms for hundreds of megabytes, 20 ms for this many. With a quarter of this, the log waits no less and a
 * snapshot takes twice as long; with four times as much, the log waits longer.
 */
const SYNC_STEP_BYTES = 1024 * 1024;
/** The bytes of one write: enough for a small cost per byte, and little memory. */
const STAGING_BYTES = 256 * 1024;

/**
 * A file that is appended to under a temporary name, sealed (synced and closed), and then moved to its final name. Only
 * one call may run at a time, except `discard`. If the disk is full, the file is removed before the call fails; after
 * any other failure, `discard` must remove it.
 */
export class GrowingFile {
  readonly #disk: Disk;
  readonly path: string;
  readonly #file: DiskFile;
  #state: 'open' | 'sealed' | 'gone' = 'open';
  /** True after a failure or `discard`: all further calls are refused. */
  #stopped = false;
  #busy = false;
  #byteLength = 0;
  #unsyncedBytes = 0;
  /** Resolves when the running call ends. Never rejects. */
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

  /** Resolves when the running call ends. Never rejects. */
  idle(): Promise<void> {
    return this.#running;
  }

  /** Appends to the file. `bytes` must not change until this resolves. */
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

  /** Makes the content durable and closes the file. The name is not durable yet. */
  seal(): Promise<void> {
    return this.#run('open', async () => {
      await this.#file.sync();
      await this.#file.close();
      this.#state = 'sealed';
    });
  }

  /** Moves the file to `path`, durably, and replaces a file of that name. */
  async moveTo(path: string): Promise<void> {
    await this.#run('sealed', async () => {
      await this.#disk.rename(this.path, path);
      this.#state = 'gone';
    });
    await this.#disk.syncDirectory(dirname(path));
  }

  /** Waits for the running call and removes the file. Has no effect if the file was moved or removed. */
  async discard(): Promise<void> {
    this.#stopped = true;
    await this.#running;
    await this.#drop();
  }

  #run(wanted: 'open' | 'sealed', work: () => Promise<void>): Promise<void> {
    if (this.#state !== wanted || this.#stopped || this.#busy) {
      const state = this.#busy ? 'busy' : this.#stopped ? 'stopped' : this.#state;
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

/** Encodes a snapshot into a file. Only one call may run at a time. */
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

  /** Writes the trailer and seals the file. */
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
 * Writes a snapshot file at `path`, for tools. `produce` passes the chunks to `write` and must await each call. For
 * example, `(write) => readSnapshotFile(disk, other, write)` copies the chunks of another file. No file is left after a
 * failure.
 */
export async function writeSnapshotFile(
  disk: Disk,
  path: string,
  head: SnapshotHead & { readonly clusterName: string },
  produce: (write: (chunk: Buffer) => Promise<void>) => Promise<unknown>,
): Promise<{ readonly byteLength: number }> {
  const temporary = `${path}.tmp`;
  // The temporary file of an earlier run that was interrupted.
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
