import { Command } from './commands.ts';
import { decodeKey, MetaFlags } from './meta-flags.ts';
import {
  BAD_ARITHMETIC_MODE,
  BAD_CLASS,
  BAD_DATA_CHUNK,
  BAD_DELETE,
  BAD_DELTA,
  BAD_EXPTIME,
  BAD_KEY_ENCODING,
  BAD_LINE,
  BAD_SET_MODE,
  ERROR,
  META_NOOP,
  NOTHING,
  OBJECT_TOO_LARGE,
  OK,
  OPAQUE_TOO_LONG,
  SHUTDOWN_REFUSED,
  VERSION,
} from './replies.ts';
import { hasNewline, readSeconds, readUint32, skipSpaces, startsWith, Tokens, Uint64Field } from './tokens.ts';

/**
 * memcached's text protocol, as pure functions of bytes.
 *
 *   socket bytes ──▶ RequestParser.parse ──▶ fields of one request (ranges into the same bytes) ──▶ the server
 *                         └ needs more ──▶ `needBytes`                                              │
 *   socket bytes ◀── Output ◀── replies.ts, values.ts, stats.ts ◀───────────── results ─────────────┘
 *
 * The room promises: nothing is copied or allocated per request; no input makes the parser throw or stall; the same
 * bytes give the same requests however they are split. It decides everything that the text alone decides, errors
 * included; what needs the store is left to the caller.
 */

/** memcached's own limit. */
const KEY_BYTES_MAX = 250;
/** The largest length that memcached takes for one: with its line end it fits a signed 32-bit number. */
const VALUE_LENGTH_MAX = 2_147_483_645;
/** A line that is longer, and no multi-get, is not our protocol. */
export const LINE_BYTES_MAX = 2048;
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

/** Holds the fields of the request that `parse` last returned; they are valid until its next call. */
export class RequestParser {
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
  /** That block may end in a bare newline. */
  swallowBareNewline = false;
  /** After `parse` returned 0: how long the whole request is, or 0 where its line is not complete. */
  needBytes = 0;
  /** After `parse` returned 0: how many bytes need no second search for the line's end; 0 where the line is complete. */
  scannedBytes = 0;

  readonly #limits: ParserLimits;
  readonly #tokens = new Tokens();
  readonly #arg = new Uint64Field();
  #firstKey = 0;

  constructor(limits: ParserLimits) {
    this.#limits = limits;
  }

  keyStartAt(index: number): number {
    return this.#tokens.start(this.#firstKey + index);
  }

  keyEndAt(index: number): number {
    return this.#tokens.end(this.#firstKey + index);
  }

  /**
   * Parses the request that begins at `start`. Returns how many bytes it takes, or 0 where more are needed. `scanned`
   * is the `scannedBytes` of the last attempt at this request, 0 at the first.
   */
  parse(buffer: Buffer, start: number, end: number, scanned: number): number {
    this.needBytes = 0;
    this.scannedBytes = 0;
    if (scanned > 0 && !hasNewline(buffer, start + scanned, end)) return this.#lineIncomplete(buffer, start, end);
    const next = this.#tokens.split(buffer, start, end);
    if (next === -1) return this.#lineIncomplete(buffer, start, end);
    if (next - 1 - start > LINE_BYTES_MAX && this.#isTooLong(buffer, start, next - 1)) return this.#hangUp(end - start);
    this.noreply = false;
    this.swallowBytes = -1;
    return this.#command(buffer, start, next, end);
  }

  #lineIncomplete(buffer: Buffer, start: number, end: number): number {
    if (end - start > LINE_BYTES_MAX && this.#isTooLong(buffer, start, end)) return this.#hangUp(end - start);
    this.scannedBytes = end - start;
    return 0;
  }

  #isTooLong(buffer: Buffer, start: number, end: number): boolean {
    const first = skipSpaces(buffer, start, end);
    const multiGet = startsWith(buffer, first, end, 'get ') || startsWith(buffer, first, end, 'gets ');
    return !multiGet || end - start > this.#limits.multiGetLineBytesMax;
  }

  #hangUp(consumed: number): number {
    this.command = Command.hangUp;
    this.swallowBytes = -1;
    return consumed;
  }

  /** `next` is where the line has ended: what a request without a data block takes. */
  #command(buffer: Buffer, start: number, next: number, end: number): number {
    const tokens = this.#tokens;
    const consumed = next - start;
    switch (tokens.count === 0 ? 0 : tokens.length(0)) {
      case 2:
        if (tokens.is(0, buffer, 'mg')) return this.#metaGet(buffer, consumed);
        if (tokens.is(0, buffer, 'ms')) return this.#metaSet(buffer, start, next, end);
        if (tokens.is(0, buffer, 'md')) return this.#metaOther(Command.metaDelete, buffer, consumed);
        if (tokens.is(0, buffer, 'ma')) return this.#metaOther(Command.metaArithmetic, buffer, consumed);
        if (tokens.is(0, buffer, 'me')) return this.#metaDebug(buffer, consumed);
        if (tokens.is(0, buffer, 'mn')) return this.#answer(META_NOOP, consumed);
        break;
      case 3:
        if (tokens.is(0, buffer, 'get')) return this.#get(Command.get, consumed);
        if (tokens.is(0, buffer, 'set')) return this.#storage(Command.set, buffer, start, next, end);
        if (tokens.is(0, buffer, 'add')) return this.#storage(Command.add, buffer, start, next, end);
        if (tokens.is(0, buffer, 'cas')) return this.#storage(Command.cas, buffer, start, next, end);
        if (tokens.is(0, buffer, 'gat')) return this.#getAndTouch(Command.gat, buffer, consumed);
        break;
      case 4:
        if (tokens.is(0, buffer, 'gets')) return this.#get(Command.gets, consumed);
        if (tokens.is(0, buffer, 'incr')) return this.#arithmetic(Command.incr, buffer, consumed);
        if (tokens.is(0, buffer, 'decr')) return this.#arithmetic(Command.decr, buffer, consumed);
        if (tokens.is(0, buffer, 'gats')) return this.#getAndTouch(Command.gats, buffer, consumed);
        if (tokens.is(0, buffer, 'quit')) return this.#plain(Command.quit, consumed);
        break;
      case 5:
        if (tokens.is(0, buffer, 'touch')) return this.#touch(buffer, consumed);
        if (tokens.is(0, buffer, 'stats')) return this.#stats(buffer, consumed);
        if (tokens.is(0, buffer, 'watch')) return this.#watch(buffer, consumed);
        break;
      case 6:
        if (tokens.is(0, buffer, 'delete')) return this.#delete(buffer, consumed);
        if (tokens.is(0, buffer, 'append')) return this.#storage(Command.append, buffer, start, next, end);
        break;
      case 7:
        if (tokens.is(0, buffer, 'replace')) return this.#storage(Command.replace, buffer, start, next, end);
        if (tokens.is(0, buffer, 'prepend')) return this.#storage(Command.prepend, buffer, start, next, end);
        if (tokens.is(0, buffer, 'version')) return this.#answer(VERSION, consumed);
        break;
      case 8:
        if (tokens.is(0, buffer, 'shutdown')) return this.#answer(SHUTDOWN_REFUSED, consumed);
        break;
      case 9:
        if (tokens.is(0, buffer, 'flush_all')) return this.#flushAll(buffer, consumed);
        if (tokens.is(0, buffer, 'verbosity')) return this.#verbosity(buffer, consumed);
        break;
      case 11:
        if (tokens.is(0, buffer, 'lru_crawler')) return this.#crawler(buffer, consumed);
        break;
    }
    return this.#unknown(buffer, consumed);
  }

  #plain(command: Command, consumed: number): number {
    this.command = command;
    return consumed;
  }

  #answer(reply: Buffer, consumed: number): number {
    this.command = Command.reply;
    this.reply = this.noreply ? NOTHING : reply;
    return consumed;
  }

  #unknown(buffer: Buffer, consumed: number): number {
    const last = this.#tokens.count - 1;
    const http = last >= 0 && startsWith(buffer, this.#tokens.start(last), this.#tokens.end(last), 'HTTP/');
    return http ? this.#hangUp(consumed) : this.#answer(ERROR, consumed);
  }

  #get(command: Command, consumed: number): number {
    this.#firstKey = 1;
    this.keyCount = this.#tokens.count - 1;
    if (this.keyCount === 0) return this.#answer(ERROR, consumed);
    if (!this.#keysFit()) return this.#answer(BAD_LINE, consumed);
    return this.#plain(command, consumed);
  }

  #getAndTouch(command: Command, buffer: Buffer, consumed: number): number {
    this.#firstKey = 2;
    this.keyCount = this.#tokens.count - 2;
    if (this.keyCount < 1) return this.#answer(ERROR, consumed);
    if (!this.#readExptime(buffer, 1)) return this.#answer(BAD_EXPTIME, consumed);
    if (!this.#keysFit()) return this.#answer(BAD_LINE, consumed);
    return this.#plain(command, consumed);
  }

  #keysFit(): boolean {
    for (let i = this.#firstKey; i < this.#tokens.count; i++) {
      if (this.#tokens.length(i) > KEY_BYTES_MAX) return false;
    }
    return true;
  }

  #storage(command: Command, buffer: Buffer, start: number, next: number, end: number): number {
    const tokens = this.#tokens;
    const fields = command === Command.cas ? 6 : 5;
    if (tokens.count !== fields && tokens.count !== fields + 1) return this.#answer(ERROR, next - start);
    this.#readNoreply(buffer);
    const bytes = readUint32(buffer, tokens.start(4), tokens.end(4));
    if (bytes < 0 || bytes > VALUE_LENGTH_MAX) return this.#answer(BAD_LINE, next - start);
    if (!this.#readStorageFields(command, buffer)) return this.#refuseBlock(BAD_LINE, bytes, next - start);
    if (this.#itemBytes(bytes) > this.#limits.itemBytesMax) return this.#tooLarge(command, bytes, next - start);

    return this.#block(command, bytes, buffer, start, next, end);
  }

  /** The end of the block takes \r\n, or a bare newline where the command line had one. */
  #block(command: Command, bytes: number, buffer: Buffer, start: number, next: number, end: number): number {
    const bare = !this.#tokens.endsInReturn;
    const valueEnd = next + bytes;
    const shortEnd = bare && buffer[valueEnd] === NEWLINE && valueEnd < end;
    const blockEnd = valueEnd + (shortEnd ? 1 : 2);
    if (blockEnd > end) {
      this.needBytes = (bare && valueEnd >= end ? valueEnd + 1 : blockEnd) - start;
      return 0;
    }
    if (!shortEnd && (buffer[valueEnd] !== RETURN || buffer[valueEnd + 1] !== NEWLINE)) {
      return this.#answer(BAD_DATA_CHUNK, blockEnd - start);
    }
    this.valueStart = next;
    this.valueEnd = valueEnd;
    return this.#plain(command, blockEnd - start);
  }

  #readStorageFields(command: Command, buffer: Buffer): boolean {
    const tokens = this.#tokens;
    if (!this.#readKey()) return false;
    this.flags = readUint32(buffer, tokens.start(2), tokens.end(2));
    if (this.flags < 0 || !this.#readExptime(buffer, 3)) return false;
    if (command === Command.cas) return this.#readArg(buffer, 5);
    return true;
  }

  #itemBytes(valueBytes: number): number {
    return this.keyEnd - this.keyStart + valueBytes + ITEM_OVERHEAD_BYTES;
  }

  #tooLarge(command: Command, bytes: number, consumed: number): number {
    if (command !== Command.set) return this.#refuseBlock(OBJECT_TOO_LARGE, bytes, consumed);
    this.swallowBytes = bytes;
    this.swallowBareNewline = !this.#tokens.endsInReturn;
    return this.#plain(Command.setTooLarge, consumed);
  }

  #refuseBlock(reply: Buffer, bytes: number, consumed: number): number {
    this.swallowBytes = bytes;
    this.swallowBareNewline = !this.#tokens.endsInReturn;
    return this.#answer(reply, consumed);
  }

  #metaGet(buffer: Buffer, consumed: number): number {
    const error = this.#metaLine(buffer, 2);
    if (error !== null) return this.#answer(error, consumed);
    return this.#plain(this.meta.has('T') ? Command.metaTouch : Command.metaGet, consumed);
  }

  #metaOther(command: Command, buffer: Buffer, consumed: number): number {
    const error = this.#metaLine(buffer, 2);
    const isCount = command === Command.metaArithmetic;
    // As in memcached, a wrong mode is found before an opaque that is too long.
    const modeCounts = isCount && (error === null || error === OPAQUE_TOO_LONG);
    if (modeCounts && !'I+D-'.includes(this.meta.mode)) return this.#answer(BAD_ARITHMETIC_MODE, consumed);
    if (error !== null) return this.#answer(error, consumed);
    return this.#plain(command, consumed);
  }

  #metaDebug(buffer: Buffer, consumed: number): number {
    const tokens = this.#tokens;
    if (tokens.count < 2 || !this.#readKey()) return this.#answer(BAD_LINE, consumed);
    this.decodedKey = null;
    if (tokens.count > 2 && tokens.is(2, buffer, 'b') && !this.#decodeKey(buffer)) {
      return this.#answer(BAD_LINE, consumed);
    }
    return this.#plain(Command.metaDebug, consumed);
  }

  #metaSet(buffer: Buffer, start: number, next: number, end: number): number {
    const tokens = this.#tokens;
    const consumed = next - start;
    if (tokens.count < 2) return this.#answer(ERROR, consumed);
    const bytes = tokens.count < 3 ? -1 : readUint32(buffer, tokens.start(2), tokens.end(2));
    if (bytes < 0 || bytes > VALUE_LENGTH_MAX) return this.#answer(BAD_LINE, consumed);
    const error = this.#metaLine(buffer, 3);
    const modeCounts = error === null || error === OPAQUE_TOO_LONG;
    if (modeCounts && !'SEAPR'.includes(this.meta.mode)) return this.#refuseBlock(BAD_SET_MODE, bytes, consumed);
    if (error !== null) return this.#refuseBlock(error, bytes, consumed);
    if (this.#itemBytes(bytes) <= this.#limits.itemBytesMax) {
      return this.#block(Command.metaSet, bytes, buffer, start, next, end);
    }
    const replaces = (this.meta.mode === '' || this.meta.mode === 'S') && !this.meta.has('C');
    if (!replaces) return this.#refuseBlock(OBJECT_TOO_LARGE, bytes, consumed);
    this.swallowBytes = bytes;
    this.swallowBareNewline = !tokens.endsInReturn;
    return this.#plain(Command.metaSetTooLarge, consumed);
  }

  /** Key and flags, which begin at `firstFlag`. Returns what is wrong with them, or null. */
  #metaLine(buffer: Buffer, firstFlag: number): Buffer | null {
    this.decodedKey = null;
    if (this.#tokens.count < 2) return ERROR;
    if (!this.#readKey()) return BAD_LINE;
    const error = this.meta.read(this.#tokens, buffer, firstFlag);
    if ((error !== null && error !== OPAQUE_TOO_LONG) || !this.meta.has('b')) return error;
    return this.#decodeKey(buffer) ? error : BAD_KEY_ENCODING;
  }

  #decodeKey(buffer: Buffer): boolean {
    this.decodedKey = decodeKey(buffer, this.keyStart, this.keyEnd);
    if (this.decodedKey === null) return false;
    this.keyStart = 0;
    this.keyEnd = this.decodedKey.length;
    return true;
  }

  /** Strict, as memcached 1.6.18: `delete key [0] [noreply]` and nothing else. */
  #delete(buffer: Buffer, consumed: number): number {
    const tokens = this.#tokens;
    if (tokens.count < 2 || tokens.count > 4) return this.#answer(ERROR, consumed);
    if (tokens.count > 2) {
      this.#readNoreply(buffer);
      const zero = tokens.is(2, buffer, '0');
      const valid = tokens.count === 3 ? zero || this.noreply : zero && this.noreply;
      if (!valid) return this.#answer(BAD_DELETE, consumed);
    }
    if (!this.#readKey()) return this.#answer(BAD_LINE, consumed);
    return this.#plain(Command.delete, consumed);
  }

  #arithmetic(command: Command, buffer: Buffer, consumed: number): number {
    if (this.#tokens.count !== 3 && this.#tokens.count !== 4) return this.#answer(ERROR, consumed);
    this.#readNoreply(buffer);
    if (!this.#readKey()) return this.#answer(BAD_LINE, consumed);
    if (!this.#readArg(buffer, 2)) return this.#answer(BAD_DELTA, consumed);
    return this.#plain(command, consumed);
  }

  #touch(buffer: Buffer, consumed: number): number {
    if (this.#tokens.count !== 3 && this.#tokens.count !== 4) return this.#answer(ERROR, consumed);
    this.#readNoreply(buffer);
    if (!this.#readKey()) return this.#answer(BAD_LINE, consumed);
    if (!this.#readExptime(buffer, 2)) return this.#answer(BAD_EXPTIME, consumed);
    return this.#plain(Command.touch, consumed);
  }

  /** A delay of 0 or less means now, as memcached has it. */
  #flushAll(buffer: Buffer, consumed: number): number {
    const tokens = this.#tokens;
    if (tokens.count > 3) return this.#answer(ERROR, consumed);
    this.#readNoreply(buffer);
    this.argHigh = 0;
    this.argLow = 0;
    this.exptimeSeconds = 0;
    if (tokens.count > (this.noreply ? 2 : 1)) {
      if (!this.#readExptime(buffer, 1)) return this.#answer(BAD_EXPTIME, consumed);
      if (this.exptimeSeconds > 0) this.#readArg(buffer, 1);
    }
    return this.#plain(Command.flushAll, consumed);
  }

  #verbosity(buffer: Buffer, consumed: number): number {
    if (this.#tokens.count !== 2 && this.#tokens.count !== 3) return this.#answer(ERROR, consumed);
    this.#readNoreply(buffer);
    const level = readUint32(buffer, this.#tokens.start(1), this.#tokens.end(1));
    return this.#answer(level < 0 ? BAD_LINE : OK, consumed);
  }

  #stats(buffer: Buffer, consumed: number): number {
    const { count } = this.#tokens;
    this.subject = count < 2 ? '' : buffer.toString('latin1', this.#tokens.start(1), this.#tokens.end(count - 1));
    return this.#plain(Command.stats, consumed);
  }

  /** Of what memcached lets one watch only the mutations happen here; the word may stand there more than once. */
  #watch(buffer: Buffer, consumed: number): number {
    const tokens = this.#tokens;
    this.#readNoreply(buffer);
    for (let i = 1; i < tokens.count; i++) {
      if (!tokens.is(i, buffer, 'mutations')) return this.#answer(ERROR, consumed);
    }
    return tokens.count === 1 ? this.#answer(ERROR, consumed) : this.#plain(Command.watch, consumed);
  }

  /** Of memcached's crawler only the listing of keys has a meaning here; all items are of one class. */
  #crawler(buffer: Buffer, consumed: number): number {
    const tokens = this.#tokens;
    if (tokens.count !== 3 || !tokens.is(1, buffer, 'metadump')) return this.#answer(ERROR, consumed);
    if (tokens.is(2, buffer, 'all') || tokens.is(2, buffer, 'hash')) return this.#plain(Command.listKeys, consumed);
    return this.#answer(BAD_CLASS, consumed);
  }

  #readKey(): boolean {
    this.keyStart = this.#tokens.start(1);
    this.keyEnd = this.#tokens.end(1);
    return this.keyEnd - this.keyStart <= KEY_BYTES_MAX;
  }

  #readExptime(buffer: Buffer, index: number): boolean {
    this.exptimeSeconds = readSeconds(buffer, this.#tokens.start(index), this.#tokens.end(index));
    return !Number.isNaN(this.exptimeSeconds);
  }

  #readArg(buffer: Buffer, index: number): boolean {
    const valid = this.#arg.read(buffer, this.#tokens.start(index), this.#tokens.end(index));
    this.argHigh = this.#arg.high;
    this.argLow = this.#arg.low;
    return valid;
  }

  #readNoreply(buffer: Buffer): void {
    this.noreply = this.#tokens.is(this.#tokens.count - 1, buffer, 'noreply');
  }
}
