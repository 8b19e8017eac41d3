import { RaftkvError } from '../base/errors.ts';
import { ExpiryQueue } from './expiry.ts';
import { StoreIterator } from './store-iterator.ts';
import { copyOf, ItemInPlace, type StoredItem } from './stored-item.ts';
import type { Cas } from './types.ts';

/**
 * What an item's size counts for beside key and value when it is held against `itemBytesMax`: memcached's header (48),
 * cas (8), key terminator (1) and line end (2), so that the same values fit under the same limit.
 */
export const ITEM_OVERHEAD_BYTES = 59;

/** No item is larger, whatever its batch allows: a value must stay well below the longest string that an engine makes. */
export const ITEM_BYTES_CEILING = 256 * 1024 * 1024;

/**
 * What an item takes of the heap beside the bytes of its key and value, for the store's limit: the item and its two
 * boxed numbers, two string headers, its slots in a map and in the expiry queue. Measured, rounded up.
 */
export const STORE_OVERHEAD_BYTES = 200;

/**
 * The store is split into so many maps because a map that grows moves all its entries at once: one map of three million
 * items stalled the node for 400 ms, longer than an election timeout. (It also could not hold more than 2^24.)
 */
const SHARDS = 256;
/** A longer key is sampled at an even stride when its shard is chosen. */
const SHARD_HASH_CHARACTERS_MAX = 32;

/** The items by key, their expiry and their size. Keys and values are latin1 strings: one character per byte. */
export class Store {
  #shards = emptyShards();
  readonly #expiry = new ExpiryQueue<ItemInPlace>();
  #items = 0;
  /** The sum over all items of key, value and `STORE_OVERHEAD_BYTES`. */
  #bytes = 0;
  /** The number of the newest snapshot. An item with a lower number has not been taken by it, and was made before it. */
  #snapshotNumber = 0;
  #iterator: StoreIterator | null = null;

  get items(): number {
    return this.#items;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** `Infinity` where nothing expires. */
  get earliestExpiryMs(): number {
    return this.#expiry.earliestMs;
  }

  get(key: string): StoredItem | undefined {
    return this.#shardOf(key).get(key);
  }

  /** The caller has looked: there is no item of that key. `nowMs` is only recorded. */
  insert(key: string, value: string, flags: number, expiresAtMs: number, cas: Cas, nowMs: number): StoredItem {
    const item = new ItemInPlace(key, value, flags, cas, -Math.trunc(nowMs / 1000), this.#snapshotNumber);
    this.#shardOf(key).set(key, item);
    this.#items++;
    this.#bytes += key.length + value.length + STORE_OVERHEAD_BYTES;
    this.#expiry.schedule(item, expiresAtMs);
    return item;
  }

  /** A new value: not fetched yet, and without the tokens of the old one. */
  update(item: ItemInPlace, value: string, flags: number, expiresAtMs: number, cas: Cas, nowMs: number): void {
    if (item.snapshotNumber !== this.#snapshotNumber) this.#keepCopy(item);
    this.#bytes += value.length - item.value.length;
    item.value = value;
    item.flags = flags;
    item.cas = cas;
    item.tokens = 0;
    item.accessedAtSeconds = -Math.trunc(nowMs / 1000);
    this.#expiry.schedule(item, expiresAtMs);
  }

  reschedule(item: ItemInPlace, expiresAtMs: number): void {
    if (item.snapshotNumber !== this.#snapshotNumber) this.#keepCopy(item);
    this.#expiry.schedule(item, expiresAtMs);
  }

  setTokens(item: ItemInPlace, tokens: number): void {
    if (item.snapshotNumber !== this.#snapshotNumber) this.#keepCopy(item);
    item.tokens = tokens;
  }

  setCas(item: ItemInPlace, cas: Cas): void {
    if (item.snapshotNumber !== this.#snapshotNumber) this.#keepCopy(item);
    item.cas = cas;
  }

  remove(item: ItemInPlace): void {
    this.#expiry.remove(item);
    this.#forget(item);
  }

  /** Removes the item, given a time to expire that has come: the snapshot iterator sees that time. */
  expire(item: ItemInPlace, expiresAtMs: number): void {
    if (item.snapshotNumber !== this.#snapshotNumber) this.#keepCopy(item);
    this.remove(item);
    item.expiresAtMs = expiresAtMs;
  }

  removeExpired(nowMs: number): void {
    const due = this.#expiry.takeDue(nowMs);
    if (due.length === this.#items) this.clear();
    else for (const item of due) this.#forget(item);
  }

  clear(): void {
    if (this.#iterator?.isOpen) this.#shards = emptyShards();
    else for (const shard of this.#shards) shard.clear();
    this.#expiry.clear();
    this.#items = 0;
    this.#bytes = 0;
  }

  /**
   * Begins to iterate over all items as they are now.
   * @throws RaftkvError INVARIANT_BROKEN where another is open.
   */
  beginSnapshot(): StoreIterator {
    if (this.#iterator?.isOpen)
      throw new RaftkvError('INVARIANT_BROKEN', 'a snapshot was begun while another was open');
    this.#snapshotNumber++;
    const keyAndValueBytes = this.#bytes - this.#items * STORE_OVERHEAD_BYTES;
    this.#iterator = new StoreIterator(this.#snapshotNumber, this.#shards, this.#items, keyAndValueBytes);
    return this.#iterator;
  }

  /** Adds an item of a snapshot. Returns false if its key is present already. */
  load(item: ItemInPlace, expiresAtMs: number): boolean {
    const shard = this.#shardOf(item.key);
    const before = shard.size;
    shard.set(item.key, item);
    if (shard.size === before) return false;
    this.#items++;
    this.#bytes += item.key.length + item.value.length + STORE_OVERHEAD_BYTES;
    this.#expiry.schedule(item, expiresAtMs);
    return true;
  }

  /** In no order to rely on. What is written while it runs may or may not be seen. */
  *entries(): IterableIterator<[string, StoredItem]> {
    for (const shard of this.#shards) yield* shard.entries();
  }

  /** Before a write: an open snapshot that has not taken the item yet gets a copy of it. */
  #keepCopy(item: ItemInPlace): void {
    item.snapshotNumber = this.#snapshotNumber;
    if (this.#iterator?.isOpen) this.#iterator.keep(copyOf(item));
  }

  /** A removed item is not written to again, so an open snapshot gets the item itself. */
  #forget(item: ItemInPlace): void {
    if (item.snapshotNumber !== this.#snapshotNumber && this.#iterator?.isOpen) this.#iterator.keep(item);
    this.#shardOf(item.key).delete(item.key);
    this.#items--;
    this.#bytes -= item.key.length + item.value.length + STORE_OVERHEAD_BYTES;
  }

  #shardOf(key: string): Map<string, ItemInPlace> {
    const stride = 1 + Math.trunc(key.length / SHARD_HASH_CHARACTERS_MAX);
    let hash = key.length;
    for (let i = key.length - 1; i >= 0; i -= stride) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193);
    hash ^= hash >>> 16;
    // The mask keeps the index within the array, which the compiler cannot know.
    return this.#shards[(hash ^ (hash >>> 8)) & (SHARDS - 1)] as Map<string, ItemInPlace>;
  }
}

function emptyShards(): readonly Map<string, ItemInPlace>[] {
  return Array.from({ length: SHARDS }, () => new Map());
}
