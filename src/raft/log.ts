import { RaftkvError } from '../base/errors.ts';
import type { Entry } from './types.ts';

/** A run of neighbouring entries of one term, from `fromIndex` to where the next run begins. */
interface TermRun {
  readonly fromIndex: number;
  readonly term: number;
}

export interface LogStart {
  /** Where the log begins: the last entry that a snapshot replaced, or 0 and 0. */
  readonly snapshotIndex: number;
  readonly snapshotTerm: number;
  /** Beyond this, the oldest entries leave memory once they are on disk, from where they can be read back. */
  readonly cacheBytesMax: number;
}

/** What one cached entry costs beyond its bytes: the objects that hold it. */
const ENTRY_OVERHEAD_BYTES = 160;

const entryCost = (entry: Entry): number => entry.bytes.length + ENTRY_OVERHEAD_BYTES;

/**
 * The log as one node holds it: the term of every entry, and the newest entries themselves.
 *
 *     snapshotIndex ≤ appliedIndex ≤ commitIndex ≤ lastIndex
 *     snapshotIndex ≤ persistedIndex ≤ lastIndex
 *     snapshotIndex < cacheFrom ≤ persistedIndex + 1      what has left memory is on disk
 *
 * Terms are kept as runs: a log of millions of entries has a handful, so they never leave memory.
 */
export class RaftLog {
  /** Where the log begins: the last entry that is no longer in it, compacted away or replaced by a snapshot. */
  snapshotIndex: number;
  /** Its term, still known, so that what follows it can be matched. */
  snapshotTerm: number;
  readonly cacheBytesMax: number;
  lastIndex: number;
  /** Known to be committed; never goes back (§3.6.2). */
  commitIndex: number;
  appliedIndex: number;
  /** On this node's own disk. Goes back only with a truncation. */
  persistedIndex: number;

  private readonly runs: TermRun[] = [];
  private cache: (Entry | undefined)[] = [];
  /** Position in `cache` of the first entry still held; the empty places before it wait to be removed in bulk. */
  private cacheHead = 0;
  private cacheFrom: number;
  private cacheBytes = 0;

  constructor(start: LogStart) {
    this.snapshotIndex = start.snapshotIndex;
    this.snapshotTerm = start.snapshotTerm;
    this.cacheBytesMax = start.cacheBytesMax;
    this.lastIndex = start.snapshotIndex;
    this.commitIndex = start.snapshotIndex;
    this.appliedIndex = start.snapshotIndex;
    this.persistedIndex = start.snapshotIndex;
    this.cacheFrom = start.snapshotIndex + 1;
  }

  get lastTerm(): number {
    return this.runs.at(-1)?.term ?? this.snapshotTerm;
  }

  /** The first index whose entry is still in memory. */
  get firstCachedIndex(): number {
    return this.cacheFrom;
  }

  /** The term of the entry at `index`; -1 where this log has none or no longer knows. */
  termAt(index: number): number {
    if (index > this.lastIndex || index < this.snapshotIndex) return -1;
    if (index === this.snapshotIndex) return this.snapshotTerm;
    for (let i = this.runs.length - 1; i >= 0; i--) {
      const run = this.runs[i] as TermRun;
      if (run.fromIndex <= index) return run.term;
    }
    return -1;
  }

  append(entry: Entry): void {
    if (entry.index !== this.lastIndex + 1) {
      throw new RaftkvError('INVARIANT_BROKEN', `entry ${entry.index} appended after entry ${this.lastIndex}`);
    }
    if (this.lastTerm !== entry.term || this.runs.length === 0) {
      this.runs.push({ fromIndex: entry.index, term: entry.term });
    }
    this.lastIndex = entry.index;
    this.cache.push(entry);
    this.cacheBytes += entryCost(entry);
  }

  /** Forgets the entry at `index` and all after it. Committed entries are never forgotten. */
  truncateFrom(index: number): void {
    if (index <= this.commitIndex) {
      throw new RaftkvError('INVARIANT_BROKEN', `truncation at ${index} of a log committed up to ${this.commitIndex}`);
    }
    while ((this.runs.at(-1)?.fromIndex ?? 0) >= index) this.runs.pop();
    while (this.lastIndex >= index && this.cacheFrom <= this.lastIndex) {
      this.cacheBytes -= entryCost(this.cache.pop() as Entry);
      this.lastIndex--;
    }
    this.lastIndex = Math.min(this.lastIndex, index - 1);
    this.cacheFrom = Math.min(this.cacheFrom, index);
    this.persistedIndex = Math.min(this.persistedIndex, this.lastIndex);
  }

  /**
   * Lets the log begin after `index`: what is at or below it is in a snapshot. Nothing where it begins there or later
   * already; never beyond what is applied and on disk.
   */
  compactTo(index: number): void {
    if (index <= this.snapshotIndex) return;
    if (index > this.appliedIndex || index > this.persistedIndex) {
      throw new RaftkvError(
        'INVARIANT_BROKEN',
        `compaction to ${index} of a log applied up to ${this.appliedIndex} and on disk up to ${this.persistedIndex}`,
      );
    }
    const term = this.termAt(index);
    let gone = 0;
    while (gone < this.runs.length && (this.runs[gone + 1]?.fromIndex ?? this.lastIndex + 1) <= index + 1) gone++;
    this.runs.splice(0, gone);
    this.snapshotIndex = index;
    this.snapshotTerm = term;
    while (this.cacheFrom <= index) this.evictOldest();
    this.trimEmptySlots();
  }

  /** Drops everything: the log is empty and begins after the entry that a snapshot stands for. */
  restore(index: number, term: number): void {
    if (index <= this.commitIndex) {
      throw new RaftkvError('INVARIANT_BROKEN', `restore to ${index} of a log committed up to ${this.commitIndex}`);
    }
    this.runs.length = 0;
    this.cache = [];
    this.cacheHead = 0;
    this.cacheFrom = index + 1;
    this.cacheBytes = 0;
    this.snapshotIndex = index;
    this.snapshotTerm = term;
    this.lastIndex = index;
    this.commitIndex = index;
    this.appliedIndex = index;
    this.persistedIndex = index;
  }

  /** The entry at `index` where it is in memory. */
  cached(index: number): Entry | undefined {
    if (index < this.cacheFrom) return undefined;
    return this.cache[this.cacheHead + index - this.cacheFrom];
  }

  /** Cached entries from `from` on: at least one where there is one, then as many as fit into `bytesMax`. */
  slice(from: number, bytesMax: number): Entry[] {
    const entries: Entry[] = [];
    let bytes = 0;
    for (let index = from; index <= this.lastIndex; index++) {
      const entry = this.cached(index);
      if (entry === undefined) break;
      bytes += entry.bytes.length;
      if (entries.length > 0 && bytes > bytesMax) break;
      entries.push(entry);
    }
    return entries;
  }

  /** Evicts the oldest entries while memory is over its limit and they are on disk. */
  evict(): void {
    while (this.cacheBytes > this.cacheBytesMax && this.cacheFrom <= this.persistedIndex) this.evictOldest();
    this.trimEmptySlots();
  }

  private evictOldest(): void {
    this.cacheBytes -= entryCost(this.cache[this.cacheHead] as Entry);
    this.cache[this.cacheHead] = undefined;
    this.cacheHead++;
    this.cacheFrom++;
  }

  /** Trimming in bulk keeps eviction at constant cost per entry. */
  private trimEmptySlots(): void {
    if (this.cacheHead <= 1024 || this.cacheHead * 2 <= this.cache.length) return;
    this.cache = this.cache.slice(this.cacheHead);
    this.cacheHead = 0;
  }

  /** Whether a log that ends with these is at least as complete as this one (§3.6.1). */
  isUpToDate(lastIndex: number, lastTerm: number): boolean {
    return lastTerm > this.lastTerm || (lastTerm === this.lastTerm && lastIndex >= this.lastIndex);
  }

  /**
   * The largest index not above `index` whose term is not above `term`: where two logs may still agree when one of them
   * has `term` at `index`. Skips a whole term at a time (§3.5). May be below `snapshotIndex`, where terms are no longer
   * known: then the logs agree, if at all, where this one can no longer tell.
   */
  lastPossibleMatch(index: number, term: number): number {
    let candidate = Math.min(index, this.lastIndex);
    for (let i = this.runs.length - 1; i >= 0; i--) {
      const run = this.runs[i] as TermRun;
      if (run.fromIndex > candidate) continue;
      if (run.term <= term) return candidate;
      candidate = run.fromIndex - 1;
    }
    return candidate === this.snapshotIndex && candidate > 0 && this.snapshotTerm > term ? candidate - 1 : candidate;
  }
}
