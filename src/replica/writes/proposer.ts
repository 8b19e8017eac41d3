import { BatchBuilder, setSessionId, type WriteCommand } from '../../kv/batch.ts';
import type { SessionProgress } from '../../kv/sessions.ts';
import type { Item, ResultCode, ResultSink } from '../../kv/types.ts';
import { ENTRY_HEADER_BYTES } from '../../raft/state/entry.ts';
import type { Failure, WriteCompletion } from '../types.ts';

/**
 * The writes that this node has accepted from its own clients: gathered into one batch a turn, numbered, kept and sent
 * again until applied. A batch keeps its place whatever becomes of its clients, so a write that was once accepted is
 * applied exactly once.
 *
 *   add ──▶ open batch ──(end of turn)──▶ unapplied, oldest first ──▶ leader ──▶ log ──▶ complete: results to the completions
 */

export interface ProposerLimits {
  /** Travel in each batch: what every replica refuses to store. */
  readonly itemBytesMax: number;
  readonly storeBytesMax: number;
  /** Accepted and not yet applied; beyond it the ports stop reading. Bounds this node's memory and the leader's. */
  readonly pendingWriteBytesMax: number;
  /** A turn that gathers more than this is split into several batches, so that no frame or log write grows without bound. */
  readonly batchBytesMax: number;
}

export interface Batch {
  readonly sequence: number;
  readonly bytes: Buffer;
  readonly acceptedAtMs: number;
  /** One for each command; null once they were called with the timeout. */
  completions: WriteCompletion[] | null;
  /** Sent to a leader: its bytes are in this node's own log or in a peer link's buffer, so they must not change. */
  sent: boolean;
}

/** The first bytes of a batch, which the leader fills in: the entry's header and the time. */
const STAMPED_BYTES = ENTRY_HEADER_BYTES + 8;

export class Proposer implements ResultSink {
  readonly nodeId: number;
  sessionId: number;
  readonly #limits: ProposerLimits;
  readonly #builder = new BatchBuilder(ENTRY_HEADER_BYTES);
  #completions: WriteCompletion[] = [];
  /** Accepted and not yet applied, from `head` on, oldest first, without gaps in their sequences. */
  #batches: (Batch | undefined)[] = [];
  #head = 0;
  #nextSequence = 1;
  /** The completions of every batch up to here have been called: with results, or with the timeout. */
  #toldUpTo = 0;
  #unappliedBytes = 0;
  /** Commands accepted and not yet answered. */
  pendingCommands = 0;
  /** The completions of the batch that is being applied. */
  #completing: WriteCompletion[] | null = null;

  constructor(nodeId: number, sessionId: number, limits: ProposerLimits) {
    this.nodeId = nodeId;
    this.sessionId = sessionId;
    this.#limits = limits;
  }

  get hasRoom(): boolean {
    return this.#unappliedBytes + this.#builder.byteLength < this.#limits.pendingWriteBytesMax;
  }

  /** The sequence number of the oldest batch that is not applied; if all are, of the next batch. */
  get oldestSequence(): number {
    return this.#nextSequence - this.unapplied;
  }

  /** Batches accepted and not yet applied. */
  get unapplied(): number {
    return this.#batches.length - this.#head;
  }

  /** Takes another session id, for the batches gathered so far too. Only before any of them is proposed. */
  changeSessionId(sessionId: number): void {
    this.sessionId = sessionId;
    for (const batch of this.#batches) {
      if (batch !== undefined) setSessionId(batch.bytes, ENTRY_HEADER_BYTES, sessionId);
    }
  }

  /** The batch of this sequence, where it waits to be applied. */
  batch(sequence: number): Batch | undefined {
    return sequence < this.oldestSequence ? undefined : this.#batches[this.#head + sequence - this.oldestSequence];
  }

  /** Adds a command to the open batch. */
  add(command: WriteCommand, completion: WriteCompletion): void {
    this.#builder.add(command);
    this.#completions.push(completion);
    this.pendingCommands++;
  }

  /** The open batch should take no more, though the turn is not over. */
  get batchIsFull(): boolean {
    return this.#builder.byteLength >= this.#limits.batchBytesMax;
  }

  /** Numbers the open batch and puts it behind the others; from now on it can be sent. */
  closeBatch(nowMs: number): void {
    if (this.#builder.count === 0) return;
    const { itemBytesMax, storeBytesMax } = this.#limits;
    const sequence = this.#nextSequence++;
    const bytes = this.#builder.seal(this.nodeId, this.sessionId, sequence, itemBytesMax, storeBytesMax);
    this.#batches.push({ sequence, bytes, acceptedAtMs: nowMs, completions: this.#completions, sent: false });
    this.#unappliedBytes += bytes.length;
    this.#completions = [];
  }

  /**
   * Whether the batch of these numbers is this node's own, next to be completed. A batch that was not sent
   * yet is not ours: a node whose directory was restored may find batches of another incarnation under its session id.
   */
  expects(proposer: number, sessionId: number, sequence: number): boolean {
    const next = this.#batches[this.#head];
    return proposer === this.nodeId && sessionId === this.sessionId && sequence === next?.sequence && next.sent;
  }

  /**
   * Whether the batch that is next to be completed has these bytes. Two incarnations on two
   * disks of one node may have used the same session id.
   */
  nextIs(bytes: Buffer): boolean {
    const next = this.#batches[this.#head]?.bytes;
    if (next === undefined || next === bytes) return next === bytes;
    return bytes.compare(next, STAMPED_BYTES, next.length, STAMPED_BYTES, bytes.length) === 0;
  }

  /** Call before the batch that `expects` recognised is applied: its results go to its completions. */
  beginCompletion(): void {
    const batch = this.#batches[this.#head];
    if (batch === undefined) return;
    this.#batches[this.#head++] = undefined;
    // Trimming in bulk keeps the cost of a batch the same, however many have gathered.
    if (this.#head > 1024 && this.#head * 2 > this.#batches.length) {
      this.#batches = this.#batches.slice(this.#head);
      this.#head = 0;
    }
    this.#unappliedBytes -= batch.bytes.length;
    this.#completing = batch.completions;
    if (batch.completions !== null) this.pendingCommands -= batch.completions.length;
  }

  result(position: number, code: ResultCode, item: Item | null, text: string): void {
    this.#completing?.[position]?.written(code, item, text);
  }

  endCompletion(): void {
    this.#completing = null;
  }

  /**
   * A snapshot was installed that has applied our own batches up to this point of our session: they took effect, but
   * their results are lost. Not to be called before `mayPropose`: until then an equal session id is another incarnation's.
   */
  overtaken({ sessionId, lastSequence }: SessionProgress): void {
    while (sessionId === this.sessionId && this.unapplied > 0 && this.oldestSequence <= lastSequence) {
      this.beginCompletion();
      const completions = this.#completing;
      this.endCompletion();
      for (const completion of completions ?? []) completion.writeFailed('overtaken');
    }
  }

  /** Fails the completions of all that was accepted before `acceptedBeforeMs`: the outcome is unknown. */
  failOlderThan(acceptedBeforeMs: number, failure: Failure): void {
    const first = Math.max(this.oldestSequence, this.#toldUpTo + 1);
    for (let sequence = first; sequence < this.#nextSequence; sequence++) {
      const batch = this.batch(sequence);
      if (batch === undefined || batch.acceptedAtMs > acceptedBeforeMs) return;
      this.#toldUpTo = sequence;
      const { completions } = batch;
      if (completions === null) continue;
      batch.completions = null;
      this.pendingCommands -= completions.length;
      for (const completion of completions) completion.writeFailed(failure);
    }
  }
}
