import type { Clock } from '../../base/clock.ts';
import { RaftkvError } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import type { StateMachine } from '../../kv/state-machine.ts';
import { encodeConfiguration } from '../../raft/state/configuration.ts';
import type { SnapshotInfo, Snapshots, SnapshotWriter } from '../../storage/snapshots/types.ts';
import type { Wal } from '../../storage/wal/types.ts';
import { type NodeLoop, onceDone } from '../node-loop.ts';
import type { ReplicaObserver } from '../observer.ts';
import type { Applier } from '../writes/applier.ts';

/**
 * Takes snapshots of this node's state while it works, and lets the log go behind them.
 *
 *   enough log since the last ─▶ iterator at the applied index ─▶ chunk, a turn of the event loop, chunk, … ─▶ file, durable
 *                                (what changes meanwhile is kept aside)                                       │
 *              log: oldest segments go ◀── all but a tail, and what a transfer needs ◀── core.compact ◀───────┘
 */
export interface SnapshotterOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly observer: ReplicaObserver | null;
  readonly wal: Wal;
  readonly snapshots: Snapshots;
  readonly snapshotLimits: SnapshotLimits;
  /** `bytesBehindBase`: bytes of log behind the newest snapshot at the start of this incarnation. */
  readonly recovered: { readonly stateMachine: StateMachine; readonly bytesBehindBase: number };
}

export interface SnapshotLimits {
  /** Log since the last snapshot that makes a node take one. Bounds the disk, and what a restart has to apply. */
  readonly snapshotLogBytes: number;
  /** Log that is kept behind a snapshot for followers that lag: cheaper for them than a snapshot. */
  readonly logTailBytes: number;
  /** The largest slice of a snapshot that is encoded at once: it takes about a millisecond. */
  readonly snapshotChunkBytes: number;
}

export const SNAPSHOT_LIMITS: SnapshotLimits = {
  snapshotLogBytes: 64 * 1024 * 1024,
  logTailBytes: 16 * 1024 * 1024,
  snapshotChunkBytes: 64 * 1024,
};

/**
 * A snapshot is in no hurry: after each so many bytes it lets the disk and the event loop go about their work for so
 * long, which keeps it below 300 MB/s and the writes beside it quick.
 */
const PAUSE_EVERY_BYTES = 1024 * 1024;
const PAUSE_MS = 3;
/** After one that found the disk full: long enough not to fill it again at once. */
const RETRY_MS = 10_000;
/**
 * Nodes apply the same log at the same time. The first in line takes its snapshot at this share of the limit, the last
 * at all of it, so that they don't all write theirs at once.
 */
const EARLIEST_SHARE = 0.75;

export class Snapshotter {
  readonly #options: SnapshotterOptions;
  readonly #loop: NodeLoop;
  readonly #applier: Applier;
  #running: Promise<SnapshotInfo | null> | null = null;
  #runningIndex = 0;
  #compacting = false;
  /** The log is to be let go up to here; the core may keep more for a while. */
  #compactTo = 0;
  #compactedTo = 0;
  /** The number of times that a received snapshot has replaced the state. */
  #replacements = 0;
  /** `bytesApplied` as of the newest snapshot; less than 0 by what a start found behind it. */
  #bytesAtSnapshot: number;
  #notBeforeMs = Number.NEGATIVE_INFINITY;
  #stopping = false;

  constructor(options: SnapshotterOptions, loop: NodeLoop, applier: Applier) {
    this.#options = options;
    this.#loop = loop;
    this.#applier = applier;
    this.#bytesAtSnapshot = -options.recovered.bytesBehindBase;
  }

  get isRunning(): boolean {
    return this.#running !== null;
  }

  /** To be called now and then: begins a snapshot, or compacts further, where it is time. */
  consider(): void {
    const bytesBehind = this.#applier.bytesApplied - this.#bytesAtSnapshot;
    const isDue = this.#newestIsMissing() || bytesBehind >= this.#thresholdBytes();
    if (isDue && this.#running === null && this.#options.clock.monotonicMs() >= this.#notBeforeMs) void this.#begin();
    this.#compact();
  }

  /** To be called with each tick. */
  tick(): void {
    this.#extendCompaction();
    this.consider();
  }

  /** The log file may have been far behind the state when the snapshot was taken: then the tail that it keeps begins too early. */
  #extendCompaction(): void {
    const { wal, snapshotLimits } = this.#options;
    const snapshotIndex = this.#loop.core.snapshot?.index ?? 0;
    if (this.#compactTo === 0 || this.#compactTo >= snapshotIndex) return;
    const tailBegin = Math.min(snapshotIndex, wal.indexBehind(snapshotLimits.logTailBytes));
    this.#compactTo = Math.max(this.#compactTo, tailBegin);
  }

  /** Whether the newest snapshot was found damaged. The log begins behind it, so another is needed even without new entries. */
  #newestIsMissing(): boolean {
    const { core } = this.#loop;
    return (this.#options.snapshots.newest?.index ?? 0) < (core.snapshot?.index ?? 0);
  }

  #thresholdBytes(): number {
    const { snapshotLimits, snapshots } = this.#options;
    const { core } = this.#loop;
    const { voters } = core.configurations.current;
    const place = Math.max(0, voters.indexOf(core.id));
    const share = EARLIEST_SHARE + ((1 - EARLIEST_SHARE) * place) / Math.max(1, voters.length - 1);
    // Writing a large state again for every little log would cost more than the log.
    return share * Math.max(snapshotLimits.snapshotLogBytes, snapshots.newest?.byteLength ?? 0);
  }

  /** A snapshot that holds all that is applied now. Null where the disk is full or the node stops. */
  async take(): Promise<SnapshotInfo | null> {
    const wanted = this.#applier.appliedIndex;
    while (this.#running !== null) {
      const isEnough = this.#runningIndex >= wanted;
      const info = await this.#running;
      if (isEnough && info !== null) return info;
    }
    const { newest } = this.#options.snapshots;
    if (newest !== null && newest.index >= wanted) return newest;
    return this.#begin();
  }

  #begin(): Promise<SnapshotInfo | null> {
    const work = this.#write().catch((error: unknown) => this.#failed(error));
    this.#running = work;
    const over = () => {
      this.#running = null;
    };
    work.then(over, over);
    return work;
  }

  /** A received snapshot has replaced the state, so the snapshot that is being written is of no use any more. */
  replaced(): void {
    this.#replacements++;
    this.#bytesAtSnapshot = this.#applier.bytesApplied;
  }

  /** Resolves once nothing is being written any more. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#running?.catch(() => {});
  }

  async #write(): Promise<SnapshotInfo | null> {
    const { snapshots, clock, logger, observer, wal, snapshotLimits } = this.#options;
    const { core } = this.#loop;
    const index = this.#applier.appliedIndex;
    const term = core.log.termAt(index);
    const members = core.configurations.asOf(index);
    // A new node has not received an entry with a configuration yet.
    if (members.voters.length === 0) return null;
    const configuration = encodeConfiguration(members, 0);
    const bytesAtBegin = this.#applier.bytesApplied;
    const startedMs = clock.monotonicMs();
    const replacements = this.#replacements;
    this.#runningIndex = index;
    observer?.snapshotBegins(index);
    const iterator = this.#options.recovered.stateMachine.beginSnapshot();
    let writer: SnapshotWriter | null = null;
    let bytesUntilPause = PAUSE_EVERY_BYTES;
    try {
      writer = await snapshots.write({ index, term, configuration });
      for (;;) {
        if (this.#stopping || replacements !== this.#replacements) return await abandoned(writer);
        const chunk = iterator.next(snapshotLimits.snapshotChunkBytes);
        if (chunk === null) break;
        bytesUntilPause -= chunk.length;
        await writer.write(chunk);
        if (bytesUntilPause > 0) {
          await new Promise<void>((resolve) => clock.endOfTurn(resolve));
        } else {
          bytesUntilPause = PAUSE_EVERY_BYTES;
          await new Promise<void>((resolve) => void clock.after(PAUSE_MS, resolve));
        }
      }
      const info = await writer.finish();
      // A snapshot that was fetched meanwhile may reach further. The core hears of that one once its state is installed.
      if (this.#stopping || info.index > index) return info;
      this.#bytesAtSnapshot = bytesAtBegin;
      const tookMs = Math.round(clock.monotonicMs() - startedMs);
      logger.info({ index, bytes: info.byteLength, tookMs }, 'took a snapshot');
      this.#loop.run(() => {
        this.#loop.put({ kind: 'snapshotStored', index: info.index, term: info.term });
        this.#compactTo = Math.min(index, wal.indexBehind(snapshotLimits.logTailBytes));
        this.#compact();
      });
      return info;
    } catch (error) {
      await writer?.abandon().catch(() => {});
      return this.#failed(error);
    } finally {
      iterator.close();
    }
  }

  /** Nothing was promised of a snapshot that is not finished, so a full disk only puts it off. */
  #failed(error: unknown): null {
    const { clock, logger } = this.#options;
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') {
      this.#loop.fail(error);
      return null;
    }
    this.#notBeforeMs = clock.monotonicMs() + RETRY_MS;
    logger.warn({ retryMs: RETRY_MS }, 'disk full: no snapshot taken; retrying later');
    return null;
  }

  #compact(): void {
    const { log } = this.#loop.core;
    if (this.#compactTo > log.snapshotIndex) this.#loop.put({ kind: 'compact', index: this.#compactTo });
    else this.compacted();
  }

  /** Compacts the log file as far as the core's log, unless it is being compacted. */
  compacted(): void {
    const { snapshotIndex } = this.#loop.core.log;
    if (this.#compacting || this.#stopping || this.#compactTo === 0 || snapshotIndex <= this.#compactedTo) return;
    this.#compacting = true;
    onceDone(this.#loop, this.#options.wal.compact(snapshotIndex), () => {
      this.#compacting = false;
      this.#compactedTo = snapshotIndex;
    });
  }
}

async function abandoned(writer: SnapshotWriter): Promise<null> {
  await writer.abandon();
  return null;
}

/** The error of a backup for which no quorum confirmed the commit index. */
export function noQuorumForBackup(): RaftkvError {
  return new RaftkvError(
    'BACKUP_INVALID',
    'no majority of the nodes answered, so it is unknown what has been acknowledged',
    'Try again in a moment; `raftkv status` shows what is missing.',
  );
}

/** The error of a backup for which no snapshot could be taken. */
export function noSnapshot(): RaftkvError {
  return new RaftkvError(
    'BACKUP_INVALID',
    'no snapshot could be taken: the disk of this node is full, or the node is stopping',
    'Free disk space, or ask another node.',
  );
}
