import type { RaftkvError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/logger.ts';
import { systemClock } from '../../src/base/system-clock.ts';
import type { Disk } from '../../src/storage/disk.ts';
import { openWal, type WalLimits } from '../../src/storage/wal.ts';
import type { RecoveryReport } from '../../src/storage/wal-recovery.ts';
import type { Wal } from '../../src/storage/wal-types.ts';
import { seededRandom } from '../support/random.ts';

/** Small enough that a handful of entries rolls a segment over. */
export const SMALL: Partial<WalLimits> = {
  walSegmentBytes: 16 * 1024,
  walBatchBytesMax: 4 * 1024,
  walEntryBytesMax: 8 * 1024,
  walFirstFillBytes: 4 * 1024,
  walFillAheadBytes: 8 * 1024,
  walFillStepBytes: 2 * 1024,
};

/** What a start found in the log, and the log itself, ready to append. */
export interface Opened {
  readonly wal: Wal;
  readonly report: RecoveryReport;
  /** Place n holds entry n + 1. */
  readonly entries: Buffer[];
  readonly hardState: Buffer | null;
  readonly fatal: RaftkvError[];
}

export async function open(
  disk: Disk,
  { limits = SMALL, directory = '/node/wal', mustExist = false, clusterId = 'test' } = {},
): Promise<Opened> {
  const entries: Buffer[] = [];
  const fatal: RaftkvError[] = [];
  let hardState: Buffer | null = null;
  const { wal, report } = await openWal({
    disk,
    clock: systemClock,
    directory,
    clusterId,
    mustExist,
    random: seededRandom(1),
    onFatal: (error) => fatal.push(error),
    logger: silentLogger,
    sink: {
      onEntry(index, bytes) {
        entries.length = index - 1;
        entries.push(Buffer.from(bytes));
      },
      onHardState(bytes) {
        hardState = Buffer.from(bytes);
      },
    },
    limits,
  });
  return { wal, report, entries, hardState, fatal };
}

/** Appends after the last entry, or from `firstIndex`, and waits until it is durable. */
export function append(
  wal: Wal,
  entries: readonly Buffer[],
  { firstIndex = wal.lastIndex + 1, hardState = null as Buffer | null } = {},
): Promise<void> {
  return new Promise((resolve) => wal.append({ hardState, firstIndex, entries, done: resolve }));
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
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Entries as strings: a failed comparison is readable, and a passed one quick. */
export function texts(entries: readonly Buffer[]): string[] {
  return entries.map((bytes) => bytes.toString('latin1'));
}
