import { crc32 } from 'node:zlib';
import { readUint64, writeUint64 } from '../../base/uint64.ts';

/**
 * The byte layout of a log segment. All integers are little-endian; a *sector* is 512 bytes, the largest piece that a
 * disk is trusted to write wholly or not at all.
 *
 * ```
 * sector 0     segment header
 * sector 1 …   block, block, …          each starts on a sector boundary, so that a torn write of one block never
 *              seal                     touches a sector that holds another
 *              zeros                    up to `segment bytes`
 * ```
 *
 * Segment header, one sector. Its magic, version and CRC keep their places in every version of the format:
 *
 * ```
 *   0  8 bytes  magic "raftkvWL"
 *   8  u32      format version
 *  12  u32      segment bytes: how long the file may grow
 *  16  u64      segment number, from 1
 *  24  8 bytes  salt: random, so that no client can store a value that verifies as a block of this file
 *  32  u16      length of the cluster name
 *  34  …        cluster name, UTF-8; then zeros
 * 508  u32      CRC-32 of the 508 bytes before
 * ```
 *
 * Block: the bytes of one write to the disk. A header, then records back to back, then zeros up to a sector boundary:
 *
 * ```
 *   0  u32      magic
 *   4  u32      CRC-32 of the salt and of the rest of this header
 *   8  u64      block sequence: 1 for the first block of the log, then one more each, across segments
 *  16  u64      segment number
 *  24  u32      position of this block in the file
 *  28  u32      byte length of header and records, without the padding
 *  32  u32      records
 *  36  u32      blank sectors: how many sectors of this block contain only zeros when it is written completely
 *  40  u32      chain before: the CRC of the record before the first of this block
 *  44  u32      flags: 1 for a seal
 * ```
 *
 * A *seal* is a block without records that ends a segment: the next block is in the next segment. A segment always has
 * room left for it. If the last segment is lost, the seal before it shows that.
 *
 * Record:
 *
 * ```
 *   0  u32      CRC-32 of the rest of the record, seeded with the CRC of the record before (in the log, not the block)
 *   4  u32      length of the body
 *   8  u32      type: 1 entry, 2 hard state, 3 log reset
 *  12  u64      index of the entry; of a log reset, the index after which the log begins; 0 for a hard state
 *  20  …        body; of a log reset: u64, the term of the entry at its index
 * ```
 *
 * A *log reset* drops every entry before it: the log continues after its index, which is the index of a snapshot.
 *
 * Segments are removed oldest first, so a log may begin with any segment. Segment 1 begins with block 1, and with entry
 * 1 or a log reset. If the first segment has another number, earlier segments were removed. Then its first block may
 * have any sequence and chain, and its first entry any index; a later entry with a lower index moves the beginning of
 * the log there. Such a log contains at least one entry or log reset, which tells where it begins. A segment begins
 * with the newest hard state of that time, so that the segments before it are not needed for it.
 */
export const WAL_FORMAT_VERSION = 1;
export const SECTOR_BYTES = 512;
export const BLOCK_HEADER_BYTES = 48;
export const RECORD_HEADER_BYTES = 20;
export const RECORD_ENTRY = 1;
export const RECORD_HARD_STATE = 2;
export const RECORD_LOG_RESET = 3;
/** The body of a log reset: u64 term. */
export const LOG_RESET_BODY_BYTES = 8;
/** The bytes of the longest cluster name. The header sector has room for it, and the configuration allows only 64. */
export const CLUSTER_NAME_BYTES_MAX = 255;

const SEGMENT_MAGIC = Buffer.from('raftkvWL', 'latin1');
const SEGMENT_CRC_OFFSET = SECTOR_BYTES - 4;
const SALT_OFFSET = 24;
const BLOCK_MAGIC = 0x9e_57_b4_c1;
const FLAG_SEAL = 1;

const ZEROS = Buffer.alloc(64 * 1024);

export interface SegmentHeader {
  readonly version: number;
  readonly segmentBytes: number;
  readonly number: number;
  readonly clusterName: string;
  /** CRC of the salt, which seeds the CRC of every block header in the segment. */
  readonly saltCrc: number;
}

export function encodeSegmentHeader(
  number: number,
  segmentBytes: number,
  clusterName: string,
  random: () => number,
): Buffer {
  const sector = Buffer.alloc(SECTOR_BYTES);
  SEGMENT_MAGIC.copy(sector);
  sector.writeUInt32LE(WAL_FORMAT_VERSION, 8);
  sector.writeUInt32LE(segmentBytes, 12);
  writeUint64(sector, number, 16);
  sector.writeUInt32LE(Math.floor(random() * 0x1_0000_0000), SALT_OFFSET);
  sector.writeUInt32LE(Math.floor(random() * 0x1_0000_0000), SALT_OFFSET + 4);
  sector.writeUInt16LE(Buffer.byteLength(clusterName), 32);
  sector.write(clusterName, 34);
  sector.writeUInt32LE(crc32(sector.subarray(0, SEGMENT_CRC_OFFSET)), SEGMENT_CRC_OFFSET);
  return sector;
}

/** Returns null if the sector is no valid segment header. The caller must check the version. */
export function readSegmentHeader(sector: Buffer): SegmentHeader | null {
  if (sector.length < SECTOR_BYTES || !sector.subarray(0, 8).equals(SEGMENT_MAGIC)) return null;
  if (crc32(sector.subarray(0, SEGMENT_CRC_OFFSET)) !== sector.readUInt32LE(SEGMENT_CRC_OFFSET)) return null;
  return {
    version: sector.readUInt32LE(8),
    segmentBytes: sector.readUInt32LE(12),
    number: readUint64(sector, 16),
    clusterName: sector.toString('utf8', 34, 34 + Math.min(sector.readUInt16LE(32), CLUSTER_NAME_BYTES_MAX)),
    saltCrc: crc32(sector.subarray(SALT_OFFSET, SALT_OFFSET + 8)),
  };
}

export interface BlockHeader {
  readonly sequence: number;
  readonly byteLength: number;
  readonly records: number;
  readonly blankSectors: number;
  readonly chainBefore: number;
  readonly seal: boolean;
}

/** Writes the header of a block to the start of `buffer`. */
export function encodeBlockHeader(
  buffer: Buffer,
  saltCrc: number,
  segmentNumber: number,
  position: number,
  block: BlockHeader,
): void {
  buffer.writeUInt32LE(BLOCK_MAGIC, 0);
  writeUint64(buffer, block.sequence, 8);
  writeUint64(buffer, segmentNumber, 16);
  buffer.writeUInt32LE(position, 24);
  buffer.writeUInt32LE(block.byteLength, 28);
  buffer.writeUInt32LE(block.records, 32);
  buffer.writeUInt32LE(block.blankSectors, 36);
  buffer.writeUInt32LE(block.chainBefore, 40);
  buffer.writeUInt32LE(block.seal ? FLAG_SEAL : 0, 44);
  buffer.writeUInt32LE(crc32(buffer.subarray(8, BLOCK_HEADER_BYTES), saltCrc), 4);
}

/**
 * Returns the block header at `buffer[offset]`; null if there is none that was written for this segment and position.
 */
export function readBlockHeader(
  buffer: Buffer,
  offset: number,
  saltCrc: number,
  segmentNumber: number,
  position: number,
): BlockHeader | null {
  if (buffer.length < offset + BLOCK_HEADER_BYTES || buffer.readUInt32LE(offset) !== BLOCK_MAGIC) return null;
  const rest = buffer.subarray(offset + 8, offset + BLOCK_HEADER_BYTES);
  if (crc32(rest, saltCrc) !== buffer.readUInt32LE(offset + 4)) return null;
  if (readUint64(buffer, offset + 16) !== segmentNumber || buffer.readUInt32LE(offset + 24) !== position) return null;
  return {
    sequence: readUint64(buffer, offset + 8),
    byteLength: buffer.readUInt32LE(offset + 28),
    records: buffer.readUInt32LE(offset + 32),
    blankSectors: buffer.readUInt32LE(offset + 36),
    chainBefore: buffer.readUInt32LE(offset + 40),
    seal: buffer.readUInt32LE(offset + 44) === FLAG_SEAL,
  };
}

/** Writes a record at `buffer[offset]`. Returns its CRC, which seeds the CRC of the next record. */
export function encodeRecord(
  buffer: Buffer,
  offset: number,
  type: number,
  index: number,
  body: Buffer,
  chain: number,
): number {
  buffer.writeUInt32LE(body.length, offset + 4);
  buffer.writeUInt32LE(type, offset + 8);
  writeUint64(buffer, index, offset + 12);
  body.copy(buffer, offset + RECORD_HEADER_BYTES);
  const crc = crc32(buffer.subarray(offset + 4, offset + RECORD_HEADER_BYTES + body.length), chain);
  buffer.writeUInt32LE(crc, offset);
  return crc;
}

/** Returns the body of a log reset. */
export function encodeLogReset(term: number): Buffer {
  const body = Buffer.allocUnsafe(LOG_RESET_BODY_BYTES);
  writeUint64(body, term, 0);
  return body;
}

/**
 * Returns the length of the record at `buffer[offset]`, header included; 0 if it doesn't verify or extends beyond
 * `end`.
 */
export function verifyRecord(buffer: Buffer, offset: number, end: number, chain: number): number {
  if (offset + RECORD_HEADER_BYTES > end) return 0;
  const length = RECORD_HEADER_BYTES + buffer.readUInt32LE(offset + 4);
  if (offset + length > end) return 0;
  return crc32(buffer.subarray(offset + 4, offset + length), chain) === buffer.readUInt32LE(offset) ? length : 0;
}

export function paddedToSector(length: number): number {
  return Math.ceil(length / SECTOR_BYTES) * SECTOR_BYTES;
}

export function isZero(buffer: Buffer, start: number, end: number): boolean {
  for (let from = start; from < end; ) {
    const to = Math.min(end, from + ZEROS.length);
    if (buffer.compare(ZEROS, 0, to - from, from, to) !== 0) return false;
    from = to;
  }
  return true;
}

/** Returns the number of sectors in `buffer[start..end)` that contain only zeros. */
export function countBlankSectors(buffer: Buffer, start: number, end: number): number {
  let blank = 0;
  for (let sector = start; sector < end; sector += SECTOR_BYTES) {
    // Blank sectors are rare, so checking the first byte is almost always enough.
    if (buffer[sector] === 0 && isZero(buffer, sector, Math.min(end, sector + SECTOR_BYTES))) blank++;
  }
  return blank;
}
