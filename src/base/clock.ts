/**
 * Time and the event loop as the floors above 0 see them. The program passes the system's; the simulator passes its
 * own, which is why nothing else in `src/` may call `Date`, `setTimeout` or `setImmediate` itself.
 */
export interface Clock {
  /** Milliseconds since the Unix epoch. May jump; used only to stamp entries. */
  wallMs(): number;
  /** Milliseconds that never go back, from an arbitrary start. */
  monotonicMs(): number;
  /** Calls back once after at least `delayMs`; the returned function cancels. */
  after(delayMs: number, callback: () => void): () => void;
  /** Calls back at the end of this turn of the event loop, when every socket that has bytes has been read. */
  endOfTurn(callback: () => void): void;
}

/** The machine's own clock and event loop. */
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
