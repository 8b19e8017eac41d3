import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/logger.ts';
import type { StateMachine } from '../../kv/state-machine.ts';
import { decodeConfiguration } from '../../raft/state/configuration.ts';
import type { Core } from '../../raft/state/core.ts';
import type { NodeId, WantSnapshot } from '../../raft/state/types.ts';
import type { Snapshots } from '../../storage/snapshots/types.ts';
import type { Wal } from '../../storage/wal/types.ts';
import type { Transport } from '../../transport/types.ts';
import type { ReplicaInput } from '../input-queue.ts';
import type { Applier } from '../log/applier.ts';
import type { ReplicaObserver } from '../observer.ts';
import type { Backup } from '../types.ts';
import { type BulkMessage, decodeBulk, encodeBulk } from './bulk-wire.ts';
import { SnapshotFetcher } from './fetcher.ts';
import { SnapshotServer } from './server.ts';
import { noSnapshot, type SnapshotLimits, Snapshotter } from './snapshotter.ts';

/**
 * All that a replica does with snapshots:
 *
 *   own state ─▶ snapshotter.ts ─▶ file ─▶ snapshots/server.ts ═ bulk link ═▶ snapshots/fetcher.ts ─▶ file ─▶ state
 */
export interface SnapshotExchangeContext {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly core: Core;
  readonly stateMachine: StateMachine;
  readonly applier: Applier;
  readonly observer: ReplicaObserver | null;
  readonly wal: Wal;
  readonly snapshots: Snapshots;
  readonly transport: Pick<Transport, 'sendBulk'>;
  readonly limits: SnapshotLimits;
  readonly transfer: TransferLimits;
  readonly bytesBehind: number;
  readonly electionTimeoutMs: number;
  readonly put: (input: ReplicaInput) => void;
  readonly onFatal: (error: unknown) => void;
}

export interface TransferLimits {
  /** A piece of a snapshot file that travels as one frame. */
  readonly transferPieceBytes: number;
  /** Pieces asked for ahead: enough to keep a link busy, few enough to be no burden. */
  readonly transferPiecesMax: number;
}

export const TRANSFER_LIMITS: TransferLimits = { transferPieceBytes: 256 * 1024, transferPiecesMax: 4 };
/** A transfer is restarted if the follower has asked for nothing for so many election timeouts. */
const STALLED_TIMEOUTS = 10;

export class SnapshotExchange {
  readonly #context: SnapshotExchangeContext;
  readonly #snapshotter: Snapshotter;
  readonly #server: SnapshotServer;
  readonly #fetcher: SnapshotFetcher;

  constructor(context: SnapshotExchangeContext) {
    this.#context = context;
    const { put, transport, transfer, electionTimeoutMs } = context;
    const send = (to: NodeId, message: BulkMessage) => {
      transport.sendBulk(to, encodeBulk(message));
    };
    this.#snapshotter = new Snapshotter({
      ...context,
      onStored: ({ index, term }) => put({ kind: 'snapshotStored', index, term }),
      compactCore: (index) => put({ kind: 'compact', index }),
    });
    this.#server = new SnapshotServer({
      ...context,
      send,
      pieceBytesMax: transfer.transferPieceBytes,
      stalledMs: STALLED_TIMEOUTS * electionTimeoutMs,
      onStalled: (peer) => put({ kind: 'snapshotStalled', peer }),
    });
    this.#fetcher = new SnapshotFetcher({
      ...context,
      send,
      pieceBytes: transfer.transferPieceBytes,
      piecesInFlightMax: transfer.transferPiecesMax,
      retryMs: electionTimeoutMs,
      // The core decides whether it is still of use.
      onLoaded: ({ index, term, configuration: bytes }, state) =>
        put({ kind: 'snapshotReceived', index, term, configuration: decodeConfiguration(bytes, 0), state }),
    });
  }

  /** A snapshot of this node's own state is being written. */
  get isWriting(): boolean {
    return this.#snapshotter.isRunning;
  }

  /** @throws RaftkvError MESSAGE_INVALID where the frame is no message. */
  decode(from: NodeId, frame: Buffer): BulkMessage {
    return decodeBulk(frame, from);
  }

  receive(from: NodeId, message: BulkMessage): void {
    switch (message.kind) {
      case 'read':
        this.#server.receive(from, message);
        return;
      case 'piece':
        this.#fetcher.receivePiece(from, message);
        return;
      case 'gone':
        this.#fetcher.receiveGone(from, message);
    }
  }

  linkUp(peer: NodeId): void {
    this.#fetcher.linkUp(peer);
  }

  want(wanted: WantSnapshot): void {
    this.#fetcher.want(wanted);
  }

  /** To be called when entries have been applied. */
  consider(): void {
    this.#snapshotter.consider();
  }

  tick(): void {
    this.#snapshotter.consider();
    this.#server.tick();
    this.#fetcher.tick(this.#context.core.leader);
  }

  /** Replaces the state by `state`, which is that of a snapshot at `index`. */
  install(index: number, state: StateMachine): void {
    const { stateMachine, applier, observer } = this.#context;
    stateMachine.adopt(state);
    observer?.installed(index);
    applier.jumpTo(index);
    this.#snapshotter.replaced();
  }

  /** The core has compacted its log, or kept it for a follower. */
  compacted(): void {
    this.#snapshotter.compacted();
  }

  /** A snapshot file that holds all that is applied now. */
  async backup(): Promise<Backup> {
    const { snapshots } = this.#context;
    const info = await this.#snapshotter.take();
    if (info === null || !snapshots.hold(info.index, info.term)) throw noSnapshot();
    const { index, term } = info;
    let released = false;
    return {
      info,
      async read(offset, length) {
        const piece = await snapshots.read(index, term, offset, length);
        if (piece === null) throw noSnapshot();
        return piece.bytes;
      },
      release() {
        if (!released) snapshots.release(index, term);
        released = true;
      },
    };
  }

  /** Resolves once nothing of this touches files any more. */
  async stop(): Promise<void> {
    await Promise.all([this.#snapshotter.stop(), this.#fetcher.stop(), this.#server.stop()]);
  }
}
