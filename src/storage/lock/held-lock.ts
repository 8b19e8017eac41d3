import type { Clock } from '../../base/clock.ts';
import { RaftkvError } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import {
  type Acquired,
  continueAbove,
  currentRecord,
  HEARTBEAT_MS,
  HELD_MS,
  type LockOperation,
  release,
  renew,
  type Steps,
} from './protocol.ts';
import { describeHolder, type Identity, type LockRecord } from './record.ts';

/** The files of a lock folder. */
export interface LockFiles {
  perform(operation: LockOperation): Promise<unknown>;
  /** Renews the record synchronously. */
  performNow(operation: LockOperation): unknown;
}

export interface HolderOptions {
  /** The locked directory, for messages. */
  readonly directory: string;
  readonly files: LockFiles;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly identity: Identity;
  /** Called once, with DATA_DIR_LOST: the process must end. Nothing it says counts any more. */
  readonly onLost: (error: RaftkvError) => void;
}

/** A lock that this process holds, or has lost. */
export class HeldLock {
  readonly #options: HolderOptions;
  readonly #number: number;
  #state: 'held' | 'released' | 'lost' = 'held';
  #beat: number;
  /** Until when this process may act, by the monotonic clock and by the wall clock. */
  #untilMs = 0;
  #untilWallMs = 0;
  /** The renewal in progress that does not block. */
  #renewing: Promise<void> | null = null;
  #cancelTimer: () => void = () => {};

  constructor(options: HolderOptions, { number, renewedMs, renewedWallMs, beat }: Acquired) {
    this.#options = options;
    this.#number = number;
    this.#beat = beat;
    this.#extend(renewedMs, renewedWallMs);
    this.#scheduleHeartbeat();
  }

  /**
   * Whether this process may act on the directory, and on what it has promised from it. False once the lock is released or
   * lost, of which `onLost` was told. To be asked before and after each write, and before anything is said to other nodes.
   *
   * If the last renewal has lapsed, the process must do nothing until the next one succeeds. So that renewal blocks.
   */
  check(): boolean {
    if (this.#state !== 'held') return false;
    return this.#isRenewed() || this.#renewNow();
  }

  #isRenewed(): boolean {
    const { clock } = this.#options;
    // The monotonic clock of some systems stands still while the machine is suspended. The wall clock does not.
    return clock.monotonicMs() < this.#untilMs && clock.wallMs() < this.#untilWallMs;
  }

  /** Lets another process have the directory. */
  async release(): Promise<void> {
    if (!(await this.#end())) return;
    await runSteps(release(this.#number, this.#nextRecord()), this.#options.files);
  }

  /**
   * Ends this lock, and prepares the directory that the caller puts in the place of the locked one: its lock folder continues
   * with a higher number. Otherwise a process that has looked at the old folder could take a number which the new one does not
   * know, and hold the lock beside another.
   * @param successor the lock files of that directory.
   */
  async continueIn(successor: LockFiles): Promise<void> {
    if (!(await this.#end())) throw this.#lostError('it was released', undefined);
    await runSteps(continueAbove(this.#number, this.#nextRecord()), successor);
  }

  /** False if the lock had ended before. */
  async #end(): Promise<boolean> {
    this.#cancelTimer();
    // A renewal that arrives later would overwrite the release.
    await this.#renewing;
    if (this.#state !== 'held') return false;
    this.#state = 'released';
    return true;
  }

  #scheduleHeartbeat(): void {
    this.#cancelTimer = this.#options.clock.after(HEARTBEAT_MS, () => {
      if (this.#state !== 'held') return;
      if (this.#renewing === null) this.#renewing = this.#renewLater();
      // The disk has not answered the last renewal.
      else if (!this.check()) return;
      this.#scheduleHeartbeat();
    });
  }

  async #renewLater(): Promise<void> {
    const { clock, files } = this.#options;
    const startedMs = clock.monotonicMs();
    const startedWallMs = clock.wallMs();
    let isOurs = true;
    try {
      isOurs = await runSteps(this.#renewal(), files);
      if (isOurs) this.#extend(startedMs, startedWallMs);
    } catch {
      // Tried again at the next heartbeat. If that fails until the last renewal lapses, `check` says why.
    } finally {
      this.#renewing = null;
    }
    if (!isOurs && this.#state === 'held') this.#lose();
  }

  #renewNow(): boolean {
    const { clock, files, logger } = this.#options;
    let startedMs = clock.monotonicMs();
    const sinceRenewalMs = Math.round(startedMs - this.#untilMs + HELD_MS);
    try {
      do {
        startedMs = clock.monotonicMs();
        const startedWallMs = clock.wallMs();
        if (!runStepsNow(this.#renewal(), files)) return this.#lose();
        this.#extend(startedMs, startedWallMs);
      } while (!this.#isRenewed());
    } catch (error) {
      return this.#fail(this.#lostError('it could not be renewed', error));
    }
    logger.warn({ sinceRenewalMs }, 'the lock of the data directory was renewed late; the node did nothing until then');
    return true;
  }

  #renewal(): Steps<boolean> {
    return renew(this.#number, { ...this.#nextRecord(), state: 'held' });
  }

  #nextRecord(): Omit<LockRecord, 'state'> {
    this.#beat += 1;
    return { beat: this.#beat, holder: this.#options.identity };
  }

  #extend(startedMs: number, startedWallMs: number): void {
    // A renewal that blocked may have begun after this one.
    if (startedMs + HELD_MS < this.#untilMs) return;
    this.#untilMs = startedMs + HELD_MS;
    this.#untilWallMs = startedWallMs + HELD_MS;
  }

  #lose(): false {
    let taker: LockRecord | null = null;
    try {
      taker = runStepsNow(currentRecord(), this.#options.files);
    } catch {
      // The lock is lost, but the process that took it is unknown.
    }
    const isOther = taker !== null && taker.holder.id !== this.#options.identity.id;
    return this.#fail(
      this.#lostError(isOther ? `it was taken by ${describeHolder(taker)}` : 'its file is gone', undefined),
    );
  }

  #fail(error: RaftkvError): false {
    if (this.#state === 'lost') return false;
    this.#state = 'lost';
    this.#cancelTimer();
    this.#options.onLost(error);
    return false;
  }

  #lostError(why: string, cause: unknown): RaftkvError {
    return new RaftkvError(
      'DATA_DIR_LOST',
      `this process no longer holds the lock of ${this.#options.directory}: ${why}`,
      'Start only one process per data directory, on a disk that answers within a few seconds.',
      cause,
    );
  }
}

/** @param wait how to wait, if the steps do. */
export async function runSteps<T>(steps: Steps<T>, files: LockFiles, wait?: (ms: number) => Promise<void>): Promise<T> {
  let next = steps.next();
  while (!next.done) {
    const step = next.value;
    if (step.kind === 'wait') {
      await wait?.(step.ms);
      next = steps.next();
    } else next = steps.next(await files.perform(step));
  }
  return next.value;
}

/** Runs steps that do not wait, blocking. */
function runStepsNow<T>(steps: Steps<T>, files: LockFiles): T {
  let next = steps.next();
  while (!next.done) {
    if (next.value.kind === 'wait') throw new RaftkvError('INVARIANT_BROKEN', 'a step that blocks must not wait');
    next = steps.next(files.performNow(next.value));
  }
  return next.value;
}
