import type { Clock } from '../base/clock.ts';

/** A process that was paused catches up on this many ticks at most: being away is no proof that the leader is. */
const TICKS_AT_ONCE_MAX = 3;

/** Gives the core its ticks, as many as time has passed. */
export class Ticker {
  readonly #clock: Clock;
  readonly #tickMs: number;
  readonly #onTicks: (count: number, nowMs: number) => void;
  #lastTickMs: number;
  #cancelTimer: () => void = () => {};
  #stopped = false;

  constructor(clock: Clock, tickMs: number, onTicks: (count: number, nowMs: number) => void) {
    this.#clock = clock;
    this.#tickMs = tickMs;
    this.#onTicks = onTicks;
    this.#lastTickMs = clock.monotonicMs();
    this.#schedule();
  }

  #schedule(): void {
    this.#cancelTimer = this.#clock.after(this.#tickMs, () => {
      this.#tick();
      if (!this.#stopped) this.#schedule();
    });
  }

  #tick(): void {
    const nowMs = this.#clock.monotonicMs();
    const due = Math.floor((nowMs - this.#lastTickMs) / this.#tickMs);
    this.#lastTickMs = due > TICKS_AT_ONCE_MAX ? nowMs : this.#lastTickMs + due * this.#tickMs;
    this.#onTicks(Math.min(due, TICKS_AT_ONCE_MAX), nowMs);
  }

  stop(): void {
    this.#stopped = true;
    this.#cancelTimer();
  }
}
