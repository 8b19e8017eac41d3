/**
 * The arithmetic of `incr` and `decr`: unsigned 64 bits, up wraps, down stops at 0. Numbers below 2^53 stay ordinary
 * numbers; only beyond does BigInt, some ten times slower, take over.
 *
 * What counts as a number is memcached's use of strtoull: leading white space and a plus sign are skipped, and the
 * digits end at white space, a NUL or the end (so `5 apples` is 5). One difference: a minus sign is never accepted,
 * where strtoull lets some huge negative numbers wrap to positive ones.
 */

const UINT64_MAX = 0xffff_ffff_ffff_ffffn;
const TWO_TO_32 = 0x1_0000_0000;
/** Any number of so many digits is exact as a double. */
const EXACT_DIGITS_MAX = 15;
/** The most digits that a 64-bit number has, leading zeros aside. */
const UINT64_DIGITS_MAX = 20;

const SPACE = 0x20;
const PLUS = 0x2b;
const ZERO = 0x30;
const NINE = 0x39;

/** The new number as text, or null where `value` is not a number. */
export function addDelta(value: string, deltaHigh: number, deltaLow: number, direction: 'up' | 'down'): string | null {
  let start = 0;
  while (isWhiteSpace(value.charCodeAt(start))) start++;
  if (value.charCodeAt(start) === PLUS) start++;
  const end = endOfDigits(value, start);
  if (end === start) return null;
  if (end < value.length && !isWhiteSpace(value.charCodeAt(end)) && value.charCodeAt(end) !== 0) return null;
  while (start < end - 1 && value.charCodeAt(start) === ZERO) start++;

  if (end - start > UINT64_DIGITS_MAX) return null;
  if (end - start > EXACT_DIGITS_MAX || deltaHigh > 0) {
    return addDeltaExactly(BigInt(value.slice(start, end)), deltaHigh, deltaLow, direction);
  }
  let number = 0;
  for (let i = start; i < end; i++) number = number * 10 + value.charCodeAt(i) - ZERO;
  return String(direction === 'up' ? number + deltaLow : Math.max(0, number - deltaLow));
}

function addDeltaExactly(number: bigint, deltaHigh: number, deltaLow: number, direction: 'up' | 'down'): string | null {
  if (number > UINT64_MAX) return null;
  const delta = BigInt(deltaHigh) * BigInt(TWO_TO_32) + BigInt(deltaLow);
  if (direction === 'up') return String((number + delta) & UINT64_MAX);
  return delta > number ? '0' : String(number - delta);
}

function endOfDigits(value: string, start: number): number {
  let end = start;
  for (let code = value.charCodeAt(end); code >= ZERO && code <= NINE; code = value.charCodeAt(end)) end++;
  return end;
}

/** What C's isspace accepts: space, tab, newline, vertical tab, form feed, carriage return. */
function isWhiteSpace(code: number): boolean {
  return code === SPACE || (code >= 0x09 && code <= 0x0d);
}
