/** What is to happen, by simulated time; of two things at the same moment, the one that was planned first. */

export interface Event {
  readonly atMs: number;
  readonly order: number;
  /** Null once cancelled. */
  run: (() => void) | null;
}

export class EventQueue {
  readonly #heap: Event[] = [];
  #planned = 0;

  add(atMs: number, run: () => void): Event {
    const event: Event = { atMs, order: this.#planned++, run };
    const heap = this.#heap;
    let hole = heap.length;
    while (hole > 0) {
      const parent = (hole - 1) >>> 1;
      const above = heap[parent] as Event;
      if (above.atMs <= atMs) break;
      heap[hole] = above;
      hole = parent;
    }
    heap[hole] = event;
    return event;
  }

  /** When the next thing happens; `Infinity` where nothing will. */
  get nextAtMs(): number {
    return this.#heap[0]?.atMs ?? Number.POSITIVE_INFINITY;
  }

  take(): Event | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined || heap.length === 0) return first;
    let hole = 0;
    for (;;) {
      let child = hole * 2 + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1] as Event, heap[child] as Event)) child++;
      const below = heap[child] as Event;
      if (!isBefore(below, last)) break;
      heap[hole] = below;
      hole = child;
    }
    heap[hole] = last;
    return first;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}
