/**
 * The time and the event loop. A node gets `systemClock`, and the simulator passes its own clock. So code that the
 * simulator runs must not call `Date.now`, `performance.now`, `setTimeout` or `setImmediate` itself.
 */
export interface Clock {
  /** Milliseconds since the Unix epoch. May jump in either direction, so durations are measured with `monotonicMs`. */
  wallMs(): number;
  /** Milliseconds since an arbitrary moment. Never goes back. */
  monotonicMs(): number;
  /** Calls back once after at least `delayMs`. The returned function cancels the call. */
  after(delayMs: number, callback: () => void): () => void;
  /** Calls back at the end of this turn of the event loop, after the sockets that had bytes were read. */
  endOfTurn(callback: () => void): void;
}

/** The clock and the event loop of the system. */
export const systemClock: Clock = {
  wallMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after(delayMs, callback) {
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
  endOfTurn(callback) {
    setImmediate(callback);
  },
};
