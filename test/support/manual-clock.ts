import { type Clock, systemClock } from '../../src/base/clock.ts';

/** Something to await: resolves `until(condition)` when it holds after a `changed()`. */
export function createSignal() {
  const waiting = new Set<() => void>();
  return {
    changed() {
      for (const check of [...waiting]) check();
    },
    until(condition: () => boolean): Promise<void> {
      return new Promise((resolve) => {
        const check = () => {
          if (!condition()) return;
          waiting.delete(check);
          resolve();
        };
        waiting.add(check);
        check();
      });
    },
  };
}

/** A clock that moves when told to. `scheduled` holds the delays asked for, in order; `pending` those still to come. */
export function createManualClock() {
  const signal = createSignal();
  const scheduled: number[] = [];
  const timers = new Map<number, { atMs: number; callback: () => void }>();
  let nowMs = 0;
  let nextId = 0;
  const clock: Clock = {
    wallMs: () => nowMs,
    monotonicMs: () => nowMs,
    after(delayMs, callback) {
      const id = nextId++;
      timers.set(id, { atMs: nowMs + delayMs, callback });
      scheduled.push(delayMs);
      signal.changed();
      return () => {
        timers.delete(id);
      };
    },
    endOfTurn: systemClock.endOfTurn,
  };
  return {
    clock,
    scheduled,
    until: signal.until,
    pending: () => timers.size,
    advance(ms: number) {
      nowMs += ms;
      for (const [id, timer] of [...timers]) {
        if (timer.atMs > nowMs || !timers.delete(id)) continue;
        timer.callback();
      }
    },
  };
}
