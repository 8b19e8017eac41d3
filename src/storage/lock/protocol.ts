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
 * The protocol of the lock (ADR 15), one file operation at a time. It is written as generators, which yield operations and
 * get their results. So the program can run it with or without blocking, and tests can interleave it at every operation.
 */

/** The number of a holder is the name of its file in the lock folder. */
export type LockOperation =
  /** All names in the folder: string[]. A name that exists throughout the operation is among them. */
  | { readonly kind: 'list' }
  /** The content, or null if there is no such file: string | null. */
  | { readonly kind: 'read'; readonly name: string }
  /** Makes an empty file. False if the name is taken: boolean. */
  | { readonly kind: 'create'; readonly name: string }
  /** Overwrites the file from its start. False if there is no such file: boolean. */
  | { readonly kind: 'write'; readonly name: string; readonly text: string }
  /** Returns undefined if there is no such file. */
  | { readonly kind: 'remove'; readonly name: string };

export type LockStep = LockOperation | { readonly kind: 'wait'; readonly ms: number };

export type Steps<T> = Generator<LockStep, T, unknown>;

/** The holder renews its record so often. */
export const HEARTBEAT_MS = 1_000;
/** A holder acts for so long after it began its last renewal. Room for three renewals that are late. */
export const HELD_MS = 4_000;
/**
 * A watcher takes over when it has not seen the record change for so long. What a holder was still allowed to begin has at
 * least the difference to `HELD_MS` to take effect.
 */
export const PATIENCE_MS = 8_000;
/** A watcher looks so often. */
const POLL_MS = 250;
/** Each further attempt means that another process took or cleaned up a number in between. */
const ATTEMPTS_MAX = 100;

/** The knowledge of a process that wants the lock. */
export interface Contender {
  /** The folder, for messages. */
  readonly folder: string;
  readonly identity: Identity;
  readonly clock: Clock;
  /** @param pid of the same place as `identity`. */
  stateOf(pid: number): ProcessState;
  /** The record is of a process of which nothing is known: the heartbeat decides. Called once for each such record. */
  watching(record: LockRecord | null): void;
}

export interface Acquired {
  readonly number: number;
  /** When the last renewal began, by both clocks. */
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
      // A higher number has replaced it.
      if (judged === null) continue;
      const record = parseRecord(judged);
      const verdict = judge(record, contender.identity.place, contender.stateOf);
      // We have watched this process before, and its record has changed since.
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

/** Whether the record did not change for as long as its holder could have acted without renewing it. */
function* isSilent(clock: Clock, number: number, text: string): Steps<boolean> {
  // Measured from the end of the first read to the beginning of the last: the record stood still at least that long.
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
 * Takes `number`, the one above the holder whose record `judged` we found free or silent. Null if another process was
 * faster.
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
      // The holder woke up between our last look and our claim, and may not have seen the claim. Its next renewal shows it the
      // claim and fails. So it stops at the latest when its last renewal before the claim lapses.
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
 * Shows that the holder is alive, and finds out whether `number` still is the highest. The order matters: a claimant creates
 * its number first and then reads the record, so one of the two sees the other.
 */
export function* renew(number: number, record: LockRecord): Steps<boolean> {
  if (!(yield* write(number, formatRecord(record)))) return false;
  return (yield* highestNumber()) === number;
}

/** Marks the lock as free. The file stays: the highest number must never come back as another process's. */
export function* release(number: number, record: Omit<LockRecord, 'state'>): Steps<void> {
  yield* write(number, formatRecord({ ...record, state: 'released' }));
}

/** Gives the lock folder of a directory that will replace the locked one a number that is free and higher than `number`. */
export function* continueAbove(number: number, record: Omit<LockRecord, 'state'>): Steps<void> {
  yield* create(number + 1);
  yield* release(number + 1, record);
}

/** The record of the highest number, for messages. */
export function* currentRecord(): Steps<LockRecord | null> {
  const text = yield* read(yield* highestNumber());
  return text === null ? null : parseRecord(text);
}

/** The number was taken below the highest, or was cleaned up. */
function* giveUp(number: number): Steps<null> {
  if ((yield* highestNumber()) !== number) yield { kind: 'remove', name: nameOf(number) };
  return null;
}

/** Removes the files of earlier holders. A holder that still runs finds its file gone. */
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

/** 0 if there is none. */
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
