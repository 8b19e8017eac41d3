import { ExpiryQueue, UNQUEUED } from './expiry.ts';
import type { Cas, Item } from './types.ts';

/**
 * What an item's size counts for beside key and value when it is held against `itemBytesMax`: memcached's header (48),
 * cas (8), key terminator (1) and line end (2), so that the same values fit under the same limit.
 */
export const ITEM_OVERHEAD_BYTES = 59;

/**
 * What an item takes of the heap beside the bytes of its key and value, for the store's limit: the item and its two
 * boxed numbers, two string headers, its slots in a map and in the expiry queue. Measured, rounded up.
 */
export const STORE_OVERHEAD_BYTES = 200;

/**
 * The store is cut into so many maps because a map that grows moves all its entries at once: one map of three million
 * items stalled the node for 400 ms, longer than an election timeout. (It also could not hold more than 2^24.)
 */
const SHARDS = 256;
/** A longer key is sampled at an even stride when its shard is chosen. */
const SHARD_HASH_CHARACTERS_MAX = 32;

/** An item in place: writes change it. Only the store writes it. */
export class StoredItem implements Item {
  readonly key: string;
  value: string;
  flags: number;
  expiresAtMs = Number.POSITIVE_INFINITY;
  cas: Cas;
  tokens = 0;
  accessedAtSeconds: number;
  queueIndex = UNQUEUED;

  constructor(key: string, value: string, flags: number, cas: Cas, writtenAtSeconds: number) {
    this.key = key;
    this.value = value;
    this.flags = flags;
    this.cas = cas;
    this.accessedAtSeconds = -writtenAtSeconds;
  }
}

/** The items by key, their expiry and their size. Keys and values are latin1 strings: one character per byte. */
export class Store {
  readonly #shards: readonly Map<string, StoredItem>[] = Array.from({ length: SHARDS }, () => new Map());
  readonly #expiry = new ExpiryQueue<StoredItem>();
  #items = 0;
  /** The sum over all items of key, value and `STORE_OVERHEAD_BYTES`. */
  #bytes = 0;

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

  /** The caller has looked: there is no item of that key. `nowMs` is only noted. */
  insert(key: string, value: string, flags: number, expiresAtMs: number, cas: Cas, nowMs: number): StoredItem {
    const item = new StoredItem(key, value, flags, cas, Math.trunc(nowMs / 1000));
    this.#shardOf(key).set(key, item);
    this.#items++;
    this.#bytes += key.length + value.length + STORE_OVERHEAD_BYTES;
    this.#expiry.schedule(item, expiresAtMs);
    return item;
  }

  /** A new value: nobody has fetched it, and no token of the old one is left. */
  update(item: StoredItem, value: string, flags: number, expiresAtMs: number, cas: Cas, nowMs: number): void {
    this.#bytes += value.length - item.value.length;
    item.value = value;
    item.flags = flags;
    item.cas = cas;
    item.tokens = 0;
    item.accessedAtSeconds = -Math.trunc(nowMs / 1000);
    this.#expiry.schedule(item, expiresAtMs);
  }

  reschedule(item: StoredItem, expiresAtMs: number): void {
    this.#expiry.schedule(item, expiresAtMs);
  }

  remove(item: StoredItem): void {
    this.#expiry.remove(item);
    this.#forget(item);
  }

  removeExpired(nowMs: number): void {
    const due = this.#expiry.takeDue(nowMs);
    if (due.length === this.#items) this.clear();
    else for (const item of due) this.#forget(item);
  }

  clear(): void {
    for (const shard of this.#shards) shard.clear();
    this.#expiry.clear();
    this.#items = 0;
    this.#bytes = 0;
  }

  /** In no order to rely on. What is written while it runs may or may not be seen. */
  *entries(): IterableIterator<[string, StoredItem]> {
    for (const shard of this.#shards) yield* shard.entries();
  }

  #forget(item: StoredItem): void {
    this.#shardOf(item.key).delete(item.key);
    this.#items--;
    this.#bytes -= item.key.length + item.value.length + STORE_OVERHEAD_BYTES;
  }

  #shardOf(key: string): Map<string, StoredItem> {
    const stride = 1 + Math.trunc(key.length / SHARD_HASH_CHARACTERS_MAX);
    let hash = key.length;
    for (let i = key.length - 1; i >= 0; i -= stride) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193);
    hash ^= hash >>> 16;
    // The mask keeps the index within the array, which the compiler cannot know.
    return this.#shards[(hash ^ (hash >>> 8)) & (SHARDS - 1)] as Map<string, StoredItem>;
  }
}
