import type { Clock } from '../../../src/base/clock.ts';
import type { RaftkvError } from '../../../src/base/errors.ts';
import { silentLogger } from '../../../src/base/logger.ts';
import { HeldLock, type LockFiles } from '../../../src/storage/lock/held-lock.ts';
import {
  type Acquired,
  acquire,
  type LockOperation,
  type LockStep,
  type Steps,
} from '../../../src/storage/lock/protocol.ts';
import type { Identity, LockRecord, Place, ProcessState } from '../../../src/storage/lock/record.ts';
import type { Random } from '../../support/random.ts';
import { performOn } from './memory-files.ts';

/**
 * Processes on several machines and in several pid namespaces that want the lock of one directory, on simulated time. Each
 * file operation takes effect at one moment and is answered at a later one. Between any two operations, also those of a
 * renewal that blocks, the others go on.
 */
export interface Machine {
  readonly place: Place;
  /** How fast its monotonic clock runs. */
  readonly rate: number;
}

/** The order among events of the same time is that of scheduling. */
interface Event {
  readonly atMs: number;
  /** Null: of the world itself, or of the disk. */
  readonly owner: LockProcess | null;
  run(): void;
}

export interface WorldOptions {
  readonly random: Random;
  /** How long an operation takes until its effect, and from there to its answer. */
  delayMs(): number;
  /** A number was taken. */
  created(by: LockProcess): void;
}

export class LockWorld {
  nowMs = 0;
  readonly random: Random;
  readonly files = new Map<string, string>();
  readonly processes: LockProcess[] = [];
  /** Numbers in the order in which they were acquired, with those who acquired them. */
  readonly acquired: { readonly number: number; readonly by: LockProcess; readonly atMs: number }[] = [];
  readonly #options: WorldOptions;
  readonly #events: Event[] = [];

  constructor(options: WorldOptions) {
    this.random = options.random;
    this.#options = options;
  }

  start(machine: Machine, pid: number): LockProcess {
    const process = new LockProcess(this, machine, pid);
    this.processes.push(process);
    process.begin();
    return process;
  }

  at(delayMs: number, owner: LockProcess | null, run: () => void): Event {
    const event = { atMs: this.nowMs + Math.max(0, delayMs), owner, run };
    let i = this.#events.length;
    while (i > 0 && (this.#events[i - 1]?.atMs ?? 0) > event.atMs) i--;
    this.#events.splice(i, 0, event);
    return event;
  }

  cancel(event: Event): void {
    const i = this.#events.indexOf(event);
    if (i >= 0) this.#events.splice(i, 1);
  }

  /** Runs what is due until then. Code after an `await` runs between two events, as it does after a real callback. */
  async run(untilMs: number): Promise<void> {
    while (this.#runNext(untilMs)) for (let i = 0; i < 8; i++) await null;
    this.nowMs = Math.max(this.nowMs, untilMs);
  }

  /** The same for the time in which one process blocks. */
  #runBlocking(untilMs: number): void {
    while (this.#runNext(untilMs));
    this.nowMs = Math.max(this.nowMs, untilMs);
  }

  #runNext(untilMs: number): boolean {
    const first = this.#events[0];
    if (first === undefined || first.atMs > untilMs) return false;
    this.#events.shift();
    this.nowMs = Math.max(this.nowMs, first.atMs);
    const { owner } = first;
    if (owner?.isDead) return true;
    if (owner === null || owner.isRunning) first.run();
    else owner.waiting.push(first.run);
    return true;
  }

  /** The operation takes effect, also while its process does not run, and is answered later. */
  perform(owner: LockProcess, operation: LockOperation, answer: (result: unknown) => void): void {
    this.at(this.#options.delayMs(), null, () => {
      if (owner.isDead) return;
      const result = performOn(this.files, operation);
      if (operation.kind === 'create' && result === true) this.#options.created(owner);
      this.at(this.#options.delayMs(), owner, () => answer(result));
    });
  }

  performBlocking(owner: LockProcess, operation: LockOperation): unknown {
    owner.isBlocked = true;
    this.#runBlocking(this.nowMs + this.#options.delayMs());
    const result = owner.isDead ? null : performOn(this.files, operation);
    this.#runBlocking(this.nowMs + this.#options.delayMs());
    while (owner.runsAtMs > this.nowMs) this.#runBlocking(owner.runsAtMs);
    owner.isBlocked = false;
    owner.resume();
    if (owner.isDead) throw new Error('killed');
    return result;
  }
}

let lastId = 0;

/** One process, from its start to its end. */
export class LockProcess {
  readonly machine: Machine;
  readonly pid: number;
  readonly identity: Identity;
  readonly clock: Clock;
  readonly #world: LockWorld;
  state: 'contending' | 'holding' | 'ended' = 'contending';
  error: RaftkvError | null = null;
  number = 0;
  lock: HeldLock | null = null;
  watched: (LockRecord | null)[] = [];
  /** It runs again from then on. */
  runsAtMs = 0;
  /** It waits for an operation and does nothing else meanwhile. */
  isBlocked = false;
  /** What happens as soon as it runs. */
  waiting: (() => void)[] = [];
  /** How far its clocks differ from the world's. */
  wallSkewMs: number;
  #monotonicSkewMs: number;
  #suspendedUntilMs = 0;

  constructor(world: LockWorld, machine: Machine, pid: number) {
    this.#world = world;
    this.machine = machine;
    this.pid = pid;
    this.wallSkewMs = Math.floor(world.random.next() * 1e9);
    this.#monotonicSkewMs = Math.floor(world.random.next() * 1e6);
    const id = `${++lastId}`;
    const started = machine.place === null ? null : `started ${id}`;
    this.identity = { pid, host: 'host', since: '2026-01-01T00:00:00.000Z', id, place: machine.place, started };
    this.clock = {
      wallMs: () => world.nowMs + this.wallSkewMs,
      monotonicMs: () => world.nowMs * machine.rate + this.#monotonicSkewMs,
      after: (delayMs, callback) => {
        const event = world.at(delayMs / machine.rate, this, callback);
        return () => world.cancel(event);
      },
      endOfTurn: (callback) => void world.at(0, this, callback),
    };
  }

  get isDead(): boolean {
    return this.state === 'ended';
  }

  get isRunning(): boolean {
    return !this.isDead && !this.isBlocked && this.runsAtMs <= this.#world.nowMs;
  }

  begin(): void {
    const { clock, identity } = this;
    const steps = acquire({
      ...{ folder: 'LOCK', identity, clock },
      stateOf: (pid) => this.#stateOf(pid),
      watching: (record) => void this.watched.push(record),
    });
    this.#advance(steps, undefined);
  }

  /** Does nothing for so long, like a process that was sent SIGSTOP. */
  pause(ms: number): void {
    if (this.#world.nowMs + ms > this.runsAtMs) this.#runAt(this.#world.nowMs + ms);
  }

  #runAt(ms: number): void {
    this.runsAtMs = ms;
    this.#world.at(ms - this.#world.nowMs, null, () => this.resume());
  }

  resume(): void {
    if (!this.isRunning) return;
    for (const run of this.waiting.splice(0)) this.#world.at(0, this, run);
  }

  /** As `pause`, and its monotonic clock stands still. */
  suspend(ms: number): void {
    const { nowMs } = this.#world;
    const fromMs = Math.max(nowMs, this.#suspendedUntilMs);
    if (nowMs + ms <= fromMs) return;
    this.pause(ms);
    this.#suspendedUntilMs = nowMs + ms;
    this.#monotonicSkewMs -= (nowMs + ms - fromMs) * this.machine.rate;
  }

  /** Ends a pause at an awkward moment. A suspended machine wakes up when it will. */
  wakeIn(ms: number): void {
    if (this.isDead || this.#suspendedUntilMs > this.#world.nowMs) return;
    this.#runAt(this.#world.nowMs + ms);
  }

  kill(): void {
    this.state = 'ended';
  }

  /** Writes to the data, as it were, if it may. */
  act(): boolean {
    if (!this.isRunning || this.lock?.check() !== true || this.isDead) return false;
    const newest = this.#world.acquired.at(-1);
    if (newest !== undefined && newest.number > this.number) {
      throw new Error(
        `${this.number} acts at ${this.#world.nowMs}, after ${newest.number} took over at ${newest.atMs}`,
      );
    }
    return true;
  }

  async release(): Promise<void> {
    await this.lock?.release();
    this.kill();
  }

  #advance(steps: Steps<Acquired>, result: unknown): void {
    let next: IteratorResult<LockStep, Acquired>;
    try {
      next = steps.next(result);
    } catch (error) {
      this.#end(error as RaftkvError);
      return;
    }
    if (next.done) {
      this.#hold(next.value);
      return;
    }
    const step = next.value;
    if (step.kind === 'wait') this.clock.after(step.ms, () => this.#advance(steps, undefined));
    else this.#world.perform(this, step, (answer) => this.#advance(steps, answer));
  }

  #hold(acquired: Acquired): void {
    const world = this.#world;
    this.state = 'holding';
    this.number = acquired.number;
    const files: LockFiles = {
      perform: (operation) => new Promise((resolve) => world.perform(this, operation, resolve)),
      performNow: (operation) => world.performBlocking(this, operation),
    };
    const { clock, identity } = this;
    const onLost = (error: RaftkvError) => this.#end(error);
    this.lock = new HeldLock({ directory: 'd', files, clock, logger: silentLogger, identity, onLost }, acquired);
    // It may have been slow since: only when it acts, it has the lock.
    if (!this.lock.check() || this.isDead) return;
    world.acquired.push({ number: this.number, by: this, atMs: world.nowMs });
    this.#verifyOrder();
  }

  #verifyOrder(): void {
    const numbers = this.#world.acquired.map(({ number }) => number);
    const isOrdered = numbers.every((number, i) => i === 0 || number > (numbers[i - 1] ?? 0));
    if (!isOrdered) throw new Error(`numbers were acquired in the order ${numbers.join()}`);
  }

  #end(error: RaftkvError): void {
    if (this.state === 'ended') return;
    this.error = error;
    this.kill();
  }

  #stateOf(pid: number): ProcessState {
    const found = this.#world.processes.find(
      (each) => !each.isDead && each.pid === pid && each.machine.place === this.machine.place,
    );
    return found === undefined ? { kind: 'dead' } : { kind: 'alive', started: found.identity.started };
  }
}
