import { crc32 } from 'node:zlib';
import { readUint64, writeUint64 } from '../../base/uint64.ts';
import { CLUSTER_NAME_BYTES_MAX, SECTOR_BYTES } from '../segments/format.ts';

/**
 * The byte layout of a snapshot file. All integers are little-endian. Every byte is under one CRC, and each piece is
 * chained to the one before, so that pieces of two snapshots never verify as one.
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
 *  16  u64      index of the last entry that the snapshot stands for
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
 * Trailer. It can be verified without the chunks, which is how a start tells a whole file from a part of one:
 *
 * ```
 *   0  u32      CRC-32 of the rest of the trailer
 *   4  u32      0xffffffff, where a chunk has its length
 *   8  8 bytes  magic "raftkvSE"
 *  16  u64      chunks
 *  24  u64      length of the file, trailer included
 *  32  u32      CRC of the last chunk; the header's where there is none
 * ```
 */
export const SNAPSHOT_FORMAT_VERSION = 1;
export const SNAPSHOT_HEADER_BYTES = SECTOR_BYTES;
export const CHUNK_HEADER_BYTES = 8;
export const SNAPSHOT_TRAILER_BYTES = 36;
/** Well above the longest value with its key and marks. Bounds what a reader sets aside for a length it cannot trust yet. */
export const SNAPSHOT_CHUNK_BYTES_MAX = 64 * 1024 * 1024;
/** Thousands of members. Bounds the same for the configuration. */
export const SNAPSHOT_CONFIGURATION_BYTES_MAX = 1024 * 1024;

const HEADER_MAGIC = Buffer.from('raftkvSN', 'latin1');
const TRAILER_MAGIC = Buffer.from('raftkvSE', 'latin1');
const HEADER_CRC_OFFSET = SNAPSHOT_HEADER_BYTES - 4;
/** No chunk is as long. */
const TRAILER_MARK = 0xffff_ffff;

export interface SnapshotHeader {
  readonly version: number;
  readonly index: number;
  readonly term: number;
  readonly clusterName: string;
  readonly configurationBytes: number;
  readonly configurationCrc: number;
  /** The header's CRC, with which the chain of the chunks begins. */
  readonly chain: number;
}

export interface SnapshotTrailer {
  readonly chunks: number;
  readonly byteLength: number;
  readonly chain: number;
}

/** Header and configuration, as they stand at the start of the file. */
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

/** Null where the bytes are no header or a damaged one. A version that is not ours is for the caller to refuse. */
export function readSnapshotHeader(bytes: Buffer): SnapshotHeader | null {
  if (bytes.length < SNAPSHOT_HEADER_BYTES || !bytes.subarray(0, 8).equals(HEADER_MAGIC)) return null;
  const chain = bytes.readUInt32LE(HEADER_CRC_OFFSET);
  if (crc32(bytes.subarray(0, HEADER_CRC_OFFSET)) !== chain) return null;
  const index = readUint64(bytes, 16);
  const term = readUint64(bytes, 24);
  // A file of a tool may come from anywhere.
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

/** Writes what stands before the body of a chunk at `target[offset]`; returns the CRC, which chains the next one to it. */
export function encodeChunkHeader(target: Buffer, offset: number, body: Buffer, chain: number): number {
  target.writeUInt32LE(body.length, offset + 4);
  const crc = crc32(body, crc32(target.subarray(offset + 4, offset + CHUNK_HEADER_BYTES), chain));
  target.writeUInt32LE(crc, offset);
  return crc;
}

/** The length of a chunk, from its first bytes; null if they belong to the trailer. */
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

/** Null where the bytes are no trailer or a damaged one. */
export function readSnapshotTrailer(bytes: Buffer): SnapshotTrailer | null {
  if (bytes.length < SNAPSHOT_TRAILER_BYTES || bytes.readUInt32LE(4) !== TRAILER_MARK) return null;
  if (!bytes.subarray(8, 16).equals(TRAILER_MAGIC)) return null;
  if (crc32(bytes.subarray(4, SNAPSHOT_TRAILER_BYTES)) !== bytes.readUInt32LE(0)) return null;
  return { chunks: readUint64(bytes, 16), byteLength: readUint64(bytes, 24), chain: bytes.readUInt32LE(32) };
}
