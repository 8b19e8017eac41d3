import { crc32 } from 'node:zlib';
import { RaftkvError } from '../../base/errors.ts';
import type { Disk, DiskFile } from '../disk/disk.ts';
import {
  CHUNK_HEADER_BYTES,
  chunkLength,
  readSnapshotHeader,
  readSnapshotTrailer,
  SNAPSHOT_CHUNK_BYTES_MAX,
  SNAPSHOT_CONFIGURATION_BYTES_MAX,
  SNAPSHOT_FORMAT_VERSION,
  SNAPSHOT_HEADER_BYTES,
  SNAPSHOT_TRAILER_BYTES,
  type SnapshotTrailer,
  verifyChunk,
} from './format.ts';
import type { SnapshotHead } from './types.ts';

/** The head of a snapshot file, with facts about the file. */
export interface SnapshotFileHead extends SnapshotHead {
  readonly clusterName: string;
  /** The length of the whole file. */
  readonly byteLength: number;
  readonly chunks: number;
}

/** Receives the chunks of a snapshot and may keep them. A returned promise is awaited before the next chunk is read. */
export type OnChunk = (chunk: Buffer) => void | Promise<void>;

export function snapshotDamaged(path: string, offset: number, what: string): RaftkvError {
  return new RaftkvError(
    'SNAPSHOT_DAMAGED',
    `the snapshot file ${path} is damaged at byte ${offset}: ${what}`,
    'Check the disk. A member of a cluster gets a new snapshot from its leader; for a backup, use another copy.',
  );
}

/**
 * Reads the head of a snapshot file. Verifies the header, the configuration and the trailer, but not the chunks.
 * @throws RaftkvError SNAPSHOT_DAMAGED, FORMAT_UNSUPPORTED; errors of the disk
 */
export function readSnapshotHead(disk: Disk, path: string): Promise<SnapshotFileHead> {
  return withFile(disk, path, async (file) => (await readEnds(file, path)).head);
}

/**
 * Reads a whole snapshot file, with one chunk in memory at a time. Each chunk is verified before it is passed to
 * `onChunk`, but only when the promise resolves is it certain that the file is complete.
 * @throws RaftkvError SNAPSHOT_DAMAGED, FORMAT_UNSUPPORTED; errors of the disk and of `onChunk`
 */
export function readSnapshotFile(disk: Disk, path: string, onChunk: OnChunk): Promise<SnapshotFileHead> {
  return withFile(disk, path, async (file) => {
    const ends = await readEnds(file, path);
    await readChunks(file, path, ends, onChunk);
    return ends.head;
  });
}

async function withFile<T>(disk: Disk, path: string, work: (file: DiskFile) => Promise<T>): Promise<T> {
  const file = await disk.open(path, { create: false, dataSync: false });
  try {
    return await work(file);
  } finally {
    await file.close();
  }
}

interface Ends {
  readonly head: SnapshotFileHead;
  readonly trailer: SnapshotTrailer;
  /** The position of the first chunk, and the CRC that seeds its CRC. */
  readonly chunksAt: number;
  readonly chain: number;
}

async function readEnds(file: DiskFile, path: string): Promise<Ends> {
  const size = await file.size();
  const header = readSnapshotHeader(await readUpTo(file, SNAPSHOT_HEADER_BYTES, 0));
  if (header === null) throw snapshotDamaged(path, 0, 'the header is corrupt');
  if (header.version !== SNAPSHOT_FORMAT_VERSION) {
    throw new RaftkvError(
      'FORMAT_UNSUPPORTED',
      `${path} has snapshot format ${header.version}; this raftkv reads format ${SNAPSHOT_FORMAT_VERSION}`,
      'Use the version of raftkv that wrote it.',
    );
  }
  const { index, term, clusterName, configurationBytes } = header;
  const chunksAt = SNAPSHOT_HEADER_BYTES + configurationBytes;
  if (configurationBytes > SNAPSHOT_CONFIGURATION_BYTES_MAX || chunksAt + SNAPSHOT_TRAILER_BYTES > size) {
    throw snapshotDamaged(path, 0, `the file is truncated: it has only ${size} bytes`);
  }
  const configuration = await readUpTo(file, configurationBytes, SNAPSHOT_HEADER_BYTES);
  if (configuration.length !== configurationBytes || crc32(configuration) !== header.configurationCrc) {
    throw snapshotDamaged(path, SNAPSHOT_HEADER_BYTES, 'the configuration is corrupt');
  }
  const trailerAt = size - SNAPSHOT_TRAILER_BYTES;
  const trailer = readSnapshotTrailer(await readUpTo(file, SNAPSHOT_TRAILER_BYTES, trailerAt));
  if (trailer === null) throw snapshotDamaged(path, trailerAt, 'the trailer is missing or corrupt');
  if (trailer.byteLength !== size) {
    throw snapshotDamaged(path, trailerAt, `the file has ${size} bytes, but its trailer says ${trailer.byteLength}`);
  }
  const head = { index, term, configuration, clusterName, byteLength: size, chunks: trailer.chunks };
  return { head, trailer, chunksAt, chain: header.chain };
}

async function readChunks(file: DiskFile, path: string, ends: Ends, onChunk: OnChunk): Promise<void> {
  const end = ends.head.byteLength - SNAPSHOT_TRAILER_BYTES;
  let position = ends.chunksAt;
  let chain = ends.chain;
  let chunks = 0;
  let header = await readUpTo(file, CHUNK_HEADER_BYTES, position);
  while (position < end) {
    const length = header.length < CHUNK_HEADER_BYTES ? null : chunkLength(header);
    const next = position + CHUNK_HEADER_BYTES + (length ?? 0);
    if (length === null || length > SNAPSHOT_CHUNK_BYTES_MAX || next > end) {
      throw snapshotDamaged(path, position, `chunk ${chunks + 1} has an invalid length`);
    }
    // One read gets the body and the header of the next chunk, or the beginning of the trailer.
    const bytes = await readUpTo(file, length + CHUNK_HEADER_BYTES, position + CHUNK_HEADER_BYTES);
    const body = bytes.subarray(0, length);
    if (body.length !== length || !verifyChunk(header, body, chain)) {
      throw snapshotDamaged(path, position, `chunk ${chunks + 1} is corrupt`);
    }
    chain = header.readUInt32LE(0);
    header = bytes.subarray(length);
    position = next;
    chunks++;
    const taken = onChunk(body);
    if (taken !== undefined) await taken;
  }
  if (chunks !== ends.trailer.chunks || chain !== ends.trailer.chain) {
    throw snapshotDamaged(path, end, `the trailer does not match the chunks: it counts ${ends.trailer.chunks}`);
  }
}

/** Returns fewer bytes only if the file ends. */
async function readUpTo(file: DiskFile, length: number, position: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafeSlow(length);
  return buffer.subarray(0, await file.read(buffer, 0, length, position));
}
