import { type Clock, systemClock } from '../../../src/base/clock.ts';
import type { RaftkvError } from '../../../src/base/errors.ts';
import { silentLogger } from '../../../src/base/logger.ts';
import type { Disk } from '../../../src/storage/disk/disk.ts';
import type { LogBase, RecoveryReport, Wal } from '../../../src/storage/wal/types.ts';
import { openWal, type WalLimits } from '../../../src/storage/wal/wal.ts';
import { seededRandom } from '../../support/random.ts';

/** Small enough that a handful of entries rolls a segment over. */
export const SMALL: Partial<WalLimits> = {
  walSegmentBytes: 16 * 1024,
  walBlockBytesMax: 4 * 1024,
  walEntryBytesMax: 8 * 1024,
  walFirstFillBytes: 4 * 1024,
  walFillAheadBytes: 8 * 1024,
  walFillStepBytes: 2 * 1024,
};

/** What a start found in the log, and the log itself, ready to append. */
export interface Opened {
  readonly wal: Wal;
  readonly report: RecoveryReport;
  /** In order, from `wal.firstIndex` as it was at the start. */
  readonly entries: Buffer[];
  readonly hardState: Buffer | null;
  /** How many entries came before it. */
  readonly entriesBeforeHardState: number;
  /** What the log itself says of where it begins. */
  readonly reset: LogBase | null;
  readonly fatal: RaftkvError[];
  /** Each change of `wal.full`. */
  readonly full: boolean[];
}

/** What a test may say of a start; each has a default. */
export interface OpenChoices {
  readonly limits?: Partial<WalLimits>;
  readonly directory?: string;
  readonly mustExist?: boolean;
  readonly clusterName?: string;
  readonly begin?: LogBase;
  readonly onDamage?: ((error: RaftkvError) => Promise<string>) | null;
  readonly clock?: Clock;
}

export const NO_SNAPSHOT: LogBase = { index: 0, term: 0 };

export async function open(disk: Disk, choices: OpenChoices = {}): Promise<Opened> {
  const { limits = SMALL, directory = '/node/wal', mustExist = false, clusterName = 'test' } = choices;
  const { begin = NO_SNAPSHOT, onDamage = null, clock = systemClock } = choices;
  const entries: Buffer[] = [];
  const indexes: number[] = [];
  const fatal: RaftkvError[] = [];
  const full: boolean[] = [];
  let hardState: Buffer | null = null;
  let entriesBeforeHardState = 0;
  let reset: LogBase | null = null;
  const { wal, report } = await openWal({
    disk,
    clock,
    directory,
    clusterName,
    mustExist,
    begin,
    onDamage,
    random: seededRandom(1),
    onFatal: (error) => fatal.push(error),
    onFull: (isFull) => full.push(isFull),
    logger: silentLogger,
    sink: {
      onLogReset(index, term) {
        if (reset !== null || entries.length > 0) throw new Error(`reset ${index} came late`);
        reset = { index, term };
      },
      onEntry(index, bytes) {
        const before = indexes.at(-1) ?? (reset === null ? index - 1 : reset.index);
        if (index !== before + 1) throw new Error(`entry ${index} came after ${before}`);
        indexes.push(index);
        entries.push(Buffer.from(bytes));
      },
      onHardState(bytes) {
        hardState = Buffer.from(bytes);
        entriesBeforeHardState = entries.length;
      },
    },
    limits,
  });
  const first = indexes[0];
  if (first !== undefined && (wal.firstIndex !== first || wal.lastIndex !== indexes.at(-1))) {
    throw new Error(`was told ${first} to ${indexes.at(-1)} of a log of ${wal.firstIndex} to ${wal.lastIndex}`);
  }
  return { wal, report, entries, hardState, entriesBeforeHardState, reset, fatal, full };
}

/** Appends after the last entry, or from `firstIndex`, and waits until it is durable. */
export function append(
  wal: Wal,
  entries: readonly Buffer[],
  choices: { reset?: LogBase; firstIndex?: number; hardState?: Buffer | null } = {},
): Promise<void> {
  const { reset = null, hardState = null } = choices;
  const { firstIndex = (reset?.index ?? wal.lastIndex) + 1 } = choices;
  return new Promise((resolve) => wal.append({ reset, hardState, firstIndex, entries, done: resolve }));
}

/** `count` entries of a few hundred bytes that all differ. */
export function someEntries(count: number, seed = 1, bytesMax = 600): Buffer[] {
  const random = seededRandom(seed);
  return Array.from({ length: count }, () => {
    const bytes = Buffer.alloc(1 + Math.floor(random() * bytesMax));
    for (let i = 0; i < bytes.length; i++) bytes[i] = Math.floor(random() * 256);
    return bytes;
  });
}

/** The RaftkvError that a promise ends with; fails where it does not. */
export async function errorOf(work: Promise<unknown>): Promise<RaftkvError> {
  try {
    await work;
  } catch (error) {
    return error as RaftkvError;
  }
  throw new Error('no error came');
}

/** Lets everything that is ready to run have run. */
export function waitUntilIdle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Entries as strings: a failed comparison is readable, and a passed one quick. */
export function texts(entries: readonly Buffer[]): string[] {
  return entries.map((bytes) => bytes.toString('latin1'));
}
