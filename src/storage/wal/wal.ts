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
 * Storage keeps everything that must survive a restart: the log with the hard state (`wal/`), snapshots (`snapshots/`),
 * and the identity of the node (`meta`). `LOCK` keeps other processes off the data directory.
 *
 * ```
 *  append ──► waiting ──► staging buffer ──► one O_DSYNC write ──► done, in order
 *             (writes queued in the meantime form the next block)     │
 *                                                                     ▼
 *  zeros, in advance ────► active segment │ block │ block │ seal   spare segment │ …
 *                              │
 *  start: every block verified └──► onEntry, onHardState ──► the log of the Raft core
 *
 *  oldest segment │ … ◄── removed one by one after a snapshot
 * ```
 *
 * - When `done` is called, the write is on stable storage. So is everything that recovery returns.
 * - An unfinished write at the end of the log is truncated. Any other damage is reported (`wal/recovery.ts`). The log
 *   then fails to open, or its intact part is kept after the caller has recorded the damage (`wal/salvage.ts`).
 * - A failed write, sync or fill is final: it is reported once, and the log accepts no writes after it. The content of
 *   the disk is then unknown, and a second sync might succeed without the bytes of the first. The only exception is a
 *   full disk while zeros are written ahead: the log waits for space.
 *
 * `segments/format.ts` describes the bytes, `segmented-wal.ts` is the write path, `segments/filler.ts` writes zeros.
 */
export interface WalOptions {
  readonly disk: Disk;
  readonly clock: Clock;
  /** The folder of the log. It is created if it doesn't exist. */
  readonly directory: string;
  readonly clusterName: string;
  /**
   * Whether the node has had a log (`Meta.logCreated`). If so, a missing log is damage. If not, a new log is created.
   */
  readonly mustExist: boolean;
  /**
   * The last entry that the newest intact snapshot includes; index 0 if there is no snapshot. A log that begins later
   * is damaged. A new log begins here. If the log ends earlier, or has another entry at this index, the caller must
   * reset it: an earlier process received a snapshot and ended before it could reset the log.
   */
  readonly begin: LogBase;
  /**
   * Called if the log is damaged, before anything is changed on the disk. It must record durably that this node may
   * have lost entries that it acknowledged, and return the folder to which damaged files are moved. Called again if a
   * repair was interrupted. If it is null, `openWal` throws.
   */
  readonly onDamage: ((error: RaftkvError) => Promise<string>) | null;
  /** Returns random numbers, uniform in [0, 1). */
  readonly random: () => number;
  /**
   * Called once, at the first failure of the disk. No `done` is called afterwards. The process should report it and
   * exit.
   */
  readonly onFatal: (error: RaftkvError) => void;
  /** Called when `Wal.full` changes, possibly before `openWal` has returned. */
  readonly onFull: (full: boolean) => void;
  readonly logger: Logger;
  readonly sink: RecoverySink;
  readonly limits?: Partial<WalLimits>;
}

/** Limits in bytes. */
export interface WalLimits {
  /** The length of a segment. Longer segments mean fewer files; shorter ones are removed sooner. */
  readonly walSegmentBytes: number;
  /**
   * The largest disk write, except for a single larger record. A larger write delays the `done` of its first record.
   */
  readonly walBlockBytesMax: number;
  /** The longest entry. Together with `walBlockBytesMax`, it bounds the memory of a block. */
  readonly walEntryBytesMax: number;
  /** The zeros that are written when a segment is created. Few, because the first start waits for them. */
  readonly walFirstFillBytes: number;
  /** The zeros that are kept ahead of the log: a burst of writes this large doesn't wait for the filler. */
  readonly walFillAheadBytes: number;
  /** The zeros between two syncs while few are missing. Fewer delay log writes less, but the filler is slower. */
  readonly walFillStepBytes: number;
  /** The zeros between two syncs while many are missing, because the log then waits for the filler. */
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

/** The longest segment, in bytes. Positions in a segment are 32 bits on the disk, so it must be far below 4 GiB. */
const SEGMENT_BYTES_MAX = 1024 * MiB;

export interface OpenedWal {
  readonly wal: Wal;
  readonly report: RecoveryReport;
}

/**
 * Recovers the log, or creates one.
 * @throws RaftkvError WAL_DAMAGED, FORMAT_UNSUPPORTED, DATA_DIR_FOREIGN, CONFIG_INVALID; errors of the disk
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
  // A log without entries after a snapshot must record where it begins. This is the first write, so it is durable
  // first.
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
  // The header and the seal take one sector each. The third is for the hard state that is repeated before the entry.
  const room = limits.walSegmentBytes - 3 * SECTOR_BYTES - BLOCK_HEADER_BYTES - 2 * RECORD_HEADER_BYTES;
  if (limits.walEntryBytesMax > room) throw invalid('walSegmentBytes leaves no room for an entry of walEntryBytesMax');
}
