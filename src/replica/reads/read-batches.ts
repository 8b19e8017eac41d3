import type { Failure, ReadCompletion } from '../types.ts';

/**
 * The reads of this node's clients. All that gather while one batch is being confirmed (ReadIndex) form the next batch,
 * so the cost of confirming does not grow with their number.
 *
 *   add ──▶ open ──(end of turn)──▶ gathered ──(no batch asked)──▶ asked(id) ──▶ confirmed(index) ──(applied)──▶ readable
 */

/** The reads of one turn. */
interface Gathered {
  readonly completions: ReadCompletion[];
  readonly cameAtMs: number;
}
interface Confirmed {
  readonly turns: Gathered[];
  readonly index: number;
}

/** The number of different upper parts of ids. Each leaves room for 2^32 batches. */
const INCARNATIONS = 2 ** 20;

export class ReadBatches {
  /** The reads of the present turn. */
  #open: ReadCompletion[] = [];
  /** Oldest first, as in every list of turns here. */
  #gathered: Gathered[] = [];
  #asked: Gathered[] | null = null;
  #askedId = 0;
  #askedAtMs = 0;
  readonly #confirmed: Confirmed[] = [];
  #nextId: number;

  /**
   * `random`, in [0, 1), is the upper part of the ids of this incarnation: an answer to what an earlier one asked must fit no
   * read of this one, even if the incarnation number was lost with the disk.
   */
  constructor(random: number) {
    this.#nextId = Math.floor(random * INCARNATIONS) * 2 ** 32 + 1;
  }

  get pending(): number {
    const confirmed = this.#confirmed.reduce((sum, { turns }) => sum + countReads(turns), 0);
    return this.#open.length + countReads(this.#gathered) + countReads(this.#asked ?? []) + confirmed;
  }

  add(completion: ReadCompletion): void {
    this.#open.push(completion);
  }

  closeTurn(nowMs: number): void {
    if (this.#open.length === 0) return;
    this.#gathered.push({ completions: this.#open, cameAtMs: nowMs });
    this.#open = [];
  }

  /** Begins a batch where reads wait and none is on its way. The id to ask for, or 0. */
  begin(nowMs: number): number {
    if (this.#asked !== null || this.#gathered.length === 0) return 0;
    this.#asked = this.#gathered;
    this.#gathered = [];
    return this.#ask(nowMs);
  }

  /** Asks again for the batch on its way, under a new id: an answer to the old one no longer counts. Its id, or 0. */
  beginAgain(nowMs: number): number {
    return this.#asked === null ? 0 : this.#ask(nowMs);
  }

  #ask(nowMs: number): number {
    this.#askedAtMs = nowMs;
    this.#askedId = this.#nextId++;
    return this.#askedId;
  }

  /** Whether the batch on its way has had no answer since `askedBeforeMs`. */
  isOverdue(askedBeforeMs: number): boolean {
    return this.#asked !== null && this.#askedAtMs <= askedBeforeMs;
  }

  /** The batch `id` could not be confirmed: it is overdue at once. */
  reject(id: number): void {
    if (this.#askedId === id) this.rejectAny();
  }

  /** The node that was asked no longer leads: the pending batch, if any, is sent again at once. */
  rejectAny(): void {
    this.#askedAtMs = Number.NEGATIVE_INFINITY;
  }

  /** Reads wait for the next batch. */
  get hasGathered(): boolean {
    return this.#gathered.length > 0;
  }

  /** The batch `id` may be served once `index` is applied. */
  confirm(id: number, index: number): void {
    if (this.#asked === null || this.#askedId !== id) return;
    this.#confirmed.push({ turns: this.#asked, index });
    this.#asked = null;
  }

  /** Serves the batches that are confirmed and whose index is applied. */
  serve(appliedIndex: number): void {
    let served = 0;
    while (served < this.#confirmed.length) {
      const batch = this.#confirmed[served] as Confirmed;
      // Indexes never fall from one batch to the next, so what comes first is served first.
      if (batch.index > appliedIndex) break;
      served++;
      for (const { completions } of batch.turns) for (const completion of completions) completion.readable();
    }
    if (served > 0) this.#confirmed.splice(0, served);
  }

  /** Gives up on the reads that came before `cameBeforeMs`. */
  failOlderThan(cameBeforeMs: number, failure: Failure): void {
    for (const { turns } of this.#confirmed) failTurns(turns, cameBeforeMs, failure);
    while (this.#confirmed[0]?.turns.length === 0) this.#confirmed.shift();
    if (this.#asked !== null) failTurns(this.#asked, cameBeforeMs, failure);
    if (this.#asked?.length === 0) this.#asked = null;
    failTurns(this.#gathered, cameBeforeMs, failure);
  }
}

function countReads(turns: readonly Gathered[]): number {
  return turns.reduce((sum, { completions }) => sum + completions.length, 0);
}

function failTurns(turns: Gathered[], cameBeforeMs: number, failure: Failure): void {
  const young = turns.findIndex(({ cameAtMs }) => cameAtMs > cameBeforeMs);
  const old = turns.splice(0, young < 0 ? turns.length : young);
  for (const { completions } of old) for (const completion of completions) completion.readFailed(failure);
}
