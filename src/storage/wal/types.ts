import type { SealedSegment, Segment } from '../segments/files.ts';
import type { EntryLocations } from './entries.ts';

/** One write to the log. The log doesn't know what hard states and entries contain. */
export interface WalWrite {
  /**
   * A log reset, or null for none. It drops all earlier entries, and the next entry is `reset.index + 1`. It is written
   * before the hard state and the entries of this write, and in the same block as the hard state.
   */
  readonly reset: LogBase | null;
  /** The encoded hard state to record before the entries, or null for none. */
  readonly hardState: Buffer | null;
  /** The index of the first of `entries`. Entries of the log from this index on are replaced. */
  readonly firstIndex: number;
  /** May be empty, unless `reset` and `hardState` are null too: `done` would have nothing to wait for. */
  readonly entries: readonly Buffer[];
  /**
   * Called when this write and all earlier ones are durable, in the order of the writes. Never called after a failure.
   */
  readonly done: () => void;
}

/** The entry before the first entry of a log: the last entry that a snapshot includes. */
export interface LogBase {
  readonly index: number;
  readonly term: number;
}

/** The write-ahead log. */
export interface Wal {
  /** The index of the oldest entry that can be read; `lastIndex + 1` if the log is empty. */
  readonly firstIndex: number;
  /** The index of the last entry that was appended, durable or not; if the log is empty, the index of its base. */
  readonly lastIndex: number;
  /** The bytes of all segments on the disk, including zeros. */
  readonly byteLength: number;
  /**
   * Queues a write. The writes that are queued while another one is being written go to the disk together. Their
   * buffers must not change before `done`.
   * @throws RaftkvError WAL_CLOSED, WAL_WRITE_FAILED after a failure, INVARIANT_BROKEN if the write doesn't fit the log
   */
  append(write: WalWrite): void;
  /**
   * Reads the entries from `fromIndex` to `toIndex` (both included), at least one and then as many as fit into
   * `bytesMax`. They must be durable.
   * @throws RaftkvError WAL_DAMAGED if the disk doesn't contain what was written
   */
  read(fromIndex: number, toIndex: number, bytesMax: number): Promise<Buffer[]>;
  /**
   * Removes the segments that are not needed for the entries above `index`. As only whole segments are removed, entries
   * up to `index` may remain; `firstIndex` is correct as soon as this is called. Waits for running reads before it
   * removes files. Only one compaction may run at a time.
   * @throws RaftkvError WAL_CLOSED, or WAL_WRITE_FAILED after `onFatal` was called
   */
  compact(index: number): Promise<void>;
  /** Returns the smallest index such that the records after it take at most `bytes`. For keeping a tail of the log. */
  indexBehind(bytes: number): number;
  /**
   * Whether the disk is full. Writes then use the zeros that are ready ahead of the log, and wait when those are used
   * up. False again when there is space for all zeros that should be ahead, which is tried periodically.
   */
  readonly full: boolean;
  /** Closes the files when all queued writes are durable. Writes that wait for space on a full disk are dropped. */
  close(): Promise<void>;
}

/** What recovery found in the files of the log. */
export interface RecoveryReport {
  readonly segments: number;
  readonly blocks: number;
  /** The number of entries that were read, including those that later entries replaced. */
  readonly entries: number;
  /** The number of bytes of an unfinished last write, which were truncated; 0 if there was none. */
  readonly tornBytes: number;
  /** Describes damage that was repaired by dropping everything after it; null if there was none. */
  readonly damage: string | null;
}

/** The state of a log to which new writes can be appended. */
export interface RecoveredLog {
  readonly active: Segment;
  readonly spares: readonly Segment[];
  /** The position of the next block in the active segment. */
  readonly position: number;
  readonly nextSequence: number;
  /** The CRC of the last record, which seeds that of the next one. */
  readonly chain: number;
  /** A copy of the newest hard state; null if none was written. */
  readonly hardState: Buffer | null;
  /** The segments before the active one. */
  readonly sealed: readonly SealedSegment[];
  readonly locations: EntryLocations;
  /** The segment of the newest log reset; 0 if there is none. */
  readonly resetSegment: number;
  readonly report: RecoveryReport;
}

/** The intact part of a damaged log: the segments before `number`, and the beginning of that segment. */
export interface GoodPart {
  /** The segment with the damage, which may be missing; if a spare segment is damaged, the active segment. */
  readonly number: number;
  /** The length of the intact part of this segment, which ends at a block boundary; 0 if its header is damaged. */
  readonly bytes: number;
  /**
   * Whether the intact part begins at or before the end of the newest snapshot. Otherwise its entries can't be used.
   */
  readonly reachesBack: boolean;
  /** The newest hard state in the intact part; null if there is none. */
  readonly hardState: Buffer | null;
}

/** The position of the newest log reset. */
export interface LogResetPlace {
  readonly segment: number;
  readonly offset: number;
}
