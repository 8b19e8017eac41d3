import { RaftkvError } from '../../base/errors.ts';
import type { StateMachine } from '../../kv/state-machine.ts';
import { decodeConfiguration } from '../../raft/state/configuration.ts';
import type { IndexedConfiguration } from '../../raft/state/configuration-tracker.ts';
import { ENTRY_HEADER_BYTES, readEntry } from '../../raft/state/entry.ts';
import { RaftLog } from '../../raft/state/log.ts';
import { type Configuration, type Entry, type HardState, NO_NODE } from '../../raft/state/types.ts';
import type { LogBase } from '../../storage/wal/types.ts';
import { decodeHardState } from './persister.ts';

/** Log entries kept in memory for followers that lag a little; older ones are read back from the log file. */
export const LOG_CACHE_BYTES_MAX = 32 * 1024 * 1024;

/** The start of a node before it reads its log: its newest snapshot, or an empty state at index 0. */
export interface RecoveryBase {
  readonly index: number;
  readonly term: number;
  readonly configuration: Configuration;
  readonly stateMachine: StateMachine;
}

/**
 * Rebuilds a node from its newest snapshot and its log file, record by record, in one pass: the log itself, the newest
 * term and vote, the configurations, and the state machine as far as the file tells what was committed. The leader
 * tells the rest.
 *
 * The file may reach back behind the snapshot: that tail is kept for slow followers. The first entry there stands for
 * all before it, since the term of the one before is no longer known.
 */
export class LogRecovery {
  log: RaftLog;
  readonly stateMachine: StateMachine;
  /** The newest read so far. */
  hardState: HardState = { term: 0, vote: NO_NODE, commitIndex: 0 };
  /** Ascending; the first is the base's. */
  readonly configurations: IndexedConfiguration[];
  /** Bytes of all entries that were read behind the base, also of those that later ones replaced. */
  bytesBehindBase = 0;
  readonly #base: RecoveryBase;
  readonly #lostSome: () => boolean;
  readonly #cacheBytesMax: number;
  #commitHint = 0;
  /** Whether an entry or a log reset has been read. */
  #begun = false;

  /** `lostSome`: damage has been moved aside, so the log may end before what it says is committed. */
  constructor(base: RecoveryBase, cacheBytesMax: number = LOG_CACHE_BYTES_MAX, lostSome: () => boolean = () => false) {
    this.#base = base;
    this.#lostSome = lostSome;
    this.#cacheBytesMax = cacheBytesMax;
    this.stateMachine = base.stateMachine;
    this.configurations = [{ index: base.index, configuration: base.configuration }];
    this.log = this.#logFrom(base.index, base.term);
  }

  #logFrom(index: number, term: number): RaftLog {
    return new RaftLog({ snapshotIndex: index, snapshotTerm: term, cacheBytesMax: this.#cacheBytesMax });
  }

  onLogReset(index: number, term: number): void {
    this.#begun = true;
    this.log = this.#logFrom(index, term);
    this.#forgetConfigurationsFrom(index + 1);
    this.#applyCommitted();
  }

  onEntry(index: number, bytes: Buffer): void {
    const entry = readEntry(Buffer.from(bytes), 0);
    const isBehindBase = index > this.#base.index;
    if (isBehindBase) this.bytesBehindBase += bytes.length;
    if (this.#beginsAt(index)) {
      this.log = index === 1 ? this.#logFrom(0, 0) : this.#logFrom(index, entry.term);
      this.#begun = true;
      if (index > 1) {
        this.#applyCommitted();
        return;
      }
    }
    this.#begun = true;
    const { log } = this;
    if (index <= log.lastIndex) {
      log.truncateFrom(index);
      this.#forgetConfigurationsFrom(index);
    }
    log.append(entry);
    log.persistedIndex = index;
    log.evict();
    if (entry.kind === 'configuration' && isBehindBase) this.#addConfiguration(entry);
    if (index === this.#base.index) this.#applyCommitted();
  }

  /** A first entry at or below the base is where the log begins, and so is one that truncates the place where it began. */
  #beginsAt(index: number): boolean {
    if (index > this.#base.index) return false;
    return !this.#begun || index <= this.log.snapshotIndex;
  }

  #addConfiguration(entry: Entry): void {
    const configuration = decodeConfiguration(entry.bytes, ENTRY_HEADER_BYTES);
    this.configurations.push({ index: entry.index, configuration });
  }

  #forgetConfigurationsFrom(index: number): void {
    while (this.configurations.length > 1 && (this.configurations.at(-1)?.index ?? 0) >= index) {
      this.configurations.pop();
    }
  }

  /** Its commit index may be ahead of the entries read so far, if the log was reset or repaired once. */
  onHardState(bytes: Buffer): void {
    this.hardState = decodeHardState(bytes);
    this.#commitHint = Math.max(this.#commitHint, this.hardState.commitIndex);
    this.#applyCommitted();
  }

  /** Takes for committed, and applies, what the file and the snapshot say is. */
  #applyCommitted(): void {
    const { log } = this;
    const base = this.#base;
    if (this.#reachesBase()) log.commitIndex = Math.max(log.commitIndex, base.index);
    log.commitIndex = Math.max(log.commitIndex, Math.min(this.#commitHint, log.lastIndex));
    log.appliedIndex = Math.max(log.appliedIndex, Math.min(base.index, log.commitIndex));
    while (log.appliedIndex < log.commitIndex) {
      const entry = log.cached(log.appliedIndex + 1);
      // Entries that have left memory again are read back once the node runs.
      if (entry === undefined) return;
      if (entry.kind === 'data') this.stateMachine.apply(entry.bytes, ENTRY_HEADER_BYTES, null);
      log.appliedIndex = entry.index;
    }
  }

  #reachesBase(): boolean {
    return this.log.termAt(this.#base.index) === this.#base.term;
  }

  /**
   * To be called when the log has been read. Where it does not hold the entry that the snapshot ends with, the process
   * died between storing a snapshot it had received and beginning its log behind it: then it has to begin there now.
   * @throws RaftkvError WAL_DAMAGED where entries are missing that it says were committed.
   */
  finish(): LogBase | null {
    const lastIndex = Math.max(this.log.lastIndex, this.#base.index);
    if (this.#commitHint > lastIndex && !this.#lostSome()) {
      throw new RaftkvError(
        'WAL_DAMAGED',
        `the log ends at entry ${lastIndex}, but entries up to ${this.#commitHint} were committed`,
        'Keep a copy of the data directory and empty it: the node recovers from its peers.',
      );
    }
    const start = this.#finishLog();
    // If a damaged log has lost the term, the snapshot still knows a term that was reached.
    const { lastTerm } = this.log;
    if (this.hardState.term < lastTerm) this.hardState = { ...this.hardState, term: lastTerm, vote: NO_NODE };
    return start;
  }

  #finishLog(): LogBase | null {
    if (this.#reachesBase()) {
      this.#applyCommitted();
      return null;
    }
    const { index, term } = this.#base;
    this.log = this.#logFrom(index, term);
    this.#forgetConfigurationsFrom(index + 1);
    this.#commitHint = Math.min(this.#commitHint, index);
    this.hardState = { ...this.hardState, commitIndex: Math.min(this.hardState.commitIndex, index) };
    return { index, term };
  }
}
