import type { Clock } from '../base/clock.ts';
import type { Raft } from '../raft/raft.ts';
import type { Core } from '../raft/state/core.ts';
import type { Effects } from '../raft/state/types.ts';
import { InputQueue, type ReplicaInput } from './input-queue.ts';
import type { ReplicaObserver } from './observer.ts';
import { Ticker } from './ticker.ts';

/** The replica's part of the loop. */
export interface LoopHandler {
  /** Carries out all effects of `input`. The core does not change meanwhile. */
  carryOut(input: ReplicaInput, effects: Effects): void;
  /** `count` ticks have passed. */
  tick(count: number, nowMs: number): void;
  /** Sends what the turn of the event loop that ends now has gathered. */
  endTurn(): void;
  /** Fails all pending requests: the loop has stopped. Called again if more arrive after that. */
  refuseAll(): void;
}

export interface LoopOptions {
  readonly clock: Clock;
  readonly tickMs: number;
  readonly observer: ReplicaObserver | null;
  /** The node can't go on: its process must end. Called once. */
  readonly onFatal: (error: unknown) => void;
}

/**
 * The loop of one replica. It alone steps the core, and it decides whether anything is still done at all: after `stop`, and
 * after an error, the core takes no input and no action from outside runs. The parts of a replica hold the loop, look at
 * `core`, and change it by inputs alone.
 */
export class NodeLoop {
  /** To be read, never changed. */
  readonly core: Core;
  readonly #raft: Raft;
  readonly #clock: Clock;
  readonly #handler: LoopHandler;
  readonly #onFatal: (error: unknown) => void;
  readonly #inputs: InputQueue;
  readonly #ticker: Ticker;
  #turnScheduled = false;
  /** `failed`: the process is about to end and sends nothing more. */
  #state: 'running' | 'stopped' | 'failed' = 'running';

  /** Ticks begin at once. */
  constructor(raft: Raft, { clock, tickMs, observer, onFatal }: LoopOptions, handler: LoopHandler) {
    this.core = raft.core;
    this.#raft = raft;
    this.#clock = clock;
    this.#handler = handler;
    this.#onFatal = onFatal;
    this.#inputs = new InputQueue((input) => {
      observer?.stepping(input);
      const effects = raft.step(input);
      observer?.stepped(input, effects);
      handler.carryOut(input, effects);
    });
    this.#ticker = new Ticker(clock, tickMs, (count, nowMs) => this.run(() => handler.tick(count, nowMs)));
  }

  get isRunning(): boolean {
    return this.#state === 'running';
  }

  /** This node leads and is not handing leadership over. */
  get acceptsProposals(): boolean {
    return this.#raft.acceptsProposals;
  }

  /** Gives the core an input (see `InputQueue`). Only within `run`, which deals with the errors. */
  put(input: ReplicaInput): void {
    if (this.#state === 'running') this.#inputs.put(input);
  }

  /** Everything that comes from outside the loop comes in through here: requests, frames, timers, completed disk operations. */
  run(action: () => void): void {
    if (this.#state !== 'running') return;
    try {
      action();
    } catch (error) {
      this.fail(error);
    }
  }

  /** Has `endTurn` called once this turn of the event loop is over. */
  scheduleTurn(): void {
    if (this.#turnScheduled) return;
    this.#turnScheduled = true;
    this.#clock.endOfTurn(() => {
      this.#turnScheduled = false;
      // A connection that is itself being closed may still have asked for something.
      if (this.#state === 'stopped') this.#handler.refuseAll();
      else this.run(() => this.#handler.endTurn());
    });
  }

  stop(): void {
    if (this.#state !== 'running') return;
    this.#state = 'stopped';
    this.#ticker.stop();
    this.#handler.refuseAll();
  }

  fail(error: unknown): void {
    if (this.#state !== 'running') return;
    this.#state = 'failed';
    this.#ticker.stop();
    this.#onFatal(error);
  }
}
