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

/**
 * The flags of a meta command: one letter each, some with an argument directly behind it. Any letter is taken by any
 * command, as in memcached, and without effect where it has no meaning.
 */

/** memcached's own limit, counting the command, the key and the line's end. */
const FIELDS_MAX = 20;
/** `O` and 31 bytes of the client's. */
const OPAQUE_BYTES_MAX = 32;
const UPPER_A = 0x41;
const LOWER_A = 0x61;
const UPPER_O = 0x4f;
const LETTERS = 26;
/** memcached takes any byte above for a duplicate. */
const ASCII_MAX = 126;
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/** memcached names the last of several mistakes in arguments, but the first wrong letter. */
const KNOWN = bitsOf('bkstcfvhluqx', LOWER_A);
const KNOWN_UPPER = bitsOf('NTRLPOFCEMJDI', UPPER_A);

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
  /** D; 1 where it is not given. */
  readonly delta = new Uint64Field();
  /** The letter behind M; empty where M is not given, and ` ` where nothing follows it. */
  mode = '';
  /** R stands before T. */
  recacheFirst = false;
  /** N stands behind T. */
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

  /** The flags as in the line, one character per byte; empty if there are none. */
  text(buffer: Buffer): string {
    return this.#first === this.#end ? '' : buffer.toString('latin1', this.#first, this.#end);
  }

  /** Reads the fields from `from` on. Returns the mistake in them, or null. */
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

/** The key that the base64 text of the range stands for; null where it is not such a text. */
export function decodeKey(buffer: Buffer, start: number, end: number): Buffer | null {
  const text = buffer.toString('latin1', start, end);
  return BASE64.test(text) ? Buffer.from(text, 'base64') : null;
}

function bitsOf(letters: string, base: number): number {
  let bits = 0;
  for (let i = 0; i < letters.length; i++) bits |= 1 << (letters.charCodeAt(i) - base);
  return bits;
}
