import { RaftkvError } from '../base/errors.ts';
import { StateMachine } from '../kv/state-machine.ts';
import { ENTRY_HEADER_BYTES, readEntry } from '../raft/entry.ts';
import { RaftLog } from '../raft/log.ts';
import { type HardState, NOBODY } from '../raft/types.ts';
import { decodeHardState } from './persister.ts';

/** Log entries kept in memory for followers that lag a little; older ones are read back from the log file. */
export const LOG_CACHE_BYTES_MAX = 32 * 1024 * 1024;

/**
 * Rebuilds a node from its log file, record by record, in one pass: the log itself, the newest term and vote, and the
 * state machine as far as the file tells what was committed. The leader tells the rest.
 */
export class LogRecovery {
  readonly log: RaftLog;
  readonly stateMachine = new StateMachine();
  /** The newest read so far. */
  hardState: HardState = { term: 0, vote: NOBODY, commitIndex: 0 };

  constructor(cacheBytesMax: number = LOG_CACHE_BYTES_MAX) {
    this.log = new RaftLog({ snapshotIndex: 0, snapshotTerm: 0, cacheBytesMax });
  }

  onEntry(index: number, bytes: Buffer): void {
    if (index <= this.log.lastIndex) this.log.truncateFrom(index);
    this.log.append(readEntry(Buffer.from(bytes), 0));
    this.log.persistedIndex = index;
    this.log.evict();
  }

  /** @throws RaftkvError WAL_DAMAGED where it speaks of committed entries that did not come before it. */
  onHardState(bytes: Buffer): void {
    this.hardState = decodeHardState(bytes);
    const { commitIndex } = this.hardState;
    if (commitIndex > this.log.lastIndex) {
      throw new RaftkvError(
        'WAL_DAMAGED',
        `the log ends at entry ${this.log.lastIndex} where ${commitIndex} were already committed`,
        'Restore the data directory of this node from a copy. Nothing of it was changed.',
      );
    }
    this.applyCommitted();
  }

  private applyCommitted(): void {
    const { log } = this;
    log.commitIndex = Math.max(log.commitIndex, this.hardState.commitIndex);
    while (log.appliedIndex < log.commitIndex) {
      const entry = log.cached(log.appliedIndex + 1);
      // What has already left memory is read back once the node runs.
      if (entry === undefined) return;
      if (entry.kind === 'data') this.stateMachine.apply(entry.bytes, ENTRY_HEADER_BYTES, null);
      log.appliedIndex = entry.index;
    }
  }
}
