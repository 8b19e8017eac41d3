import type { Clock } from '../../src/base/clock.ts';
import type { Random } from '../support/random.ts';
import type { Event } from './event-queue.ts';
import { drainMicrotasks, type World } from './world.ts';

/**
 * One incarnation of one process: from its start to its end, by whatever way. Everything that calls back into the shipped code
 * does so through `call`, one callback at a time as in Node's event loop: promises are resolved after each, and what asked for
 * the end of the turn comes after all that happened within it. Whatever a dead process has asked for never comes, and a
 * paused one finds it all waiting when it goes on.
 */

/** What a process does that others may notice; between any two of these it can be made to die. */
export interface DeathWish {
  effectsLeft: number;
  readonly die: () => void;
}

export interface ClockHabits {
  /** How much faster than true time its clocks run: 0.001 gains a millisecond a second. */
  readonly drift: number;
  readonly random: Random;
  /** The longest that a turn of the event loop goes on gathering what comes. */
  readonly turnMs: number;
}

export class Incarnation {
  readonly world: World;
  readonly nodeId: number;
  alive = true;
  paused = false;
  deathWish: DeathWish | null = null;
  /** Added to wall time: jumps. */
  wallOffsetMs: number;
  readonly clock: Clock;
  readonly #habits: ClockHabits;
  readonly #bornMs: number;
  #held: { readonly isTimer: boolean; readonly run: () => void }[] = [];
  #turn: (() => void)[] = [];

  constructor(world: World, nodeId: number, wallOffsetMs: number, habits: ClockHabits) {
    this.world = world;
    this.nodeId = nodeId;
    this.wallOffsetMs = wallOffsetMs;
    this.#habits = habits;
    this.#bornMs = world.nowMs;
    const rate = 1 + habits.drift;
    this.clock = {
      wallMs: () => Math.floor(world.nowMs * rate + this.wallOffsetMs),
      monotonicMs: () => (world.nowMs - this.#bornMs) * rate,
      after: (delayMs, callback) => {
        const event = this.post(Math.max(1, delayMs) / rate, callback, true);
        return () => {
          event.run = null;
        };
      },
      endOfTurn: (callback) => this.#endOfTurn(callback),
    };
  }

  /** Plans a callback of this process. */
  post(delayMs: number, callback: () => void, isTimer = false): Event {
    const event = this.world.after(delayMs, () => {
      if (!this.alive) return;
      if (!this.paused) {
        this.call(callback);
        return;
      }
      const run = () => {
        if (event.run !== null) callback();
      };
      this.#held.push({ isTimer, run });
    });
    return event;
  }

  /** One callback of the event loop, with all the promises that it resolves. */
  call(callback: () => void): void {
    if (!this.alive) return;
    try {
      callback();
      drainMicrotasks();
    } catch (error) {
      this.world.fail('no uncaught error', `node ${this.nodeId}: ${describe(error)}`);
    }
  }

  /** To be called before anything leaves the process. False where it has died before it could. */
  effect(): boolean {
    if (!this.alive) return false;
    const wish = this.deathWish;
    if (wish === null) return true;
    if (wish.effectsLeft-- > 0) return true;
    this.deathWish = null;
    wish.die();
    return this.alive;
  }

  pause(): void {
    this.paused = true;
  }

  /** Everything that came meanwhile comes now: timers that are due first or last, as the loop happened to stand. */
  goOn(): void {
    if (!this.alive || !this.paused) return;
    this.paused = false;
    const held = this.#held;
    this.#held = [];
    const timersFirst = this.#habits.random.chance(0.5);
    // Scheduled again rather than called: one of them may pause the process again, or end it.
    for (const { isTimer, run } of held) if (isTimer === timersFirst) this.post(0, run, isTimer);
    for (const { isTimer, run } of held) if (isTimer !== timersFirst) this.post(0, run, isTimer);
  }

  #endOfTurn(callback: () => void): void {
    this.#turn.push(callback);
    if (this.#turn.length > 1) return;
    const delayMs = this.#habits.random.next() * this.#habits.turnMs;
    this.post(delayMs, () => {
      const callbacks = this.#turn;
      this.#turn = [];
      for (const each of callbacks) this.call(each);
    });
  }
}

export function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const code = (error as { code?: unknown }).code;
  return `${code === undefined ? '' : `${String(code)} `}${error.stack ?? error.message}`;
}
