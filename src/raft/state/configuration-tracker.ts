import { RaftkvError } from '../../base/errors.ts';
import { members } from './configuration.ts';
import type { Configuration, NodeId } from './types.ts';

/** A configuration and the index of its log entry; 0 for the one that a node starts with. */
export interface IndexedConfiguration {
  readonly index: number;
  readonly configuration: Configuration;
}

/**
 * Which configuration is in force, as a function of the log (§4.1): the newest in the log, committed or not. LogCabin has
 * the same object under the name ConfigurationManager.
 *
 *     base ──── committed ──── newest
 *      │            │             └ in force; removed again if the log is truncated below it
 *      │            └ the newest at or below the commit index
 *      └ the newest at or below the start of the log: a snapshot's, or the one that the node started with
 *
 * The tracker is told of each change of the log that can move one of the three. It never looks at the log itself, so that
 * it can be tested alone.
 */
export class ConfigurationTracker {
  /** By index, ascending, never empty. All of them are at or below the last index of the log. */
  #entries: readonly IndexedConfiguration[];
  #newest: IndexedConfiguration;
  #committed: IndexedConfiguration;

  /** `entries`: by index, ascending, at least one; `snapshotIndex` is where the log starts. */
  constructor(entries: readonly IndexedConfiguration[], commitIndex: number, snapshotIndex: number) {
    this.#entries = [...entries];
    this.#newest = this.#last();
    this.#committed = this.#newest;
    this.commit(commitIndex);
    // A snapshot is newer than everything that the log holds before it.
    this.compact(snapshotIndex);
  }

  /** The configuration in force. */
  get current(): Configuration {
    return this.#newest.configuration;
  }

  get newest(): IndexedConfiguration {
    return this.#newest;
  }

  /** The newest configuration that is committed. */
  get committed(): IndexedConfiguration {
    return this.#committed;
  }

  /** Whether the configuration in force is committed, that is, no change of members is under way in the log. */
  get isCommitted(): boolean {
    return this.#committed === this.#newest;
  }

  /** All configurations that are known, by index, ascending. */
  get entries(): readonly IndexedConfiguration[] {
    return this.#entries;
  }

  /**
   * The members of every configuration that can turn out to be in force: the committed one and those behind it. A member
   * whose removal is not committed yet is among them, so that it receives the entry that removes it.
   */
  possibleMembers(): Set<NodeId> {
    const ids = new Set<NodeId>();
    for (const { index, configuration } of this.#entries) {
      if (index < this.#committed.index) continue;
      for (const id of members(configuration)) ids.add(id);
    }
    return ids;
  }

  /**
   * The configuration that was in force when the log ended at `index`.
   * @throws RaftkvError INVARIANT_BROKEN if `index` lies before everything that is known.
   */
  asOf(index: number): Configuration {
    const entry = this.#entries.findLast((each) => each.index <= index);
    if (entry === undefined)
      throw new RaftkvError('INVARIANT_BROKEN', `no configuration is known as of entry ${index}`);
    return entry.configuration;
  }

  /** A configuration entry was appended to the log: it is in force from now on. */
  append(index: number, configuration: Configuration): void {
    this.#entries = [...this.#entries, { index, configuration }];
    this.#newest = this.#last();
  }

  /** The log lost the entry at `index` and everything behind it. Returns whether that changed the configuration in force. */
  truncate(index: number): boolean {
    if (this.#newest.index < index) return false;
    this.#entries = this.#entries.filter((entry) => entry.index < index);
    this.#newest = this.#last();
    return true;
  }

  /** The commit index rose. Returns whether that committed a configuration. */
  commit(commitIndex: number): boolean {
    if (this.#committed === this.#newest && this.#newest.index <= commitIndex) return false;
    const before = this.#committed;
    this.#committed = this.#entries.findLast(({ index }) => index <= commitIndex) ?? this.#first();
    return this.#committed !== before;
  }

  /**
   * A snapshot replaced everything up to `index`; `lastIndex` is where the log ends now. The snapshot's configuration
   * replaces all older ones, including uncommitted ones that a reset log took with it (openraft 1808).
   */
  install(index: number, configuration: Configuration, lastIndex: number): void {
    const later = this.#entries.filter((entry) => entry.index > index && entry.index <= lastIndex);
    this.#entries = [{ index, configuration }, ...later];
    this.#newest = this.#last();
    this.#committed = this.#first();
  }

  /** The log starts behind `snapshotIndex` now: of the configurations up to there only the newest is still needed. */
  compact(snapshotIndex: number): void {
    const base = this.#entries.findLastIndex(({ index }) => index <= snapshotIndex);
    if (base > 0) this.#entries = this.#entries.slice(base);
  }

  #first(): IndexedConfiguration {
    return this.#checked(this.#entries[0]);
  }

  #last(): IndexedConfiguration {
    return this.#checked(this.#entries.at(-1));
  }

  #checked(entry: IndexedConfiguration | undefined): IndexedConfiguration {
    if (entry === undefined) throw new RaftkvError('INVARIANT_BROKEN', 'the log has no configuration');
    return entry;
  }
}
