import { BatchBuilder, setSession } from '../../kv/batch.ts';
import type { Item, Op, ResultCode, ResultSink } from '../../kv/types.ts';
import { ENTRY_HEADER_BYTES } from '../../raft/entry.ts';
import type { Failure, WriteOwner } from '../types.ts';

/**
 * The writes that this node has accepted from its own clients: gathered into one batch a turn, numbered, kept and sent
 * again until applied. A batch keeps its place whatever becomes of its clients, so a write that was once accepted is
 * applied exactly once.
 *
 *   add ──▶ open batch ──(end of turn)──▶ unapplied, oldest first ──▶ leader ──▶ log ──▶ settle: results to the owners
 */

export interface ProposerLimits {
  /** Travel in each batch: what every replica refuses to store. */
  readonly itemBytesMax: number;
  readonly storeBytesMax: number;
  /** Accepted and not yet applied; beyond it the ports stop reading. Bounds this node's memory and the leader's. */
  readonly pendingWriteBytesMax: number;
  /** A turn that gathers more than this is cut into several batches, so that no frame or log write grows without bound. */
  readonly batchBytesMax: number;
}

export interface Batch {
  readonly sequence: number;
  readonly bytes: Buffer;
  readonly acceptedAtMs: number;
  /** Who waits for each command; null once they have been told that it took too long. */
  owners: WriteOwner[] | null;
  /** Sent to a leader: its bytes are in this node's own log or in a peer link's buffer, so they must not change. */
  sent: boolean;
}

/** Of a batch, what its leader fills in: the entry's header, and the time with which a batch begins. */
const STAMPED_BYTES = ENTRY_HEADER_BYTES + 8;

export class Proposer implements ResultSink {
  readonly nodeId: number;
  session: number;
  private readonly limits: ProposerLimits;
  private readonly builder = new BatchBuilder(ENTRY_HEADER_BYTES);
  private owners: WriteOwner[] = [];
  /** Accepted and not yet applied, from `head` on, oldest first, without gaps in their sequences. */
  private batches: (Batch | undefined)[] = [];
  private head = 0;
  private nextSequence = 1;
  /** The owners of every batch up to here have been told that it took too long, or had their results. */
  private toldUpTo = 0;
  private unappliedBytes = 0;
  /** Commands accepted and not yet answered. */
  pendingCommands = 0;
  /** The owners of the batch that is being applied. */
  private settling: WriteOwner[] | null = null;

  constructor(nodeId: number, session: number, limits: ProposerLimits) {
    this.nodeId = nodeId;
    this.session = session;
    this.limits = limits;
  }

  get hasRoom(): boolean {
    return this.unappliedBytes + this.builder.byteLength < this.limits.pendingWriteBytesMax;
  }

  /** Of the oldest batch that is not applied; of the next to be made where there is none. */
  get oldestSequence(): number {
    return this.nextSequence - this.unapplied;
  }

  /** Batches accepted and not yet applied. */
  get unapplied(): number {
    return this.batches.length - this.head;
  }

  /** Takes another session, and all that has gathered with it. Only before any of it is proposed. */
  beginSession(session: number): void {
    this.session = session;
    for (const batch of this.batches) {
      if (batch !== undefined) setSession(batch.bytes, ENTRY_HEADER_BYTES, session);
    }
  }

  /** The batch of this sequence, where it waits to be applied. */
  batch(sequence: number): Batch | undefined {
    return sequence < this.oldestSequence ? undefined : this.batches[this.head + sequence - this.oldestSequence];
  }

  /** Adds a command to the open batch. */
  add(
    op: Op,
    source: Buffer,
    keyStart: number,
    keyEnd: number,
    flags: number,
    exptimeSeconds: number,
    valueStart: number,
    valueEnd: number,
    argHigh: number,
    argLow: number,
    owner: WriteOwner,
  ): void {
    this.builder.add(op, source, keyStart, keyEnd, flags, exptimeSeconds, valueStart, valueEnd, argHigh, argLow);
    this.owners.push(owner);
    this.pendingCommands++;
  }

  /** The open batch should take no more, though the turn is not over. */
  get batchIsFull(): boolean {
    return this.builder.byteLength >= this.limits.batchBytesMax;
  }

  /** Numbers the open batch and puts it behind the others; from now on it can be sent. */
  closeBatch(nowMs: number): void {
    if (this.builder.count === 0) return;
    const { itemBytesMax, storeBytesMax } = this.limits;
    const sequence = this.nextSequence++;
    const bytes = this.builder.seal(this.nodeId, this.session, sequence, itemBytesMax, storeBytesMax);
    this.batches.push({ sequence, bytes, acceptedAtMs: nowMs, owners: this.owners, sent: false });
    this.unappliedBytes += bytes.length;
    this.owners = [];
  }

  /**
   * Whether the batch of these numbers is this node's own, next to be settled. One that has not left yet is another's: a
   * node that lost count of its starts may find the batches of an earlier life under its own session.
   */
  expects(proposer: number, session: number, sequence: number): boolean {
    const next = this.batches[this.head];
    return proposer === this.nodeId && session === this.session && sequence === next?.sequence && next.sent;
  }

  /**
   * Whether the batch that is next to be settled has these bytes. Two disks of one node may have counted a start alike, so
   * that another life has used this session, too.
   */
  nextIs(bytes: Buffer): boolean {
    const next = this.batches[this.head]?.bytes;
    if (next === undefined || next === bytes) return next === bytes;
    return bytes.compare(next, STAMPED_BYTES, next.length, STAMPED_BYTES, bytes.length) === 0;
  }

  /** Call before the batch that `expects` recognised is applied: its results go to its owners. */
  beginSettling(): void {
    const batch = this.batches[this.head];
    if (batch === undefined) return;
    this.batches[this.head++] = undefined;
    // Cutting in bulk keeps the cost of a batch the same, however many have gathered.
    if (this.head > 1024 && this.head * 2 > this.batches.length) {
      this.batches = this.batches.slice(this.head);
      this.head = 0;
    }
    this.unappliedBytes -= batch.bytes.length;
    this.settling = batch.owners;
    if (batch.owners !== null) this.pendingCommands -= batch.owners.length;
  }

  result(position: number, code: ResultCode, item: Item | null, text: string): void {
    this.settling?.[position]?.written(code, item, text);
  }

  endSettling(): void {
    this.settling = null;
  }

  /**
   * A snapshot that this node took over contains its own batches up to `sequence`: they took effect, and their results
   * are nowhere to be had. Not to be called before it may propose: a session that is like its own is another life's then.
   */
  overtaken(sequence: number): void {
    while (this.unapplied > 0 && this.oldestSequence <= sequence) {
      this.beginSettling();
      const owners = this.settling;
      this.endSettling();
      for (const owner of owners ?? []) owner.writeFailed('overtaken');
    }
  }

  /** Tells the owners of what was accepted before `acceptedBeforeMs` that their outcome is unknown. */
  failOlderThan(acceptedBeforeMs: number, failure: Failure): void {
    const first = Math.max(this.oldestSequence, this.toldUpTo + 1);
    for (let sequence = first; sequence < this.nextSequence; sequence++) {
      const batch = this.batch(sequence);
      if (batch === undefined || batch.acceptedAtMs > acceptedBeforeMs) return;
      this.toldUpTo = sequence;
      const { owners } = batch;
      if (owners === null) continue;
      batch.owners = null;
      this.pendingCommands -= owners.length;
      for (const owner of owners) owner.writeFailed(failure);
    }
  }
}
