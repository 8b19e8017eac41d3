const SPACE = 0x20;
const NEWLINE = 0x0a;
const RETURN = 0x0d;

/** If a line has more fields than this (a huge multi-get), the arrays are freed rather than kept for the next line. */
const FIELDS_KEPT_MAX = 1024;

/** The fields of one command line as ranges of its buffer. One object is reused for all lines. */
export class Tokens {
  count = 0;
  /** True if the line ended in `\r\n`, false if it ended in a bare `\n`. */
  endsInReturn = false;
  #starts: number[] = [];
  #ends: number[] = [];

  start(index: number): number {
    return this.#starts[index] ?? 0;
  }

  end(index: number): number {
    return this.#ends[index] ?? 0;
  }

  length(index: number): number {
    return this.end(index) - this.start(index);
  }

  /**
   * Splits the line that begins at `start`. Returns the position after its newline, or -1 if there is none before
   * `end`.
   */
  split(buffer: Buffer, start: number, end: number): number {
    if (this.count > FIELDS_KEPT_MAX) {
      this.#starts = [];
      this.#ends = [];
    }
    let count = 0;
    let position = start;
    for (;;) {
      while (position < end && buffer[position] === SPACE) position++;
      if (position === end) return this.#incomplete(count);
      if (buffer[position] === NEWLINE) break;
      const fieldStart = position;
      do position++;
      while (position < end && buffer[position] !== SPACE && buffer[position] !== NEWLINE);
      if (position === end) return this.#incomplete(count);
      this.#starts[count] = fieldStart;
      this.#ends[count] = position;
      count++;
    }
    this.endsInReturn = position > start && buffer[position - 1] === RETURN;
    if (this.endsInReturn) {
      // A \r directly before the \n belongs to the line's end, never to its last field.
      this.#ends[count - 1] = position - 1;
      if (this.#starts[count - 1] === position - 1) count--;
    }
    this.count = count;
    return position + 1;
  }

  is(index: number, buffer: Buffer, text: string): boolean {
    if (this.length(index) !== text.length) return false;
    return startsWith(buffer, this.start(index), this.end(index), text);
  }

  #incomplete(count: number): number {
    this.count = count;
    return -1;
  }
}

export function startsWith(buffer: Buffer, start: number, end: number, text: string): boolean {
  if (end - start < text.length) return false;
  for (let i = 0; i < text.length; i++) {
    if (buffer[start + i] !== text.charCodeAt(i)) return false;
  }
  return true;
}

/** Returns the position of the first byte that is not a space. */
export function skipSpaces(buffer: Buffer, start: number, end: number): number {
  let position = start;
  while (position < end && buffer[position] === SPACE) position++;
  return position;
}

export function hasNewline(buffer: Buffer, start: number, end: number): boolean {
  const found = buffer.indexOf(NEWLINE, start);
  return found !== -1 && found < end;
}

const ZERO = 0x30;
const PLUS = 0x2b;
const MINUS = 0x2d;
const TWO_TO_32 = 0x1_0000_0000;
/** Every number with at most this many digits is exact as a double. */
const SAFE_DIGITS = 15;

/** Reads an optional `+` and decimal digits. Returns 0 to 2^32 - 1, or -1 if the bytes are not such a number. */
export function readUint32(buffer: Buffer, start: number, end: number): number {
  const first = buffer[start] === PLUS ? start + 1 : start;
  if (first === end) return -1;
  let value = 0;
  for (let i = first; i < end; i++) {
    const digit = (buffer[i] ?? 0) - ZERO;
    if (digit < 0 || digit > 9) return -1;
    value = value * 10 + digit;
    if (value >= TWO_TO_32) return -1;
  }
  return value;
}

/** An unsigned 64-bit number as two halves, because a double can't represent all of them. */
export class Uint64Field {
  high = 0;
  low = 0;

  /**
   * Reads an optional `+` and decimal digits. Returns false if they are not a number below 2^64; the halves are then
   * undefined.
   */
  read(buffer: Buffer, start: number, end: number): boolean {
    const first = buffer[start] === PLUS ? start + 1 : start;
    if (first === end) return false;
    if (end - first > SAFE_DIGITS) return this.#readLong(buffer, first, end);
    let value = 0;
    for (let i = first; i < end; i++) {
      const digit = (buffer[i] ?? 0) - ZERO;
      if (digit < 0 || digit > 9) return false;
      value = value * 10 + digit;
    }
    this.high = Math.floor(value / TWO_TO_32);
    this.low = value >>> 0;
    return true;
  }

  #readLong(buffer: Buffer, start: number, end: number): boolean {
    let high = 0;
    let low = 0;
    for (let i = start; i < end; i++) {
      const digit = (buffer[i] ?? 0) - ZERO;
      if (digit < 0 || digit > 9) return false;
      low = low * 10 + digit;
      high = high * 10 + Math.floor(low / TWO_TO_32);
      low %= TWO_TO_32;
      if (high >= TWO_TO_32) return false;
    }
    this.high = high;
    this.low = low;
    return true;
  }
}

const scratch = new Uint64Field();

/**
 * Reads a number of seconds: an optional sign and decimal digits. Returns NaN if the bytes are not a signed 64-bit
 * number. A number of 2^53 or more (285 million years) is returned as 2^53 - 1.
 */
export function readSeconds(buffer: Buffer, start: number, end: number): number {
  const negative = buffer[start] === MINUS;
  const first = negative ? start + 1 : start;
  if (negative && buffer[first] === PLUS) return Number.NaN;
  if (!scratch.read(buffer, first, end) || scratch.high >= 0x8000_0000) return Number.NaN;
  const value = Math.min(scratch.high * TWO_TO_32 + scratch.low, Number.MAX_SAFE_INTEGER);
  return negative ? -value : value;
}
