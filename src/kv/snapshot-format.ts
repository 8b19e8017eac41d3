import { crc32 } from 'node:zlib';
import { KEY_BYTES_MAX } from './batch.ts';

/**
 * A snapshot of the state machine: a sequence of chunks, to be read in their order. Little-endian. Every chunk begins
 * with a checksum that runs on from the chunk before, so a chunk that is missing, twice there, out of place or changed
 * on its way, whatever carried it, does not verify.
 *
 * ```
 * the first chunk:
 *  0  u32 crc           CRC-32 of all that follows, from 0
 *  4  u32 version       SNAPSHOT_VERSION
 *  8  f64 timeMs        cluster time
 * 16  f64 flushAtMs     when the pending delayed flush is due; Infinity for none
 * 24  u64 casCounter    the last cas unique given
 * 32  u64 totalItems    items ever stored
 * 40  u64 items         in the chunks that follow
 * 48  u64 itemBytes     of their keys and values together
 * 56  u32 sessions
 * 60  u32 zero
 * 64  sessions, each:
 *      0  u32 proposer
 *      4  u32 sessionId
 *      8  u64 lastSequence
 *
 * every other chunk:
 *  0  u32 crc           CRC-32 of all that follows, from that of the chunk before
 *  4  what is missing of the value that the chunk before broke off, or as much of it as there is room for
 *  …  items, in no order, each:
 *      0  u8  keyLength
 *      1  u8  tokens
 *      2  u16 zero
 *      4  u32 flags
 *      8  u32 valueLength
 *     12  u32 casHigh
 *     16  u32 casLow
 *     20  f64 expiresAtMs        Infinity for never
 *     28  f64 accessedAtSeconds  the node's own record (types.ts)
 *     36  key, value: what the chunk has no room for follows in the next
 * ```
 */
export const SNAPSHOT_VERSION = 1;

export const CHECKSUM_BYTES = 4;
export const HEADER_BYTES = 64;
export const SESSION_BYTES = 16;
export const ITEM_HEADER_BYTES = 36;
/** The key is in the same chunk as what stands before it: where there is less room, the chunk ends. */
export const ITEM_ROOM_BYTES = ITEM_HEADER_BYTES + KEY_BYTES_MAX;

/** What a chunk must carry if the one before carried `previous`; the first has 0 before it. */
export function checksumOf(chunk: Buffer, previous: number): number {
  return crc32(chunk.subarray(CHECKSUM_BYTES), previous);
}
