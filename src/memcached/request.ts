import { MetaFlags } from './meta-flags.ts';
import { BAD_DATA_CHUNK, NOTHING } from './replies.ts';
import { readSeconds, Tokens, Uint64Field } from './tokens.ts';

/** The kind of a request, after the parser has decided everything that depends on its text alone. */
export const Command = {
  /** The request needs no store: `RequestParser.reply` is the whole reply (errors, VERSION, MN, …). */
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
  /**
   * A `set` of an item that is too large: as in memcached, the old item must be deleted, and the reply is
   * OBJECT_TOO_LARGE.
   */
  setTooLarge: 16,
  /** `RequestParser.subject` says which statistics. */
  stats: 17,
  /** `lru_crawler metadump` */
  listKeys: 18,
  /** Close the connection after the earlier replies. */
  quit: 19,
  /** The client doesn't speak this protocol: close the connection without a reply to this request. */
  hangUp: 20,
  /**
   * mg without T. It may still have to write, for example to make an item. `RequestParser.meta` has the flags of meta
   * commands.
   */
  metaGet: 21,
  /** mg with T. */
  metaTouch: 22,
  metaSet: 23,
  metaDelete: 24,
  metaArithmetic: 25,
  /** me. */
  metaDebug: 26,
  /** An ms of an item that is too large; like setTooLarge. */
  metaSetTooLarge: 27,
  /** From now on the connection receives the changes that the node applies, and its requests are not read any more. */
  watch: 28,
} as const;
export type Command = (typeof Command)[keyof typeof Command];

/** The length of the longest key: memcached's limit. */
const KEY_BYTES_MAX = 250;
/**
 * The largest value length that memcached accepts in a command line: with its line end it fits a signed 32-bit number.
 */
export const VALUE_LENGTH_MAX = 2_147_483_645;
/**
 * The bytes that are added to key and value for the size of an item. memcached counts its item header (48), cas unique
 * (8), key terminator (1) and line end (2).
 */
export const ITEM_OVERHEAD_BYTES = 59;
const NEWLINE = 0x0a;
const RETURN = 0x0d;

export interface ParserLimits {
  /** The size of the largest item: key, value and ITEM_OVERHEAD_BYTES. */
  readonly itemBytesMax: number;
  /**
   * The length of the longest `get` or `gets` line. memcached has no limit, but a line is in memory until it is
   * complete.
   */
  readonly multiGetLineBytesMax: number;
}

/**
 * The fields of one request, and the parsing steps that several commands share. A step that completes the request
 * returns the number of bytes of the request.
 */
export class Request {
  command: Command = Command.reply;
  /** For Command.reply: the reply; empty if noreply suppressed it. */
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
  /** For get, gets, gat and gats: the number of keys, whose ranges `keyStartAt` and `keyEndAt` return. */
  keyCount = 0;
  /** For meta commands: their flags. */
  readonly meta = new MetaFlags();
  /**
   * For meta commands with an encoded key: the decoded key, which `keyStart` and `keyEnd` then refer to. Otherwise
   * null.
   */
  decodedKey: Buffer | null = null;
  /** For stats: the rest of the line, for example `detail on`. */
  subject = '';
  /** The length of the data block, without its line end, that must be skipped after this request; -1 for none. */
  swallowBytes = -1;
  /** Whether the block to be skipped may end in a bare `\n`. */
  swallowBareNewline = false;
  /** After `parse` returned 0: the length of the whole request, or 0 if its line is incomplete. */
  needBytes = 0;
  /** After `parse` returned 0: the number of bytes that contain no line end; 0 if the line is complete. */
  scannedBytes = 0;

  readonly tokens = new Tokens();
  /** For get, gets, gat and gats: the index of the first key in `tokens`. */
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

  /** Ends a request that the server must execute. */
  complete(command: Command, consumed: number): number {
    this.command = command;
    return consumed;
  }

  /** Ends a request to which the parser itself replies. */
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

  /**
   * Reads the data block of a request. It ends in `\r\n`, or in a bare `\n` if the command line did.
   * @param bytes the length of the value
   * @param start where the request begins
   * @param next where the block begins
   * @param end where the received bytes end
   * @returns the length of the request, or 0 if it is incomplete
   */
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

  /** Ends a request whose data block of `bytes` must be skipped. */
  swallow(command: Command, bytes: number, consumed: number): number {
    this.swallowBytes = bytes;
    this.swallowBareNewline = !this.tokens.endsInReturn;
    return this.complete(command, consumed);
  }

  /** Ends a request with an error reply; its data block of `bytes` must be skipped. */
  refuseBlock(reply: Buffer, bytes: number, consumed: number): number {
    this.reply = this.noreply ? NOTHING : reply;
    return this.swallow(Command.reply, bytes, consumed);
  }

  itemBytes(valueBytes: number): number {
    return this.keyEnd - this.keyStart + valueBytes + ITEM_OVERHEAD_BYTES;
  }
}

/**
 * Skips the data block of a refused request without keeping it in memory. Otherwise the block would be parsed as
 * further requests, each with a reply of its own.
 */
export class SwallowedBlock {
  /** The number of bytes of the value that are still to come. */
  #bytes: number;
  /**
   * The number of bytes of the line end that are still to come; -1 while it is unknown whether it is `\r\n` or `\n`.
   */
  #endBytes: number;

  constructor(bytes: number, bareNewline: boolean) {
    this.#bytes = bytes;
    this.#endBytes = bareNewline ? -1 : 2;
  }

  get done(): boolean {
    return this.#bytes === 0 && this.#endBytes === 0;
  }

  /** Skips bytes of the block. Returns how many of the range belong to it. */
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
