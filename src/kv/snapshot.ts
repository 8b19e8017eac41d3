import { RaftkvError } from '../base/errors.ts';
import { readUint64 } from '../base/uint64.ts';
import { CLOCK_PROPOSER, KEY_BYTES_MAX, TIME_MS_MAX } from './batch.ts';
import { casOf, STALE, WON } from './meta.ts';
import { Sessions } from './sessions.ts';
import {
  CHECKSUM_BYTES,
  checksumOf,
  HEADER_BYTES,
  ITEM_HEADER_BYTES,
  SESSION_BYTES,
  SNAPSHOT_VERSION,
  type SnapshotIterator,
} from './snapshot-iterator.ts';
import { StateMachine } from './state-machine.ts';
import { ITEM_BYTES_CEILING, STORE_OVERHEAD_BYTES, Store } from './store.ts';
import { ItemInPlace } from './stored-item.ts';

/**
 * Saves and loads the whole state. Loading restores exactly the state that was saved, or fails.
 *
 * ```
 *  stateMachine.beginSnapshot() ─▶ SnapshotIterator.next ─▶ chunks ─▶ SnapshotLoader.push … finish ─▶ a StateMachine
 *        │                          ▲ items as they were when the snapshot began (store-iterator.ts)              │
 *        └─ continues to apply ─────┘                                          stateMachine.adopt ◀───────────────┘
 * ```
 */
export type { SnapshotIterator };

/** The fields of the first chunk, except the sessions. */
interface Header {
  readonly timeMs: number;
  readonly flushAtMs: number;
  readonly casCounter: number;
  readonly totalItems: number;
  readonly items: number;
  readonly itemBytes: number;
}

/** Makes a state machine from the chunks of a snapshot. */
export class SnapshotLoader {
  readonly #store = new Store();
  readonly #sessions = new Sessions();
  #header: Header | null = null;
  #crc = 0;
  /**
   * If the last chunk ended within a value: its item, the pieces of the value so far, and the number of missing bytes.
   */
  #broken: ItemInPlace | null = null;
  #brokenExpiresAtMs = 0;
  #pieces: string[] = [];
  #missing = 0;

  /** The number of items loaded so far. */
  get items(): number {
    return this.#store.items;
  }

  /**
   * Loads the next chunk. The caller may reuse the buffer afterwards.
   * @throws RaftkvError SNAPSHOT_DAMAGED, FORMAT_UNSUPPORTED: the loader must not be used any more
   */
  push(chunk: Buffer): void {
    if (chunk.length < CHECKSUM_BYTES) throw damaged('has a chunk that is too short');
    const crc = checksumOf(chunk, this.#crc);
    if (crc !== chunk.readUInt32LE(0)) throw damaged('has a chunk that does not verify');
    if (this.#header === null) this.#header = this.#readHeader(chunk);
    else this.#readItems(chunk, this.#header);
    this.#crc = crc;
  }

  /**
   * Returns the state machine. To be called after the last chunk.
   * @throws RaftkvError SNAPSHOT_DAMAGED if something is missing
   */
  finish(): StateMachine {
    const header = this.#header;
    if (header === null) throw damaged('is empty');
    const { items, bytes } = this.#store;
    const itemBytes = bytes - items * STORE_OVERHEAD_BYTES;
    if (items !== header.items || itemBytes !== header.itemBytes || this.#broken !== null) {
      const expected = `${header.items} items of ${header.itemBytes} bytes`;
      throw damaged(`should have ${expected} and has ${items} of ${itemBytes}`);
    }
    const { timeMs, flushAtMs, casCounter, totalItems } = header;
    const state = { store: this.#store, sessions: this.#sessions, timeMs, flushAtMs, casCounter, totalItems };
    return new StateMachine(state);
  }

  #readHeader(chunk: Buffer): Header {
    if (chunk.length < HEADER_BYTES) throw damaged('has a header that is truncated');
    const version = chunk.readUInt32LE(4);
    if (version !== SNAPSHOT_VERSION) throw unsupported(version);
    const timeMs = chunk.readDoubleLE(8);
    const flushAtMs = chunk.readDoubleLE(16);
    if (!(timeMs >= 0 && timeMs <= TIME_MS_MAX)) throw damaged('has an impossible time');
    if (!(flushAtMs > timeMs)) throw damaged('has a delayed flush in the past');
    const [casCounter = 0, totalItems = 0, items = 0, itemBytes = 0] = [24, 32, 40, 48].map((at) => {
      const number = readUint64(chunk, at);
      if (!Number.isSafeInteger(number)) throw damaged('has a number out of range');
      return number;
    });
    this.#readSessions(chunk);
    return { timeMs, flushAtMs, casCounter, totalItems, items, itemBytes };
  }

  #readSessions(chunk: Buffer): void {
    const count = chunk.readUInt32LE(56);
    if (chunk.readUInt32LE(60) !== 0) throw damaged('has reserved bits set');
    if (chunk.length !== HEADER_BYTES + count * SESSION_BYTES) throw damaged('has a header of a wrong length');
    for (let at = HEADER_BYTES; at < chunk.length; at += SESSION_BYTES) {
      const proposer = chunk.readUInt32LE(at);
      const lastSequence = readUint64(chunk, at + 8);
      if (proposer === CLOCK_PROPOSER || lastSequence === 0 || !Number.isSafeInteger(lastSequence)) {
        throw damaged('has an impossible session');
      }
      this.#sessions.load(proposer, chunk.readUInt32LE(at + 4), lastSequence);
    }
    if (this.#sessions.size !== count) throw damaged('has two sessions of one node');
  }

  #readItems(chunk: Buffer, { timeMs }: Header): void {
    const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.length);
    let at = CHECKSUM_BYTES;
    if (this.#broken !== null) at = this.#readRest(chunk, this.#broken, at);
    while (at < chunk.length) {
      if (at + ITEM_HEADER_BYTES > chunk.length) throw damaged('has an item that is truncated');
      const head = view.getUint32(at, true);
      const keyLength = head & 0xff;
      const tokens = head >>> 8;
      const valueLength = view.getUint32(at + 8, true);
      const keyAt = at + ITEM_HEADER_BYTES;
      const valueAt = keyAt + keyLength;
      // `tokens` includes the 16 reserved bits, so this also refuses an item in which they are not zero.
      if (tokens > (STALE | WON)) throw damaged('has an item with unknown tokens');
      if (keyLength === 0 || keyLength > KEY_BYTES_MAX) throw damaged('has an item with a key of an impossible length');
      if (valueLength > ITEM_BYTES_CEILING) throw damaged('has an item with a value of an impossible length');
      if (valueAt > chunk.length) throw damaged('has an item whose key is truncated');
      const expiresAtMs = view.getFloat64(at + 20, true);
      const accessedAtSeconds = view.getFloat64(at + 28, true);
      if (!(expiresAtMs > timeMs)) throw damaged('has an item that has expired');
      if (!Number.isFinite(accessedAtSeconds)) throw damaged('has an item with an impossible access time');

      const cas = casOf(view.getUint32(at + 12, true), view.getUint32(at + 16, true));
      const key = chunk.toString('latin1', keyAt, valueAt);
      const item = new ItemInPlace(key, '', view.getUint32(at + 4, true), cas, accessedAtSeconds, 0);
      item.tokens = tokens;
      at = this.#readValue(chunk, item, expiresAtMs, valueAt, valueLength);
    }
  }

  /** Reads a value, or the part of it that is in this chunk. Returns where it ends. */
  #readValue(chunk: Buffer, item: ItemInPlace, expiresAtMs: number, at: number, length: number): number {
    const end = at + length;
    if (end > chunk.length) {
      this.#broken = item;
      this.#brokenExpiresAtMs = expiresAtMs;
      this.#missing = length;
      return this.#readRest(chunk, item, at);
    }
    item.value = chunk.toString('latin1', at, end);
    this.#load(item, expiresAtMs);
    return end;
  }

  #readRest(chunk: Buffer, item: ItemInPlace, at: number): number {
    const end = Math.min(chunk.length, at + this.#missing);
    this.#pieces.push(chunk.toString('latin1', at, end));
    this.#missing -= end - at;
    if (this.#missing > 0) return end;
    // `join` makes a flat string; `+=` would make a chain of the pieces.
    item.value = this.#pieces.join('');
    this.#pieces = [];
    this.#broken = null;
    this.#load(item, this.#brokenExpiresAtMs);
    return end;
  }

  #load(item: ItemInPlace, expiresAtMs: number): void {
    if (!this.#store.load(item, expiresAtMs)) throw damaged('has two items of one key');
  }
}

function damaged(what: string): RaftkvError {
  const remedy = 'The state was not changed. Use another snapshot, or let the node get one from its peers.';
  return new RaftkvError('SNAPSHOT_DAMAGED', `the snapshot ${what}`, remedy);
}

function unsupported(version: number): RaftkvError {
  const what = `the snapshot has format ${version}; this raftkv reads format ${SNAPSHOT_VERSION}`;
  return new RaftkvError('FORMAT_UNSUPPORTED', what, 'Start the version of raftkv that wrote it.');
}
