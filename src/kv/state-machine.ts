import { addDelta } from './arithmetic.ts';
import { BATCH_HEADER_BYTES, type BatchHeader, CLOCK_PROPOSER, CommandReader, validateBatch } from './batch.ts';
import { type ChangeObserver, changedBytes, verbOf } from './changes.ts';
import { SetDigest } from './digest.ts';
import { MetaCommands } from './meta-commands.ts';
import { type SessionProgress, Sessions } from './sessions.ts';
import { type MachineState, SnapshotIterator } from './snapshot-iterator.ts';
import { ITEM_BYTES_CEILING, ITEM_OVERHEAD_BYTES, STORE_OVERHEAD_BYTES, Store } from './store.ts';
import type { StoredItem } from './stored-item.ts';
import { type ApplyOutcome, type Item, Op, type ResultCode, type ResultSink } from './types.ts';

/**
 * The replicated state machine. What this folder promises:
 *
 * - Replicas that applied the same log have the same state, except for the access times of items: it depends on no
 *   clock, randomness or local setting.
 * - A batch that is applied several times takes effect once. A malformed batch takes no effect at all.
 * - An item that expires is removed at the same entry on every node.
 *
 * ```
 *  commands of one turn ─▶ BatchBuilder ─▶ log entry ─ ─ ─ ▶ apply
 *                                                              │ validate the whole batch
 *                                                              ▼
 *                                                    time ─▶ flush, expiry
 *                                                              │
 *                                                              ▼
 *                                                           sessions ─▶ duplicate, gap, staleSession: no effect
 *                                                              │ next batch of its proposer
 *                                                              ▼
 *                             get ◀─ store ◀─────────────── commands ─▶ results to the sink (at the proposer)
 * ```
 */
export class StateMachine {
  /** Receives every change that is applied. Not part of the state. */
  observer: ChangeObserver | null = null;
  #store = new Store();
  #sessions = new Sessions();
  /** Cluster time: the latest time of any applied batch. No item in the store has `expiresAtMs <= #timeMs`. */
  #timeMs = 0;
  /** When the pending `flush_all` with a delay is due; `Infinity` for none. Always above `#timeMs`. */
  #flushAtMs = Number.POSITIVE_INFINITY;
  /** The last cas unique that was taken from the counter. */
  #casCounter = 0;
  #totalItems = 0;

  /** The command that is being applied, and its results. Not part of the state: meaningless after `apply`. */
  readonly #command = new CommandReader();
  #resultItem: Item | null = null;
  #resultText = '';
  #joinScratch = Buffer.allocUnsafeSlow(JOIN_SCRATCH_BYTES);
  #meta = this.#metaCommands();
  #iterator: SnapshotIterator | null = null;

  /** @param state the state of a snapshot; empty by default */
  constructor(state?: MachineState) {
    if (state !== undefined) this.#become(state);
  }

  get items(): number {
    return this.#store.items;
  }

  /** The bytes of all keys and values, and `STORE_OVERHEAD_BYTES` for each item. */
  get storeBytes(): number {
    return this.#store.bytes;
  }

  /** The number of times that an item was stored. */
  get totalItems(): number {
    return this.#totalItems;
  }

  get timeMs(): number {
    return this.#timeMs;
  }

  /** When the pending delayed flush is due, in cluster time; `Infinity` for none. */
  get flushAtMs(): number {
    return this.#flushAtMs;
  }

  get casCounter(): number {
    return this.#casCounter;
  }

  /** When the next item expires or the pending flush is due, in cluster time; `Infinity` for never. */
  nextEventMs(): number {
    return Math.min(this.#store.earliestExpiryMs, this.#flushAtMs);
  }

  /** Returns the item as of the last applied batch. The next batch may change the object, so use it at once. */
  get(key: string): Item | undefined {
    return this.#store.get(key);
  }

  entries(): IterableIterator<[string, Item]> {
    return this.#store.entries();
  }

  session(proposer: number): SessionProgress | undefined {
    return this.#sessions.get(proposer);
  }

  sessions(): IterableIterator<[number, SessionProgress]> {
    return this.#sessions.entries();
  }

  /**
   * Applies the batch that runs from `start` to the end of `payload`. If the outcome is `applied`, the sink has
   * received the result of every command, otherwise none. The sink must not throw.
   * @throws RaftkvError MESSAGE_INVALID for a malformed batch, which has no effect
   */
  apply(payload: Buffer, start: number, sink: ResultSink | null): ApplyOutcome {
    const header = validateBatch(payload, start);
    this.#advanceTo(header.timeMs);
    if (header.proposer === CLOCK_PROPOSER) return 'clock';
    const outcome = this.#sessions.admit(header.proposer, header.sessionId, header.sequence);
    if (outcome !== 'applied') return outcome;
    let at = start + BATCH_HEADER_BYTES;
    for (let position = 0; position < header.count; position++) {
      at = this.#command.read(payload, at);
      this.#resultItem = null;
      this.#resultText = '';
      const code = this.#execute(payload, header);
      if (this.observer !== null) this.#tell(this.observer, payload, code);
      if (sink !== null) sink.result(position, code, this.#resultItem, this.#resultText);
    }
    this.#resultItem = null;
    return 'applied';
  }

  /**
   * Begins a snapshot of the state as it is now. Batches may be applied while it is read.
   * @throws RaftkvError INVARIANT_BROKEN if another snapshot is open
   */
  beginSnapshot(): SnapshotIterator {
    this.#iterator = new SnapshotIterator(this.#state());
    return this.#iterator;
  }

  /**
   * Replaces the whole state by that of `other`, which must not be used afterwards. The observer stays. Open snapshots
   * of both are closed.
   */
  adopt(other: StateMachine): void {
    this.#iterator?.close();
    other.#iterator?.close();
    this.#become(other.#state());
  }

  /** Returns a digest of the replicated state, 16 hexadecimal digits. Takes time proportional to its size. */
  hash(): string {
    const digest = new SetDigest();
    for (const [key, item] of this.#store.entries()) {
      digest.begin(1).text(key).text(item.value).number(item.flags).number(item.expiresAtMs).number(item.tokens);
      if (typeof item.cas === 'number') digest.number(item.cas).end();
      else digest.text(String(item.cas)).end();
    }
    for (const [proposer, progress] of this.#sessions.entries()) {
      digest.begin(2).number(proposer).number(progress.sessionId).number(progress.lastSequence).end();
    }
    digest
      .begin(3)
      .number(this.#timeMs)
      .number(this.#flushAtMs)
      .number(this.#casCounter)
      .number(this.#totalItems)
      .end();
    return digest.toString();
  }

  #state(): MachineState {
    return {
      store: this.#store,
      sessions: this.#sessions,
      timeMs: this.#timeMs,
      flushAtMs: this.#flushAtMs,
      casCounter: this.#casCounter,
      totalItems: this.#totalItems,
    };
  }

  #become(state: MachineState): void {
    this.#store = state.store;
    this.#sessions = state.sessions;
    this.#timeMs = state.timeMs;
    this.#flushAtMs = state.flushAtMs;
    this.#casCounter = state.casCounter;
    this.#totalItems = state.totalItems;
    this.#meta = this.#metaCommands();
  }

  #metaCommands(): MetaCommands {
    return new MetaCommands(this.#store, this.#command, {
      nextCas: () => ++this.#casCounter,
      itemStored: () => {
        this.#totalItems++;
      },
      expiryOf: (exptimeSeconds) => expiryOf(exptimeSeconds, this.#timeMs),
      isTooLarge,
      isOutOfMemory: (key, item, valueLength, limits) => this.#isOutOfMemory(key, item, valueLength, limits),
    });
  }

  #advanceTo(timeMs: number): void {
    if (timeMs <= this.#timeMs) return;
    this.#timeMs = timeMs;
    if (this.#flushAtMs <= timeMs) {
      this.#flushAtMs = Number.POSITIVE_INFINITY;
      this.#store.clear();
    }
    this.#store.removeExpired(timeMs);
  }

  #execute(payload: Buffer, limits: BatchHeader): ResultCode {
    const command = this.#command;
    const op = command.op;
    if (op === Op.flushAll) return this.#flushAll();
    const key = command.key(payload);
    const item = this.#store.get(key);
    switch (op) {
      case Op.set:
      case Op.add:
      case Op.replace:
      case Op.cas:
        return this.#set(op, key, item, payload, limits);
      case Op.append:
      case Op.prepend:
        return this.#join(op, key, item, payload, limits);
      case Op.delete:
        if (item === undefined) return 'notFound';
        this.#store.remove(item);
        return 'deleted';
      case Op.incr:
      case Op.decr:
        return this.#count(op, item, limits);
      case Op.touch:
        return this.#touch(item, 'touched');
      case Op.getAndTouch:
        return this.#touch(item, 'value');
      case Op.metaGet:
      case Op.metaSet:
      case Op.metaDelete:
      case Op.metaArithmetic:
        return this.#executeMeta(op, key, item, payload, limits);
      default:
        return op satisfies never;
    }
  }

  #tell(observer: ChangeObserver, payload: Buffer, code: ResultCode): void {
    const command = this.#command;
    if (command.op === Op.flushAll) return;
    const key = command.key(payload);
    const item = this.#store.get(key);
    const verb = verbOf(command.op, this.#meta, code, item !== undefined);
    if (verb === null) return;
    const isItems = item !== undefined && (code === 'stored' || code === 'number');
    const expiresAtMs = isItems ? item.expiresAtMs : expiryOf(command.exptimeSeconds, this.#timeMs);
    const valueBytes = changedBytes(command, code, item);
    observer.changed({ timeMs: this.#timeMs, key, verb, code, expiresAtMs, valueBytes });
  }

  #executeMeta(op: Op, key: string, item: StoredItem | undefined, payload: Buffer, limits: BatchHeader): ResultCode {
    const meta = this.#meta;
    const code = meta.execute(op, key, item, payload, this.#timeMs, limits);
    this.#resultItem = meta.item;
    this.#resultText = meta.text;
    meta.item = null;
    return code;
  }

  #set(op: Op, key: string, item: StoredItem | undefined, payload: Buffer, limits: BatchHeader): ResultCode {
    const command = this.#command;
    if (isTooLarge(key.length + command.valueLength, limits)) return this.#refuseSet(op, item, 'tooLarge');
    if (op === Op.add && item !== undefined) return 'notStored';
    if (op === Op.replace && item === undefined) return 'notStored';
    if (op === Op.cas) {
      if (item === undefined) return 'notFound';
      if (item.cas !== command.cas()) return 'exists';
    }
    const expiresAtMs = expiryOf(command.exptimeSeconds, this.#timeMs);
    if (expiresAtMs <= this.#timeMs) {
      this.#casCounter++;
      this.#totalItems++;
      if (item !== undefined) this.#store.remove(item);
      return 'stored';
    }
    if (this.#isOutOfMemory(key, item, command.valueLength, limits)) return this.#refuseSet(op, item, 'outOfMemory');
    const cas = ++this.#casCounter;
    this.#totalItems++;
    const value = command.value(payload);
    if (item === undefined) this.#store.insert(key, value, command.flags, expiresAtMs, cas, this.#timeMs);
    else this.#store.update(item, value, command.flags, expiresAtMs, cas, this.#timeMs);
    return 'stored';
  }

  /** As in memcached, a failed `set` removes the old item. Otherwise clients would continue to read it. */
  #refuseSet(op: Op, item: StoredItem | undefined, code: 'tooLarge' | 'outOfMemory'): ResultCode {
    if (op === Op.set && item !== undefined) this.#store.remove(item);
    return code;
  }

  #join(op: Op, key: string, item: StoredItem | undefined, payload: Buffer, limits: BatchHeader): ResultCode {
    const command = this.#command;
    if (isTooLarge(key.length + command.valueLength, limits)) return 'tooLarge';
    if (item === undefined) return 'notStored';
    const valueLength = item.value.length + command.valueLength;
    if (isTooLarge(key.length + valueLength, limits)) return 'tooLarge';
    if (this.#isOutOfMemory(key, item, valueLength, limits)) return 'outOfMemory';
    const value = this.#joined(op, item.value, payload);
    this.#totalItems++;
    this.#store.update(item, value, item.flags, item.expiresAtMs, ++this.#casCounter, this.#timeMs);
    return 'stored';
  }

  /** Joins bytes, not strings: the engine keeps a joined string as a chain of its pieces, many times their size. */
  #joined(op: Op, old: string, payload: Buffer): string {
    const { valueStart, valueLength } = this.#command;
    const length = old.length + valueLength;
    const scratch = length <= JOIN_SCRATCH_BYTES ? this.#joinScratch : Buffer.allocUnsafeSlow(length);
    scratch.write(old, op === Op.append ? 0 : valueLength, 'latin1');
    payload.copy(scratch, op === Op.append ? old.length : 0, valueStart, valueStart + valueLength);
    return scratch.toString('latin1', 0, length);
  }

  #count(op: Op, item: StoredItem | undefined, limits: BatchHeader): ResultCode {
    if (item === undefined) return 'notFound';
    const { argHigh, argLow } = this.#command;
    const text = addDelta(item.value, argHigh, argLow, op === Op.incr ? 'up' : 'down');
    if (text === null) return 'nonNumeric';
    // As in memcached, a shorter number is padded with spaces to the length of the old value.
    const value = text.length < item.value.length ? text.padEnd(item.value.length, ' ') : text;
    if (value.length > item.value.length) {
      if (isTooLarge(item.key.length + value.length, limits)) return 'tooLarge';
      if (this.#isOutOfMemory(item.key, item, value.length, limits)) return 'outOfMemory';
    }
    // As in memcached, the tokens stay if the number fits into the old value.
    const tokens = value.length > item.value.length ? 0 : item.tokens;
    this.#store.update(item, value, item.flags, item.expiresAtMs, ++this.#casCounter, this.#timeMs);
    this.#store.setTokens(item, tokens);
    this.#resultText = text;
    return 'number';
  }

  #touch(item: StoredItem | undefined, code: 'touched' | 'value'): ResultCode {
    if (item === undefined) return 'notFound';
    const expiresAtMs = expiryOf(this.#command.exptimeSeconds, this.#timeMs);
    if (expiresAtMs <= this.#timeMs) this.#store.remove(item);
    else this.#store.reschedule(item, expiresAtMs);
    if (code === 'value') this.#resultItem = item;
    return code;
  }

  /** A flush replaces a pending one. A time that is not in the future means now. */
  #flushAll(): ResultCode {
    const delaySeconds = this.#command.arg();
    const atMs = delaySeconds === 0 ? this.#timeMs : expiryOf(delaySeconds, this.#timeMs);
    this.#flushAtMs = Number.POSITIVE_INFINITY;
    if (atMs > this.#timeMs) this.#flushAtMs = atMs;
    else this.#store.clear();
    return 'ok';
  }

  /** A write that doesn't make the store larger is always allowed: the limit may have been lowered. */
  #isOutOfMemory(key: string, item: StoredItem | undefined, valueLength: number, limits: BatchHeader): boolean {
    const growth =
      item === undefined ? key.length + valueLength + STORE_OVERHEAD_BYTES : valueLength - item.value.length;
    return growth > 0 && this.#store.bytes + growth > limits.storeBytesMax;
  }
}

/** An exptime of at most 30 days is relative to now; a larger one is a Unix time. This is memcached's rule. */
const RELATIVE_EXPTIME_SECONDS_MAX = 30 * 24 * 60 * 60;

/** The size of the buffer that all joins share. Most fit; for a larger one, a buffer is allocated. */
const JOIN_SCRATCH_BYTES = 16 * 1024;

/**
 * Returns the cluster time in ms that a client's exptime means; `Infinity` for never. It is not after `nowMs` for a
 * negative exptime and for a Unix time that has passed: the item expires at once.
 */
function expiryOf(exptimeSeconds: number, nowMs: number): number {
  if (exptimeSeconds === 0) return Number.POSITIVE_INFINITY;
  if (exptimeSeconds > RELATIVE_EXPTIME_SECONDS_MAX) return exptimeSeconds * 1000;
  return nowMs + exptimeSeconds * 1000;
}

function isTooLarge(keyAndValueBytes: number, limits: BatchHeader): boolean {
  return keyAndValueBytes + ITEM_OVERHEAD_BYTES > Math.min(limits.itemBytesMax, ITEM_BYTES_CEILING);
}
