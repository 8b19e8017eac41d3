import { RaftkvError } from '../../base/errors.ts';
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
 * `commitIndex` may exceed `persistedIndex`: the followers can commit an entry that this node's slower disk does not hold
 * yet (§10.2.1). It is applied from memory then, which is why entries leave memory only once they are on disk.
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
  /** The paper's commitIndex: known to be committed. Never goes back (§3.6.2); may be above `persistedIndex`. */
  commitIndex: number;
  /** The paper's lastApplied. The caller applies entries and reports it. */
  appliedIndex: number;
  /** On this node's own disk. Goes back only with a truncation. */
  persistedIndex: number;

  readonly #runs: TermRun[] = [];
  #cache: (Entry | undefined)[] = [];
  /** Position in `cache` of the first entry still held; the empty places before it are removed in bulk. */
  #cacheHead = 0;
  #cacheFrom: number;
  #cacheBytes = 0;

  constructor(start: LogStart) {
    this.snapshotIndex = start.snapshotIndex;
    this.snapshotTerm = start.snapshotTerm;
    this.cacheBytesMax = start.cacheBytesMax;
    this.lastIndex = start.snapshotIndex;
    this.commitIndex = start.snapshotIndex;
    this.appliedIndex = start.snapshotIndex;
    this.persistedIndex = start.snapshotIndex;
    this.#cacheFrom = start.snapshotIndex + 1;
  }

  get lastTerm(): number {
    return this.#runs.at(-1)?.term ?? this.snapshotTerm;
  }

  /** The first index whose entry is still in memory. */
  get firstCachedIndex(): number {
    return this.#cacheFrom;
  }

  /** The term of the entry at `index`; -1 if this log has none, or no longer knows it. */
  termAt(index: number): number {
    if (index > this.lastIndex || index < this.snapshotIndex) return -1;
    if (index === this.snapshotIndex) return this.snapshotTerm;
    for (let i = this.#runs.length - 1; i >= 0; i--) {
      const run = this.#runs[i] as TermRun;
      if (run.fromIndex <= index) return run.term;
    }
    return -1;
  }

  append(entry: Entry): void {
    if (entry.index !== this.lastIndex + 1) {
      throw new RaftkvError('INVARIANT_BROKEN', `entry ${entry.index} appended after entry ${this.lastIndex}`);
    }
    if (this.lastTerm !== entry.term || this.#runs.length === 0) {
      this.#runs.push({ fromIndex: entry.index, term: entry.term });
    }
    this.lastIndex = entry.index;
    this.#cache.push(entry);
    this.#cacheBytes += entryCost(entry);
  }

  /**
   * Removes the entry at `index` and all behind it.
   * @throws RaftkvError INVARIANT_BROKEN for a committed entry.
   */
  truncateFrom(index: number): void {
    if (index <= this.commitIndex) {
      throw new RaftkvError('INVARIANT_BROKEN', `truncation at ${index} of a log committed up to ${this.commitIndex}`);
    }
    while ((this.#runs.at(-1)?.fromIndex ?? 0) >= index) this.#runs.pop();
    while (this.lastIndex >= index && this.#cacheFrom <= this.lastIndex) {
      this.#cacheBytes -= entryCost(this.#cache.pop() as Entry);
      this.lastIndex--;
    }
    this.lastIndex = Math.min(this.lastIndex, index - 1);
    this.#cacheFrom = Math.min(this.#cacheFrom, index);
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
    while (gone < this.#runs.length && (this.#runs[gone + 1]?.fromIndex ?? this.lastIndex + 1) <= index + 1) gone++;
    this.#runs.splice(0, gone);
    this.snapshotIndex = index;
    this.snapshotTerm = term;
    while (this.#cacheFrom <= index) this.#evictOldest();
    this.#trimEmptySlots();
  }

  /** Drops everything: the log is empty and begins after the entry that a snapshot stands for. */
  restore(index: number, term: number): void {
    if (index <= this.commitIndex) {
      throw new RaftkvError('INVARIANT_BROKEN', `restore to ${index} of a log committed up to ${this.commitIndex}`);
    }
    this.#runs.length = 0;
    this.#cache = [];
    this.#cacheHead = 0;
    this.#cacheFrom = index + 1;
    this.#cacheBytes = 0;
    this.snapshotIndex = index;
    this.snapshotTerm = term;
    this.lastIndex = index;
    this.commitIndex = index;
    this.appliedIndex = index;
    this.persistedIndex = index;
  }

  /** The entry at `index`, if it is in memory. */
  cached(index: number): Entry | undefined {
    if (index < this.#cacheFrom) return undefined;
    return this.#cache[this.#cacheHead + index - this.#cacheFrom];
  }

  /** Cached entries from `from` on: at least one if there is any, then as many as fit into `bytesMax`. */
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

  /** Drops the oldest entries from memory while it is over its limit and they are on disk. */
  evict(): void {
    while (this.#cacheBytes > this.cacheBytesMax && this.#cacheFrom <= this.persistedIndex) this.#evictOldest();
    this.#trimEmptySlots();
  }

  #evictOldest(): void {
    this.#cacheBytes -= entryCost(this.#cache[this.#cacheHead] as Entry);
    this.#cache[this.#cacheHead] = undefined;
    this.#cacheHead++;
    this.#cacheFrom++;
  }

  /** Trimming in bulk keeps eviction at constant cost per entry. */
  #trimEmptySlots(): void {
    if (this.#cacheHead <= 1024 || this.#cacheHead * 2 <= this.#cache.length) return;
    this.#cache = this.#cache.slice(this.#cacheHead);
    this.#cacheHead = 0;
  }

  /**
   * Whether a log that ends with these is at least as complete as this one (§3.6.1). The later term wins, however short the
   * log: 5@3 beats 9@2, since the leader of term 3 had everything that was committed before, and overwrote 6 to 9.
   */
  isUpToDate(lastIndex: number, lastTerm: number): boolean {
    return lastTerm > this.lastTerm || (lastTerm === this.lastTerm && lastIndex >= this.lastIndex);
  }

  /**
   * The largest index not above `index` whose term is not above `term`: where this log and one that has `term` at `index`
   * may still agree. The paper decrements nextIndex by one; this skips a whole term at a time (§3.5). May be below
   * `snapshotIndex`, where terms are no longer known: then this log cannot tell where they agree.
   *
   * A log of terms 1 1 1 4 4 and one that has term 3 at index 5 can't agree at 5 or 4, where this one has term 4. They may
   * agree at 3.
   */
  lastPossibleMatch(index: number, term: number): number {
    let candidate = Math.min(index, this.lastIndex);
    for (let i = this.#runs.length - 1; i >= 0; i--) {
      const run = this.#runs[i] as TermRun;
      if (run.fromIndex > candidate) continue;
      if (run.term <= term) return candidate;
      candidate = run.fromIndex - 1;
    }
    // Only the entry at which the log begins is left. If its term is too high, the logs can agree below it at best.
    const isTooHigh = candidate === this.snapshotIndex && candidate > 0 && this.snapshotTerm > term;
    return isTooHigh ? candidate - 1 : candidate;
  }
}
