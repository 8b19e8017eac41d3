import type { Clock } from '../../base/clock.ts';
import { RaftkvError } from '../../base/errors.ts';
import type { Core } from '../../raft/state/core.ts';
import type { NodeId } from '../../raft/state/types.ts';
import type { Snapshots } from '../../storage/snapshots/types.ts';
import type { BulkMessage, SnapshotRead } from './bulk-wire.ts';

/**
 * The leader's side of a transfer: answers each request for a piece of a snapshot file, and keeps the file for as long
 * as somebody reads it. The reader sets the pace.
 */
export interface SnapshotServerContext {
  readonly clock: Clock;
  readonly core: Core;
  readonly snapshots: Snapshots;
  /** Pieces are never longer, whatever is asked for. */
  readonly pieceBytesMax: number;
  /** A follower that has not asked for so long is probed again. */
  readonly stalledMs: number;
  readonly send: (to: NodeId, message: BulkMessage) => void;
  readonly onStalled: (peer: NodeId) => void;
  readonly onFatal: (error: unknown) => void;
}

interface Reader {
  /** The snapshot that the follower reads; both 0 if it was offered one and has not asked for a piece yet. */
  index: number;
  term: number;
  askedAtMs: number;
  /** Whether the last piece was sent to it. */
  hasAll: boolean;
}

export class SnapshotServer {
  readonly #context: SnapshotServerContext;
  readonly #readers = new Map<NodeId, Reader>();
  #work: Promise<void> = Promise.resolve();

  constructor(context: SnapshotServerContext) {
    this.#context = context;
  }

  receive(from: NodeId, request: SnapshotRead): void {
    const { snapshots, clock, pieceBytesMax, send, onStalled, onFatal } = this.#context;
    const { index, term, offset } = request;
    const reader = this.#hold(from, index, term, clock.monotonicMs());
    if (offset === 0 && reader.hasAll) this.#verify(reader);
    // One read after the other: a piece that overtakes another would have to be asked for again.
    this.#work = this.#work.then(async () => {
      const piece = await snapshots.read(index, term, offset, Math.min(request.length, pieceBytesMax));
      if (piece !== null) {
        const { bytes, byteLength } = piece;
        if (offset + bytes.length >= byteLength) reader.hasAll = true;
        send(from, { kind: 'piece', index, term, offset, byteLength, bytes });
        return;
      }
      send(from, { kind: 'gone', index, term });
      // Otherwise the leader would offer the missing snapshot again and again.
      onStalled(from);
    });
    this.#work.catch(onFatal);
  }

  /** Resolves once nothing is being read for anybody any more. */
  async stop(): Promise<void> {
    await this.#work.catch(() => {});
  }

  #hold(from: NodeId, index: number, term: number, nowMs: number): Reader {
    const { snapshots } = this.#context;
    const known = this.#readers.get(from);
    if (known !== undefined) {
      known.askedAtMs = nowMs;
      if (known.index === index && known.term === term) return known;
      this.#release(known);
    }
    const held = snapshots.hold(index, term);
    const reader = { index: held ? index : 0, term: held ? term : 0, askedAtMs: nowMs, hasAll: false };
    this.#readers.set(from, reader);
    return reader;
  }

  /** A reader that had all of the file begins again: what it got did not verify, so perhaps the file does not. */
  #verify(reader: Reader): void {
    reader.hasAll = false;
    const { snapshots } = this.#context;
    this.#work = this.#work.then(async () => {
      try {
        await snapshots.load(() => {});
      } catch (error) {
        // The damaged file has been moved aside, and the snapshotter sees that another snapshot is needed.
        if (!(error instanceof RaftkvError) || error.code !== 'SNAPSHOT_DAMAGED') throw error;
      }
    });
  }

  #release({ index, term }: Reader): void {
    if (index > 0) this.#context.snapshots.release(index, term);
  }

  /** Releases snapshots that no follower reads any more, and reports followers that have fallen silent. */
  tick(): void {
    const { core, clock, stalledMs, onStalled } = this.#context;
    const nowMs = clock.monotonicMs();
    for (const [peer, progress] of core.leading?.progress ?? []) {
      if (progress.state !== 'snapshot') continue;
      const reader = this.#readers.get(peer);
      if (reader === undefined) this.#readers.set(peer, { index: 0, term: 0, askedAtMs: nowMs, hasAll: false });
      else if (nowMs - reader.askedAtMs >= stalledMs) {
        reader.askedAtMs = nowMs;
        onStalled(peer);
      }
    }
    for (const [peer, reader] of this.#readers) {
      if (core.leading?.progress.get(peer)?.state === 'snapshot' || nowMs - reader.askedAtMs < stalledMs) continue;
      this.#release(reader);
      this.#readers.delete(peer);
    }
  }
}
