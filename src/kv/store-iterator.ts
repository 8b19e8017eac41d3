import { RaftkvError } from '../base/errors.ts';
import type { ItemInPlace, StoredItem } from './stored-item.ts';

/**
 * Returns all items as they were when the snapshot began, one by one, while the store continues to change. Each item is
 * returned once. The iterator walks over the maps of the store; an item that is changed or removed before the walk has
 * reached it is passed to `keep` by the store.
 *
 * ```
 *  maps at start ── walk ──────────────────────────────▶ step() ─▶ the item as it was
 *       │                                                    ▲
 *       └─ changed or removed before the walk reached it ─▶ kept
 * ```
 */
export class StoreIterator {
  /** True until all items were returned or `close` was called. */
  isOpen = true;
  readonly #number: number;
  /** The maps that the walk has not reached. A map may change while it is iterated over. */
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

  /** Adds an item as it was when the snapshot began. The item must not change any more. */
  keep(item: StoredItem): void {
    this.#kept.push(item);
  }

  /**
   * Looks at one item. Returns it if it belongs to the snapshot and was not returned before, otherwise null. The caller
   * must use it before the store changes. Kept items are returned first, so that their memory is freed soon.
   * @throws RaftkvError INVARIANT_BROKEN if the number or size of the items is less than when the snapshot began
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

  /** Ends the iteration and frees the items that were not returned yet. */
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
