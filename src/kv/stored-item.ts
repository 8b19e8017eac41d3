import { UNQUEUED } from './expiry.ts';
import type { Cas, Item } from './types.ts';

/** An item in the store. Only the store changes it, and it may do so with the next write. */
export type StoredItem = Readonly<ItemInPlace>;

/** An item as the store changes it. */
export class ItemInPlace implements Item {
  readonly key: string;
  value: string;
  flags: number;
  expiresAtMs = Number.POSITIVE_INFINITY;
  cas: Cas;
  tokens = 0;
  accessedAtSeconds: number;
  queueIndex = UNQUEUED;
  /**
   * The number of the newest snapshot that doesn't need this item any more: it has received the item, or it began
   * before the item was made. Never above the store's snapshot number.
   */
  snapshotNumber: number;

  constructor(key: string, value: string, flags: number, cas: Cas, accessedAtSeconds: number, snapshotNumber: number) {
    this.key = key;
    this.value = value;
    this.flags = flags;
    this.cas = cas;
    this.accessedAtSeconds = accessedAtSeconds;
    this.snapshotNumber = snapshotNumber;
  }
}

/** Returns a copy that is in no expiry queue. It shares the strings of key and value, which never change. */
export function copyOf(item: StoredItem): StoredItem {
  const copy = new ItemInPlace(item.key, item.value, item.flags, item.cas, item.accessedAtSeconds, item.snapshotNumber);
  copy.expiresAtMs = item.expiresAtMs;
  copy.tokens = item.tokens;
  return copy;
}
