/**
 * The arithmetic of `incr` and `decr` on unsigned 64-bit integers: `incr` wraps around, and `decr` stops at 0. Short
 * numbers are computed as doubles, and only long ones as BigInt, which is about ten times slower.
 *
 * A value is a number if memcached's use of strtoull accepts it: leading white space and a plus sign are skipped, and
 * the digits end at white space, a NUL or the end of the value (so `5 apples` is 5). One difference: a minus sign is
 * never accepted, whereas strtoull wraps some large negative numbers to positive ones.
 */

const UINT64_MAX = 0xffff_ffff_ffff_ffffn;
const TWO_TO_32 = 0x1_0000_0000;
/** Every number with at most this many digits is exact as a double, also after adding a 32-bit delta. */
const EXACT_DIGITS_MAX = 15;
/** The number of digits of the largest 64-bit number. */
const UINT64_DIGITS_MAX = 20;

const SPACE = 0x20;
const PLUS = 0x2b;
const ZERO = 0x30;
const NINE = 0x39;

/** Returns the new number as text, or null if `value` is not a number of 64 bits. */
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

/** The characters of C's isspace: space, tab, newline, vertical tab, form feed, carriage return. */
function isWhiteSpace(code: number): boolean {
  return code === SPACE || (code >= 0x09 && code <= 0x0d);
}
