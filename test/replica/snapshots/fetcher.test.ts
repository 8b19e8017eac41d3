import { beforeEach, describe, expect, it } from 'vitest';
import { silentLogger } from '../../../src/base/logger.ts';
import { StateMachine } from '../../../src/kv/state-machine.ts';
import { Op } from '../../../src/kv/types.ts';
import { ENTRY_HEADER_BYTES } from '../../../src/raft/state/entry.ts';
import type { SnapshotRead } from '../../../src/replica/snapshots/bulk-wire.ts';
import { SnapshotFetcher } from '../../../src/replica/snapshots/fetcher.ts';
import { openSnapshots } from '../../../src/storage/snapshots/files.ts';
import { MemoryDisk } from '../../support/memory-disk.ts';
import { batchOf, ManualClock, microtasks } from '../support.ts';

const LEADER = 1;
const WANTED = { from: LEADER, index: 9, term: 3 };
const PIECE_BYTES = 256;
const IN_FLIGHT = 3;
const RETRY_MS = 300;

const stores = (disk: MemoryDisk) =>
  openSnapshots({ disk, directory: '/s', clusterName: 'test', logger: silentLogger, onDamage: async () => '/damaged' });

/** A state, and a snapshot file that holds it. */
async function sourceFile(salt = ''): Promise<{ hash: string; file: Buffer }> {
  const stateMachine = new StateMachine();
  for (let i = 1; i <= 20; i++) {
    const bytes = batchOf(`key${i}`, `${salt}${'v'.repeat(100)}`, { sequence: i, op: Op.set });
    stateMachine.apply(bytes, ENTRY_HEADER_BYTES, null);
  }
  const disk = new MemoryDisk();
  const snapshots = await stores(disk);
  const writer = await snapshots.write({ ...WANTED, configuration: Buffer.from('members') });
  const iterator = stateMachine.beginSnapshot();
  for (let chunk = iterator.next(300); chunk !== null; chunk = iterator.next(300)) await writer.write(chunk);
  iterator.close();
  const { path } = await writer.finish();
  return { hash: stateMachine.hash(), file: disk.contentOf(path) };
}

describe('fetching a snapshot', () => {
  let clock: ManualClock;
  let disk: MemoryDisk;
  let asked: (SnapshotRead & { to: number })[];
  let loaded: string[];
  let fatal: unknown[];
  let fetcher: SnapshotFetcher;
  let file: Buffer;
  let hash: string;
  /** Writes of the file that is being received wait here while this is an array. */
  let heldWrites: (() => void)[] | null;

  beforeEach(async () => {
    ({ file, hash } = await sourceFile());
    clock = new ManualClock();
    heldWrites = null;
    disk = new MemoryDisk({
      schedule(operation, complete) {
        const isHeld = operation.kind === 'write' && operation.path.endsWith('.part');
        if (isHeld && heldWrites !== null) heldWrites.push(complete);
        else queueMicrotask(complete);
      },
    });
    asked = [];
    loaded = [];
    fatal = [];
    fetcher = new SnapshotFetcher({
      clock: clock.forProcess(() => true),
      logger: silentLogger,
      snapshots: await stores(disk),
      pieceBytes: PIECE_BYTES,
      piecesInFlightMax: IN_FLIGHT,
      retryMs: RETRY_MS,
      send: (to, message) => {
        if (message.kind === 'read') asked.push({ ...message, to });
      },
      onLoaded: (info, stateMachine) => loaded.push(`${info.index}@${info.term} ${stateMachine.hash()}`),
      onFatal: (error) => fatal.push(error),
    });
  });

  const offsets = () => asked.splice(0).map(({ offset }) => offset);

  function answer(offset: number, from = LEADER, source = file): void {
    const bytes = source.subarray(offset, offset + PIECE_BYTES);
    const { index, term } = WANTED;
    fetcher.receivePiece(from, { kind: 'piece', index, term, offset, byteLength: source.length, bytes });
  }

  /** Answers all that is asked, one after the other. */
  async function serve(source = file): Promise<void> {
    for (let next = asked.shift(); next !== undefined; next = asked.shift()) {
      answer(next.offset, next.to, source);
      await microtasks();
    }
  }

  async function want(wanted = WANTED): Promise<void> {
    fetcher.want(wanted);
    await microtasks();
  }

  async function passMs(ms: number): Promise<void> {
    for (let at = 0; at < ms; at += 10) {
      clock.moveTo(clock.nowMs + 10);
      fetcher.tick(LEADER);
      await microtasks();
    }
  }

  it('asks for one piece until the length is known, then for a few ahead, and ends with the state', async () => {
    await want();
    expect(offsets()).toEqual([0]);
    answer(0);
    await microtasks();
    expect(offsets()).toEqual([PIECE_BYTES, 2 * PIECE_BYTES, 3 * PIECE_BYTES]);
    answer(PIECE_BYTES);
    await microtasks();
    expect(asked).toEqual([expect.objectContaining({ to: LEADER, offset: 4 * PIECE_BYTES, length: PIECE_BYTES })]);
    answer(2 * PIECE_BYTES);
    answer(3 * PIECE_BYTES);
    await microtasks();
    await serve();
    expect(loaded).toEqual([`9@3 ${hash}`]);
    expect([fetcher.isRunning, fatal]).toEqual([false, []]);
    await passMs(2 * RETRY_MS);
    expect(asked).toEqual([]);
  });

  it('keeps pieces in line that come between a lost link and the end of a slow write', async () => {
    await want();
    heldWrites = [];
    answer(0);
    await microtasks();
    expect(heldWrites).toHaveLength(1);
    offsets();
    fetcher.linkUp(LEADER);
    answer(PIECE_BYTES);
    const [release] = heldWrites;
    heldWrites = null;
    release?.();
    await microtasks();
    await serve();
    await passMs(2 * RETRY_MS);
    await serve();
    expect([loaded, fatal]).toEqual([[`9@3 ${hash}`], []]);
  });

  it('waits for its own disk without asking for anything again', async () => {
    await want();
    answer(0);
    await microtasks();
    heldWrites = [];
    answer(PIECE_BYTES);
    offsets();
    await passMs(10 * RETRY_MS);
    expect(asked).toEqual([]);
    const [release] = heldWrites;
    heldWrites = null;
    release?.();
    await microtasks();
    expect(offsets()).toEqual([4 * PIECE_BYTES]);
    await passMs(RETRY_MS);
    expect(offsets()).toEqual([2, 3, 4].map((piece) => piece * PIECE_BYTES));
  });

  it('asks again for what does not come, but not while answers to older questions do', async () => {
    await want();
    answer(0);
    await microtasks();
    offsets();
    for (let i = 0; i < 5; i++) {
      await passMs(RETRY_MS - 20);
      answer(0);
    }
    expect(asked).toEqual([]);
    await passMs(RETRY_MS);
    expect(offsets()).toEqual([1, 2, 3].map((piece) => piece * PIECE_BYTES));
    await passMs(RETRY_MS);
    expect(offsets()).toHaveLength(3);
  });

  it('asks again at once when the link to the leader is up again, and only then', async () => {
    await want();
    answer(0);
    await microtasks();
    offsets();
    fetcher.linkUp(3);
    expect(asked).toEqual([]);
    fetcher.linkUp(LEADER);
    expect(offsets()).toEqual([1, 2, 3].map((piece) => piece * PIECE_BYTES));
  });

  it('takes no piece that does not follow, comes from another, or is of another snapshot', async () => {
    await want();
    answer(0);
    await microtasks();
    offsets();
    answer(2 * PIECE_BYTES);
    answer(PIECE_BYTES, 3);
    const piece = { offset: PIECE_BYTES, byteLength: file.length, bytes: Buffer.alloc(PIECE_BYTES) };
    fetcher.receivePiece(LEADER, { kind: 'piece', index: 8, term: 3, ...piece });
    fetcher.receivePiece(LEADER, { kind: 'piece', index: 9, term: 2, ...piece });
    await passMs(RETRY_MS);
    await serve();
    expect(loaded).toEqual([`9@3 ${hash}`]);
  });

  it('goes on where it was under a leader that it loses and finds again', async () => {
    await want();
    for (const offset of [0, PIECE_BYTES]) answer(offset);
    await microtasks();
    fetcher.tick(0);
    expect(fetcher.isRunning).toBe(false);
    offsets();
    answer(2 * PIECE_BYTES);
    await want();
    expect(asked[0]?.offset).toBe(2 * PIECE_BYTES);
    await serve();
    expect(loaded).toEqual([`9@3 ${hash}`]);
  });

  it('begins again if another node offers a snapshot of the same entry: it is another file', async () => {
    const other = await sourceFile('other');
    await want();
    answer(0);
    await microtasks();
    offsets();
    await want({ ...WANTED, from: 3 });
    expect(asked).toEqual([expect.objectContaining({ to: 3, offset: 0 })]);
    await serve(other.file);
    expect(loaded).toEqual([`9@3 ${other.hash}`]);
  });

  it('is over where the leader no longer has the file, until it offers another', async () => {
    await want();
    fetcher.receiveGone(3, WANTED);
    fetcher.receiveGone(LEADER, { index: 8, term: 3 });
    expect(fetcher.isRunning).toBe(true);
    fetcher.receiveGone(LEADER, WANTED);
    expect(fetcher.isRunning).toBe(false);
  });

  it.each([
    ['a file that does not verify', 'damage'],
    ['a full disk', 'ENOSPC'],
  ])('pauses after %s, then fetches all of it again', async (_, what) => {
    const damaged = Buffer.from(file);
    damaged[1000] = (damaged[1000] ?? 0) ^ 1;
    if (what === 'ENOSPC') disk.failOnce('ENOSPC', ({ kind, position }) => kind === 'write' && position > 500);
    await want();
    await serve(what === 'damage' ? damaged : file);
    expect([loaded, fetcher.isRunning, fatal]).toEqual([[], false, []]);
    expect(disk.paths()).toEqual([]);
    await passMs(900);
    await want();
    expect(asked).toEqual([]);
    await passMs(100);
    await want();
    expect(asked[0]?.offset).toBe(0);
    await serve();
    expect([loaded, fatal]).toEqual([[`9@3 ${hash}`], []]);
  });

  it.each(['write', 'sync', 'rename', 'syncDirectory'])(
    'ends the node, once, where the disk fails at a %s',
    async (kind) => {
      await want();
      disk.fault = (operation) => (operation.kind === kind ? 'EIO' : null);
      await serve();
      expect(fatal).toEqual([expect.objectContaining({ code: 'EIO' })]);
      expect(loaded).toEqual([]);
    },
  );

  it('asks for nothing, now and then, while it verifies and loads, lest the leader take it for gone', async () => {
    await want();
    const pieces = Math.ceil(file.length / PIECE_BYTES);
    for (let piece = 0; piece < pieces - 1; piece++) answer(piece * PIECE_BYTES);
    await microtasks();
    offsets();
    heldWrites = [];
    answer((pieces - 1) * PIECE_BYTES);
    await passMs(2.5 * RETRY_MS);
    const nothing = expect.objectContaining({ to: LEADER, offset: file.length, length: 0 });
    expect(asked.splice(0)).toEqual([nothing, nothing]);
    const end = { kind: 'piece', index: 9, term: 3, offset: file.length, byteLength: file.length } as const;
    fetcher.receivePiece(LEADER, { ...end, bytes: Buffer.alloc(0) });
    heldWrites[0]?.();
    await microtasks();
    await passMs(2 * RETRY_MS);
    expect([asked, loaded, fatal]).toEqual([[], [`9@3 ${hash}`], []]);
  });

  it('sends nothing once it is stopped', async () => {
    await want();
    heldWrites = [];
    answer(0);
    answer(PIECE_BYTES);
    await microtasks();
    let stopped = false;
    const stopping = fetcher.stop().then(() => {
      stopped = true;
    });
    await microtasks();
    expect(stopped).toBe(false);
    offsets();
    heldWrites[0]?.();
    await stopping;
    await want({ ...WANTED, index: 20 });
    expect([asked, loaded, fatal]).toEqual([[], [], []]);
  });
});
