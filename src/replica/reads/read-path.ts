import type { Clock } from '../../base/clock.ts';
import { type Effects, NO_NODE } from '../../raft/state/types.ts';
import type { NodeLoop } from '../node-loop.ts';
import type { Failure, ReadCompletion } from '../types.ts';
import { ReadBatches } from './read-batches.ts';

export interface ReadOptions {
  readonly clock: Clock;
  readonly random: () => number;
  readonly timing: { readonly electionTimeoutMs: number; readonly requestTimeoutMs: number };
}

/**
 * The path of a linearizable read: a batch of reads asks the core for a ReadIndex, directly or through the leader, and is
 * served once the entry of that index is applied here (§6.4).
 */
export class ReadPath {
  readonly #options: ReadOptions;
  readonly #loop: NodeLoop;
  readonly #batches: ReadBatches;

  constructor(options: ReadOptions, loop: NodeLoop) {
    this.#options = options;
    this.#loop = loop;
    this.#batches = new ReadBatches(options.random());
  }

  get pending(): number {
    return this.#batches.pending;
  }

  read(completion: ReadCompletion): void {
    this.#batches.add(completion);
    this.#loop.scheduleTurn();
  }

  /** Calls back once everything acknowledged before this call is applied here, however long that takes. */
  onceCurrent(callback: () => void): void {
    this.read({
      readable: callback,
      readFailed: (failure) => {
        // The read was held for a whole request timeout, so asking again at once is no busy loop.
        if (failure === 'timeout') this.onceCurrent(callback);
      },
    });
  }

  closeTurn(nowMs: number): void {
    this.#batches.closeTurn(nowMs);
  }

  /** Asks for the next batch if reads wait, none is on its way, and a leader is known. */
  begin(nowMs: number): void {
    if (this.#loop.core.leader === NO_NODE) return;
    const id = this.#batches.begin(nowMs);
    if (id !== 0) this.#loop.put({ kind: 'read', id });
  }

  /** Takes note of what the core has confirmed; `serve` follows. */
  carryOut({ reads, readsRejected }: Effects): void {
    for (const { id, index } of reads) this.#batches.confirm(id, index);
    for (const id of readsRejected) this.#batches.reject(id);
  }

  serve(appliedIndex: number): void {
    this.#batches.serve(appliedIndex);
    // The next batch begins at once if reads have gathered meanwhile.
    if (this.#batches.hasGathered) this.#loop.scheduleTurn();
  }

  /** There is a new leader, which does not know of the batch on its way. */
  leaderChanged(): void {
    this.#batches.rejectAny();
  }

  tick(nowMs: number): void {
    const { electionTimeoutMs, requestTimeoutMs } = this.#options.timing;
    if (this.#loop.core.leader !== NO_NODE && this.#batches.isOverdue(nowMs - electionTimeoutMs))
      this.#loop.put({ kind: 'read', id: this.#batches.beginAgain(nowMs) });
    this.#batches.failOlderThan(nowMs - requestTimeoutMs, 'timeout');
  }

  failAll(failure: Failure): void {
    this.#batches.closeTurn(0);
    this.#batches.failOlderThan(Number.POSITIVE_INFINITY, failure);
  }
}
