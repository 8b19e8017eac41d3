import type { SealedSegment, Segment } from '../segments/files.ts';
import type { EntryLocations } from './entry-locations.ts';

/** What a start finds in the files of a log. */
export interface RecoveryReport {
  readonly segments: number;
  readonly blocks: number;
  /** Entries read, with those that later ones replaced. */
  readonly entries: number;
  /** Bytes of an unfinished last write that were truncated; 0 where the log ended cleanly. */
  readonly tornBytes: number;
  /** What was damaged and has been repaired by giving up all behind it; null where nothing was. */
  readonly damage: string | null;
}

export interface RecoveredLog {
  readonly active: Segment;
  readonly spares: readonly Segment[];
  /** Where the next block goes in the active segment. */
  readonly position: number;
  readonly nextSequence: number;
  readonly chain: number;
  /** A copy of the newest; null where none was written yet. */
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
  /** How far into this segment: a block boundary; 0 where not even its header is good. */
  readonly bytes: number;
  /** Whether this part of the log reaches back to where the newest snapshot ends. */
  readonly reachesBack: boolean;
  /** The newest in it. */
  readonly hardState: Buffer | null;
}

/** Where the newest log reset is. */
export interface LogResetPlace {
  readonly segment: number;
  readonly offset: number;
}
