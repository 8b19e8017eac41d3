import { MetaFlags } from './meta-flags.ts';
import { BAD_DATA_CHUNK, NOTHING } from './replies.ts';
import { readSeconds, Tokens, Uint64Field } from './tokens.ts';

/** The request, after the parser has dealt with everything that its text alone decides. */
export const Command = {
  /** Needs no store: `RequestParser.reply` is the whole answer (errors, VERSION, MN, …). */
  reply: 0,
  set: 1,
  add: 2,
  replace: 3,
  append: 4,
  prepend: 5,
  cas: 6,
  delete: 7,
  incr: 8,
  decr: 9,
  touch: 10,
  gat: 11,
  gats: 12,
  flushAll: 13,
  get: 14,
  gets: 15,
  /** `set` of more than an item may hold: the old value has to go, and the answer is OBJECT_TOO_LARGE. */
  setTooLarge: 16,
  /** `RequestParser.subject` says which. */
  stats: 17,
  listKeys: 18,
  /** Close after the earlier replies. */
  quit: 19,
  /** Not a client of ours: close without a word. */
  hangUp: 20,
  /** The meta commands: `RequestParser.meta` holds what they ask. mg without T may have to write all the same. */
  metaGet: 21,
  /** mg with T. */
  metaTouch: 22,
  metaSet: 23,
  metaDelete: 24,
  metaArithmetic: 25,
  /** me */
  metaDebug: 26,
  /** ms of more than an item may hold: as setTooLarge. */
  metaSetTooLarge: 27,
  /** From now on the connection receives the changes that the node applies. Its requests are not read any more. */
  watch: 28,
} as const;
export type Command = (typeof Command)[keyof typeof Command];

/** memcached's own limit. */
const KEY_BYTES_MAX = 250;
/** The largest length that memcached takes for one: with its line end it fits a signed 32-bit number. */
export const VALUE_LENGTH_MAX = 2_147_483_645;
/** memcached counts an item's header (48 bytes), cas unique (8), key terminator (1) and line end (2) into its size. */
export const ITEM_OVERHEAD_BYTES = 59;
const NEWLINE = 0x0a;
const RETURN = 0x0d;

export interface ParserLimits {
  /** The largest item: key, value and ITEM_OVERHEAD_BYTES. */
  readonly itemBytesMax: number;
  /** The longest line of `get` and `gets`. memcached has no limit; a quarter million keys is one. */
  readonly multiGetLineBytesMax: number;
}

/**
 * The fields of one request, and the steps in which the lines of all commands are read. A step that completes the
 * request returns how many bytes it takes.
 */
export class Request {
  command: Command = Command.reply;
  /** For Command.reply: the answer, empty where noreply suppressed it. */
  reply: Buffer = NOTHING;
  noreply = false;
  keyStart = 0;
  keyEnd = 0;
  flags = 0;
  exptimeSeconds = 0;
  valueStart = 0;
  valueEnd = 0;
  /** A cas unique, a delta or the delay of flush_all. */
  argHigh = 0;
  argLow = 0;
  /** For get, gets, gat and gats: how many keys `keyStartAt` and `keyEndAt` know. */
  keyCount = 0;
  /** For meta commands. */
  readonly meta = new MetaFlags();
  /** For meta commands: the bytes that `keyStart` and `keyEnd` mean, where not those that were parsed. */
  decodedKey: Buffer | null = null;
  /** For stats: the rest of the line, as in `detail on`. */
  subject = '';
  /** The bytes of a data block to be swallowed behind this request; -1 for none. */
  swallowBytes = -1;
  /** Whether that block may end with a line feed alone. */
  swallowBareNewline = false;
  /** After `parse` returned 0: how long the whole request is, or 0 where its line is not complete. */
  needBytes = 0;
  /** After `parse` returned 0: how many bytes need no second search for the line's end; 0 where the line is complete. */
  scannedBytes = 0;

  /** The fields of the line. */
  readonly tokens = new Tokens();
  /** Which of them is the first key, where there may be many. */
  firstKey = 0;
  readonly limits: ParserLimits;
  readonly #arg = new Uint64Field();

  constructor(limits: ParserLimits) {
    this.limits = limits;
  }

  keyStartAt(index: number): number {
    return this.tokens.start(this.firstKey + index);
  }

  keyEndAt(index: number): number {
    return this.tokens.end(this.firstKey + index);
  }

  /** The request is whole and has no answer yet. */
  complete(command: Command, consumed: number): number {
    this.command = command;
    return consumed;
  }

  /** The request is answered by its text alone. */
  answer(reply: Buffer, consumed: number): number {
    this.command = Command.reply;
    this.reply = this.noreply ? NOTHING : reply;
    return consumed;
  }

  keysFit(): boolean {
    for (let i = this.firstKey; i < this.tokens.count; i++) {
      if (this.tokens.length(i) > KEY_BYTES_MAX) return false;
    }
    return true;
  }

  readKey(): boolean {
    this.keyStart = this.tokens.start(1);
    this.keyEnd = this.tokens.end(1);
    return this.keyEnd - this.keyStart <= KEY_BYTES_MAX;
  }

  readExptime(buffer: Buffer, index: number): boolean {
    this.exptimeSeconds = readSeconds(buffer, this.tokens.start(index), this.tokens.end(index));
    return !Number.isNaN(this.exptimeSeconds);
  }

  readArg(buffer: Buffer, index: number): boolean {
    const valid = this.#arg.read(buffer, this.tokens.start(index), this.tokens.end(index));
    this.argHigh = this.#arg.high;
    this.argLow = this.#arg.low;
    return valid;
  }

  readNoreply(buffer: Buffer): void {
    this.noreply = this.tokens.is(this.tokens.count - 1, buffer, 'noreply');
  }

  /** The end of the block takes \r\n, or a bare newline where the command line had one. */
  readBlock(command: Command, bytes: number, buffer: Buffer, start: number, next: number, end: number): number {
    const bare = !this.tokens.endsInReturn;
    const valueEnd = next + bytes;
    const shortEnd = bare && buffer[valueEnd] === NEWLINE && valueEnd < end;
    const blockEnd = valueEnd + (shortEnd ? 1 : 2);
    if (blockEnd > end) {
      this.needBytes = (bare && valueEnd >= end ? valueEnd + 1 : blockEnd) - start;
      return 0;
    }
    if (!shortEnd && (buffer[valueEnd] !== RETURN || buffer[valueEnd + 1] !== NEWLINE)) {
      return this.answer(BAD_DATA_CHUNK, blockEnd - start);
    }
    this.valueStart = next;
    this.valueEnd = valueEnd;
    return this.complete(command, blockEnd - start);
  }

  /** For a command that was read, whose block of `bytes` is not to be kept. */
  swallow(command: Command, bytes: number, consumed: number): number {
    this.swallowBytes = bytes;
    this.swallowBareNewline = !this.tokens.endsInReturn;
    return this.complete(command, consumed);
  }

  refuseBlock(reply: Buffer, bytes: number, consumed: number): number {
    this.reply = this.noreply ? NOTHING : reply;
    return this.swallow(Command.reply, bytes, consumed);
  }

  itemBytes(valueBytes: number): number {
    return this.keyEnd - this.keyStart + valueBytes + ITEM_OVERHEAD_BYTES;
  }
}

/**
 * The data block of a refused request: taken off the stream without being kept. One request gets one reply, however
 * large its block and however it is split.
 */
export class SwallowedBlock {
  /** The length of the value, without its line end. */
  #bytes: number;
  /** The line end still to come: two bytes, or for a command line with a bare `\n` perhaps one. -1: not known yet. */
  #endBytes: number;

  constructor(bytes: number, bareNewline: boolean) {
    this.#bytes = bytes;
    this.#endBytes = bareNewline ? -1 : 2;
  }

  get done(): boolean {
    return this.#bytes === 0 && this.#endBytes === 0;
  }

  /** Returns how many bytes of the range belong to the block. */
  take(buffer: Buffer, start: number, end: number): number {
    let position = start + Math.min(this.#bytes, end - start);
    this.#bytes -= position - start;
    if (this.#bytes > 0 || position === end) return position - start;
    if (this.#endBytes === -1) this.#endBytes = buffer[position] === NEWLINE ? 1 : 2;
    const taken = Math.min(this.#endBytes, end - position);
    this.#endBytes -= taken;
    position += taken;
    return position - start;
  }
}
