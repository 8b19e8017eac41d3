import type { Clock } from '../base/clock.ts';
import type { StateMachine } from '../kv/state-machine.ts';
import type { Raft } from '../raft/raft.ts';
import type { Core } from '../raft/state/core.ts';
import type { Effects, Input } from '../raft/state/types.ts';
import type { ReplicaObserver } from './observer.ts';

type SnapshotReceived = Extract<Input, { readonly kind: 'snapshotReceived' }>;

/** An input of the core. A snapshot from another node brings its state with it, because the core only keeps track of snapshots. */
export type ReplicaInput = Exclude<Input, SnapshotReceived> | (SnapshotReceived & { readonly state: StateMachine });

/**
 * The only way to the core: takes one input after the other, each together with all of its effects (ADR 0013).
 *
 * Effects lead to further inputs: entries are applied, and the core must hear of it; a write finds the disk full. Such
 * an input waits until the effects of the present one are complete. So no effect of a later input overtakes one of an
 * earlier input, and code that carries out effects never finds the core in a later state than the one that asked for them.
 */
export class InputQueue {
  readonly #take: (input: ReplicaInput) => void;
  /** First the input that is being taken, then those that wait. */
  readonly #inputs: ReplicaInput[] = [];

  /** `take` steps the core and carries out all effects of the step. */
  constructor(take: (input: ReplicaInput) => void) {
    this.#take = take;
  }

  /**
   * If no input is being taken, `input` and all that follow from it have been taken on return; otherwise it waits. If
   * `take` throws, nothing is taken any more: effects of that input are missing.
   */
  put(input: ReplicaInput): void {
    // The input that is being taken stays in front, so one that is not the first only joins the queue.
    if (this.#inputs.push(input) > 1) return;
    for (let next: ReplicaInput | undefined = input; next !== undefined; next = this.#inputs[0]) {
      this.#take(next);
      this.#inputs.shift();
    }
  }
}

/** A process that was paused catches up on this many ticks at most: being away is no proof that the leader is. */
const TICKS_AT_ONCE_MAX = 3;

/** Gives the core its ticks, as many as time has passed. */
class Ticker {
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
    this.#clock.endOfTurn(this.#turnEnds);
  }

  readonly #turnEnds = (): void => {
    this.#turnScheduled = false;
    // A connection that is itself being closed may still have asked for something.
    if (this.#state === 'stopped') this.#handler.refuseAll();
    else this.run(this.#endTurn);
  };

  readonly #endTurn = (): void => this.#handler.endTurn();

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

/** Runs `action` with the result of a disk operation. If the operation fails, the node can't go on. */
export function onceDone<T>(
  loop: Pick<NodeLoop, 'run' | 'fail'>,
  operation: Promise<T>,
  action: (result: T) => void,
): void {
  operation.then(
    (result) => loop.run(() => action(result)),
    (error) => loop.fail(error),
  );
}
