import type { Clock } from '../../base/clock.ts';
import { RaftkvError } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import type { Disk } from '../disk/disk.ts';
import { createSegment } from '../segments/files.ts';
import type { FillOptions } from '../segments/filler.ts';
import { BLOCK_HEADER_BYTES, CLUSTER_NAME_BYTES_MAX, RECORD_HEADER_BYTES, SECTOR_BYTES } from '../segments/format.ts';
import { EntryLocations } from './entries.ts';
import { type RecoverySink, recoverLog } from './recover-log.ts';
import { SegmentedWal } from './segmented-wal.ts';
import type { LogBase, RecoveredLog, RecoveryReport, Wal } from './types.ts';

/**
 * Storage keeps what a node has promised: the log with its hard state (`wal/`), who the node is (`meta`), and that no
 * second process writes here (`LOCK`).
 *
 * ```
 *  append ──► waiting ──► staging buffer ──► one O_DSYNC write ──► done, in order
 *             (all that came while a write ran: the next block)       │
 *                                                                     ▼
 *  zeros, ahead of use ──► active segment │ block │ block │ seal   spare segment │ …
 *                              │
 *  start: every block verified └──► onEntry, onHardState ──► the log of the Raft core
 *
 *  oldest segment │ … ◄── removed, one by one, behind a snapshot
 * ```
 *
 * - `done` means on stable storage, and so does everything that a start hands back.
 * - An unfinished write is truncated. Damage to anything else is named (`wal/recovery.ts`), and the start refused,
 *   or what is good in front of it kept once the caller has recorded it (`wal/salvage.ts`).
 * - A failed write, sync or fill is final: it is reported once, and nothing is done or accepted after it. What the disk
 *   holds is then unknown, and trying again would only make the system forget the failure. Only a disk without room for what is kept ahead is waited for.
 *
 * `segments/format.ts` has the bytes, `segmented-wal.ts` the write path, `segments/filler.ts` the room ahead of it.
 */
export interface WalOptions {
  readonly disk: Disk;
  readonly clock: Clock;
  /** The folder of the log; made if there is none. */
  readonly directory: string;
  readonly clusterName: string;
  /**
   * True where this node is known to have had a log. Its absence is then damage; otherwise a new log is begun.
   * `Meta.logCreated` knows.
   */
  readonly mustExist: boolean;
  /**
   * What the newest good snapshot stands for; index 0 without one. A log that begins later is damaged. A new one begins
   * here. One that ends earlier, or has another entry here, is for the caller to reset: a process that had
   * received a snapshot died before it could.
   */
  readonly begin: LogBase;
  /**
   * Called where the log is damaged, before anything is changed on the disk; makes durable that this copy of the log
   * may have lost what it had promised, and gives the folder that damaged files are to be moved to. Called again where
   * an earlier repair was interrupted. Null: damage keeps the log from opening.
   */
  readonly onDamage: ((error: RaftkvError) => Promise<string>) | null;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  /** Called once, at the first failure of the disk, and followed by no `done`. The process should report and exit. */
  readonly onFatal: (error: RaftkvError) => void;
  /** Called when `Wal.full` changes, which may be before `openWal` has returned. */
  readonly onFull: (full: boolean) => void;
  readonly logger: Logger;
  readonly sink: RecoverySink;
  readonly limits?: Partial<WalLimits>;
}

export interface WalLimits {
  /** The length of a segment. Longer means fewer files; shorter means that old log is removed in smaller pieces. */
  readonly walSegmentBytes: number;
  /** The largest disk write, except for a single larger record. Larger writes delay the `done` of their first record. */
  readonly walBlockBytesMax: number;
  /** The longest entry taken. Bounds the staging buffer. */
  readonly walEntryBytesMax: number;
  /** Zero-filled when a segment is made. Small, because the first start waits for it. */
  readonly walFirstFillBytes: number;
  /** Zero-filled room kept ahead of the log: what a burst may write before it waits for the filler. */
  readonly walFillAheadBytes: number;
  /** Zeros between two syncs while little is missing. Smaller delays log writes less, and keeps up with less. */
  readonly walFillStepBytes: number;
  /** Zeros between two syncs while much is missing. In a burst the log itself waits for such a step. */
  readonly walFillStepBytesMax: number;
}

const MiB = 1024 * 1024;

const WAL_LIMITS: WalLimits = {
  walSegmentBytes: 64 * MiB,
  walBlockBytesMax: 4 * MiB,
  walEntryBytesMax: 16 * MiB,
  walFirstFillBytes: 2 * MiB,
  walFillAheadBytes: 8 * MiB,
  walFillStepBytes: 256 * 1024,
  walFillStepBytesMax: 4 * MiB,
};

/** Positions and lengths are 32-bit on disk. */
const SEGMENT_BYTES_MAX = 1024 * MiB;

export interface OpenedWal {
  readonly wal: Wal;
  readonly report: RecoveryReport;
}

/**
 * Recovers the log, or begins one, and stands ready to append.
 * @throws RaftkvError WAL_DAMAGED, FORMAT_UNSUPPORTED, DATA_DIR_FOREIGN, CONFIG_INVALID; the disk's own errors.
 */
export async function openWal(options: WalOptions): Promise<OpenedWal> {
  const { disk, clock, directory, clusterName, begin, onFatal, logger } = options;
  const limits = { ...WAL_LIMITS, ...options.limits };
  checkLimits(limits, clusterName);
  const startedMs = clock.monotonicMs();
  const fill: FillOptions = {
    disk,
    clock,
    directory,
    clusterName,
    random: options.random,
    segmentBytes: limits.walSegmentBytes,
    firstFillBytes: Math.min(limits.walFirstFillBytes, limits.walSegmentBytes),
    fillAheadBytes: limits.walFillAheadBytes,
    fillStepBytes: limits.walFillStepBytes,
    fillStepBytesMax: limits.walFillStepBytesMax,
    onFull: (full) => {
      if (full) logger.warn({ directory }, 'the disk is full: log writes wait for space');
      else logger.info({ directory }, 'the disk has space for the log again');
      options.onFull(full);
    },
  };
  await disk.makeDirectory(directory);
  const segmentBytes = limits.walSegmentBytes;
  const recovered = await recoverLog({ ...options, segmentBytes });
  const log = recovered.log ?? (await beginLog(fill, recovered.damage));
  const { report, locations } = log;
  if (report.tornBytes > 0)
    logger.warn({ directory, ...report }, 'truncated an unfinished write at the end of the log');
  const tookMs = Math.round(clock.monotonicMs() - startedMs);
  logger.debug({ directory, ...report, lastIndex: locations.lastIndex, tookMs }, 'log opened');
  const blockBytesMax = limits.walBlockBytesMax;
  const wal = new SegmentedWal({
    onFatal,
    fill,
    blockBytesMax,
    entryBytesMax: limits.walEntryBytesMax,
    log,
  });
  // Nothing is in it, not even where it begins: durable before anything that comes after it.
  if (begin.index > 0 && report.entries === 0 && log.resetSegment === 0) {
    wal.append({ reset: begin, hardState: null, firstIndex: 0, entries: [], done() {} });
  }
  return { wal, report };
}

async function beginLog(fill: FillOptions, damage: string | null): Promise<RecoveredLog> {
  const { disk, directory, segmentBytes, firstFillBytes: fillBytes, clusterName, random } = fill;
  const active = await createSegment(disk, directory, 1, { segmentBytes, fillBytes, clusterName, random });
  return {
    active,
    spares: [],
    position: SECTOR_BYTES,
    nextSequence: 1,
    chain: active.saltCrc,
    hardState: null,
    sealed: [],
    locations: new EntryLocations(),
    resetSegment: 0,
    report: { segments: 1, blocks: 0, entries: 0, tornBytes: 0, damage },
  };
}

function checkLimits(limits: WalLimits, clusterName: string): void {
  const invalid = (what: string) => new RaftkvError('CONFIG_INVALID', what, 'Correct the configuration.');
  if (Buffer.byteLength(clusterName) > CLUSTER_NAME_BYTES_MAX) {
    throw invalid(`the cluster name is longer than ${CLUSTER_NAME_BYTES_MAX} bytes`);
  }
  for (const [name, bytes] of Object.entries(limits)) {
    if (!Number.isSafeInteger(bytes) || bytes < SECTOR_BYTES) throw invalid(`${name} must be at least ${SECTOR_BYTES}`);
  }
  for (const name of ['walSegmentBytes', 'walFirstFillBytes', 'walFillStepBytes'] as const) {
    if (limits[name] % SECTOR_BYTES !== 0) throw invalid(`${name} must be a multiple of ${SECTOR_BYTES}`);
  }
  if (limits.walFirstFillBytes < 2 * SECTOR_BYTES)
    throw invalid('walFirstFillBytes is too small: no zeros remain after the header');
  if (limits.walSegmentBytes > SEGMENT_BYTES_MAX) throw invalid(`walSegmentBytes is above ${SEGMENT_BYTES_MAX}`);
  // The header and the seal take a sector each; a hard state repeated before the entry is far shorter than a third.
  const room = limits.walSegmentBytes - 3 * SECTOR_BYTES - BLOCK_HEADER_BYTES - 2 * RECORD_HEADER_BYTES;
  if (limits.walEntryBytesMax > room) throw invalid('walSegmentBytes leaves no room for an entry of walEntryBytesMax');
}
