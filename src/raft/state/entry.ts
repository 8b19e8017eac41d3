import { RaftkvError } from '../../base/errors.ts';
import { readUint64, writeUint64 } from '../../base/uint64.ts';
import type { Entry, EntryKind } from './types.ts';

/**
 * The one encoding of a log entry, on disk and on the wire (little-endian):
 *
 * ```
 *  0  u64 term
 *  8  u64 index
 * 16  u8  kind      1 noop, 2 data, 3 configuration
 * 17  u8  × 3       zero
 * 20  u32 length    of the payload
 * 24  payload
 * ```
 *
 * A proposer leaves the first `ENTRY_HEADER_BYTES` of its buffer free; the leader fills them in place.
 */
export const ENTRY_HEADER_BYTES = 24;

const KIND_CODES: Record<EntryKind, number> = { noop: 1, data: 2, configuration: 3 };
const KINDS: readonly (EntryKind | undefined)[] = [undefined, 'noop', 'data', 'configuration'];

/** Turns a proposer's buffer into an entry by filling in the header that it left free. */
export function sealEntry(bytes: Buffer, kind: EntryKind, term: number, index: number): Entry {
  writeUint64(bytes, term, 0);
  writeUint64(bytes, index, 8);
  bytes.writeUInt32LE(KIND_CODES[kind], 16);
  bytes.writeUInt32LE(bytes.length - ENTRY_HEADER_BYTES, 20);
  return { term, index, kind, bytes };
}

/**
 * Reads the entry that starts at `offset`. The entry keeps a view of `buffer`, not a copy.
 * @throws RaftkvError MESSAGE_INVALID where the bytes are no entry.
 */
export function readEntry(buffer: Buffer, offset: number): Entry {
  if (offset + ENTRY_HEADER_BYTES > buffer.length) throw invalid('is truncated', offset);
  const end = offset + ENTRY_HEADER_BYTES + buffer.readUInt32LE(offset + 20);
  if (end > buffer.length) throw invalid('is longer than its message', offset);
  const kind = KINDS[buffer.readUInt32LE(offset + 16)];
  if (kind === undefined) throw invalid('is of no known kind', offset);
  const term = readUint64(buffer, offset);
  const index = readUint64(buffer, offset + 8);
  if (!Number.isSafeInteger(term) || !Number.isSafeInteger(index) || index === 0) {
    throw invalid('has a term or index out of range', offset);
  }
  return { term, index, kind, bytes: buffer.subarray(offset, end) };
}

function invalid(what: string, offset: number): RaftkvError {
  return new RaftkvError('MESSAGE_INVALID', `the log entry at byte ${offset} ${what}`);
}
