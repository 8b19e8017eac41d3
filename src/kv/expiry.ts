/** The fields of an item that the queue uses. Only the queue writes them. */
export interface Expiring {
  /** Cluster time in milliseconds; `Infinity` for never. */
  expiresAtMs: number;
  /** The index of the item in the heap; `UNQUEUED` if it never expires or was removed. Meaningless after `clear`. */
  queueIndex: number;
}

export const UNQUEUED = -1;

const NOTHING: readonly never[] = [];
/** If at least one in this many items is due, rebuilding the heap is faster than removing them one by one. */
const REBUILD_SHARE = 8;

/**
 * The items that will expire: a binary heap in which every item knows its index. So an item whose time changes is moved
 * rather than added again. The heap is never larger than the store, and no stale entries have to be swept out, which
 * would stall the node.
 */
export class ExpiryQueue<T extends Expiring> {
  readonly #items: T[] = [];
  /** `#times[i]` is `#items[i].expiresAtMs`. Comparing numbers of one array is faster than loading each item. */
  readonly #times: number[] = [];

  get size(): number {
    return this.#items.length;
  }

  /** When the next item expires, in cluster time; `Infinity` if none does. */
  get earliestMs(): number {
    return this.#times[0] ?? Number.POSITIVE_INFINITY;
  }

  /** Sets the expiration time of an item; `Infinity` for never. */
  schedule(item: T, expiresAtMs: number): void {
    const wasAtMs = item.expiresAtMs;
    if (item.queueIndex === UNQUEUED) {
      item.expiresAtMs = expiresAtMs;
      if (expiresAtMs !== Number.POSITIVE_INFINITY) this.#siftUp(item, expiresAtMs, this.#items.length);
      return;
    }
    if (expiresAtMs === wasAtMs) return;
    if (expiresAtMs === Number.POSITIVE_INFINITY) {
      this.remove(item);
      item.expiresAtMs = expiresAtMs;
      return;
    }
    item.expiresAtMs = expiresAtMs;
    if (expiresAtMs < wasAtMs) this.#siftUp(item, expiresAtMs, item.queueIndex);
    else this.#siftDown(item, expiresAtMs, item.queueIndex);
  }

  remove(item: T): void {
    const hole = item.queueIndex;
    if (hole === UNQUEUED) return;
    item.queueIndex = UNQUEUED;
    const last = this.#items.pop();
    const lastTimeMs = this.#times.pop();
    if (last === undefined || lastTimeMs === undefined || last === item) return;
    if (lastTimeMs < item.expiresAtMs) this.#siftUp(last, lastTimeMs, hole);
    else this.#siftDown(last, lastTimeMs, hole);
  }

  /** Removes and returns all items that expire at `nowMs` or before, in no particular order. */
  takeDue(nowMs: number): readonly T[] {
    if (this.earliestMs > nowMs) return NOTHING;
    const due = this.#due(nowMs);
    if (due.length * REBUILD_SHARE < this.#items.length) {
      for (const item of due) this.remove(item);
      return due;
    }
    for (const item of due) item.queueIndex = UNQUEUED;
    this.#rebuildFrom(this.#items.filter((item) => item.queueIndex !== UNQUEUED));
    return due;
  }

  clear(): void {
    this.#items.length = 0;
    this.#times.length = 0;
  }

  /** Searches from the root and skips the children of items that are not due: no child expires before its parent. */
  #due(nowMs: number): T[] {
    const due: T[] = [];
    const open = [0];
    for (let index = open.pop(); index !== undefined; index = open.pop()) {
      const item = this.#items[index];
      if (item === undefined || item.expiresAtMs > nowMs) continue;
      due.push(item);
      open.push(index * 2 + 1, index * 2 + 2);
    }
    return due;
  }

  #rebuildFrom(items: readonly T[]): void {
    this.clear();
    for (const [index, item] of items.entries()) this.#place(item, item.expiresAtMs, index);
    for (let index = (items.length >>> 1) - 1; index >= 0; index--) {
      const item = this.#items[index];
      if (item !== undefined) this.#siftDown(item, item.expiresAtMs, index);
    }
  }

  /** Places the item at `index` or, as far as its ancestors expire later, further up. */
  #siftUp(item: T, timeMs: number, index: number): void {
    let hole = index;
    while (hole > 0) {
      const parent = (hole - 1) >>> 1;
      const parentItem = this.#items[parent];
      const parentMs = this.#times[parent];
      if (parentItem === undefined || parentMs === undefined || parentMs <= timeMs) break;
      this.#place(parentItem, parentMs, hole);
      hole = parent;
    }
    this.#place(item, timeMs, hole);
  }

  /** Places the item at `index` or, as far as its descendants expire earlier, further down. */
  #siftDown(item: T, timeMs: number, index: number): void {
    let hole = index;
    for (;;) {
      let child = hole * 2 + 1;
      let childMs = this.#times[child] ?? Number.POSITIVE_INFINITY;
      const siblingMs = this.#times[child + 1] ?? Number.POSITIVE_INFINITY;
      if (siblingMs < childMs) {
        child++;
        childMs = siblingMs;
      }
      const childItem = this.#items[child];
      if (childItem === undefined || childMs >= timeMs) break;
      this.#place(childItem, childMs, hole);
      hole = child;
    }
    this.#place(item, timeMs, hole);
  }

  #place(item: T, timeMs: number, index: number): void {
    this.#items[index] = item;
    this.#times[index] = timeMs;
    item.queueIndex = index;
  }
}
