import { type Event, EventQueue } from './event-queue.ts';

/**
 * The simulated world: one seed decides everything that happens in it. Time passes only from event to event, so an
 * hour in which nothing happens costs nothing.
 *
 * ```
 *  plan.ts (what this seed is like) ─▶ run.ts
 *                                        │ builds
 *        ┌───────────────┬───────────────┼──────────────┬───────────────┐
 *   network.ts       processes.ts     clients.ts     faults.ts       checks.ts
 *   links, parts     disk + clock     bytes over     schedules       after every step of every core,
 *                    + shipped node   sockets.ts     and targetedFaults    and of the whole cluster
 *        └───────────────┴───────────────┴──────────────┘
 *                          world.ts: event queue, time, trace
 * ```
 *
 * The shipped code uses promises. They are real ones: after every callback `drainMicrotasks` runs all that have become
 * ready, as Node does between two callbacks, before anything else may happen.
 */

/** What a broken promise of the system looks like; ends the run. */
export class Violation extends Error {
  /** Which check it was, for the table of mutants. */
  readonly check: string;

  constructor(check: string, message: string) {
    super(`${check}: ${message}`);
    this.name = 'Violation';
    this.check = check;
  }
}

/** More events than any healthy run needs: something sends itself messages without end. */
const EVENTS_MAX = 30_000_000;

export class World {
  nowMs = 0;
  /** How many events have happened. */
  events = 0;
  /** The first broken promise; the run ends with the event that broke it. */
  violation: Violation | null = null;
  /** Receives readable lines where somebody wants to read them. */
  readonly onTrace: ((line: string) => void) | null;
  readonly #queue = new EventQueue();
  #moments = 0;
  #hashA = 0x811c9dc5;
  #hashB = 0x9e3779b9;

  constructor(onTrace: ((line: string) => void) | null) {
    this.onTrace = onTrace;
  }

  after(delayMs: number, run: () => void): Event {
    return this.#queue.add(this.nowMs + delayMs, run);
  }

  /** Lets time pass up to `untilMs`, or until `done` says so. Must be called from outside any promise. */
  run(untilMs: number, done: () => boolean): void {
    while (this.violation === null && !done()) {
      if (this.#queue.nextAtMs > untilMs) {
        this.nowMs = untilMs;
        return;
      }
      const event = this.#queue.take();
      if (event === undefined) return;
      if (event.run === null) continue;
      if (++this.events > EVENTS_MAX) {
        this.fail('progress', `${EVENTS_MAX} events in ${Math.round(this.nowMs)} ms of simulated time`);
        return;
      }
      this.nowMs = event.atMs;
      try {
        event.run();
      } catch (error) {
        this.fail('the simulator works', error instanceof Error ? (error.stack ?? error.message) : String(error));
      }
    }
  }

  /** Tells the order of what clients do, where many things happen at one time. */
  nextMoment(): number {
    return ++this.#moments;
  }

  fail(check: string, message: string): void {
    if (this.violation !== null) return;
    this.violation = new Violation(check, message);
    this.say(() => `VIOLATION ${check}: ${message}`);
  }

  /** Makes a number part of the trace's hash. */
  hash(number: number): void {
    const low = number | 0;
    this.#hashA = Math.imul(this.#hashA ^ low, 0x01000193);
    this.#hashB = Math.imul((this.#hashB << 5) ^ (this.#hashB >>> 27) ^ low, 0xc2b2ae35);
  }

  hashBytes(bytes: Uint8Array): void {
    let a = this.#hashA;
    for (let i = 0; i < bytes.length; i++) a = Math.imul(a ^ (bytes[i] as number), 0x01000193);
    this.#hashA = a;
    this.hash(bytes.length);
  }

  say(line: () => string): void {
    if (this.onTrace !== null) this.onTrace(`${this.nowMs.toFixed(3).padStart(12)} ${line()}`);
  }

  traceHash(): string {
    const hex = (number: number) => (number >>> 0).toString(16).padStart(8, '0');
    return hex(this.#hashA) + hex(this.#hashB);
  }
}

/**
 * Runs every promise callback that is ready, and those that they make ready, before it returns. Node has no public call
 * for this; the one below is what it calls itself between two callbacks, and has been there since its beginnings.
 */
export function drainMicrotasks(): void {
  runTicks();
}

const runTicks = (process as unknown as { _tickCallback: () => void })._tickCallback;
