import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/logger.ts';
import type { StateMachine } from '../../kv/state-machine.ts';
import { decodeConfiguration } from '../../raft/state/configuration.ts';
import type { NodeId, WantSnapshot } from '../../raft/state/types.ts';
import type { SnapshotInfo, Snapshots } from '../../storage/snapshots/types.ts';
import type { Wal } from '../../storage/wal/types.ts';
import type { Transport } from '../../transport/types.ts';
import type { NodeLoop } from '../node-loop.ts';
import type { ReplicaObserver } from '../observer.ts';
import type { Backup } from '../types.ts';
import type { Applier } from '../writes/applier.ts';
import { type BulkMessage, decodeBulk, encodeBulk } from './bulk-wire.ts';
import { SnapshotFetcher } from './fetcher.ts';
import { SnapshotServer } from './server.ts';
import { noSnapshot, type SnapshotLimits, Snapshotter } from './snapshotter.ts';

/**
 * Takes, sends, receives and installs snapshots:
 *
 *   own state ─▶ snapshotter.ts ─▶ file ─▶ snapshots/server.ts ═ bulk link ═▶ snapshots/fetcher.ts ─▶ file ─▶ state
 */
export interface SnapshotOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly observer: ReplicaObserver | null;
  readonly wal: Wal;
  readonly snapshots: Snapshots;
  readonly transport: Pick<Transport, 'sendBulk'>;
  readonly snapshotLimits: SnapshotLimits;
  readonly transfer: TransferLimits;
  readonly timing: { readonly electionTimeoutMs: number };
  readonly recovered: { readonly stateMachine: StateMachine; readonly bytesBehindBase: number };
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
  readonly #options: SnapshotOptions;
  readonly #loop: NodeLoop;
  readonly #applier: Applier;
  readonly #snapshotter: Snapshotter;
  readonly #server: SnapshotServer;
  readonly #fetcher: SnapshotFetcher;

  constructor(options: SnapshotOptions, loop: NodeLoop, applier: Applier) {
    this.#options = options;
    this.#loop = loop;
    this.#applier = applier;
    const { transfer, clock, logger, snapshots } = options;
    const { electionTimeoutMs } = options.timing;
    const send = (to: NodeId, message: BulkMessage) => {
      options.transport.sendBulk(to, encodeBulk(message));
    };
    const onFatal = (error: unknown) => loop.fail(error);
    this.#snapshotter = new Snapshotter(options, loop, applier);
    this.#server = new SnapshotServer({
      clock,
      core: loop.core,
      snapshots,
      send,
      pieceBytesMax: transfer.transferPieceBytes,
      stalledMs: STALLED_TIMEOUTS * electionTimeoutMs,
      onStalled: (peer) => loop.run(() => loop.put({ kind: 'snapshotStalled', peer })),
      onFatal,
    });
    this.#fetcher = new SnapshotFetcher({
      clock,
      logger,
      snapshots,
      send,
      pieceBytes: transfer.transferPieceBytes,
      piecesInFlightMax: transfer.transferPiecesMax,
      retryMs: electionTimeoutMs,
      onLoaded: (info, state) => loop.run(() => this.#loaded(info, state)),
      onFatal,
    });
  }

  /** The core decides whether a snapshot that was fetched is still of use. */
  #loaded({ index, term, configuration: bytes }: SnapshotInfo, state: StateMachine): void {
    const configuration = decodeConfiguration(bytes, 0);
    this.#loop.put({ kind: 'snapshotReceived', index, term, configuration, state });
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
    this.#snapshotter.tick();
    this.#server.tick();
    this.#fetcher.tick(this.#loop.core.leader);
  }

  /** Replaces the state by `state`, which is that of a snapshot at `index`. */
  install(index: number, state: StateMachine): void {
    this.#options.recovered.stateMachine.adopt(state);
    this.#options.observer?.installed(index);
    this.#applier.jumpTo(index);
    this.#snapshotter.replaced();
  }

  /** The core has compacted its log, or kept it for a follower. */
  compacted(): void {
    this.#snapshotter.compacted();
  }

  /** A snapshot file that holds all that is applied now. */
  async backup(): Promise<Backup> {
    const { snapshots } = this.#options;
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
