import { beforeEach, describe, expect, it } from 'vitest';
import { RaftkvError } from '../../../src/base/errors.ts';
import type { Core } from '../../../src/raft/state/core.ts';
import type { BulkMessage } from '../../../src/replica/snapshots/bulk-wire.ts';
import { SnapshotServer } from '../../../src/replica/snapshots/server.ts';
import type { Snapshots } from '../../../src/storage/snapshots/types.ts';
import { ManualClock, microtasks } from '../support.ts';

const STALLED_MS = 3000;
const PIECE_BYTES_MAX = 100;
const FILE = Buffer.from(Array.from({ length: 250 }, (_, i) => i));

/** One file under each of a few indexes; reads come back when the test says so. */
class FakeSnapshots implements Pick<Snapshots, 'read' | 'hold' | 'release' | 'load'> {
  readonly indexes = new Set<number>();
  readonly holds = new Map<number, number>();
  readonly reads: (() => void)[] = [];
  loads = 0;
  loadFailure: Error | null = null;
  readFailure: Error | null = null;

  read(index: number, _term: number, offset: number, length: number) {
    return new Promise<{ bytes: Buffer; byteLength: number } | null>((resolve, reject) => {
      this.reads.push(() => {
        if (this.readFailure !== null) reject(this.readFailure);
        else if (!this.indexes.has(index)) resolve(null);
        else resolve({ bytes: FILE.subarray(offset, offset + length), byteLength: FILE.length });
      });
    });
  }

  hold(index: number): boolean {
    if (!this.indexes.has(index)) return false;
    this.holds.set(index, (this.holds.get(index) ?? 0) + 1);
    return true;
  }

  release(index: number): void {
    this.holds.set(index, (this.holds.get(index) ?? 0) - 1);
  }

  async load(): Promise<void> {
    this.loads++;
    if (this.loadFailure !== null) throw this.loadFailure;
  }
}

describe('serving a snapshot', () => {
  let clock: ManualClock;
  let snapshots: FakeSnapshots;
  let progress: Map<number, { state: string }>;
  let sent: { to: number; message: BulkMessage }[];
  let stalled: number[];
  let fatal: unknown[];
  let server: SnapshotServer;

  beforeEach(() => {
    clock = new ManualClock();
    snapshots = new FakeSnapshots();
    snapshots.indexes.add(9);
    progress = new Map();
    sent = [];
    stalled = [];
    fatal = [];
    server = new SnapshotServer({
      clock: clock.forProcess(() => true),
      core: { leading: { progress } } as unknown as Core,
      snapshots: snapshots as unknown as Snapshots,
      pieceBytesMax: PIECE_BYTES_MAX,
      stalledMs: STALLED_MS,
      send: (to, message) => sent.push({ to, message }),
      onStalled: (peer) => stalled.push(peer),
      onFatal: (error) => fatal.push(error),
    });
  });

  const ask = (from: number, offset: number, index = 9, length = PIECE_BYTES_MAX) =>
    server.receive(from, { kind: 'read', index, term: 2, offset, length });

  async function answerReads(): Promise<void> {
    await microtasks();
    for (let read = snapshots.reads.shift(); read !== undefined; read = snapshots.reads.shift()) {
      read();
      await microtasks();
    }
  }

  const described = () =>
    sent.splice(0).map(({ to, message }) => {
      if (message.kind !== 'piece') return `${to} ${message.kind} ${message.index}`;
      expect(message.bytes.equals(FILE.subarray(message.offset, message.offset + message.bytes.length))).toBe(true);
      return `${to} ${message.offset}+${message.bytes.length} of ${message.byteLength}`;
    });

  it('answers in the order asked, one read at a time, with pieces no longer than allowed', async () => {
    ask(2, 0, 9, 1e9);
    ask(3, 100);
    ask(2, 200);
    await microtasks();
    expect(snapshots.reads).toHaveLength(1);
    await answerReads();
    expect(described()).toEqual(['2 0+100 of 250', '3 100+100 of 250', '2 200+50 of 250']);
    expect([stalled, fatal]).toEqual([[], []]);
  });

  it('says what is gone, and has the follower probed again', async () => {
    ask(2, 0, 8);
    await answerReads();
    expect(described()).toEqual(['2 gone 8']);
    expect(stalled).toEqual([2]);
    expect(snapshots.holds.size).toBe(0);
  });

  it('keeps a file for each of its readers until they ask for another, or for nothing for long', async () => {
    snapshots.indexes.add(20);
    for (const offset of [0, 100]) for (const from of [2, 3]) ask(from, offset);
    expect(snapshots.holds).toEqual(new Map([[9, 2]]));
    ask(3, 0, 20);
    expect(snapshots.holds).toEqual(
      new Map([
        [9, 1],
        [20, 1],
      ]),
    );
    await answerReads();
    clock.moveTo(clock.nowMs + STALLED_MS - 1);
    ask(3, 100, 20);
    server.tick();
    clock.moveTo(clock.nowMs + 1);
    server.tick();
    expect([...snapshots.holds.values()]).toEqual([0, 1]);
    clock.moveTo(clock.nowMs + STALLED_MS);
    server.tick();
    server.tick();
    expect([...snapshots.holds.values()]).toEqual([0, 0]);
    expect(stalled).toEqual([]);
  });

  it('probes a follower again that was offered a snapshot and asks for nothing, once in a while', () => {
    progress.set(2, { state: 'snapshot' });
    progress.set(3, { state: 'replicate' });
    for (let ms = 0; ms < 2.5 * STALLED_MS; ms += 100) {
      server.tick();
      clock.moveTo(clock.nowMs + 100);
    }
    expect(stalled).toEqual([2, 2]);
  });

  it('keeps the file of a follower that is silent for as long as it is in need of it', async () => {
    progress.set(2, { state: 'snapshot' });
    ask(2, 0);
    await answerReads();
    clock.moveTo(clock.nowMs + 2 * STALLED_MS);
    server.tick();
    expect([snapshots.holds.get(9), stalled]).toEqual([1, [2]]);
    progress.set(2, { state: 'replicate' });
    clock.moveTo(clock.nowMs + STALLED_MS);
    server.tick();
    expect(snapshots.holds.get(9)).toBe(0);
  });

  it('verifies its file when a reader that had all of it begins again, and lives with damage', async () => {
    for (const offset of [0, 100, 200]) ask(2, offset);
    await answerReads();
    expect(snapshots.loads).toBe(0);
    snapshots.loadFailure = new RaftkvError('SNAPSHOT_DAMAGED', 'rotten');
    ask(2, 0);
    await answerReads();
    ask(2, 100);
    await answerReads();
    expect([snapshots.loads, fatal]).toEqual([1, []]);
    expect(described()).toHaveLength(5);
  });

  it('ends the node where the disk fails, and answers nothing from then on', async () => {
    snapshots.readFailure = Object.assign(new Error('EIO'), { code: 'EIO' });
    ask(2, 0);
    await answerReads();
    expect(fatal).toEqual([expect.objectContaining({ code: 'EIO' })]);
    snapshots.readFailure = null;
    ask(2, 0);
    await answerReads();
    expect(sent).toEqual([]);
    await server.stop();
  });

  it('is stopped only once nothing is being read any more', async () => {
    ask(2, 0);
    await microtasks();
    let stopped = false;
    const stopping = server.stop().then(() => {
      stopped = true;
    });
    await microtasks();
    expect(stopped).toBe(false);
    await answerReads();
    await stopping;
  });
});
