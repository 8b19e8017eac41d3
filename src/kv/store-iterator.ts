import { RaftkvError } from '../base/errors.ts';
import type { ItemInPlace, StoredItem } from './stored-item.ts';

/**
 * All items as they were at one moment, given out one by one while the store goes on. Each item is taken once: by the
 * walk over the store's maps while it is as it was, or by the store just before it is written or removed.
 *
 * ```
 *  maps at start ── walk ──────────────────────────────▶ step() ─▶ the item as it was
 *       │                                                    ▲
 *       └─ written or removed before the walk was there ─▶ kept
 * ```
 */
export class StoreIterator {
  /** False once all items were returned, or the iterator was closed. */
  isOpen = true;
  readonly #number: number;
  /** The items that the walk has not reached. A map may change while it is iterated over; no item is seen twice. */
  readonly #maps: Map<string, ItemInPlace>[];
  #walk: Iterator<ItemInPlace> | null = null;
  readonly #kept: StoredItem[] = [];
  /** The number of items that the iterator has not returned yet, and the bytes of their keys and values. */
  #itemsLeft: number;
  #bytesLeft: number;

  constructor(number: number, maps: readonly Map<string, ItemInPlace>[], items: number, bytes: number) {
    this.#number = number;
    this.#maps = [...maps];
    this.#itemsLeft = items;
    this.#bytesLeft = bytes;
    if (items === 0) this.close();
  }

  get itemsLeft(): number {
    return this.#itemsLeft;
  }

  get bytesLeft(): number {
    return this.#bytesLeft;
  }

  /** Adds an item as it was when the snapshot began. It must not be written to any more. */
  keep(item: StoredItem): void {
    this.#kept.push(item);
  }

  /**
   * Looks at one item, and returns it if it belongs to the snapshot and was not returned before: use it at once. Else
   * returns null. Kept items go first, so that their memory is freed soon.
   * @throws RaftkvError INVARIANT_BROKEN if items were lost.
   */
  step(): StoredItem | null {
    const kept = this.#kept.pop();
    if (kept !== undefined) return this.#given(kept);
    if (this.#walk === null) {
      const map = this.#maps.pop();
      if (map === undefined) throw this.#lost();
      this.#walk = map.values();
    }
    const { done, value } = this.#walk.next();
    if (done === true) {
      this.#walk = null;
      return null;
    }
    if (value.snapshotNumber === this.#number) return null;
    value.snapshotNumber = this.#number;
    return this.#given(value);
  }

  /** Ends the iteration, if it has not ended, and frees what it still held. */
  close(): void {
    this.isOpen = false;
    this.#kept.length = 0;
    this.#maps.length = 0;
    this.#walk = null;
  }

  #given(item: StoredItem): StoredItem {
    this.#itemsLeft--;
    this.#bytesLeft -= item.key.length + item.value.length;
    if (this.#itemsLeft === 0) {
      if (this.#bytesLeft !== 0) throw this.#lost();
      this.close();
    }
    return item;
  }

  #lost(): RaftkvError {
    const what = `${this.#itemsLeft} items and ${this.#bytesLeft} bytes`;
    return new RaftkvError('INVARIANT_BROKEN', `a snapshot of the store ended with ${what} less than there were`);
  }
}
