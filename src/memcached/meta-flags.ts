import {
  BAD_INITIAL,
  BAD_LINE,
  BAD_META_DELTA,
  BAD_TOKEN,
  DUPLICATE_FLAG,
  INVALID_FLAG,
  OPAQUE_TOO_LONG,
  TOO_MANY_FLAGS,
} from './replies.ts';
import { readSeconds, readUint32, type Tokens, Uint64Field } from './tokens.ts';

/** memcached's limit on the fields of a line, including the command, the key and the line end. */
const FIELDS_MAX = 20;
/** memcached's limit on the opaque token, including its `O`. */
const OPAQUE_BYTES_MAX = 32;
const UPPER_A = 0x41;
const LOWER_A = 0x61;
const UPPER_O = 0x4f;
const LETTERS = 26;
/** memcached reports a flag byte above this one as a duplicate flag. */
const ASCII_MAX = 126;
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/** The letters that memcached knows. */
const KNOWN = bitsOf('bkstcfvhluqx', LOWER_A);
const KNOWN_UPPER = bitsOf('NTRLPOFCEMJDI', UPPER_A);

/**
 * The flags of a meta command: one letter each, some of them directly followed by an argument. As in memcached, every
 * command accepts all letters, and ignores those that have no meaning for it.
 */
export class MetaFlags {
  /** T */
  exptimeSeconds = 0;
  /** N */
  vivifySeconds = 0;
  /** R */
  recacheSeconds = 0;
  /** F */
  clientFlags = 0;
  /** C */
  readonly cas = new Uint64Field();
  /** E */
  readonly newCas = new Uint64Field();
  /** J */
  readonly initial = new Uint64Field();
  /** D; 1 by default. */
  readonly delta = new Uint64Field();
  /** The letter after M; empty without M, and ` ` if nothing follows M. */
  mode = '';
  /** True if R comes before T. */
  recacheFirst = false;
  /** True if N comes after T. */
  vivifyLast = false;
  #lower = 0;
  #upper = 0;
  #end = 0;
  #first = 0;

  has(letter: string): boolean {
    return this.hasCode(letter.charCodeAt(0));
  }

  hasCode(code: number): boolean {
    return code >= LOWER_A
      ? (this.#lower & (1 << (code - LOWER_A))) !== 0
      : (this.#upper & (1 << (code - UPPER_A))) !== 0;
  }

  /** Returns the flags as they are in the line, one character per byte; empty if there are none. */
  text(buffer: Buffer): string {
    return this.#first === this.#end ? '' : buffer.toString('latin1', this.#first, this.#end);
  }

  /**
   * Reads the flags, which begin at field `from`. Returns the error reply, or null if all are valid. As in memcached,
   * the first wrong letter is reported, or else the last wrong argument, or else an opaque token that is too long.
   */
  read(tokens: Tokens, buffer: Buffer, from: number): Buffer | null {
    if (tokens.count + 1 > FIELDS_MAX) return TOO_MANY_FLAGS;
    this.#reset();
    this.#first = tokens.count > from ? tokens.start(from) : 0;
    this.#end = tokens.count > from ? tokens.end(tokens.count - 1) : 0;
    let error: Buffer | null = null;
    let opaqueFits = true;
    for (let i = from; i < tokens.count; i++) {
      const start = tokens.start(i);
      const code = buffer[start] ?? 0;
      if (code > ASCII_MAX) return DUPLICATE_FLAG;
      const isLower = code >= LOWER_A && code < LOWER_A + LETTERS;
      const isUpper = code >= UPPER_A && code < UPPER_A + LETTERS;
      if (!isLower && !isUpper) return INVALID_FLAG;
      if (this.hasCode(code)) return DUPLICATE_FLAG;
      const bit = 1 << (code - (isLower ? LOWER_A : UPPER_A));
      if (((isLower ? KNOWN : KNOWN_UPPER) & bit) === 0) return INVALID_FLAG;
      if (isLower) {
        this.#lower |= bit;
        continue;
      }
      this.#upper |= bit;
      if (code === UPPER_O) {
        opaqueFits = tokens.length(i) <= OPAQUE_BYTES_MAX;
      } else {
        error = this.#argument(code, buffer, start + 1, tokens.end(i)) ?? error;
      }
    }
    if (error !== null) return error;
    return opaqueFits ? null : OPAQUE_TOO_LONG;
  }

  #reset(): void {
    this.#lower = 0;
    this.#upper = 0;
    this.recacheFirst = false;
    this.vivifyLast = false;
    this.exptimeSeconds = 0;
    this.vivifySeconds = 0;
    this.recacheSeconds = 0;
    this.clientFlags = 0;
    this.mode = '';
    this.delta.high = 0;
    this.delta.low = 1;
    this.initial.high = 0;
    this.initial.low = 0;
  }

  #argument(code: number, buffer: Buffer, start: number, end: number): Buffer | null {
    switch (String.fromCharCode(code)) {
      case 'T':
        if (this.has('R')) this.recacheFirst = true;
        this.exptimeSeconds = readSeconds(buffer, start, end);
        return Number.isNaN(this.exptimeSeconds) ? BAD_TOKEN : null;
      case 'N':
        if (this.has('T')) this.vivifyLast = true;
        this.vivifySeconds = readSeconds(buffer, start, end);
        return Number.isNaN(this.vivifySeconds) ? BAD_TOKEN : null;
      case 'R':
        this.recacheSeconds = readSeconds(buffer, start, end);
        return Number.isNaN(this.recacheSeconds) ? BAD_TOKEN : null;
      case 'F':
        this.clientFlags = readUint32(buffer, start, end);
        return this.clientFlags < 0 ? BAD_LINE : null;
      case 'C':
        return this.cas.read(buffer, start, end) ? null : BAD_TOKEN;
      case 'E':
        return this.newCas.read(buffer, start, end) ? null : BAD_TOKEN;
      case 'J':
        return this.initial.read(buffer, start, end) ? null : BAD_INITIAL;
      case 'D':
        return this.delta.read(buffer, start, end) ? null : BAD_META_DELTA;
      case 'M':
        this.mode = start < end ? String.fromCharCode(buffer[start] ?? 0) : ' ';
        return null;
      default:
        return null;
    }
  }
}

/** Decodes a base64 key. Returns null if the range is not valid base64. */
export function decodeKey(buffer: Buffer, start: number, end: number): Buffer | null {
  const text = buffer.toString('latin1', start, end);
  return BASE64.test(text) ? Buffer.from(text, 'base64') : null;
}

function bitsOf(letters: string, base: number): number {
  let bits = 0;
  for (let i = 0; i < letters.length; i++) bits |= 1 << (letters.charCodeAt(i) - base);
  return bits;
}
