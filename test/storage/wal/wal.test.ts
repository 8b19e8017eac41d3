import { describe, expect, it } from 'vitest';
import { type DiskOperation, MemoryDisk } from '../../support/memory-disk.ts';
import { seededRandom } from '../../support/random.ts';
import { append, errorOf, open, SMALL, someEntries, texts, waitUntilIdle } from './harness.ts';

/** A disk whose log writes wait until the test lets them go. */
function heldDisk() {
  const held: (() => void)[] = [];
  const writes: DiskOperation[] = [];
  const gate = { holding: false };
  const disk = new MemoryDisk({
    schedule(operation, complete) {
      if (operation.kind !== 'write' || !operation.dataSync) return queueMicrotask(complete);
      writes.push(operation);
      if (gate.holding) held.push(complete);
      else queueMicrotask(complete);
    },
  });
  return { disk, writes, gate, release: () => held.shift()?.() };
}

describe('the log', () => {
  it('returns after a restart what was appended, in order, and goes on from there', async () => {
    const disk = new MemoryDisk();
    const entries = someEntries(20);
    const first = await open(disk);
    await append(first.wal, entries.slice(0, 15));
    await append(first.wal, entries.slice(15));
    await first.wal.close();

    const second = await open(disk, { mustExist: true });
    expect(texts(second.entries)).toEqual(texts(entries));
    expect(second.wal).toMatchObject({ firstIndex: 1, lastIndex: 20 });
    expect(second.report.tornBytes).toBe(0);
    await append(second.wal, someEntries(5, 2));
    await second.wal.close();

    const third = await open(disk);
    expect(texts(third.entries)).toEqual(texts([...entries, ...someEntries(5, 2)]));
    await third.wal.close();
  });

  it('is empty when it is new', async () => {
    const { wal, entries, hardState, report } = await open(new MemoryDisk());
    expect(wal).toMatchObject({ firstIndex: 1, lastIndex: 0 });
    expect({ entries, hardState, blocks: report.blocks }).toEqual({ entries: [], hardState: null, blocks: 0 });
    await wal.close();
  });

  it('starts a write as soon as the callback is over that asks for it, and sends all that waits meanwhile as one block', async () => {
    const { disk, writes, gate, release } = heldDisk();
    const { wal } = await open(disk);
    gate.holding = true;
    const order: number[] = [];
    const appendOne = (n: number) =>
      wal.append({
        reset: null,
        hardState: null,
        firstIndex: n,
        entries: [Buffer.from([n])],
        done: () => order.push(n),
      });
    appendOne(1);
    appendOne(2);
    expect(writes).toHaveLength(0);
    await waitUntilIdle();
    expect(writes).toHaveLength(1);
    for (let n = 3; n <= 9; n++) appendOne(n);
    await waitUntilIdle();
    expect(writes).toHaveLength(1);
    expect(order).toEqual([]);
    release();
    await waitUntilIdle();
    expect(writes).toHaveLength(2);
    expect(order).toEqual([1, 2]);
    release();
    await waitUntilIdle();
    expect(order).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(writes).toHaveLength(2);
    await wal.close();
  });

  it('splits what waits into blocks of bounded size, and sends a larger entry alone', async () => {
    const { disk, writes, gate, release } = heldDisk();
    const { wal } = await open(disk, {
      limits: { walSegmentBytes: 64 * 1024, walBlockBytesMax: 4096, walEntryBytesMax: 32 * 1024 },
    });
    gate.holding = true;
    const entries = [Buffer.alloc(1), ...Array.from({ length: 5 }, () => Buffer.alloc(1500, 1)), Buffer.alloc(9000, 2)];
    let done = false;
    wal.append({ reset: null, hardState: null, firstIndex: 1, entries: entries.slice(0, 1), done: () => {} });
    await waitUntilIdle();
    wal.append({ reset: null, hardState: null, firstIndex: 2, entries: entries.slice(1), done: () => (done = true) });
    for (let n = 0; n < 5; n++) {
      expect(done).toBe(false);
      release();
      await waitUntilIdle();
    }
    expect(done).toBe(true);
    expect(writes.map(({ length }) => length)).toEqual([512, 3584, 3584, 2048, 9216]);
    gate.holding = false;
    await wal.close();
    const again = await open(disk, { limits: { walSegmentBytes: 64 * 1024, walEntryBytesMax: 32 * 1024 } });
    expect(texts(again.entries)).toEqual(texts(entries));
    await again.wal.close();
  });

  it('truncates itself where an entry comes again at a lower index', async () => {
    const disk = new MemoryDisk();
    const { wal } = await open(disk);
    const old = someEntries(10);
    const fresh = someEntries(2, 2);
    await append(wal, old);
    await append(wal, fresh, { firstIndex: 4 });
    expect(wal.lastIndex).toBe(5);
    expect(texts(await wal.read(1, 5, 1e6))).toEqual(texts([...old.slice(0, 3), ...fresh]));
    expect((await errorOf(wal.read(1, 6, 1e6))).code).toBe('INVARIANT_BROKEN');
    await wal.close();
    const again = await open(disk);
    expect(texts(again.entries)).toEqual(texts([...old.slice(0, 3), ...fresh]));
    await again.wal.close();
  });

  it('hands out nothing of what replaces an entry before that is durable', async () => {
    const { disk, gate, release } = heldDisk();
    const { wal } = await open(disk);
    await append(wal, someEntries(3));
    gate.holding = true;
    wal.append({ reset: null, hardState: null, firstIndex: 2, entries: [Buffer.from('new')], done() {} });
    expect((await errorOf(wal.read(2, 2, 100))).code).toBe('INVARIANT_BROKEN');
    expect(texts(await wal.read(1, 1, 1e6))).toEqual(texts(someEntries(1)));
    await waitUntilIdle();
    release();
    await waitUntilIdle();
    expect(texts(await wal.read(2, 2, 100))).toEqual(texts([Buffer.from('new')]));
    gate.holding = false;
    await wal.close();
  });

  it('keeps the newest hard state, and repeats it in every segment', async () => {
    const disk = new MemoryDisk();
    const { wal } = await open(disk);
    await append(wal, [], { hardState: Buffer.from('old') });
    await append(wal, someEntries(1), { hardState: Buffer.from('new') });
    while (!disk.paths().includes('/node/wal/0000000000000004.wal')) await append(wal, someEntries(10));
    await wal.close();
    const again = await open(disk);
    expect(again.hardState).toEqual(Buffer.from('new'));
    for (const number of [1, 2, 3]) {
      const content = disk.contentOf(`/node/wal/${String(number).padStart(16, '0')}.wal`);
      expect(content.indexOf('new'), `segment ${number}`).toBeGreaterThan(0);
    }
    await again.wal.close();
  });

  it('rolls over from segment to segment and reads all of them back', async () => {
    const disk = new MemoryDisk();
    const { wal } = await open(disk);
    const entries = someEntries(300);
    for (const [place, entry] of entries.entries()) await append(wal, [entry], { firstIndex: place + 1 });
    await waitUntilIdle();
    const segments = disk.paths().filter((path) => path.endsWith('.wal'));
    expect(segments.length).toBeGreaterThan(8);
    expect(wal.byteLength).toBe(segments.reduce((sum, path) => sum + disk.contentOf(path).length, 0));
    expect(texts(await wal.read(1, 300, 1e9))).toEqual(texts(entries));
    await wal.close();
    const again = await open(disk);
    expect(texts(again.entries)).toEqual(texts(entries));
    expect(texts(await again.wal.read(7, 250, 1e9))).toEqual(texts(entries.slice(6, 250)));
    await again.wal.close();
  });

  it('reads at least one entry and then no more than asked for', async () => {
    const { wal } = await open(new MemoryDisk());
    await append(
      wal,
      Array.from({ length: 10 }, (_, n) => Buffer.alloc(100, n)),
    );
    expect(texts(await wal.read(3, 10, 1))).toEqual(texts([Buffer.alloc(100, 2)]));
    expect(await wal.read(3, 10, 399)).toHaveLength(3);
    expect(await wal.read(3, 10, 400)).toHaveLength(4);
    expect(await wal.read(3, 4, 1e6)).toHaveLength(2);
    await wal.close();
  });

  it('refuses to hand out an entry that has rotted since', async () => {
    const disk = new MemoryDisk();
    const { wal } = await open(disk);
    await append(wal, [Buffer.from('precious')]);
    disk.flipBit(
      '/node/wal/0000000000000001.wal',
      disk.contentOf('/node/wal/0000000000000001.wal').indexOf('precious') * 8,
    );
    expect((await errorOf(wal.read(1, 1, 100))).code).toBe('WAL_DAMAGED');
    await wal.close();
  });

  it('lets what is queued become durable before it closes, and takes nothing after', async () => {
    const disk = new MemoryDisk();
    const { wal } = await open(disk);
    const done: number[] = [];
    for (let n = 1; n <= 50; n++) {
      wal.append({
        reset: null,
        hardState: null,
        firstIndex: n,
        entries: [Buffer.alloc(2000, n)],
        done: () => done.push(n),
      });
    }
    await wal.close();
    expect(done).toHaveLength(50);
    expect(() =>
      wal.append({ reset: null, hardState: null, firstIndex: 51, entries: [Buffer.alloc(1)], done() {} }),
    ).toThrow(expect.objectContaining({ code: 'WAL_CLOSED' }));
  });

  it('refuses writes that make no sense', async () => {
    const { wal } = await open(new MemoryDisk());
    const write = { reset: null, hardState: null, firstIndex: 1, entries: [Buffer.from('a')], done() {} };
    const broken = expect.objectContaining({ code: 'INVARIANT_BROKEN' });
    expect(() => wal.append({ ...write, firstIndex: 2 })).toThrow(broken);
    expect(() => wal.append({ ...write, firstIndex: 0 })).toThrow(broken);
    expect(() => wal.append({ ...write, entries: [] })).toThrow(broken);
    expect(() => wal.append({ ...write, entries: [Buffer.alloc(8 * 1024 + 1)] })).toThrow(broken);
    expect(wal.lastIndex).toBe(0);
    await wal.close();
  });

  it('takes an entry larger than all the room that is kept ahead, also where it must wait for a new segment', async () => {
    const disk = new MemoryDisk();
    const limits = { ...SMALL, walFirstFillBytes: 1024, walFillAheadBytes: 512, walFillStepBytes: 512 };
    const { wal } = await open(disk, { limits });
    const entries = Array.from({ length: 12 }, (_, n) => Buffer.alloc(n % 3 === 0 ? 100 : 8 * 1024, n + 1));
    for (const entry of entries) await append(wal, [entry]);
    await wal.close();
    const again = await open(disk, { limits });
    expect(texts(again.entries)).toEqual(texts(entries));
    await again.wal.close();
  });
});

describe('a failed disk', () => {
  const cases: [string, string, (operation: DiskOperation) => boolean][] = [
    ['log write', 'EIO', ({ kind, dataSync }) => kind === 'write' && dataSync],
    ['fill', 'EIO', ({ kind, dataSync }) => kind === 'write' && !dataSync],
    ['sync of a fill', 'EIO', ({ kind }) => kind === 'sync'],
    ['rename of a new segment', 'EACCES', ({ kind }) => kind === 'rename'],
    ['sync of the folder', 'EIO', ({ kind }) => kind === 'syncDirectory'],
    ['log write on a full disk', 'ENOSPC', ({ kind, dataSync }) => kind === 'write' && dataSync],
  ];
  for (const [name, code, matches] of cases) {
    it(`is final: after a failed ${name} nothing is done or accepted`, async () => {
      const disk = new MemoryDisk();
      const { wal, fatal } = await open(disk);
      await append(wal, someEntries(3));
      await waitUntilIdle();
      disk.failOnce(code, matches);
      let calls = 0;
      let callsAtFailure = -1;
      for (let n = 4; n < 2000 && fatal.length === 0; n++) {
        wal.append({
          reset: null,
          hardState: null,
          firstIndex: n,
          entries: [Buffer.alloc(300, n)],
          done: () => calls++,
        });
        if (n % 7 === 0) await waitUntilIdle();
      }
      callsAtFailure = calls;
      await waitUntilIdle();
      expect(calls).toBe(callsAtFailure);
      expect(fatal).toHaveLength(1);
      expect(fatal[0]).toMatchObject({ code: 'WAL_WRITE_FAILED', message: expect.stringContaining(code) });
      expect(fatal[0]?.remedy).not.toBe('');
      expect(() =>
        wal.append({ reset: null, hardState: null, firstIndex: 1, entries: [Buffer.alloc(1)], done() {} }),
      ).toThrow(expect.objectContaining({ code: 'WAL_WRITE_FAILED' }));
      await wal.close();
      expect(calls).toBe(callsAtFailure);
    });
  }

  it('does not make a failed write durable by reading it from the cache at the next start', async () => {
    const disk = new MemoryDisk();
    const first = await open(disk);
    await append(first.wal, [Buffer.from('kept')]);
    disk.failOnce('EIO', ({ kind, dataSync }) => kind === 'write' && dataSync);
    first.wal.append({ reset: null, hardState: null, firstIndex: 2, entries: [Buffer.from('failed')], done() {} });
    await waitUntilIdle();
    expect(first.fatal).toHaveLength(1);
    disk.kill(seededRandom(1));

    // The cache still shows the entry. Whatever a start reports must survive the power loss that follows.
    const second = await open(disk);
    expect(texts(second.entries)).toEqual(texts([Buffer.from('kept'), Buffer.from('failed')]));
    disk.crash(() => 0.99);
    const third = await open(disk);
    expect(texts(third.entries)).toEqual(texts(second.entries));
    await third.wal.close();
  });
});
