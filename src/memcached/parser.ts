import { readMetaDebug, readMetaGet, readMetaOther, readMetaSet } from './meta-lines.ts';
import {
  BAD_CLASS,
  BAD_DELETE,
  BAD_DELTA,
  BAD_EXPTIME,
  BAD_LINE,
  ERROR,
  META_NOOP,
  OBJECT_TOO_LARGE,
  OK,
  SHUTDOWN_REFUSED,
  VERSION,
} from './replies.ts';
import { Command, Request, VALUE_LENGTH_MAX } from './request.ts';
import { hasNewline, readUint32, skipSpaces, startsWith } from './tokens.ts';

/**
 * Parses memcached's text protocol and writes its replies.
 *
 * socket bytes ──▶ RequestParser.parse ──▶ fields of one request (ranges into the same bytes) ──▶ the server └
 * incomplete ──▶ `needBytes`                                              │ socket bytes ◀── Output ◀── replies.ts,
 * items.ts ◀──────────────────────── results ─────────────┘
 *
 * What this folder promises: the requests of the hot path are parsed without copies or allocations; no input makes the
 * parser throw or stall; and the same bytes give the same requests however they are split into chunks. The parser
 * decides everything that depends on the text alone, including errors. The caller does what needs the store.
 */

/**
 * The length of the longest line, except for `get` and `gets`: memcached's limit. A longer line is not this protocol.
 */
export const LINE_BYTES_MAX = 2048;

/** Its fields describe the request that `parse` found last, until the next call. */
export class RequestParser extends Request {
  /**
   * Parses the request that begins at `start`.
   * @param end where the received bytes end
   * @param scanned `scannedBytes` after the last attempt to parse this request; 0 at the first attempt
   * @returns the length of the request, without a block to be skipped (`swallowBytes`); 0 if it is incomplete
   */
  parse(buffer: Buffer, start: number, end: number, scanned: number): number {
    this.needBytes = 0;
    this.scannedBytes = 0;
    if (scanned > 0 && !hasNewline(buffer, start + scanned, end)) return this.#lineIncomplete(buffer, start, end);
    const next = this.tokens.split(buffer, start, end);
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
    return !multiGet || end - start > this.limits.multiGetLineBytesMax;
  }

  #hangUp(consumed: number): number {
    this.command = Command.hangUp;
    this.swallowBytes = -1;
    return consumed;
  }

  /** @param next the position after the line */
  #command(buffer: Buffer, start: number, next: number, end: number): number {
    const tokens = this.tokens;
    const consumed = next - start;
    switch (tokens.count === 0 ? 0 : tokens.length(0)) {
      case 2:
        if (tokens.is(0, buffer, 'mg')) return readMetaGet(this, buffer, consumed);
        if (tokens.is(0, buffer, 'ms')) return readMetaSet(this, buffer, start, next, end);
        if (tokens.is(0, buffer, 'md')) return readMetaOther(this, Command.metaDelete, buffer, consumed);
        if (tokens.is(0, buffer, 'ma')) return readMetaOther(this, Command.metaArithmetic, buffer, consumed);
        if (tokens.is(0, buffer, 'me')) return readMetaDebug(this, buffer, consumed);
        if (tokens.is(0, buffer, 'mn')) return this.answer(META_NOOP, consumed);
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
        if (tokens.is(0, buffer, 'quit')) return this.complete(Command.quit, consumed);
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
        if (tokens.is(0, buffer, 'version')) return this.answer(VERSION, consumed);
        break;
      case 8:
        if (tokens.is(0, buffer, 'shutdown')) return this.answer(SHUTDOWN_REFUSED, consumed);
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

  #unknown(buffer: Buffer, consumed: number): number {
    const last = this.tokens.count - 1;
    const http = last >= 0 && startsWith(buffer, this.tokens.start(last), this.tokens.end(last), 'HTTP/');
    return http ? this.#hangUp(consumed) : this.answer(ERROR, consumed);
  }

  #get(command: Command, consumed: number): number {
    this.firstKey = 1;
    this.keyCount = this.tokens.count - 1;
    if (this.keyCount === 0) return this.answer(ERROR, consumed);
    if (!this.keysFit()) return this.answer(BAD_LINE, consumed);
    return this.complete(command, consumed);
  }

  #getAndTouch(command: Command, buffer: Buffer, consumed: number): number {
    this.firstKey = 2;
    this.keyCount = this.tokens.count - 2;
    if (this.keyCount < 1) return this.answer(ERROR, consumed);
    if (!this.readExptime(buffer, 1)) return this.answer(BAD_EXPTIME, consumed);
    if (!this.keysFit()) return this.answer(BAD_LINE, consumed);
    return this.complete(command, consumed);
  }

  #storage(command: Command, buffer: Buffer, start: number, next: number, end: number): number {
    const tokens = this.tokens;
    const fields = command === Command.cas ? 6 : 5;
    if (tokens.count !== fields && tokens.count !== fields + 1) return this.answer(ERROR, next - start);
    this.readNoreply(buffer);
    const bytes = readUint32(buffer, tokens.start(4), tokens.end(4));
    if (bytes < 0 || bytes > VALUE_LENGTH_MAX) return this.answer(BAD_LINE, next - start);
    if (!this.#readStorageFields(command, buffer)) return this.refuseBlock(BAD_LINE, bytes, next - start);
    if (this.itemBytes(bytes) > this.limits.itemBytesMax) {
      if (command !== Command.set) return this.refuseBlock(OBJECT_TOO_LARGE, bytes, next - start);
      return this.swallow(Command.setTooLarge, bytes, next - start);
    }

    return this.readBlock(command, bytes, buffer, start, next, end);
  }

  #readStorageFields(command: Command, buffer: Buffer): boolean {
    const tokens = this.tokens;
    if (!this.readKey()) return false;
    this.flags = readUint32(buffer, tokens.start(2), tokens.end(2));
    if (this.flags < 0 || !this.readExptime(buffer, 3)) return false;
    if (command === Command.cas) return this.readArg(buffer, 5);
    return true;
  }

  /** As memcached 1.6.18, accepts only `delete key [0] [noreply]`. */
  #delete(buffer: Buffer, consumed: number): number {
    const tokens = this.tokens;
    if (tokens.count < 2 || tokens.count > 4) return this.answer(ERROR, consumed);
    if (tokens.count > 2) {
      this.readNoreply(buffer);
      const zero = tokens.is(2, buffer, '0');
      const valid = tokens.count === 3 ? zero || this.noreply : zero && this.noreply;
      if (!valid) return this.answer(BAD_DELETE, consumed);
    }
    if (!this.readKey()) return this.answer(BAD_LINE, consumed);
    return this.complete(Command.delete, consumed);
  }

  #arithmetic(command: Command, buffer: Buffer, consumed: number): number {
    if (this.tokens.count !== 3 && this.tokens.count !== 4) return this.answer(ERROR, consumed);
    this.readNoreply(buffer);
    if (!this.readKey()) return this.answer(BAD_LINE, consumed);
    if (!this.readArg(buffer, 2)) return this.answer(BAD_DELTA, consumed);
    return this.complete(command, consumed);
  }

  #touch(buffer: Buffer, consumed: number): number {
    if (this.tokens.count !== 3 && this.tokens.count !== 4) return this.answer(ERROR, consumed);
    this.readNoreply(buffer);
    if (!this.readKey()) return this.answer(BAD_LINE, consumed);
    if (!this.readExptime(buffer, 2)) return this.answer(BAD_EXPTIME, consumed);
    return this.complete(Command.touch, consumed);
  }

  /** As in memcached, a delay of 0 or less means now. */
  #flushAll(buffer: Buffer, consumed: number): number {
    const tokens = this.tokens;
    if (tokens.count > 3) return this.answer(ERROR, consumed);
    this.readNoreply(buffer);
    this.argHigh = 0;
    this.argLow = 0;
    this.exptimeSeconds = 0;
    if (tokens.count > (this.noreply ? 2 : 1)) {
      if (!this.readExptime(buffer, 1)) return this.answer(BAD_EXPTIME, consumed);
      if (this.exptimeSeconds > 0) this.readArg(buffer, 1);
    }
    return this.complete(Command.flushAll, consumed);
  }

  #verbosity(buffer: Buffer, consumed: number): number {
    if (this.tokens.count !== 2 && this.tokens.count !== 3) return this.answer(ERROR, consumed);
    this.readNoreply(buffer);
    const level = readUint32(buffer, this.tokens.start(1), this.tokens.end(1));
    return this.answer(level < 0 ? BAD_LINE : OK, consumed);
  }

  #stats(buffer: Buffer, consumed: number): number {
    const { count } = this.tokens;
    this.subject = count < 2 ? '' : buffer.toString('latin1', this.tokens.start(1), this.tokens.end(count - 1));
    return this.complete(Command.stats, consumed);
  }

  /** Only `watch mutations` is supported. As in memcached, the word may be repeated. */
  #watch(buffer: Buffer, consumed: number): number {
    const tokens = this.tokens;
    this.readNoreply(buffer);
    for (let i = 1; i < tokens.count; i++) {
      if (!tokens.is(i, buffer, 'mutations')) return this.answer(ERROR, consumed);
    }
    return tokens.count === 1 ? this.answer(ERROR, consumed) : this.complete(Command.watch, consumed);
  }

  /** Only `lru_crawler metadump` of all items is supported, because there is only one slab class. */
  #crawler(buffer: Buffer, consumed: number): number {
    const tokens = this.tokens;
    if (tokens.count !== 3 || !tokens.is(1, buffer, 'metadump')) return this.answer(ERROR, consumed);
    if (tokens.is(2, buffer, 'all') || tokens.is(2, buffer, 'hash')) return this.complete(Command.listKeys, consumed);
    return this.answer(BAD_CLASS, consumed);
  }
}

/** The first byte of a request and of a response in memcached's binary protocol. */
const REQUEST_MAGIC = 0x80;
const RESPONSE_MAGIC = 0x81;

/**
 * Whether a connection that begins with this byte speaks the binary protocol, which is not supported. Such a connection
 * must be closed at once, because its requests have no line ends: the parser would wait for one. Only the first byte of
 * a connection tells; later, these bytes can only begin an invalid line.
 */
export function beginsBinary(firstByte: number | undefined): boolean {
  return firstByte === REQUEST_MAGIC || firstByte === RESPONSE_MAGIC;
}
