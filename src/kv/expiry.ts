/** What the queue needs of an item. Only the queue writes these fields. */
export interface Expiring {
  /** Cluster time in milliseconds; `Infinity` for never. */
  expiresAtMs: number;
  /** Where the item stands in the queue; `UNQUEUED` exactly when it never expires or has left the store. */
  queueIndex: number;
}

export const UNQUEUED = -1;

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

  /** Removes and returns an item whose time has come; undefined where there is none. */
  takeDue(nowMs: number): T | undefined {
    if (this.earliestMs > nowMs) return undefined;
    const item = this.#items[0];
    if (item !== undefined) this.remove(item);
    return item;
  }

  clear(): void {
    this.#items.length = 0;
    this.#times.length = 0;
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
