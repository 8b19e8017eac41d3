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

/** Performs operations on the files of a lock folder. */
export interface LockFiles {
  perform(operation: LockOperation): Promise<unknown>;
  /** Performs an operation synchronously. */
  performNow(operation: LockOperation): unknown;
}

export interface HolderOptions {
  /** The locked directory, for messages. */
  readonly directory: string;
  readonly files: LockFiles;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly identity: Identity;
  /** Called once, with DATA_DIR_LOST. The process must end without writing or sending anything more. */
  readonly onLost: (error: RaftkvError) => void;
}

/** A lock that this process has taken. It renews the lock until it is released or lost. */
export class HeldLock {
  readonly #options: HolderOptions;
  readonly #number: number;
  #state: 'held' | 'released' | 'lost' = 'held';
  #beat: number;
  /** When the last renewal lapses, by the monotonic clock and by the wall clock. */
  #untilMs = 0;
  #untilWallMs = 0;
  /** The asynchronous renewal in progress; null if there is none. */
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
   * Whether this process may still act as the holder. False once the lock is released or lost; `onLost` was then
   * called. To be called before and after each write, and before each message to another node.
   *
   * If the last renewal has lapsed, the process must do nothing until the next one succeeds. So `check` then renews
   * synchronously.
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

  /** Releases the lock, so that another process can take it at once. */
  async release(): Promise<void> {
    if (!(await this.#end())) return;
    await runSteps(release(this.#number, this.#nextRecord()), this.#options.files);
  }

  /**
   * Releases the lock of a directory that the caller is about to replace by another one. The lock folder of the other
   * directory gets a free number above the numbers of this one. Otherwise a process that has listed the old folder
   * could take a number that the new folder doesn't know, and hold the lock at the same time as another process.
   * @param successor the lock files of the other directory
   */
  async continueIn(successor: LockFiles): Promise<void> {
    if (!(await this.#end())) throw this.#lostError('it was released', undefined);
    await runSteps(continueAbove(this.#number, this.#nextRecord()), successor);
  }

  /** Marks the lock as released in memory. Returns false if it was released or lost before. */
  async #end(): Promise<boolean> {
    this.#cancelTimer();
    // Otherwise the renewal in progress could overwrite the record of the release.
    await this.#renewing;
    if (this.#state !== 'held') return false;
    this.#state = 'released';
    return true;
  }

  #scheduleHeartbeat(): void {
    this.#cancelTimer = this.#options.clock.after(HEARTBEAT_MS, () => {
      if (this.#state !== 'held') return;
      if (this.#renewing === null) this.#renewing = this.#renewLater();
      // The last renewal hasn't completed yet. If the one before it has lapsed, `check` renews synchronously.
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
      // The next heartbeat tries again. If none succeeds until the last renewal lapses, `check` reports the error.
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
    // A synchronous renewal may have begun later than this one and completed before it.
    if (startedMs + HELD_MS < this.#untilMs) return;
    this.#untilMs = startedMs + HELD_MS;
    this.#untilWallMs = startedWallMs + HELD_MS;
  }

  #lose(): false {
    let taker: LockRecord | null = null;
    try {
      taker = runStepsNow(currentRecord(), this.#options.files);
    } catch {
      // The error is then without the process that took the lock.
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

/** Runs steps asynchronously. @param wait waits for some ms; needed only if the steps contain a wait. */
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

/** Runs steps synchronously. They must not contain a wait. */
function runStepsNow<T>(steps: Steps<T>, files: LockFiles): T {
  let next = steps.next();
  while (!next.done) {
    if (next.value.kind === 'wait')
      throw new RaftkvError('INVARIANT_BROKEN', 'steps that run synchronously contain a wait');
    next = steps.next(files.performNow(next.value));
  }
  return next.value;
}
