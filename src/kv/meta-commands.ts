import { addDelta } from './arithmetic.ts';
import type { BatchHeader, CommandReader } from './batch.ts';
import { casOf, META_BLOCK_BYTES, MetaBlock, MetaFlag, MetaMode, STALE, WON } from './meta.ts';
import type { Store } from './store.ts';
import type { StoredItem } from './stored-item.ts';
import { type Cas, type Item, metaText, Op, type ResultCode } from './types.ts';

/** The part of the state machine that the meta commands use. */
export interface MetaContext {
  nextCas(): number;
  /** Counts an item in `StateMachine.totalItems`. */
  itemStored(): void;
  /** Returns the cluster time in ms that a client's exptime means; `Infinity` for never. */
  expiryOf(exptimeSeconds: number): number;
  isTooLarge(keyAndValueBytes: number, limits: BatchHeader): boolean;
  isOutOfMemory(key: string, item: StoredItem | undefined, valueLength: number, limits: BatchHeader): boolean;
}

/** Executes meta commands. Contains no replicated state: its fields describe the last command only. */
export class MetaCommands {
  /** The results of the last command besides its code: its item, and the `metaText` of a metaGet or metaArithmetic. */
  item: Item | null = null;
  text = '';
  readonly #store: Store;
  readonly #command: CommandReader;
  readonly #context: MetaContext;
  readonly #block = new MetaBlock();
  #nowMs = 0;

  constructor(store: Store, command: CommandReader, context: MetaContext) {
    this.#store = store;
    this.#command = command;
    this.#context = context;
  }

  /** The mode of the last command that was executed. */
  get mode(): MetaMode {
    return this.#block.mode;
  }

  /** Whether the last command that was executed had the flag. */
  asks(flag: number): boolean {
    return this.#block.has(flag);
  }

  execute(
    op: Op,
    key: string,
    item: StoredItem | undefined,
    payload: Buffer,
    nowMs: number,
    limits: BatchHeader,
  ): ResultCode {
    this.item = null;
    this.text = '';
    this.#nowMs = nowMs;
    this.#block.read(payload, this.#command.valueStart);
    if (op === Op.metaGet) return this.#get(key, item, limits);
    if (op === Op.metaSet) return this.#set(key, item, payload, limits);
    if (op === Op.metaDelete) return this.#delete(item);
    return this.#count(key, item, limits);
  }

  #get(key: string, found: StoredItem | undefined, limits: BatchHeader): ResultCode {
    const block = this.#block;
    if (found === undefined && !block.has(MetaFlag.vivify)) return 'notFound';
    if (found === undefined) {
      const refusal = this.#refusal(key, undefined, 0, limits);
      if (refusal !== null) return refusal;
    }
    const item = found ?? this.#make(key, '');
    const expiredAtMs = item.expiresAtMs;
    const expiresAtMs = this.#expiryAfter(item, found === undefined);
    const isLow = this.#isLow(block.has(MetaFlag.recacheFirst) ? expiredAtMs : expiresAtMs);
    const isFree = (item.tokens & WON) === 0;
    const won = found === undefined || (isFree && (isLow || (item.tokens & STALE) !== 0));
    if (won) this.#store.setTokens(item, item.tokens | WON);
    const betweenMs = this.#expiryBetween(item, found === undefined, expiresAtMs);
    this.#expire(item, expiresAtMs);
    this.item = item;
    this.text = metaText('', won, expiredAtMs, betweenMs);
    return 'value';
  }

  /**
   * Whether R applies: the item has fewer seconds to live than R says. As in memcached, whole seconds are compared, and
   * an item that never expires has enough.
   */
  #isLow(expiresAtMs: number): boolean {
    const { recacheSeconds } = this.#block;
    if (!this.#block.has(MetaFlag.recache) || recacheSeconds === 0) return false;
    if (expiresAtMs === Number.POSITIVE_INFINITY) return false;
    return this.#secondsTo(expiresAtMs) < this.#secondsTo(this.#context.expiryOf(recacheSeconds));
  }

  #secondsTo(momentMs: number): number {
    return Math.ceil((momentMs - this.#nowMs) / 1000);
  }

  #set(key: string, item: StoredItem | undefined, payload: Buffer, limits: BatchHeader): ResultCode {
    const block = this.#block;
    const { mode } = block;
    const dataLength = this.#command.valueLength - META_BLOCK_BYTES;
    const isJoin = mode === MetaMode.append || mode === MetaMode.prepend;
    const unique = this.#command.cas();
    // As in memcached, append and prepend ignore a unique of 0. In the other modes it matches no item.
    const hasCas = block.has(MetaFlag.cas) && !(isJoin && unique === 0);
    if (item === undefined) {
      if (mode === MetaMode.replace || mode === MetaMode.set) {
        if (hasCas) return 'notFound';
        if (mode === MetaMode.replace) return 'notStored';
      }
      if (isJoin && !block.has(MetaFlag.vivify)) return 'notStored';
    } else if (mode === MetaMode.add) {
      return 'notStored';
    }
    let isOlder = false;
    if (item !== undefined && hasCas && item.cas !== unique) {
      isOlder = !isJoin && unique !== 0 && block.has(MetaFlag.invalidate) && unique < item.cas;
      if (!isOlder) return 'exists';
    }
    const valueLength = isJoin && item !== undefined ? item.value.length + dataLength : dataLength;
    const refusal = this.#refusal(key, item, valueLength, limits);
    if (refusal !== null) {
      // Otherwise clients would continue to read the value that was to be replaced.
      if (mode === MetaMode.set && item !== undefined && !hasCas) this.#store.remove(item);
      return refusal;
    }
    const value = this.#valueAfter(item, isJoin, payload);
    this.#write(key, item, value, isJoin, isOlder);
    return 'stored';
  }

  #write(key: string, item: StoredItem | undefined, value: string, isJoin: boolean, isOlder: boolean): void {
    const { flags, exptimeSeconds } = this.#command;
    this.#context.itemStored();
    const cas = this.#casToGive();
    if (item === undefined) {
      const made = this.#store.insert(key, value, flags, Number.POSITIVE_INFINITY, cas, this.#nowMs);
      this.item = made;
      this.#expire(made, this.#context.expiryOf(isJoin ? this.#block.vivifySeconds : exptimeSeconds));
      return;
    }
    this.item = item;
    if (isJoin) {
      this.#store.update(item, value, item.flags, item.expiresAtMs, cas, this.#nowMs);
      return;
    }
    // A value that is older than the one it replaces is stale: it gets no new time to live, and the WON bit stays.
    const tokens = isOlder ? STALE | (item.tokens & WON) : 0;
    this.#store.update(item, value, flags, item.expiresAtMs, cas, this.#nowMs);
    this.#store.setTokens(item, tokens);
    if (!isOlder) this.#expire(item, this.#context.expiryOf(exptimeSeconds));
  }

  /** Joins bytes rather than strings: the engine would represent a joined string as a chain of its pieces. */
  #valueAfter(item: StoredItem | undefined, isJoin: boolean, payload: Buffer): string {
    const start = this.#command.valueStart + META_BLOCK_BYTES;
    const end = this.#command.valueStart + this.#command.valueLength;
    if (!isJoin || item === undefined) return payload.toString('latin1', start, end);
    const old = Buffer.from(item.value, 'latin1');
    const added = payload.subarray(start, end);
    const pieces = this.#block.mode === MetaMode.append ? [old, added] : [added, old];
    return Buffer.concat(pieces).toString('latin1');
  }

  #delete(item: StoredItem | undefined): ResultCode {
    const block = this.#block;
    if (item === undefined) return 'notFound';
    if (block.has(MetaFlag.cas) && item.cas !== this.#command.cas()) return 'exists';
    const removeValue = block.has(MetaFlag.removeValue);
    if (!removeValue && !block.has(MetaFlag.invalidate)) {
      this.#store.remove(item);
      return 'deleted';
    }
    const cas = this.#casToGive();
    if (removeValue) {
      this.#store.update(item, '', this.#command.flags, Number.POSITIVE_INFINITY, cas, this.#nowMs);
    }
    this.#store.setCas(item, cas);
    if (block.has(MetaFlag.invalidate)) this.#store.setTokens(item, STALE);
    if (block.has(MetaFlag.exptime)) this.#expire(item, this.#context.expiryOf(this.#command.exptimeSeconds));
    return 'deleted';
  }

  #count(key: string, found: StoredItem | undefined, limits: BatchHeader): ResultCode {
    const block = this.#block;
    if (found === undefined) return this.#countFromNothing(key, limits);
    if (found.value === '') return 'nonNumeric';
    const unique = this.#command.cas();
    if (block.has(MetaFlag.cas) && unique !== 0 && found.cas !== unique) return 'exists';
    const direction = block.has(MetaFlag.decrement) ? 'down' : 'up';
    const text = addDelta(found.value, block.deltaHigh, block.deltaLow, direction);
    if (text === null) return 'nonNumeric';
    const value = text.padEnd(found.value.length, ' ');
    const grows = value.length > found.value.length;
    const refusal = grows ? this.#refusal(key, found, value.length, limits) : null;
    if (refusal !== null) return refusal;
    const expiredAtMs = found.expiresAtMs;
    const tokens = grows ? 0 : found.tokens;
    this.#store.update(found, value, found.flags, expiredAtMs, this.#casToGive(), this.#nowMs);
    this.#store.setTokens(found, tokens);
    const expiresAtMs = this.#expiryAfter(found, false);
    this.text = metaText(text, false, expiredAtMs, this.#expiryBetween(found, false, expiresAtMs));
    this.#expire(found, expiresAtMs);
    this.item = found;
    return 'number';
  }

  #countFromNothing(key: string, limits: BatchHeader): ResultCode {
    const block = this.#block;
    if (!block.has(MetaFlag.vivify)) return 'notFound';
    const text = String(casOf(block.initialHigh, block.initialLow));
    const refusal = this.#refusal(key, undefined, text.length, limits);
    if (refusal !== null) return refusal;
    const item = this.#make(key, text);
    const expiresAtMs = this.#expiryAfter(item, true);
    this.item = item;
    this.text = metaText(text, true, item.expiresAtMs, this.#expiryBetween(item, true, expiresAtMs));
    this.#expire(item, expiresAtMs);
    return 'number';
  }

  #make(key: string, value: string): StoredItem {
    this.#context.itemStored();
    return this.#store.insert(key, value, 0, Number.POSITIVE_INFINITY, this.#casToGive(), this.#nowMs);
  }

  #casToGive(): Cas {
    const { newCasHigh, newCasLow } = this.#block;
    return this.#block.has(MetaFlag.newCas) ? casOf(newCasHigh, newCasLow) : this.#context.nextCas();
  }

  /**
   * When the item expires after the command: as T says, or N if the item was just made. If both apply, the last one
   * does.
   */
  #expiryAfter(item: StoredItem, isMade: boolean): number {
    const block = this.#block;
    const touches = block.has(MetaFlag.exptime);
    if (isMade && (!touches || block.has(MetaFlag.vivifyLast))) return this.#context.expiryOf(block.vivifySeconds);
    return touches ? this.#context.expiryOf(this.#command.exptimeSeconds) : item.expiresAtMs;
  }

  /** When the item expires after the first of N and T, if the command has both. A flag t between them shows it. */
  #expiryBetween(item: StoredItem, isMade: boolean, finallyMs: number): number {
    const block = this.#block;
    if (!block.has(MetaFlag.exptime) || !block.has(MetaFlag.vivify)) return finallyMs;
    if (block.has(MetaFlag.vivifyLast)) return this.#context.expiryOf(this.#command.exptimeSeconds);
    return isMade ? this.#context.expiryOf(block.vivifySeconds) : item.expiresAtMs;
  }

  /** Sets the expiration time, and removes the item if it has passed: the store must not contain an expired item. */
  #expire(item: StoredItem, expiresAtMs: number): void {
    if (expiresAtMs > this.#nowMs) this.#store.reschedule(item, expiresAtMs);
    else this.#store.expire(item, expiresAtMs);
  }

  #refusal(key: string, item: StoredItem | undefined, valueLength: number, limits: BatchHeader): ResultCode | null {
    if (this.#context.isTooLarge(key.length + valueLength, limits)) return 'tooLarge';
    return this.#context.isOutOfMemory(key, item, valueLength, limits) ? 'outOfMemory' : null;
  }
}
