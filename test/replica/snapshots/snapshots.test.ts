import { describe, expect, it } from 'vitest';
import { SnapshotLoader } from '../../../src/kv/snapshot.ts';
import type { StateMachine } from '../../../src/kv/state-machine.ts';
import { ENTRY_HEADER_BYTES } from '../../../src/raft/state/entry.ts';
import type { Backup } from '../../../src/replica/types.ts';
import { readSnapshotFile } from '../../../src/storage/snapshots/reader.ts';
import { type DiskOperation, MemoryDisk } from '../../support/memory-disk.ts';
import { seededRandom } from '../../support/random.ts';
import { Cluster, type ClusterOptions, ELECTION_MS } from '../cluster.ts';
import { microtasks, type Request } from '../support.ts';

/** Snapshots taken, carried and put in place by whole replicas. */

/** A snapshot every thirty writes or so, in several chunks, and carried in several pieces. */
const OPTIONS: ClusterOptions = {
  snapshotLimits: { snapshotLogBytes: 4000, logTailBytes: 0, snapshotChunkBytes: 512 },
  transferLimits: { transferPieceBytes: 512, transferPiecesMax: 2 },
};
const BULK_KIND = { read: 1, piece: 2 };
const SNAPSHOTS = '/data/node/snapshots';

const start = (options: ClusterOptions = {}) => Cluster.start({ ...OPTIONS, ...options });
const hashOf = (cluster: Cluster, id: number) => cluster.replica(id).stateMachine.hash();
const firstIndexOf = (cluster: Cluster, id: number) => cluster.replica(id).status().firstLogIndex;
const filesOf = (cluster: Cluster, id: number) =>
  cluster
    .node(id)
    .disk.paths()
    .filter((path) => path.startsWith(SNAPSHOTS));
const isSnapshotBegun = (path: string) => path.startsWith(SNAPSHOTS) && path.endsWith('.tmp');
const running = (cluster: Cluster) => cluster.ids.filter((id) => cluster.node(id).alive);

let written = 0;

/** So many writes, each an entry of its own. */
async function write(cluster: Cluster, id: number, count: number, bytes = 100): Promise<Request[]> {
  const requests: Request[] = [];
  for (let i = 0; i < count; i++) {
    requests.push(cluster.set(id, `k${written % 23}`, `${written++}-${'v'.repeat(bytes)}`));
    await cluster.waitUntilIdle();
  }
  return requests;
}

/** Node 3 is away until it can only be helped by a snapshot. */
async function leaveBehind(cluster: Cluster, bytes = 100): Promise<void> {
  const { lastLogIndex } = cluster.replica(3).status();
  cluster.isolate(3);
  do await write(cluster, cluster.leader(), 10, bytes);
  while (firstIndexOf(cluster, cluster.leader()) <= lastLogIndex + 1);
}

function expectSame(cluster: Cluster): void {
  const ids = running(cluster);
  expect(ids.map((id) => [id, hashOf(cluster, id)])).toEqual(ids.map((id) => [id, hashOf(cluster, cluster.leader())]));
  expect(cluster.ids.flatMap((id) => cluster.node(id).fatal)).toEqual([]);
}

/** Lets one frame of the bulk link in `direction` arrive, and what comes of it but for further such frames. */
async function passOne(cluster: Cluster, direction: string): Promise<void> {
  const { network } = cluster;
  network.heldBulk.delete(direction);
  network.deliver();
  network.heldBulk.add(direction);
  await cluster.waitUntilIdle();
}

/** Pieces that are sent from now on, as offsets. */
function piecesSent(cluster: Cluster): number[] {
  const offsets: number[] = [];
  cluster.network.admitsBulk = (_from, _to, bytes) => {
    if (bytes[0] === BULK_KIND.piece) offsets.push(bytes.readUInt32LE(20));
    return true;
  };
  return offsets;
}

/** The operation of a node's disk with this number, counted from now, never completes: the process ends with it. */
function killAt(cluster: Cluster, id: number, operation: number, matches = (_: DiskOperation) => true): () => boolean {
  const { disk } = cluster.node(id);
  const { schedule } = disk;
  let left = operation;
  disk.schedule = (operation, complete) => {
    if (left > 0 && matches(operation) && --left === 0) {
      disk.schedule = schedule;
      queueMicrotask(() => cluster.kill(id));
    } else schedule(operation, complete);
  };
  return () => {
    disk.schedule = schedule;
    return left === 0;
  };
}

interface Hold {
  readonly waiting: (() => void)[];
  readonly release: () => void;
}

/** Operations of a node's disk that match do not complete before they are released. */
function holdBack(cluster: Cluster, id: number, matches: (operation: DiskOperation) => boolean): Hold {
  const { disk } = cluster.node(id);
  const waiting: (() => void)[] = [];
  let held = true;
  const { schedule } = disk;
  disk.schedule = (operation, complete) => {
    if (held && matches(operation)) waiting.push(complete);
    else schedule(operation, complete);
  };
  return {
    waiting,
    release() {
      held = false;
      for (const complete of waiting.splice(0)) complete();
    },
  };
}

describe('a follower that was away for too long', () => {
  it('gets a snapshot, goes on with the log behind it, and holds what the leader holds', async () => {
    const cluster = await start();
    await leaveBehind(cluster);
    const before = firstIndexOf(cluster, 1);
    cluster.rejoin(3);
    await cluster.run(ELECTION_MS);
    expect(firstIndexOf(cluster, 3)).toBeGreaterThanOrEqual(before);
    expectSame(cluster);
    const [request] = await write(cluster, 3, 1);
    expect(request?.outcomes).toEqual(['stored']);
    expectSame(cluster);
    cluster.kill(1);
    cluster.kill(2);
    await cluster.restart(2);
    await cluster.run(ELECTION_MS);
    expectSame(cluster);
  });

  it('goes on where it was, whatever piece was under way when the bulk link was lost', async () => {
    const cluster = await start();
    await leaveBehind(cluster);
    const size = cluster.replica(1).status().snapshotBytes;
    const pieces = Math.ceil(size / 512);
    cluster.network.heldBulk.add('1>3');
    const offsets = piecesSent(cluster);
    cluster.rejoin(3);
    await cluster.run(100);
    for (let i = 0; i < pieces; i++) {
      await passOne(cluster, '1>3');
      cluster.network.partitionBulk(3, 1);
      cluster.network.healBulk(3, 1);
      await cluster.waitUntilIdle();
    }
    expectSame(cluster);
    // Each piece arrived once, and at most two more had been sent ahead each time.
    expect(pieces).toBeGreaterThan(4);
    expect(offsets.length).toBeLessThanOrEqual(3 * pieces);
    expect(firstIndexOf(cluster, 3)).toBeGreaterThan(1);
  });

  it('goes on where it was after it lost the leader altogether', async () => {
    const cluster = await start();
    await leaveBehind(cluster);
    cluster.network.heldBulk.add('1>3');
    cluster.rejoin(3);
    await cluster.run(100);
    for (let i = 0; i < 3; i++) await passOne(cluster, '1>3');
    cluster.isolate(3);
    await cluster.run(100);
    const offsets = piecesSent(cluster);
    cluster.network.heldBulk.clear();
    cluster.rejoin(3);
    await cluster.run(ELECTION_MS);
    expect(Math.min(...offsets)).toBe(3 * 512);
    expectSame(cluster);
  });

  it('asks again for pieces that were dropped on the way, but not while its own disk is what it waits for', async () => {
    const cluster = await start();
    await leaveBehind(cluster);
    const offsets: number[] = [];
    let dropped = 0;
    cluster.network.admitsBulk = (_from, _to, bytes) => {
      if (bytes[0] !== BULK_KIND.piece) return true;
      const offset = bytes.readUInt32LE(20);
      if (offset === 1024 && dropped++ === 0) return false;
      offsets.push(offset);
      return true;
    };
    const { disk } = cluster.node(3);
    const { schedule } = disk;
    let waiting: (() => void) | null = null;
    disk.schedule = (operation, complete) => {
      if (waiting === null && operation.kind === 'write' && operation.path.endsWith('.part')) waiting = complete;
      else schedule(operation, complete);
    };
    cluster.rejoin(3);
    await cluster.run(2 * ELECTION_MS);
    expect(offsets.length).toBeLessThanOrEqual(2);
    (waiting as (() => void) | null)?.();
    await cluster.run(2 * ELECTION_MS);
    expect(dropped).toBe(2);
    expectSame(cluster);
    expect(firstIndexOf(cluster, 3)).toBeGreaterThan(1);
  });

  it('fetches from the next leader what the one before had begun to send', async () => {
    const cluster = await start();
    await leaveBehind(cluster);
    cluster.network.heldBulk.add('1>3');
    cluster.rejoin(3);
    await cluster.run(100);
    for (let i = 0; i < 3; i++) await passOne(cluster, '1>3');
    cluster.kill(1);
    await cluster.run(2 * ELECTION_MS);
    expect(cluster.leader()).toBe(2);
    expectSame(cluster);
    expect(firstIndexOf(cluster, 3)).toBeGreaterThan(1);
    await cluster.restart(1);
    await cluster.run(ELECTION_MS);
    expectSame(cluster);
  });

  it('keeps the leader from letting go of that snapshot and the log behind it, for as long as it reads', async () => {
    const cluster = await start();
    await leaveBehind(cluster);
    const { snapshotIndex } = cluster.replica(1).status();
    const offered = filesOf(cluster, 1);
    cluster.network.heldBulk.add('1>3');
    cluster.rejoin(3);
    await cluster.run(100);
    await passOne(cluster, '1>3');
    await write(cluster, 1, 80);
    expect(cluster.replica(1).status().snapshotIndex).toBeGreaterThan(snapshotIndex);
    expect(firstIndexOf(cluster, 1)).toBeLessThanOrEqual(snapshotIndex + 1);
    expect(filesOf(cluster, 1)).toEqual(expect.arrayContaining(offered));
    const offsets = piecesSent(cluster);
    cluster.network.heldBulk.clear();
    await cluster.run(200);
    expect(offsets).not.toContain(0);
    expectSame(cluster);
    // It is not read any more.
    await cluster.run(10 * ELECTION_MS);
    expect(filesOf(cluster, 1)).toHaveLength(1);
    expect(firstIndexOf(cluster, 1)).toBeGreaterThan(snapshotIndex + 1);
  });

  it('needs none where the log that is kept behind snapshots is enough', async () => {
    const cluster = await start({ snapshotLimits: { ...OPTIONS.snapshotLimits, logTailBytes: 2000 } });
    await write(cluster, 1, 60);
    cluster.isolate(3);
    const { lastLogIndex } = cluster.replica(3).status();
    const { snapshotIndex } = cluster.replica(1).status();
    do await write(cluster, 1, 1);
    while (cluster.replica(1).status().snapshotIndex === snapshotIndex);
    expect(firstIndexOf(cluster, 1)).toBeGreaterThan(1);
    const offsets = piecesSent(cluster);
    cluster.rejoin(3);
    await cluster.run(ELECTION_MS);
    const isKept = firstIndexOf(cluster, 1) <= lastLogIndex + 1;
    expect(offsets.length === 0).toBe(isKept);
    expect(cluster.replica(1).status().snapshotIndex - firstIndexOf(cluster, 1)).toBeGreaterThan(5);
    expectSame(cluster);
  });

  it('answers its own writes that the snapshot contains as overtaken, counts them once, and goes on writing', async () => {
    const cluster = await start();
    cluster.set(1, 'n', '0');
    await cluster.waitUntilIdle();
    cluster.network.held.add('1>3');
    const overtaken = [cluster.incr(3, 'n'), cluster.incr(3, 'n')];
    await cluster.waitUntilIdle();
    expect(cluster.value(1, 'n')).toBe('2');
    await leaveBehind(cluster);
    cluster.network.held.clear();
    const later = cluster.incr(3, 'n');
    cluster.rejoin(3);
    await cluster.run(ELECTION_MS);
    expect(overtaken.map(({ outcomes }) => outcomes)).toEqual([['failed: overtaken'], ['failed: overtaken']]);
    expect(later.outcomes).toEqual(['3']);
    expect(cluster.value(3, 'n')).toBe('3');
    expect(cluster.replica(3).status().pendingWrites).toBe(0);
    expectSame(cluster);
  });

  it('applies nothing that it was still reading from its log when the snapshot overtook it', async () => {
    const cluster = await start({ cacheBytesMax: 300 });
    await write(cluster, 1, 40);
    cluster.kill(3);
    await write(cluster, 1, 3);
    await cluster.restart(3);
    const reads = holdBack(cluster, 3, ({ kind, path }) => kind === 'read' && path.startsWith('/data/node/wal'));
    await cluster.run(200);
    expect(reads.waiting).toHaveLength(1);
    await leaveBehind(cluster);
    const { snapshotIndex } = cluster.replica(1).status();
    cluster.rejoin(3);
    await cluster.run(ELECTION_MS);
    expect(cluster.replica(3).status().appliedIndex).toBeGreaterThanOrEqual(snapshotIndex);
    reads.release();
    await cluster.run(ELECTION_MS);
    expectSame(cluster);
    await write(cluster, 3, 3);
    expectSame(cluster);
  });

  it('gives up a snapshot of its own that it was writing meanwhile', async () => {
    const cluster = await start({ transferLimits: {} });
    // So much that it takes more than one write to the file.
    await write(cluster, 1, 30, 15_000);
    const own = holdBack(cluster, 3, ({ kind, path }) => kind === 'write' && isSnapshotBegun(path));
    while (own.waiting.length === 0) await write(cluster, 1, 1, 15_000);
    await leaveBehind(cluster, 15_000);
    expect(own.waiting).toHaveLength(1);
    cluster.rejoin(3);
    await cluster.run(ELECTION_MS);
    expectSame(cluster);
    own.release();
    await cluster.run(ELECTION_MS);
    expect(cluster.replica(3).status().snapshotting).toBe(false);
    expect(filesOf(cluster, 3)).toHaveLength(1);
    await write(cluster, 3, 3);
    expectSame(cluster);
    cluster.kill(3);
    await cluster.restart(3);
    await cluster.run(ELECTION_MS);
    expectSame(cluster);
  });

  it('takes its time to load the snapshot: the leader waits with a newer one, and with its log', async () => {
    const cluster = await start();
    await leaveBehind(cluster);
    const { snapshotIndex } = cluster.replica(1).status();
    const loads = holdBack(cluster, 3, ({ kind, path }) => kind === 'read' && path.endsWith('.snapshot'));
    cluster.rejoin(3);
    await cluster.run(200);
    expect(loads.waiting).toHaveLength(1);
    const offsets = piecesSent(cluster);
    for (let i = 0; i < 8; i++) {
      await cluster.run(1000);
      await write(cluster, 1, 10);
    }
    expect(cluster.replica(1).status().snapshotIndex).toBeGreaterThan(snapshotIndex);
    expect(firstIndexOf(cluster, 1)).toBeLessThanOrEqual(snapshotIndex + 1);
    loads.release();
    await cluster.run(ELECTION_MS);
    expectSame(cluster);
    // Only the one snapshot was ever sent.
    expect(offsets).not.toContain(0);
  });

  it('does not take the snapshot that it is still loading for one of its own', async () => {
    const cluster = await start();
    const own = holdBack(cluster, 3, ({ kind, path }) => kind === 'write' && isSnapshotBegun(path));
    while (own.waiting.length === 0) await write(cluster, 1, 1);
    await leaveBehind(cluster);
    // All of the file is read once to verify it, and then again to load it.
    const loads = holdBack(cluster, 3, ({ kind, path }) => kind === 'read' && path.endsWith('.snapshot'));
    cluster.rejoin(3);
    await cluster.run(200);
    expect([own.waiting.length, loads.waiting.length]).toEqual([1, 1]);
    own.release();
    await cluster.run(200);
    const { core } = cluster.replica(3).raft;
    expect(core.snapshot?.index ?? 0).toBeLessThanOrEqual(core.log.commitIndex);
    loads.release();
    await cluster.run(ELECTION_MS);
    expectSame(cluster);
    expect(firstIndexOf(cluster, 3)).toBeGreaterThan(1);
  });

  it('that dies at any moment of taking over a snapshot takes it over in its next incarnation', async () => {
    const cluster = await start();
    let installs = 0;
    let deaths = 0;
    for (let operation = 1; operation < 60; operation++) {
      await leaveBehind(cluster);
      const died = killAt(cluster, 3, operation);
      cluster.rejoin(3);
      await cluster.run(100);
      if (died()) deaths++;
      else cluster.kill(3);
      installs++;
      await cluster.restart(3);
      await cluster.run(ELECTION_MS);
      expect(cluster.replica(3).status().lifecycle).toBe('normal');
      expectSame(cluster);
      if (deaths < installs) break;
    }
    expect(deaths).toBeGreaterThan(15);
    expect(deaths).toBeLessThan(installs);
  });

  it('waits until its disk has room for the snapshot', async () => {
    const cluster = await start();
    await leaveBehind(cluster);
    let full = 0;
    cluster.node(3).disk.fault = ({ kind, path }) => {
      if (kind !== 'write' || !path.endsWith('.part')) return null;
      full++;
      return 'ENOSPC';
    };
    cluster.rejoin(3);
    await cluster.run(5000);
    expect(full).toBeGreaterThanOrEqual(2);
    expect(full).toBeLessThanOrEqual(6);
    expect(filesOf(cluster, 3).filter((path) => path.endsWith('.part'))).toEqual([]);
    cluster.node(3).disk.fault = () => null;
    await cluster.run(2000);
    expectSame(cluster);
    expect(firstIndexOf(cluster, 3)).toBeGreaterThan(1);
  });

  it('is helped although the file at the leader has rotted', async () => {
    const cluster = await start();
    await leaveBehind(cluster);
    const path = filesOf(cluster, 1)[0] ?? '';
    cluster.node(1).disk.flipBit(path, 8 * 1000);
    cluster.rejoin(3);
    await cluster.run(10_000);
    expectSame(cluster);
    expect(firstIndexOf(cluster, 3)).toBeGreaterThan(1);
    const moved = cluster
      .node(1)
      .disk.paths()
      .filter((each) => each.startsWith('/data/node/damaged'));
    expect(moved).toHaveLength(1);
  });

  it('is helped although the file at the leader has rotted and its disk is full when it takes another', async () => {
    const cluster = await start();
    await leaveBehind(cluster);
    cluster.node(1).disk.flipBit(filesOf(cluster, 1)[0] ?? '', 8 * 1000);
    cluster.node(1).disk.failOnce('ENOSPC', ({ kind, path }) => kind === 'write' && isSnapshotBegun(path));
    cluster.rejoin(3);
    await cluster.run(30_000);
    expectSame(cluster);
    expect(firstIndexOf(cluster, 3)).toBeGreaterThan(1);
  });
});

describe('a node that stops', () => {
  it('in the middle of fetching leaves nothing half done', async () => {
    const cluster = await start();
    await leaveBehind(cluster);
    cluster.network.heldBulk.add('1>3');
    cluster.rejoin(3);
    await cluster.run(100);
    for (let i = 0; i < 3; i++) await passOne(cluster, '1>3');
    await cluster.stop(3);
    expect(filesOf(cluster, 3).filter((path) => !path.endsWith('.snapshot'))).toEqual([]);
    cluster.network.heldBulk.clear();
    await cluster.restart(3);
    await cluster.run(ELECTION_MS);
    expectSame(cluster);
  });

  it('in the middle of a snapshot leaves nothing half done', async () => {
    const cluster = await start({ nodes: 1 });
    const { disk } = cluster.node(1);
    const { schedule } = disk;
    const held: (() => void)[] = [];
    disk.schedule = (operation, complete) => {
      if (operation.kind === 'write' && isSnapshotBegun(operation.path)) held.push(complete);
      else schedule(operation, complete);
    };
    await write(cluster, 1, 60);
    expect(cluster.replica(1).status().snapshotting).toBe(true);
    const hash = hashOf(cluster, 1);
    let stopped = false;
    const stopping = cluster.stop(1).then(() => {
      stopped = true;
    });
    await microtasks();
    expect([stopped, held.length]).toEqual([false, 1]);
    disk.schedule = schedule;
    held[0]?.();
    await cluster.waitUntilIdle();
    await stopping;
    expect(filesOf(cluster, 1).filter(isSnapshotBegun)).toEqual([]);
    await cluster.restart(1);
    await cluster.run(ELECTION_MS);
    expect(hashOf(cluster, 1)).toBe(hash);
    expectSame(cluster);
  });
});

describe('taking snapshots', () => {
  it('begins again later where the disk was full, and nothing else suffers', async () => {
    const cluster = await start({ nodes: 1 });
    let full = 0;
    cluster.node(1).disk.fault = ({ kind, path }) => {
      if (kind !== 'write' || !isSnapshotBegun(path)) return null;
      full++;
      return 'ENOSPC';
    };
    const requests = await write(cluster, 1, 60);
    expect(requests.every(({ outcomes }) => outcomes[0] === 'stored')).toBe(true);
    await cluster.run(5000);
    expect([full, filesOf(cluster, 1)]).toEqual([1, []]);
    cluster.node(1).disk.fault = () => null;
    await cluster.run(6000);
    expect(filesOf(cluster, 1)).toHaveLength(1);
    expect(firstIndexOf(cluster, 1)).toBeGreaterThan(1);
    expectSame(cluster);
  });

  it('ends the node, once, where the disk fails in another way', async () => {
    const cluster = await start({ nodes: 1 });
    cluster.node(1).disk.failOnce('EIO', ({ kind, path }) => kind === 'sync' && isSnapshotBegun(path));
    await write(cluster, 1, 60);
    await cluster.run(1000);
    expect(cluster.node(1).fatal).toEqual([expect.objectContaining({ code: 'EIO' })]);
  });

  it('goes on in the next incarnation from snapshot and log, whenever the power went away', async () => {
    const random = seededRandom(8);
    const cluster = await start({ nodes: 1 });
    cluster.set(1, 'n', '0');
    await cluster.waitUntilIdle();
    let acknowledged = 0;
    let begun = 0;
    let deaths = 0;
    for (let incarnation = 0; incarnation < 40; incarnation++) {
      const died = killAt(cluster, 1, 1 + Math.floor(random() * 150));
      for (let i = 0; i < 40 && cluster.node(1).alive; i++) {
        const request = cluster.incr(1, 'n');
        void cluster.set(1, `k${i % 7}`, 'v'.repeat(100));
        begun++;
        await cluster.waitUntilIdle();
        if (request.outcomes.length > 0) acknowledged = Number(request.outcomes[0]);
      }
      if (died()) deaths++;
      else cluster.kill(1);
      cluster.node(1).disk.crash(random);
      await cluster.restart(1);
      await cluster.run(ELECTION_MS);
      const value = Number(cluster.value(1, 'n'));
      expect(value).toBeGreaterThanOrEqual(acknowledged);
      expect(value).toBeLessThanOrEqual(begun);
      expect(filesOf(cluster, 1).filter((path) => !path.endsWith('.snapshot'))).toEqual([]);
    }
    expect(deaths).toBeGreaterThan(10);
    expect(firstIndexOf(cluster, 1)).toBeGreaterThan(500);
    expectSame(cluster);
  });

  it('lets no node of three fall out of step, whichever dies at whatever moment', async () => {
    const random = seededRandom(5);
    const cluster = await start();
    cluster.set(1, 'n', '0');
    await cluster.waitUntilIdle();
    let acknowledged = 0;
    for (let round = 0; round < 12; round++) {
      const victim = 1 + Math.floor(random() * 3);
      const writer = 1 + (victim % 3);
      const died = killAt(cluster, victim, 1 + Math.floor(random() * 120));
      for (let i = 0; i < 25; i++) {
        const request = cluster.incr(writer, 'n');
        await cluster.waitUntilIdle();
        if (request.outcomes.length > 0) acknowledged = Number(request.outcomes[0]);
      }
      if (!died()) cluster.kill(victim);
      cluster.node(victim).disk.crash(random);
      await write(cluster, writer, 20);
      await cluster.restart(victim);
      await cluster.run(2 * ELECTION_MS);
      expectSame(cluster);
      expect(Number(cluster.value(victim, 'n'))).toBeGreaterThanOrEqual(acknowledged);
    }
    expect(cluster.value(1, 'n')).toBe('300');
  });
});

describe('a snapshot that rots', () => {
  it('costs nothing where the log file still holds what it stood for', async () => {
    const cluster = await start();
    await write(cluster, 1, 60);
    cluster.kill(3);
    cluster.node(3).disk.flipBit(filesOf(cluster, 3)[0] ?? '', 8 * 1000);
    await cluster.restart(3);
    expect(cluster.replica(3).status()).toMatchObject({ lifecycle: 'normal', snapshotIndex: 0 });
    await cluster.run(ELECTION_MS);
    expectSame(cluster);
  });

  it('is moved aside at a start, and the node gets everything from the others', async () => {
    const cluster = await start();
    await write(cluster, 1, 100, 8000);
    cluster.kill(3);
    cluster.node(3).disk.flipBit(filesOf(cluster, 3)[0] ?? '', 8 * 1000);
    await cluster.restart(3);
    expect(cluster.replica(3).status().lifecycle).toBe('recovering');
    await cluster.run(2 * ELECTION_MS);
    expect(cluster.replica(3).status()).toMatchObject({ lifecycle: 'normal', voters: [1, 2, 3] });
    expectSame(cluster);
    const moved = cluster
      .node(3)
      .disk.paths()
      .filter((path) => path.startsWith('/data/node/damaged'));
    expect(moved.some((path) => path.endsWith('.snapshot'))).toBe(true);
  });
});

async function bytesOf({ info, read }: Backup): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for (let offset = 0; offset < info.byteLength; ) {
    const piece = await read(offset, 700);
    pieces.push(piece);
    offset += piece.length;
  }
  return Buffer.concat(pieces);
}

async function loaded(bytes: Buffer): Promise<StateMachine> {
  const disk = new MemoryDisk();
  disk.plant('/backup', bytes);
  const loader = new SnapshotLoader();
  await readSnapshotFile(disk, '/backup', (chunk) => loader.push(chunk));
  return loader.finish();
}

describe('a backup', () => {
  it('taken while writes go on holds all that was acknowledged before, and is the state at its index', async () => {
    const cluster = await start({ snapshotLimits: { ...OPTIONS.snapshotLimits, snapshotLogBytes: 1 << 20 } });
    await write(cluster, 1, 30);
    const acknowledged = cluster.replica(1).status().commitIndex;
    let backup: Backup | null = null;
    void cluster
      .replica(2)
      .backup()
      .then((taken) => {
        backup = taken;
      });
    for (let i = 0; backup === null && i < 50; i++) {
      cluster.set(3, `k${i % 23}`, `while-${i}`);
      cluster.clock.endTurns();
      cluster.network.deliver();
      await microtasks();
    }
    await write(cluster, 1, 10);
    const taken = backup as Backup | null;
    if (taken === null) throw new Error('no backup was taken');
    const { index } = taken.info;
    expect(index).toBeGreaterThanOrEqual(acknowledged);
    const { log } = cluster.replica(2).raft.core;
    expect(index).toBeLessThan(log.commitIndex - 10);
    const bytes = await bytesOf(taken);
    expect(bytes).toHaveLength(taken.info.byteLength);
    const state = await loaded(bytes);
    for (let at = index + 1; at <= log.commitIndex; at++) {
      const entry = log.cached(at);
      if (entry?.kind === 'data') state.apply(entry.bytes, ENTRY_HEADER_BYTES, null);
    }
    expect(state.hash()).toBe(hashOf(cluster, 2));
    taken.release();
  });

  it('stays readable while newer snapshots come, until it is released', async () => {
    const cluster = await start();
    await write(cluster, 1, 30);
    const taking = cluster.replica(2).backup();
    await cluster.waitUntilIdle();
    const backup = await taking;
    await write(cluster, 1, 80);
    expect(cluster.replica(2).status().snapshotIndex).toBeGreaterThan(backup.info.index);
    const reading = bytesOf(backup);
    await cluster.waitUntilIdle();
    await loaded(await reading);
    backup.release();
    await cluster.waitUntilIdle();
    expect(filesOf(cluster, 2)).not.toContain(backup.info.path);
  });

  it('that is released twice takes nothing from another of the same snapshot', async () => {
    const cluster = await start();
    await write(cluster, 1, 30);
    const taking = [cluster.replica(2).backup(), cluster.replica(2).backup()];
    await cluster.waitUntilIdle();
    const [first, second] = await Promise.all(taking);
    expect(second?.info).toEqual(first?.info);
    first?.release();
    first?.release();
    await write(cluster, 1, 80);
    expect(filesOf(cluster, 2)).toContain(second?.info.path);
    second?.release();
    await cluster.waitUntilIdle();
    expect(filesOf(cluster, 2)).toHaveLength(1);
  });

  it('is refused if it is unknown what has been acknowledged', async () => {
    const cluster = await start();
    cluster.isolate(2);
    await cluster.run(ELECTION_MS);
    const refused = cluster
      .replica(2)
      .backup()
      .catch((error: unknown) => error);
    await cluster.run(3000);
    expect(await refused).toMatchObject({ code: 'BACKUP_INVALID', message: expect.stringContaining('majority') });
  });
});
