import type { Clock } from '../../base/clock.ts';
import { RaftkvError } from '../../base/errors.ts';
import {
  describeHolder,
  formatRecord,
  type Identity,
  judge,
  type LockRecord,
  type ProcessState,
  parseRecord,
} from './record.ts';

/**
 * The protocol of the lock (ADR 15), one file operation at a time. It is written as generators, which yield operations
 * and receive their results. So it can run synchronously or asynchronously, and tests can interleave two processes at
 * every operation.
 */

/**
 * An operation on the lock folder, with its result. Each process that takes the lock has a file with its number as the
 * name.
 */
export type LockOperation =
  /** Returns the names in the folder: string[]. A name that exists during the whole operation is always among them. */
  | { readonly kind: 'list' }
  /** Returns the content, or null if there is no such file: string | null. */
  | { readonly kind: 'read'; readonly name: string }
  /** Creates an empty file. Returns false if the name exists: boolean. */
  | { readonly kind: 'create'; readonly name: string }
  /** Overwrites the file from its start. Returns false if there is no such file: boolean. */
  | { readonly kind: 'write'; readonly name: string; readonly text: string }
  /** Removes the file. Has no effect if there is no such file. */
  | { readonly kind: 'remove'; readonly name: string };

export type LockStep = LockOperation | { readonly kind: 'wait'; readonly ms: number };

export type Steps<T> = Generator<LockStep, T, unknown>;

/** The interval of the holder's renewals. */
export const HEARTBEAT_MS = 1_000;
/**
 * How long a holder may act after its last successful renewal began. So three renewals in a row may be late or fail.
 */
export const HELD_MS = 4_000;
/**
 * A watcher takes the lock if the record has not changed for this long. It is longer than `HELD_MS`, so that a write
 * which the holder began just before its renewal lapsed has time to complete.
 */
export const PATIENCE_MS = 8_000;
/** The interval at which a watcher reads the record: short, so that it soon notices that the holder is alive. */
const POLL_MS = 250;
/**
 * The number of attempts to take the lock. One fails only if another process creates or removes a number at the same
 * time.
 */
const ATTEMPTS_MAX = 100;

/** A process that wants the lock. */
export interface Contender {
  /** The lock folder, for messages. */
  readonly folder: string;
  readonly identity: Identity;
  readonly clock: Clock;
  /** @param pid the pid of a process in the same place as `identity` */
  stateOf(pid: number): ProcessState;
  /**
   * Called when the contender begins to watch a record, because it can't tell otherwise whether the process is alive.
   */
  watching(record: LockRecord | null): void;
}

export interface Acquired {
  readonly number: number;
  /** When the last renewal began, by the monotonic and by the wall clock. */
  readonly renewedMs: number;
  readonly renewedWallMs: number;
  readonly beat: number;
}

/** @throws RaftkvError DATA_DIR_LOCKED if another process holds the lock. */
export function* acquire(contender: Contender): Steps<Acquired> {
  let watched: LockRecord | null = null;
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const highest = yield* highestNumber();
    let judged: string | null = null;
    if (highest > 0) {
      judged = yield* read(highest);
      // The holder of a higher number has removed it.
      if (judged === null) continue;
      const record = parseRecord(judged);
      const verdict = judge(record, contender.identity.place, contender.stateOf);
      // True if this process was watched before and its record has changed since.
      const beats = record !== null && record.holder.id === watched?.holder.id;
      if (verdict === 'alive' || (verdict === 'unknown' && beats)) throw locked(contender.folder, record);
      if (verdict === 'unknown') {
        watched = record;
        contender.watching(record);
        if (!(yield* isSilent(contender.clock, highest, judged))) continue;
      }
    }
    const acquired = yield* claim(contender, highest + 1, judged);
    if (acquired !== null) return acquired;
  }
  throw new RaftkvError(
    'DATA_DIR_LOCKED',
    `${contender.folder} is contended by several processes`,
    'Start only one process per data directory.',
  );
}

/**
 * Watches a record. Returns true if it didn't change for `PATIENCE_MS`, false if it changed or a higher number
 * appeared.
 */
function* isSilent(clock: Clock, number: number, text: string): Steps<boolean> {
  // The time is measured from the end of the first read to the beginning of the last, which can't be too long.
  const firstReadMs = clock.monotonicMs();
  for (;;) {
    yield { kind: 'wait', ms: POLL_MS };
    const readMs = clock.monotonicMs();
    if ((yield* read(number)) !== text) return false;
    if ((yield* highestNumber()) !== number) return false;
    if (readMs - firstReadMs >= PATIENCE_MS) return true;
  }
}

/**
 * Takes the lock with `number`, the next one after the highest. Returns null if another process was faster.
 * @param judged the record of the highest number, which was found to be free or silent; null if there was none
 */
function* claim(contender: Contender, number: number, judged: string | null): Steps<Acquired | null> {
  const { clock, identity } = contender;
  let beat = 0;
  if (!(yield* create(number))) return null;
  if (!(yield* renew(number, { state: 'claiming', beat, holder: identity }))) return yield* giveUp(number);
  if (judged !== null) {
    const now = yield* read(number - 1);
    if (now === null) return yield* giveUp(number);
    if (now !== judged) {
      // The holder woke up between our last look and our claim, and may not have seen the claim. Its next renewal shows
      // it the claim and fails. So it stops at the latest when its last renewal before the claim lapses.
      const claimedMs = clock.monotonicMs();
      while (clock.monotonicMs() - claimedMs < PATIENCE_MS) {
        yield { kind: 'wait', ms: POLL_MS };
        beat += 1;
        if (!(yield* renew(number, { state: 'claiming', beat, holder: identity }))) return yield* giveUp(number);
      }
    }
  }
  beat += 1;
  const renewedMs = clock.monotonicMs();
  const renewedWallMs = clock.wallMs();
  if (!(yield* renew(number, { state: 'held', beat, holder: identity }))) return yield* giveUp(number);
  yield* removeOthers(number);
  return { number, renewedMs, renewedWallMs, beat };
}

/**
 * Renews a record. Returns false if the file is gone or a higher number exists. It must write first and list
 * afterwards: a claimant creates its number first and reads the record afterwards, so at least one of the two notices
 * the other.
 */
export function* renew(number: number, record: LockRecord): Steps<boolean> {
  if (!(yield* write(number, formatRecord(record)))) return false;
  return (yield* highestNumber()) === number;
}

/** Marks the lock as free. The file must stay, so that no other process can take the same number. */
export function* release(number: number, record: Omit<LockRecord, 'state'>): Steps<void> {
  yield* write(number, formatRecord({ ...record, state: 'released' }));
}

/** Creates a released record above `number`, in the lock folder of a directory that will replace the locked one. */
export function* continueAbove(number: number, record: Omit<LockRecord, 'state'>): Steps<void> {
  yield* create(number + 1);
  yield* release(number + 1, record);
}

/** Returns the record of the highest number, for messages. */
export function* currentRecord(): Steps<LockRecord | null> {
  const text = yield* read(yield* highestNumber());
  return text === null ? null : parseRecord(text);
}

/** Ends a failed attempt and removes its number, except if it is the highest: that one must stay (see `release`). */
function* giveUp(number: number): Steps<null> {
  if ((yield* highestNumber()) !== number) yield { kind: 'remove', name: nameOf(number) };
  return null;
}

/** Removes the files of earlier holders. If one of them is still running, it notices that its file is gone. */
function* removeOthers(number: number): Steps<void> {
  for (const name of yield* list()) {
    const isHigher = NUMBER_NAME.test(name) && Number(name) > number;
    if (name !== nameOf(number) && !isHigher) yield { kind: 'remove', name };
  }
}

const NUMBER_NAME = /^\d{10}$/;

function nameOf(number: number): string {
  return String(number).padStart(10, '0');
}

/** Returns 0 if there is no number. */
function* highestNumber(): Steps<number> {
  const numbers = (yield* list()).filter((name) => NUMBER_NAME.test(name)).map(Number);
  return Math.max(0, ...numbers);
}

function* list(): Steps<readonly string[]> {
  return (yield { kind: 'list' }) as readonly string[];
}

function* read(number: number): Steps<string | null> {
  return (yield { kind: 'read', name: nameOf(number) }) as string | null;
}

function* create(number: number): Steps<boolean> {
  return (yield { kind: 'create', name: nameOf(number) }) as boolean;
}

function* write(number: number, text: string): Steps<boolean> {
  return (yield { kind: 'write', name: nameOf(number), text }) as boolean;
}

function locked(folder: string, record: LockRecord | null): RaftkvError {
  const pid = record?.holder.pid;
  return new RaftkvError(
    'DATA_DIR_LOCKED',
    `the data directory is in use by ${describeHolder(record)} (${folder})`,
    `Stop process ${pid} first, or give this node a dataDir of its own. If this is a copy of its directory, remove ${folder}.`,
  );
}
