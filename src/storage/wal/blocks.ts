import { RaftkvError } from '../../base/errors.ts';
import { isDiskFull, type Segment } from '../segments/files.ts';
import {
  BLOCK_HEADER_BYTES,
  countBlankSectors,
  encodeBlockHeader,
  encodeRecord,
  LOG_RESET_BODY_BYTES,
  paddedToSector,
  RECORD_HEADER_BYTES,
  SECTOR_BYTES,
} from '../segments/format.ts';
import type { WalWrite } from './types.ts';

/**
 * The longest hard state, in bytes; it has 24. Every segment reserves one sector for a repeated hard state
 * (`checkLimits`).
 */
const HARD_STATE_BYTES_MAX = 256;

/** @throws RaftkvError INVARIANT_BROKEN if the write can't be appended to a log with the entries of these indexes */
export function checkWrite(write: WalWrite, logFirstIndex: number, logLastIndex: number, entryBytesMax: number): void {
  const { reset, hardState, firstIndex, entries } = write;
  if (reset === null && hardState === null && entries.length === 0) {
    throw new RaftkvError('INVARIANT_BROKEN', 'a log write is empty');
  }
  if (hardState !== null && hardState.length > HARD_STATE_BYTES_MAX) {
    throw new RaftkvError('INVARIANT_BROKEN', `a hard state has ${hardState.length} bytes`);
  }
  if (reset !== null && !(Number.isSafeInteger(reset.index) && reset.index >= 0)) {
    throw new RaftkvError('INVARIANT_BROKEN', `a log reset has the index ${reset.index}`);
  }
  const lowest = reset === null ? logFirstIndex : reset.index + 1;
  const highest = reset === null ? logLastIndex + 1 : lowest;
  if (entries.length > 0 && !(firstIndex >= lowest && firstIndex <= highest)) {
    const what = `entry ${firstIndex} was appended to a log of entries ${lowest} to ${highest - 1}`;
    throw new RaftkvError('INVARIANT_BROKEN', what);
  }
  for (let i = 0; i < entries.length; i++) {
    const bytes = entries[i]?.length ?? 0;
    if (bytes <= entryBytesMax) continue;
    const what = `entry ${firstIndex + i} has ${bytes} bytes; the limit is ${entryBytesMax}`;
    throw new RaftkvError('INVARIANT_BROKEN', what);
  }
}

/** Returns the index up to which the write keeps the entries of the log; `Infinity` if it truncates nothing. */
export function keptBy({ reset, firstIndex, entries }: WalWrite): number {
  if (reset !== null) return reset.index;
  return entries.length === 0 ? Number.POSITIVE_INFINITY : firstIndex - 1;
}

/**
 * Returns the length of a step of a write; 0 if the step is empty. Step 0 is the reset and the hard state, and step n
 * is the n-th entry. A block contains a step completely or not at all. So after a crash there is no reset without the
 * hard state that records its index as committed.
 */
export function bytesOfStep(write: WalWrite, step: number): number {
  const { reset, hardState, entries } = write;
  if (step > 0) return RECORD_HEADER_BYTES + (entries[step - 1]?.length ?? 0);
  const resetBytes = reset === null ? 0 : RECORD_HEADER_BYTES + LOG_RESET_BODY_BYTES;
  return resetBytes + (hardState === null ? 0 : RECORD_HEADER_BYTES + hardState.length);
}

/** Returns the length of the first step that is not yet in a block and not empty. */
export function bytesOfNext(write: WalWrite, stepsTaken: number): number {
  return bytesOfStep(write, stepsTaken) || bytesOfStep(write, stepsTaken + 1);
}

/** Returns the error of a failed write, after which the log accepts no writes. */
export function writeFailed(doing: string, cause: unknown): RaftkvError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  const remedy = isDiskFull(cause)
    ? 'Free space on the disk of the data directory, then restart the node. No acknowledged write is lost.'
    : 'Check the disk, then restart the node. No acknowledged write is lost.';
  return new RaftkvError('WAL_WRITE_FAILED', `${doing} failed: ${reason}`, remedy, cause);
}

/** The initial bytes of the buffer. Most blocks fit; the buffer doubles if one doesn't. */
const BYTES_INITIAL = 64 * 1024;

/** Builds the next block, record by record. The buffer is reused for all blocks. */
export class BlockStaging {
  #bytes = Buffer.allocUnsafeSlow(BYTES_INITIAL);
  /** The position of the next record in the block. */
  #end = BLOCK_HEADER_BYTES;
  #records = 0;
  /** The CRC of the last record in this block or an earlier one, and that of the last record before this block. */
  #chain: number;
  #chainBefore: number;

  constructor(chain: number) {
    this.#chain = chain;
    this.#chainBefore = chain;
  }

  get bytes(): Buffer {
    return this.#bytes;
  }

  get end(): number {
    return this.#end;
  }

  get chain(): number {
    return this.#chain;
  }

  /** Begins a block without records. */
  begin(): void {
    this.#end = BLOCK_HEADER_BYTES;
    this.#records = 0;
    this.#chainBefore = this.#chain;
  }

  /** Appends a record to the block. */
  put(type: number, index: number, body: Buffer): void {
    const after = this.#end + RECORD_HEADER_BYTES + body.length;
    if (paddedToSector(after) > this.#bytes.length) this.#grow(paddedToSector(after));
    this.#chain = encodeRecord(this.#bytes, this.#end, type, index, body, this.#chain);
    this.#records++;
    this.#end = after;
  }

  /** Writes the header and the padding of the block. Returns the length of the block. */
  finish(segment: Segment, position: number, sequence: number, seal: boolean): number {
    const padded = paddedToSector(this.#end);
    this.#bytes.fill(0, this.#end, padded);
    encodeBlockHeader(this.#bytes, segment.saltCrc, segment.number, position, {
      sequence,
      byteLength: this.#end,
      records: this.#records,
      blankSectors: countBlankSectors(this.#bytes, SECTOR_BYTES, padded),
      chainBefore: this.#chainBefore,
      seal,
    });
    return padded;
  }

  /** Frees the buffer if a large record made it longer than `bytesMax`. */
  shrink(bytesMax: number): void {
    if (this.#bytes.length > bytesMax) this.#bytes = Buffer.allocUnsafeSlow(BYTES_INITIAL);
  }

  #grow(bytes: number): void {
    let size = this.#bytes.length;
    while (size < bytes) size *= 2;
    const larger = Buffer.allocUnsafeSlow(size);
    this.#bytes.copy(larger, 0, 0, this.#end);
    this.#bytes = larger;
  }
}
