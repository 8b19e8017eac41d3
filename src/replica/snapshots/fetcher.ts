import type { Clock } from '../../base/clock.ts';
import { RaftkvError } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import { SnapshotLoader } from '../../kv/snapshot.ts';
import type { StateMachine } from '../../kv/state-machine.ts';
import { NO_NODE, type NodeId, type WantSnapshot } from '../../raft/state/types.ts';
import type { SnapshotInfo, SnapshotReceiver, Snapshots } from '../../storage/snapshots/types.ts';
import type { BulkMessage, SnapshotPieceMessage } from './bulk-wire.ts';

/**
 * The follower's side of a transfer: fetches a snapshot file piece by piece over the bulk link, verifies it, and loads
 * the state from it. What has arrived survives a lost link; the next request begins where it ended.
 *
 *   leader's offer ─▶ ask for a few pieces ahead ─▶ append to the file ─▶ all there: verify, durable ─▶ load ─▶ core
 */
export interface SnapshotFetcherContext {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly snapshots: Snapshots;
  readonly pieceBytes: number;
  /** Pieces asked for and not yet here; bounds what waits to be written. */
  readonly piecesInFlightMax: number;
  /** If nothing new arrives for so long, the missing pieces are asked for again. */
  readonly retryMs: number;
  readonly send: (to: NodeId, message: BulkMessage) => void;
  /** The file is durable, and this is what it holds. */
  readonly onLoaded: (info: SnapshotInfo, stateMachine: StateMachine) => void;
  readonly onFatal: (error: unknown) => void;
}

interface Transfer {
  readonly wanted: WantSnapshot;
  readonly receiver: SnapshotReceiver;
  /** Everything before this has been asked for. */
  askedTo: number;
  /** Everything before this has been handed to the receiver. */
  handedTo: number;
  /** The length of the whole file; 0 while it is not known. */
  byteLength: number;
  /** Handed to the receiver and not written yet. */
  piecesUnwritten: number;
  /** When something of it last came, or was written. */
  movedAtMs: number;
  /** All is here and being verified; nothing stops it any more. */
  finishing: boolean;
}

/** After one that found the disk full, or a file that did not verify: not at once again. */
const PAUSE_MS = 1_000;

export class SnapshotFetcher {
  readonly #context: SnapshotFetcherContext;
  #transfer: Transfer | null = null;
  /** The operations on files, one after the other in the order of the calls. */
  #work: Promise<void> = Promise.resolve();
  #beginning = false;
  /** The node whose file has partly arrived. Another node's snapshot of the same entry is a different file. */
  #partlyFrom: NodeId = NO_NODE;
  #notBeforeMs = Number.NEGATIVE_INFINITY;
  #stopped = false;

  constructor(context: SnapshotFetcherContext) {
    this.#context = context;
  }

  get isRunning(): boolean {
    return this.#transfer !== null;
  }

  /** The leader offers a snapshot, perhaps not for the first time. */
  want(wanted: WantSnapshot): void {
    if (this.#stopped || this.#beginning || this.#transfer?.finishing === true) return;
    const transfer = this.#transfer;
    if (transfer !== null && isSame(transfer.wanted, wanted)) return;
    if (this.#context.clock.monotonicMs() < this.#notBeforeMs) return;
    this.#transfer = null;
    this.#beginning = true;
    this.#enqueue(async () => {
      const receiver = await this.#receiverFor(wanted).finally(() => {
        this.#beginning = false;
      });
      const { byteLength } = receiver;
      const movedAtMs = this.#context.clock.monotonicMs();
      const begun = { wanted, receiver, askedTo: byteLength, handedTo: byteLength, byteLength: 0, movedAtMs };
      this.#transfer = { ...begun, piecesUnwritten: 0, finishing: false };
      this.#context.logger.info({ ...wanted, resumedAtByte: byteLength }, 'fetching a snapshot from the leader');
      this.#ask(this.#transfer);
    });
  }

  async #receiverFor({ from, index, term }: WantSnapshot): Promise<SnapshotReceiver> {
    const { snapshots } = this.#context;
    const receiver = await snapshots.receive(index, term);
    if (receiver.byteLength === 0 || this.#partlyFrom === from) {
      this.#partlyFrom = from;
      return receiver;
    }
    await receiver.abandon();
    this.#partlyFrom = from;
    return snapshots.receive(index, term);
  }

  #ask(transfer: Transfer): void {
    const { pieceBytes, piecesInFlightMax, send } = this.#context;
    const { wanted, receiver } = transfer;
    const { index, term, from } = wanted;
    // Until the first piece tells how long the file is, one is enough.
    const end = transfer.byteLength === 0 ? receiver.byteLength + 1 : transfer.byteLength;
    const limit = receiver.byteLength + piecesInFlightMax * pieceBytes;
    while (transfer.askedTo < Math.min(end, limit)) {
      send(from, { kind: 'read', index, term, offset: transfer.askedTo, length: pieceBytes });
      transfer.askedTo += pieceBytes;
    }
  }

  receivePiece(from: NodeId, piece: SnapshotPieceMessage): void {
    const transfer = this.#transfer;
    if (transfer === null || transfer.finishing || from !== transfer.wanted.from) return;
    if (piece.index !== transfer.wanted.index || piece.term !== transfer.wanted.term) return;
    // A piece of no use still shows that answers are on their way; asking again would only bring more of them.
    transfer.movedAtMs = this.#context.clock.monotonicMs();
    // Links keep the order; what does not fit is an answer to a question asked before a link was lost.
    if (piece.offset !== transfer.handedTo || piece.bytes.length === 0) return;
    transfer.byteLength = piece.byteLength;
    transfer.handedTo += piece.bytes.length;
    transfer.piecesUnwritten++;
    transfer.askedTo = Math.max(transfer.askedTo, transfer.handedTo);
    const isLast = transfer.handedTo >= transfer.byteLength;
    if (isLast) transfer.finishing = true;
    this.#enqueue(async () => {
      if (this.#transfer !== transfer) return;
      await transfer.receiver.append(piece.bytes);
      transfer.piecesUnwritten--;
      transfer.movedAtMs = this.#context.clock.monotonicMs();
      if (this.#stopped) return;
      if (isLast) await this.#finish(transfer);
      else this.#ask(transfer);
    });
  }

  async #finish(transfer: Transfer): Promise<void> {
    const { snapshots, clock, logger, onLoaded } = this.#context;
    const startedMs = clock.monotonicMs();
    const info = await transfer.receiver.finish();
    if (this.#stopped) return;
    const loader = new SnapshotLoader();
    await snapshots.load((chunk) => loader.push(chunk));
    const stateMachine = loader.finish();
    this.#transfer = null;
    if (this.#stopped) return;
    const tookMs = Math.round(clock.monotonicMs() - startedMs);
    logger.info({ index: info.index, bytes: info.byteLength, tookMs }, 'verified and loaded a snapshot');
    onLoaded(info, stateMachine);
  }

  /** The leader no longer has it, and will offer another. */
  receiveGone(from: NodeId, { index, term }: { index: number; term: number }): void {
    const transfer = this.#transfer;
    if (transfer === null || transfer.finishing || !isSame(transfer.wanted, { from, index, term })) return;
    this.#transfer = null;
  }

  /** The bulk link to `peer` was re-established: requests in flight on it are lost. */
  linkUp(peer: NodeId): void {
    const transfer = this.#transfer;
    if (transfer !== null && !transfer.finishing && transfer.wanted.from === peer) this.#askAgain(transfer);
  }

  /** Asks for all that has not come; what came and waits to be written stays in line. */
  #askAgain(transfer: Transfer): void {
    transfer.askedTo = transfer.handedTo;
    transfer.movedAtMs = this.#context.clock.monotonicMs();
    this.#ask(transfer);
  }

  /** `leader` is whom this node follows: a transfer from anybody else is over, though what has come of it is kept. */
  tick(leader: NodeId): void {
    const transfer = this.#transfer;
    if (transfer === null) return;
    if (transfer.finishing) {
      this.#stayInTouch(transfer);
      return;
    }
    if (transfer.wanted.from !== leader) {
      this.#transfer = null;
      return;
    }
    // Until then it is this node's own disk that everything waits for.
    if (transfer.piecesUnwritten > 0) return;
    if (this.#context.clock.monotonicMs() - transfer.movedAtMs >= this.#context.retryMs) this.#askAgain(transfer);
  }

  /**
   * To verify and to load a large file takes longer than a leader waits for a follower that is silent; it would offer a
   * newer one then, and so on. So the follower goes on asking: for nothing, at the end.
   */
  #stayInTouch(transfer: Transfer): void {
    const { clock, retryMs, send } = this.#context;
    const nowMs = clock.monotonicMs();
    if (nowMs - transfer.movedAtMs < retryMs) return;
    transfer.movedAtMs = nowMs;
    const { from, index, term } = transfer.wanted;
    send(from, { kind: 'read', index, term, offset: transfer.byteLength, length: 0 });
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#work;
  }

  #enqueue(step: () => Promise<void>): void {
    this.#work = this.#work.then(async () => {
      if (this.#stopped) return;
      try {
        await step();
      } catch (error) {
        await this.#failed(error);
      }
    });
  }

  /** A full disk, and a file that came damaged, end this transfer only: the leader goes on offering. */
  async #failed(error: unknown): Promise<void> {
    const { clock, logger, onFatal } = this.#context;
    const transfer = this.#transfer;
    this.#transfer = null;
    const isFull = (error as NodeJS.ErrnoException).code === 'ENOSPC';
    if (!isFull && !(error instanceof RaftkvError && error.code === 'SNAPSHOT_DAMAGED')) {
      onFatal(error);
      return;
    }
    this.#notBeforeMs = clock.monotonicMs() + PAUSE_MS;
    logger.warn({ err: error }, 'fetching the snapshot failed; retrying');
    try {
      await transfer?.receiver.abandon();
    } catch (failure) {
      onFatal(failure);
    }
  }
}

function isSame(a: WantSnapshot, b: WantSnapshot): boolean {
  return a.from === b.from && a.index === b.index && a.term === b.term;
}
