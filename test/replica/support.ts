import type { Clock } from '../../src/base/clock.ts';
import { BatchBuilder } from '../../src/kv/batch.ts';
import { type Item, Op, type ResultCode } from '../../src/kv/types.ts';
import { ENTRY_HEADER_BYTES } from '../../src/raft/state/entry.ts';
import type { Failure, ReadCompletion, WriteCompletion } from '../../src/replica/types.ts';
import type { ProposerLimits } from '../../src/replica/writes/proposer.ts';
import type { Wal, WalWrite } from '../../src/storage/wal/types.ts';
import { commandOf } from '../support/write-command.ts';

/** What the tests of the replica's parts share; whole replicas are in cluster.ts. */

export const LIMITS: ProposerLimits = {
  itemBytesMax: 64 * 1024,
  storeBytesMax: 64 * 1024 * 1024,
  pendingWriteBytesMax: 1024 * 1024,
  batchBytesMax: 16 * 1024,
};

interface Timer {
  readonly atMs: number;
  readonly callback: () => void;
}

/** Time that stands still until it is moved. A turn of the event loop ends when `endTurns` is called. */
export class ManualClock {
  nowMs = 1000;
  /** The wall's time is this much ahead of the monotonic one. */
  wallOffsetMs = 1_700_000_000_000;
  private readonly timers = new Set<Timer>();
  private turns: (() => void)[] = [];

  /** A clock of one process. When `isAlive` says no, nothing of it calls back any more. */
  forProcess(isAlive: () => boolean): Clock {
    const alive = (callback: () => void) => () => {
      if (isAlive()) callback();
    };
    return {
      wallMs: () => this.nowMs + this.wallOffsetMs,
      monotonicMs: () => this.nowMs,
      after: (delayMs, callback) => {
        const timer = { atMs: this.nowMs + delayMs, callback: alive(callback) };
        this.timers.add(timer);
        return () => this.timers.delete(timer);
      },
      endOfTurn: (callback) => {
        this.turns.push(alive(callback));
      },
    };
  }

  nextTimerMs(): number {
    return Math.min(Number.POSITIVE_INFINITY, ...[...this.timers].map(({ atMs }) => atMs));
  }

  moveTo(atMs: number): void {
    this.nowMs = atMs;
    const due = [...this.timers].filter((timer) => timer.atMs <= atMs).sort((a, b) => a.atMs - b.atMs);
    for (const timer of due) if (this.timers.delete(timer)) timer.callback();
  }

  /** True where anything waited for the end of its turn. */
  endTurns(): boolean {
    const { turns } = this;
    this.turns = [];
    for (const callback of turns) callback();
    return turns.length > 0;
  }
}

/** A write or a read of a client, with all that it was told: exactly one outcome in the end. */
export class Request implements WriteCompletion, ReadCompletion {
  readonly outcomes: string[] = [];
  private readonly onReadable: () => string;

  constructor(onReadable: () => string = () => 'readable') {
    this.onReadable = onReadable;
  }

  written(code: ResultCode, _item: Item | null, text: string): void {
    this.outcomes.push(code === 'number' ? text : code);
  }

  writeFailed(failure: Failure): void {
    this.outcomes.push(`failed: ${failure}`);
  }

  readable(): void {
    this.outcomes.push(this.onReadable());
  }

  readFailed(failure: Failure): void {
    this.outcomes.push(`failed: ${failure}`);
  }
}

/** One command as the only one of a batch, with room for the entry's header in front. */
export function batchOf(
  key: string,
  value: string,
  { proposer = 1, sessionId = 1, sequence = 1, op = Op.set as Op, arg = 0 } = {},
): Buffer {
  const builder = new BatchBuilder(ENTRY_HEADER_BYTES);
  builder.add(commandOf(op, key, value, { low: arg }));
  return builder.seal(proposer, sessionId, sequence, LIMITS.itemBytesMax, LIMITS.storeBytesMax);
}

/** A log whose writes are done, and whose reads come back, when the test says so. */
export class FakeWal implements Wal {
  readonly firstIndex = 1;
  readonly byteLength = 0;
  lastIndex = 0;
  readonly writes: WalWrite[] = [];
  readonly entries = new Map<number, Buffer>();
  /** The error that every further `append` throws. */
  failure: Error | null = null;
  private readonly waiting: WalWrite[] = [];
  private readonly reads: (() => void)[] = [];

  readonly full = false;

  compact(): Promise<void> {
    return Promise.resolve();
  }

  indexBehind(): number {
    return 0;
  }

  append(write: WalWrite): void {
    if (this.failure !== null) throw this.failure;
    this.writes.push(write);
    this.waiting.push(write);
    write.entries.forEach((bytes, i) => {
      this.entries.set(write.firstIndex + i, bytes);
    });
    if (write.entries.length > 0) this.lastIndex = write.firstIndex + write.entries.length - 1;
  }

  /** The oldest writes are durable now. */
  complete(count = this.waiting.length): void {
    for (const write of this.waiting.splice(0, count)) write.done();
  }

  read(fromIndex: number, toIndex: number, bytesMax: number): Promise<Buffer[]> {
    return new Promise((resolve) => {
      this.reads.push(() => {
        const found: Buffer[] = [];
        let bytes = 0;
        for (let index = fromIndex; index <= toIndex; index++) {
          const entry = this.entries.get(index);
          if (entry === undefined) break;
          bytes += entry.length;
          if (found.length > 0 && bytes > bytesMax) break;
          found.push(entry);
        }
        resolve(found);
      });
    });
  }

  get readsWaiting(): number {
    return this.reads.length;
  }

  /** Answers the reads that wait, and lets the readers go on. */
  async answerReads(): Promise<void> {
    for (const answer of this.reads.splice(0)) answer();
    await microtasks();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** Lets all that waits for promises have run. */
export function microtasks(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
