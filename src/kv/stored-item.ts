import { UNQUEUED } from './expiry.ts';
import type { Cas, Item } from './types.ts';

/** An item in the store, for reading. It changes with the next write, and only the store writes it. */
export type StoredItem = Readonly<ItemInPlace>;

/** An item in place: writes change it. */
export class ItemInPlace implements Item {
  readonly key: string;
  value: string;
  flags: number;
  expiresAtMs = Number.POSITIVE_INFINITY;
  cas: Cas;
  tokens = 0;
  accessedAtSeconds: number;
  queueIndex = UNQUEUED;
  /** The newest snapshot that has already taken this item, or that began before it was made. Never above the store's own number. */
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

/** The item as it is now, without a place in any queue. The bytes of key and value are shared: strings never change. */
export function copyOf(item: StoredItem): StoredItem {
  const copy = new ItemInPlace(item.key, item.value, item.flags, item.cas, item.accessedAtSeconds, item.snapshotNumber);
  copy.expiresAtMs = item.expiresAtMs;
  copy.tokens = item.tokens;
  return copy;
}
