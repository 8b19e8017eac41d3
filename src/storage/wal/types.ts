import type { SealedSegment, Segment } from '../segments/files.ts';
import type { EntryLocations } from './entries.ts';

/**
 * The write-ahead log as the floors above see it. It knows records, not what is inside them.
 */
export interface WalWrite {
  /**
   * A log reset, or null. It drops all entries before it; the log goes on behind it: the next entry is `reset.index + 1`.
   * Written before the hard state and the entries of this write, in the same block.
   */
  readonly reset: LogBase | null;
  /** The encoded hard state to record before the entries, or null for none. */
  readonly hardState: Buffer | null;
  /** Index of the first of `entries`. Where it is at or below the last index written, the log is truncated there first. */
  readonly firstIndex: number;
  /** May be empty, but not together with `reset` and `hardState`: such a write would have nothing to wait for. */
  readonly entries: readonly Buffer[];
  /** Called once this write, and every one before it, is durable. In order; never after a failure. */
  readonly done: () => void;
}

/** The last entry before the log's first: what a snapshot stands for. `term` is kept for the reader. */
export interface LogBase {
  readonly index: number;
  readonly term: number;
}

export interface Wal {
  /** The index of the oldest entry that can be read; `lastIndex + 1` if the log is empty. */
  readonly firstIndex: number;
  /** The index of the last entry that was appended, durable or not; if the log is empty, of its base. */
  readonly lastIndex: number;
  /** Bytes of all segments on disk. */
  readonly byteLength: number;
  /**
   * Queues a write. All that arrives while one is on its way to the disk goes out together as the next. The buffers
   * must not change before `done`.
   * @throws RaftkvError WAL_CLOSED, WAL_WRITE_FAILED after a failure, INVARIANT_BROKEN where the write makes no sense.
   */
  append(write: WalWrite): void;
  /**
   * Reads entries back, at least one and then as many as fit into `bytesMax`, from `fromIndex` up to `toIndex`
   * (both included). Only durable entries may be asked for.
   * @throws RaftkvError WAL_DAMAGED where what is on disk is not what was written.
   */
  read(fromIndex: number, toIndex: number, bytesMax: number): Promise<Buffer[]>;
  /**
   * Removes old segments: those that hold nothing above `index` that counts. Entries up to `index` may
   * still be there, as `firstIndex` tells from the moment of the call. Reads that run are waited for. One at a time.
   * @throws RaftkvError WAL_WRITE_FAILED, after `onFatal`: a failure is final, as any; WAL_CLOSED.
   */
  compact(index: number): Promise<void>;
  /** The smallest index such that the records behind it take at most `bytes`. For keeping a tail of the log. */
  indexBehind(bytes: number): number;
  /**
   * The disk has no room for more log than is ready, which the last writes still take; those after it wait. It is looked
   * at again and again, until all that is to be kept ahead of the log is there.
   */
  readonly full: boolean;
  /** Waits until all queued writes are durable, unless they wait for a full disk, and closes the files. */
  close(): Promise<void>;
}

/** The result of reading the files of a log at a start. */
export interface RecoveryReport {
  readonly segments: number;
  readonly blocks: number;
  /** The number of entries that were read, including those that later ones replaced. */
  readonly entries: number;
  /** Bytes of an unfinished last write that were truncated; 0 where the log ended cleanly. */
  readonly tornBytes: number;
  /** Describes damage that was repaired by dropping everything behind it; null if there was none. */
  readonly damage: string | null;
}

export interface RecoveredLog {
  readonly active: Segment;
  readonly spares: readonly Segment[];
  /** The position of the next block in the active segment. */
  readonly position: number;
  readonly nextSequence: number;
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

/** The good part of a damaged log. All of it that counts is in the segments before `number`, and in this one's front. */
export interface GoodPart {
  /** The segment where the damage is, or whose successor has it; it may be missing. */
  readonly number: number;
  /** The end of the good part of this segment, a block boundary; 0 if not even its header is good. */
  readonly bytes: number;
  /** Whether this part of the log reaches back to where the newest snapshot ends. */
  readonly reachesBack: boolean;
  /** The newest hard state in the good part. */
  readonly hardState: Buffer | null;
}

/** The place of the newest log reset. */
export interface LogResetPlace {
  readonly segment: number;
  readonly offset: number;
}
