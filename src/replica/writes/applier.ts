import { RaftkvError } from '../../base/errors.ts';
import { readBatchHeader } from '../../kv/batch.ts';
import type { StateMachine } from '../../kv/state-machine.ts';
import { ENTRY_HEADER_BYTES, readEntry } from '../../raft/state/entry.ts';
import type { Entry } from '../../raft/state/types.ts';
import type { Wal } from '../../storage/wal/types.ts';
import type { NodeLoop } from '../node-loop.ts';
import type { ReplicaObserver } from '../observer.ts';
import type { Proposer } from './proposer.ts';

/**
 * Applies committed entries to the state machine, in order, each once.
 *
 *   log (memory) ──┐
 *                  ├──▶ state machine ──▶ results to this node's own clients
 *   log (disk) ────┘
 */

/** Bytes applied in one go; then the event loop gets its turn, so that heartbeats never wait for a long catch-up. */
const SLICE_BYTES = 2 * 1024 * 1024;
/** The size of one read from disk while the applier catches up from there. */
const READ_BYTES = 4 * 1024 * 1024;

export interface ApplierContext {
  readonly wal: Pick<Wal, 'read'>;
  readonly stateMachine: StateMachine;
  readonly proposer: Proposer;
  readonly observer: ReplicaObserver | null;
  /** A batch of this incarnation had no effect: another incarnation of this node has used its session id, or a higher one. */
  readonly onSessionUsed: () => void;
}

export class Applier {
  appliedIndex: number;
  /** Bytes of the entries applied in this incarnation. */
  bytesApplied = 0;
  readonly #context: ApplierContext;
  readonly #loop: Pick<NodeLoop, 'core' | 'put' | 'run' | 'scheduleTurn' | 'fail'>;
  #reading = false;
  /** The number of installed snapshots; an entry that was read for an older number is not applied. */
  #jumps = 0;

  constructor(context: ApplierContext, loop: Pick<NodeLoop, 'core' | 'put' | 'run' | 'scheduleTurn' | 'fail'>) {
    this.#context = context;
    this.#loop = loop;
    this.appliedIndex = loop.core.log.appliedIndex;
  }

  /** Applies committed entries, up to a slice, and tells the core. If more are committed, another turn follows. */
  applyCommitted(): void {
    if (this.#reading) return;
    const { log } = this.#loop.core;
    const from = this.appliedIndex;
    let bytes = 0;
    while (this.appliedIndex < log.commitIndex) {
      const entry = log.cached(this.appliedIndex + 1);
      if (entry === undefined) {
        this.#readBack();
        break;
      }
      if (bytes >= SLICE_BYTES) {
        this.#loop.scheduleTurn();
        break;
      }
      this.#apply(entry);
      bytes += entry.bytes.length;
    }
    if (this.appliedIndex > from) this.#loop.put({ kind: 'applied', index: this.appliedIndex });
  }

  /** The state machine has been replaced by one that has applied up to `index`. */
  jumpTo(index: number): void {
    this.appliedIndex = index;
    this.#reading = false;
    this.#jumps++;
  }

  #apply(entry: Entry): void {
    if (entry.index !== this.appliedIndex + 1) {
      throw new RaftkvError(
        'INVARIANT_BROKEN',
        `entry ${entry.index} does not follow the last applied entry ${this.appliedIndex}`,
      );
    }
    this.appliedIndex = entry.index;
    this.bytesApplied += entry.bytes.length;
    if (entry.kind !== 'data') return;
    this.#applyBatch(entry.bytes);
    this.#context.observer?.applied(entry);
  }

  #applyBatch(bytes: Buffer): void {
    const { stateMachine, proposer, onSessionUsed } = this.#context;
    const { proposer: from, sessionId, sequence } = readBatchHeader(bytes, ENTRY_HEADER_BYTES);
    if (!proposer.expects(from, sessionId, sequence) || !proposer.nextIs(bytes)) {
      const outcome = stateMachine.apply(bytes, ENTRY_HEADER_BYTES, null);
      if (outcome === 'applied' && from === proposer.nodeId && sessionId === proposer.sessionId) onSessionUsed();
      return;
    }
    proposer.beginCompletion();
    const outcome = stateMachine.apply(bytes, ENTRY_HEADER_BYTES, proposer);
    proposer.endCompletion();
    if (outcome === 'staleSession' || outcome === 'duplicate') {
      onSessionUsed();
    } else if (outcome !== 'applied') {
      throw new RaftkvError(
        'INVARIANT_BROKEN',
        `batch ${sequence} of this node, session id ${sessionId}, was not applied: ${outcome}`,
      );
    }
  }

  #readBack(): void {
    this.#reading = true;
    const { log } = this.#loop.core;
    const last = Math.min(log.commitIndex, log.firstCachedIndex - 1);
    const jumps = this.#jumps;
    this.#context.wal.read(this.appliedIndex + 1, last, READ_BYTES).then(
      (records) => {
        if (jumps === this.#jumps) this.#loop.run(() => this.#applyRecords(records));
      },
      (error) => {
        if (jumps === this.#jumps) this.#loop.fail(error);
      },
    );
  }

  #applyRecords(records: readonly Buffer[]): void {
    this.#reading = false;
    for (const record of records) this.#apply(readEntry(record, 0));
    this.#loop.put({ kind: 'applied', index: this.appliedIndex });
  }
}
