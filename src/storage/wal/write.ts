import { RaftkvError } from '../../base/errors.ts';
import { isDiskFull } from '../segments/files.ts';
import { LOG_RESET_BODY_BYTES, RECORD_HEADER_BYTES } from '../segments/format.ts';
import type { WalWrite } from './types.ts';

/** What a write asks for: whether it makes sense, what it drops, and the steps in which it goes into blocks. */

/** Twenty-four bytes today; the bound keeps a repeated hard state within the one sector that is reserved for it. */
const HARD_STATE_BYTES_MAX = 256;

/** @throws RaftkvError INVARIANT_BROKEN where it cannot follow a log that holds these indexes. */
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

/** How far the log goes that a write leaves in place. */
export function keptBy({ reset, firstIndex, entries }: WalWrite): number {
  if (reset !== null) return reset.index;
  return entries.length === 0 ? Number.POSITIVE_INFINITY : firstIndex - 1;
}

/**
 * Step 0 of a write is its reset and its hard state, which must not be torn apart: without the hard state, the reset
 * would stand for more than was recorded as committed. Step n is its n-th entry. 0 where the step has nothing.
 */
export function bytesOfStep(write: WalWrite, step: number): number {
  const { reset, hardState, entries } = write;
  if (step > 0) return RECORD_HEADER_BYTES + (entries[step - 1]?.length ?? 0);
  const resetBytes = reset === null ? 0 : RECORD_HEADER_BYTES + LOG_RESET_BODY_BYTES;
  return resetBytes + (hardState === null ? 0 : RECORD_HEADER_BYTES + hardState.length);
}

/** Of the first step that is not yet in a block and has anything. */
export function bytesOfNext(write: WalWrite, stepsTaken: number): number {
  return bytesOfStep(write, stepsTaken) || bytesOfStep(write, stepsTaken + 1);
}

/** As an error of the log, which stops at it. */
export function writeFailed(doing: string, cause: unknown): RaftkvError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  const remedy = isDiskFull(cause)
    ? 'Free space on the disk of the data directory, then restart the node. No acknowledged write is lost.'
    : 'Check the disk, then restart the node. No acknowledged write is lost.';
  return new RaftkvError('WAL_WRITE_FAILED', `${doing} failed: ${reason}`, remedy, cause);
}
