import { crc32 } from 'node:zlib';
import { readUint64, writeUint64 } from '../../base/uint64.ts';
import { CLUSTER_NAME_BYTES_MAX, SECTOR_BYTES } from '../segments/format.ts';

/**
 * The byte layout of a snapshot file. All integers are little-endian. A CRC covers every byte, and the CRC of each
 * chunk is seeded with the one before, so that parts of two snapshots never verify as one.
 *
 * ```
 * header          512 bytes
 * configuration   as long as the header says
 * chunk, chunk, … none, or any number
 * trailer         36 bytes, the last of the file
 * ```
 *
 * Header. Its magic, version and CRC keep their places in every version of the format:
 *
 * ```
 *   0  8 bytes  magic "raftkvSN"
 *   8  u32      format version
 *  12  u32      length of the configuration
 *  16  u64      index of the last entry that the snapshot includes
 *  24  u64      term of that entry
 *  32  u32      CRC-32 of the configuration
 *  36  u16      length of the cluster name
 *  38  …        cluster name, UTF-8; then zeros
 * 508  u32      CRC-32 of the 508 bytes before
 * ```
 *
 * Chunk:
 *
 * ```
 *   0  u32      CRC-32 of the rest of the chunk, seeded with the CRC of the chunk before; the first with the header's
 *   4  u32      length of the body
 *   8  …        body
 * ```
 *
 * Trailer. It can be verified without the chunks, so a start can check quickly whether the file is complete:
 *
 * ```
 *   0  u32      CRC-32 of the rest of the trailer
 *   4  u32      0xffffffff; a chunk has its length here
 *   8  8 bytes  magic "raftkvSE"
 *  16  u64      chunks
 *  24  u64      length of the file, trailer included
 *  32  u32      CRC of the last chunk; CRC of the header if there is no chunk
 * ```
 */
export const SNAPSHOT_FORMAT_VERSION = 1;
export const SNAPSHOT_HEADER_BYTES = SECTOR_BYTES;
export const CHUNK_HEADER_BYTES = 8;
export const SNAPSHOT_TRAILER_BYTES = 36;
/**
 * The longest chunk. Bounds the memory that a reader allocates for a length that is not verified yet. A node writes 64
 * KiB.
 */
export const SNAPSHOT_CHUNK_BYTES_MAX = 64 * 1024 * 1024;
/**
 * The longest configuration. Bounds that memory, too. More than any configuration of the few members that are allowed.
 */
export const SNAPSHOT_CONFIGURATION_BYTES_MAX = 1024 * 1024;

const HEADER_MAGIC = Buffer.from('raftkvSN', 'latin1');
const TRAILER_MAGIC = Buffer.from('raftkvSE', 'latin1');
const HEADER_CRC_OFFSET = SNAPSHOT_HEADER_BYTES - 4;
/** No chunk has this length. */
const TRAILER_MARK = 0xffff_ffff;

export interface SnapshotHeader {
  readonly version: number;
  readonly index: number;
  readonly term: number;
  readonly clusterName: string;
  readonly configurationBytes: number;
  readonly configurationCrc: number;
  /** The CRC of the header, which seeds the CRC of the first chunk. */
  readonly chain: number;
}

export interface SnapshotTrailer {
  readonly chunks: number;
  readonly byteLength: number;
  /** The CRC of the last chunk. */
  readonly chain: number;
}

/** Returns the header and the configuration: the beginning of the file. */
export function encodeSnapshotHead(index: number, term: number, clusterName: string, configuration: Buffer): Buffer {
  const bytes = Buffer.alloc(SNAPSHOT_HEADER_BYTES + configuration.length);
  HEADER_MAGIC.copy(bytes);
  bytes.writeUInt32LE(SNAPSHOT_FORMAT_VERSION, 8);
  bytes.writeUInt32LE(configuration.length, 12);
  writeUint64(bytes, index, 16);
  writeUint64(bytes, term, 24);
  bytes.writeUInt32LE(crc32(configuration), 32);
  bytes.writeUInt16LE(Buffer.byteLength(clusterName), 36);
  bytes.write(clusterName, 38);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, HEADER_CRC_OFFSET)), HEADER_CRC_OFFSET);
  configuration.copy(bytes, SNAPSHOT_HEADER_BYTES);
  return bytes;
}

/** Returns null if the bytes are no valid header. The caller must check the version. */
export function readSnapshotHeader(bytes: Buffer): SnapshotHeader | null {
  if (bytes.length < SNAPSHOT_HEADER_BYTES || !bytes.subarray(0, 8).equals(HEADER_MAGIC)) return null;
  const chain = bytes.readUInt32LE(HEADER_CRC_OFFSET);
  if (crc32(bytes.subarray(0, HEADER_CRC_OFFSET)) !== chain) return null;
  const index = readUint64(bytes, 16);
  const term = readUint64(bytes, 24);
  // A verified file may still contain any numbers, because the tools read files from anywhere.
  if (!Number.isSafeInteger(index) || !Number.isSafeInteger(term)) return null;
  return {
    version: bytes.readUInt32LE(8),
    index,
    term,
    clusterName: bytes.toString('utf8', 38, 38 + Math.min(bytes.readUInt16LE(36), CLUSTER_NAME_BYTES_MAX)),
    configurationBytes: bytes.readUInt32LE(12),
    configurationCrc: bytes.readUInt32LE(32),
    chain,
  };
}

/** Writes the header of a chunk at `target[offset]`. Returns its CRC, which seeds the CRC of the next chunk. */
export function encodeChunkHeader(target: Buffer, offset: number, body: Buffer, chain: number): number {
  target.writeUInt32LE(body.length, offset + 4);
  const crc = crc32(body, crc32(target.subarray(offset + 4, offset + CHUNK_HEADER_BYTES), chain));
  target.writeUInt32LE(crc, offset);
  return crc;
}

/** Returns the length of the body from the header of a chunk; null if it is the trailer instead. */
export function chunkLength(header: Buffer): number | null {
  const length = header.readUInt32LE(4);
  return length === TRAILER_MARK ? null : length;
}

export function verifyChunk(header: Buffer, body: Buffer, chain: number): boolean {
  return crc32(body, crc32(header.subarray(4, CHUNK_HEADER_BYTES), chain)) === header.readUInt32LE(0);
}

export function encodeSnapshotTrailer({ chunks, byteLength, chain }: SnapshotTrailer): Buffer {
  const bytes = Buffer.alloc(SNAPSHOT_TRAILER_BYTES);
  bytes.writeUInt32LE(TRAILER_MARK, 4);
  TRAILER_MAGIC.copy(bytes, 8);
  writeUint64(bytes, chunks, 16);
  writeUint64(bytes, byteLength, 24);
  bytes.writeUInt32LE(chain, 32);
  bytes.writeUInt32LE(crc32(bytes.subarray(4)), 0);
  return bytes;
}

/** Returns null if the bytes are no valid trailer. */
export function readSnapshotTrailer(bytes: Buffer): SnapshotTrailer | null {
  if (bytes.length < SNAPSHOT_TRAILER_BYTES || bytes.readUInt32LE(4) !== TRAILER_MARK) return null;
  if (!bytes.subarray(8, 16).equals(TRAILER_MAGIC)) return null;
  if (crc32(bytes.subarray(4, SNAPSHOT_TRAILER_BYTES)) !== bytes.readUInt32LE(0)) return null;
  return { chunks: readUint64(bytes, 16), byteLength: readUint64(bytes, 24), chain: bytes.readUInt32LE(32) };
}
