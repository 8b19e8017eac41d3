/** The fields of an item that the queue uses. Only the queue writes them. */
export interface Expiring {
  /** Cluster time in milliseconds; `Infinity` for never. */
  expiresAtMs: number;
  /** The item's place in the queue; `UNQUEUED` exactly if it never expires or has left the store. */
  queueIndex: number;
}

export const UNQUEUED = -1;

const NOTHING: readonly never[] = [];
/** If more than one in so many is due at once, rebuilding the heap is faster than removing them one by one. */
const REBUILD_SHARE = 8;

/**
 * The items that will expire, soonest first: a binary heap in which every item knows its place. So an item has one
 * place however often its time changes, the heap is never larger than the store, and there is never anything stale to
 * sweep up, which would stall the node.
 */
export class ExpiryQueue<T extends Expiring> {
  readonly #items: T[] = [];
  /** `#times[i]` is `#items[i].expiresAtMs`, here to be compared without a visit to the item. */
  readonly #times: number[] = [];

  get size(): number {
    return this.#items.length;
  }

  /** The earliest expiry in cluster time; `Infinity` where nothing expires. */
  get earliestMs(): number {
    return this.#times[0] ?? Number.POSITIVE_INFINITY;
  }

  /** Gives the item a new time to expire, or none (`Infinity`). */
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

  /** Removes and returns all items whose time has come, in no order to rely on. */
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

  /** Walks from the root down to where time ends: no child is due before its parent. */
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

  /** Moves the hole at `index` up until the item fits it. */
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

  /** Moves the hole at `index` down until the item fits it. */
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
