import { RaftkvError } from '../base/errors.ts';
import { ExpiryQueue } from './expiry.ts';
import { StoreIterator } from './store-iterator.ts';
import { copyOf, ItemInPlace, type StoredItem } from './stored-item.ts';
import type { Cas } from './types.ts';

/**
 * The bytes that are added to key and value when the size of an item is compared with `itemBytesMax`: memcached's item
 * header (48), cas (8), key terminator (1) and line end (2). So the same values fit under the same limit.
 */
export const ITEM_OVERHEAD_BYTES = 59;

/**
 * The size of the largest item, whatever limit its batch contains. A value is one string, so it must stay below the
 * longest string of the JavaScript engine (about 512 MiB).
 */
export const ITEM_BYTES_CEILING = 256 * 1024 * 1024;

/**
 * The heap bytes of an item beside its key and value, which count against the limit of the store: the object and its
 * two boxed numbers, two string headers, its slots in a map and in the expiry queue. Measured and rounded up.
 */
export const STORE_OVERHEAD_BYTES = 200;

/**
 * The number of maps that the items are spread over. A map that grows moves all its entries at once: with one map of
 * three million items, that stalled the node for 400 ms, longer than an election timeout. Also, a map can't hold more
 * than 2^24 entries.
 */
const SHARDS = 256;
/** The number of characters that are hashed to choose the shard of a key. Of a longer key, about every n-th one is. */
const SHARD_HASH_CHARACTERS_MAX = 32;

/**
 * The items by key, with their expiry queue and their total size. Keys and values are latin1 strings: one character per
 * byte.
 */
export class Store {
  #shards = emptyShards();
  readonly #expiry = new ExpiryQueue<ItemInPlace>();
  #items = 0;
  /** The sum over all items of key, value and `STORE_OVERHEAD_BYTES`. */
  #bytes = 0;
  /** The number of the newest snapshot. It has not received the items that have a lower number yet. */
  #snapshotNumber = 0;
  #iterator: StoreIterator | null = null;

  get items(): number {
    return this.#items;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** When the next item expires, in cluster time; `Infinity` if none does. */
  get earliestExpiryMs(): number {
    return this.#expiry.earliestMs;
  }

  get(key: string): StoredItem | undefined {
    return this.#shardOf(key).get(key);
  }

  /** Adds an item. The store must not have an item of this key. `nowMs` is only recorded as the time of the write. */
  insert(key: string, value: string, flags: number, expiresAtMs: number, cas: Cas, nowMs: number): StoredItem {
    const item = new ItemInPlace(key, value, flags, cas, -Math.trunc(nowMs / 1000), this.#snapshotNumber);
    this.#shardOf(key).set(key, item);
    this.#items++;
    this.#bytes += key.length + value.length + STORE_OVERHEAD_BYTES;
    this.#expiry.schedule(item, expiresAtMs);
    return item;
  }

  /** Replaces the value. The item has no tokens afterwards and counts as not fetched since this write. */
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

  /**
   * Removes the item because its new expiration time is not in the future. The object gets that time, because the
   * result of the command shows it. An open snapshot gets a copy with the old time.
   */
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
   * Begins a snapshot: an iteration over all items as they are now.
   * @throws RaftkvError INVARIANT_BROKEN if another snapshot is open
   */
  beginSnapshot(): StoreIterator {
    if (this.#iterator?.isOpen)
      throw new RaftkvError('INVARIANT_BROKEN', 'a snapshot was begun while another was open');
    this.#snapshotNumber++;
    const keyAndValueBytes = this.#bytes - this.#items * STORE_OVERHEAD_BYTES;
    this.#iterator = new StoreIterator(this.#snapshotNumber, this.#shards, this.#items, keyAndValueBytes);
    return this.#iterator;
  }

  /** Adds an item of a snapshot. Returns false if its key was present already; the store is then of no use. */
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

  /** Iterates in no particular order. It may or may not see items that are written while it runs. */
  *entries(): IterableIterator<[string, StoredItem]> {
    for (const shard of this.#shards) yield* shard.entries();
  }

  /** Must be called before an item changes, if an open snapshot has not received it yet: gives the snapshot a copy. */
  #keepCopy(item: ItemInPlace): void {
    item.snapshotNumber = this.#snapshotNumber;
    if (this.#iterator?.isOpen) this.#iterator.keep(copyOf(item));
  }

  /**
   * Removes the item from its map. It does not change any more, so an open snapshot gets the item itself, not a copy.
   */
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
    // The compiler can't know that the mask keeps the index within the array.
    return this.#shards[(hash ^ (hash >>> 8)) & (SHARDS - 1)] as Map<string, ItemInPlace>;
  }
}

function emptyShards(): readonly Map<string, ItemInPlace>[] {
  return Array.from({ length: SHARDS }, () => new Map());
}
