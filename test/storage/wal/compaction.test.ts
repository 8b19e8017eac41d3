import { describe, expect, it } from 'vitest';
import { MemoryDisk } from '../../support/memory-disk.ts';
import { append, errorOf, type Opened, open, SMALL, someEntries, texts, waitUntilIdle } from './harness.ts';

const pathOf = (number: number) => `/node/wal/${String(number).padStart(16, '0')}.wal`;
const numbersOf = (disk: MemoryDisk) => disk.paths().map((path) => Number(path.slice(-20, -4)));
const bytesOf = (disk: MemoryDisk) => disk.paths().reduce((sum, path) => sum + disk.contentOf(path).length, 0);

/** A log of 200 entries over many segments, each entry its own block. */
async function longLog(disk = new MemoryDisk()): Promise<{ disk: MemoryDisk; opened: Opened; entries: Buffer[] }> {
  const opened = await open(disk);
  const entries = someEntries(200);
  await append(opened.wal, [], { hardState: Buffer.from('hard state') });
  for (const entry of entries) await append(opened.wal, [entry]);
  await waitUntilIdle();
  return { disk, opened, entries };
}

describe('truncating the prefix of a log', () => {
  it('removes the segments that hold nothing above the index, and no other', async () => {
    const { disk, opened, entries } = await longLog();
    const { wal } = opened;
    for (const index of [0, 1, 50, 51, 120, 199, 200, 200]) {
      const before = wal.firstIndex;
      await wal.compact(index);
      expect(wal.firstIndex).toBeGreaterThanOrEqual(before);
      expect(wal.firstIndex).toBeLessThanOrEqual(Math.max(1, Math.min(index + 1, 200)));
      expect(wal.byteLength).toBe(bytesOf(disk));
      expect(texts(await wal.read(wal.firstIndex, 200, 1e9))).toEqual(texts(entries.slice(wal.firstIndex - 1)));
      // The oldest segment that is left is left for a reason: the entry above the index is in it.
      const oldest = disk.contentOf(pathOf(numbersOf(disk)[0] ?? 0));
      expect(oldest.includes(entries[Math.min(index, 199)] ?? Buffer.alloc(1))).toBe(true);
    }
    expect(numbersOf(disk).length).toBeLessThan(4);
    await wal.close();
  });

  it('leaves a log that a start finds whole, with its hard state', async () => {
    for (const index of [30, 100, 200]) {
      const { disk, opened, entries } = await longLog();
      await opened.wal.compact(index);
      const { firstIndex } = opened.wal;
      await opened.wal.close();
      const begin = { index, term: 1 };
      const again = await open(disk, { begin, mustExist: true });
      expect(again.wal).toMatchObject({ firstIndex, lastIndex: 200 });
      expect(again.hardState?.toString()).toBe('hard state');
      expect(texts(again.entries)).toEqual(texts(entries.slice(firstIndex - 1)));
      await append(again.wal, someEntries(40, 2));
      await again.wal.compact(230);
      await again.wal.close();
      const third = await open(disk, { begin: { index: 230, term: 1 } });
      expect(third.wal.lastIndex).toBe(240);
      expect(third.hardState?.toString()).toBe('hard state');
      await third.wal.close();
    }
  });

  it('tells at the next start where more is gone than the snapshot stands for', async () => {
    const { disk, opened } = await longLog();
    await opened.wal.compact(100);
    const { firstIndex } = opened.wal;
    await opened.wal.close();
    const enough = await open(disk.clone(), { begin: { index: firstIndex - 1, term: 1 } });
    await enough.wal.close();
    const error = await errorOf(open(disk, { begin: { index: firstIndex - 2, term: 1 } }));
    expect(error).toMatchObject({ code: 'WAL_DAMAGED', message: expect.stringContaining(`entry ${firstIndex}`) });
  });

  it('waits for reads that run, and refuses those that come later', async () => {
    let held: (() => void)[] = [];
    let holding = false;
    const disk = new MemoryDisk({
      schedule(operation, complete) {
        if (holding && operation.kind === 'read') held.push(complete);
        else queueMicrotask(complete);
      },
    });
    const { opened, entries } = await longLog(disk);
    const { wal } = opened;
    holding = true;
    const reading = wal.read(1, 150, 1e9);
    await waitUntilIdle();
    const compacting = wal.compact(150);
    const { firstIndex } = wal;
    expect(firstIndex).toBeGreaterThan(100);
    expect((await errorOf(wal.read(firstIndex - 1, 150, 1e9))).code).toBe('INVARIANT_BROKEN');
    expect((await errorOf(wal.compact(150))).message).toContain('at the same time');
    await waitUntilIdle();
    expect(numbersOf(disk)[0]).toBe(1);
    while (held.length > 0) {
      const now = held;
      held = [];
      for (const complete of now) complete();
      await waitUntilIdle();
    }
    expect(texts(await reading)).toEqual(texts(entries.slice(0, 150)));
    await compacting;
    expect(numbersOf(disk)[0]).toBeGreaterThan(1);
    holding = false;
    await wal.close();
  });

  it('goes on while the log is written to, and is waited for by its end', async () => {
    const { disk, opened } = await longLog();
    const { wal } = opened;
    const compacting = wal.compact(180);
    const writing = append(wal, someEntries(60, 3));
    await wal.close();
    await Promise.all([compacting, writing]);
    const again = await open(disk, { begin: { index: 180, term: 1 } });
    expect(again.wal.lastIndex).toBe(260);
    await again.wal.close();
    expect((await errorOf(wal.compact(190))).code).toBe('WAL_CLOSED');
  });

  it('never rests on what is not durable: a truncation in flight keeps the entries that it replaces', async () => {
    let holding = false;
    const disk = new MemoryDisk({
      schedule(operation, complete) {
        if (!(holding && operation.kind === 'write' && operation.dataSync)) queueMicrotask(complete);
      },
    });
    const { opened, entries } = await longLog(disk);
    const { wal } = opened;
    holding = true;
    wal.append({ reset: null, hardState: null, firstIndex: 60, entries: [Buffer.from('new')], done() {} });
    await waitUntilIdle();
    await wal.compact(59);
    disk.crash(() => 0.99);
    holding = false;
    const again = await open(disk, { begin: { index: 59, term: 1 } });
    expect(again.wal.lastIndex).toBe(200);
    expect(texts(again.entries)).toEqual(texts(entries.slice(again.wal.firstIndex - 1)));
    await again.wal.close();
  });

  it('never rests on a log reset in flight either', async () => {
    let holding = false;
    const disk = new MemoryDisk({
      schedule(operation, complete) {
        if (!(holding && operation.dataSync && operation.position === 512)) queueMicrotask(complete);
      },
    });
    const { wal } = await open(disk);
    // Blocks of one sector each, until only the seal fits.
    for (let n = 1; n <= 30; n++) await append(wal, [Buffer.from([n])]);
    await waitUntilIdle();
    holding = true;
    const begin = { index: 200, term: 3 };
    wal.append({ reset: begin, hardState: null, firstIndex: 0, entries: [], done() {} });
    await waitUntilIdle();
    expect(numbersOf(disk)).toEqual([1, 2]);
    await wal.compact(200);
    disk.crash(() => 0.99);
    holding = false;
    const again = await open(disk, { begin });
    expect(again.wal).toMatchObject({ firstIndex: 1, lastIndex: 30 });
    await again.wal.close();
  });

  it('is final where it fails', async () => {
    const { disk, opened } = await longLog();
    disk.failOnce('EIO', ({ kind }) => kind === 'remove');
    expect((await errorOf(opened.wal.compact(150))).code).toBe('WAL_WRITE_FAILED');
    expect(opened.fatal).toHaveLength(1);
    await opened.wal.close();
  });

  it('is told how much to leave by the index behind which the records take so many bytes', async () => {
    const { opened, entries } = await longLog();
    const { wal } = opened;
    const recordBytes = (from: number) => entries.slice(from).reduce((sum, { length }) => sum + length + 20, 0);
    expect(wal.indexBehind(0)).toBe(200);
    expect(wal.indexBehind(recordBytes(150))).toBe(150);
    expect(wal.indexBehind(recordBytes(150) - 1)).toBe(151);
    expect(wal.indexBehind(1e9)).toBe(0);
    await wal.compact(100);
    expect(wal.indexBehind(1e9)).toBe(wal.firstIndex - 1);
    await wal.close();
  });
});

describe('a log that is reset', () => {
  it('forgets all that it held, at once, and goes on behind the index', async () => {
    const { disk, opened } = await longLog();
    const { wal } = opened;
    const fresh = someEntries(3, 9);
    const done = append(wal, fresh, { reset: { index: 1000, term: 7 }, hardState: Buffer.from('newer') });
    expect(wal).toMatchObject({ firstIndex: 1001, lastIndex: 1003 });
    expect((await errorOf(wal.read(1, 1, 100))).code).toBe('INVARIANT_BROKEN');
    await done;
    expect(texts(await wal.read(1001, 1003, 1e9))).toEqual(texts(fresh));
    await wal.compact(1000);
    expect(numbersOf(disk).length).toBeLessThan(3);
    await wal.close();
    const again = await open(disk, { begin: { index: 1000, term: 7 } });
    expect(again).toMatchObject({ reset: { index: 1000, term: 7 }, hardState: Buffer.from('newer') });
    expect(texts(again.entries)).toEqual(texts(fresh));
    await again.wal.close();
  });

  it('hands out nothing of what it held, also where writes from before are still on their way', async () => {
    let held: (() => void)[] = [];
    let holding = false;
    const disk = new MemoryDisk({
      schedule(operation, complete) {
        if (holding && operation.kind === 'write' && operation.dataSync) held.push(complete);
        else queueMicrotask(complete);
      },
    });
    const { wal } = await open(disk);
    await append(wal, someEntries(5));
    holding = true;
    void append(wal, someEntries(5, 2));
    await waitUntilIdle();
    // A block each, so that the log reset has to wait for several.
    for (let n = 0; n < 3; n++) void append(wal, [Buffer.alloc(3500, n)]);
    void append(wal, [], { reset: { index: 3, term: 2 } });
    expect(wal).toMatchObject({ firstIndex: 4, lastIndex: 3 });
    for (let write = 0; write < 5; write++) {
      expect((await errorOf(wal.read(4, 5, 1e9))).code).toBe('INVARIANT_BROKEN');
      const now = held;
      held = [];
      for (const complete of now) complete();
      await waitUntilIdle();
    }
    expect((await errorOf(wal.read(4, 4, 1e9))).code).toBe('INVARIANT_BROKEN');
    holding = false;
    await append(wal, [Buffer.from('four')]);
    expect(texts(await wal.read(4, 4, 1e9))).toEqual(['four']);
    await wal.close();
  });

  it('keeps its log reset as long as nothing else tells where it begins', async () => {
    const { disk, opened } = await longLog();
    const { wal } = opened;
    await append(wal, [], { reset: { index: 500, term: 2 } });
    // Hard states alone, until the log reset is segments behind.
    while (numbersOf(disk).length < 20) await append(wal, [], { hardState: Buffer.alloc(200, 1) });
    await wal.compact(500);
    await wal.close();
    const again = await open(disk, { begin: { index: 500, term: 2 } });
    expect(again).toMatchObject({ reset: { index: 500, term: 2 }, entries: [] });
    expect(again.wal).toMatchObject({ firstIndex: 501, lastIndex: 500 });
    await append(again.wal, [Buffer.from('a')]);
    await again.wal.compact(500);
    expect(numbersOf(disk).length).toBeLessThan(4);
    await again.wal.close();
    const third = await open(disk, { begin: { index: 500, term: 2 } });
    expect(third).toMatchObject({ reset: null, entries: [Buffer.from('a')], hardState: Buffer.alloc(200, 1) });
    await third.wal.close();
  });

  it('begins behind the snapshot where nothing was ever in it', async () => {
    const disk = new MemoryDisk();
    const begin = { index: 80, term: 4 };
    for (let n = 0; n < 3; n++) {
      const { wal } = await open(disk, { begin, mustExist: n > 0 });
      expect(wal).toMatchObject({ firstIndex: 81, lastIndex: 80 });
      await wal.close();
    }
    const { wal } = await open(disk, { begin });
    await append(wal, [Buffer.from('a')]);
    await wal.close();
    expect((await errorOf(open(disk, { begin: { index: 79, term: 4 } }))).code).toBe('WAL_DAMAGED');
  });

  it('ends before the snapshot where the process died between the two, and is then reset by its user', async () => {
    const { disk, opened } = await longLog();
    await opened.wal.close();
    const begin = { index: 300, term: 3 };
    const again = await open(disk, { begin });
    expect(again.wal).toMatchObject({ firstIndex: 1, lastIndex: 200 });
    await append(again.wal, [Buffer.from('a')], { reset: begin });
    await again.wal.close();
    const third = await open(disk, { begin });
    expect(third).toMatchObject({ reset: begin, entries: [Buffer.from('a')], hardState: Buffer.from('hard state') });
    await third.wal.close();
  });

  it('refuses entries that are not behind its log reset, and a log reset that makes no sense', async () => {
    const { wal } = await open(new MemoryDisk());
    const write = {
      reset: { index: 10, term: 1 },
      hardState: null,
      firstIndex: 11,
      entries: [Buffer.alloc(1)],
      done() {},
    };
    const broken = expect.objectContaining({ code: 'INVARIANT_BROKEN' });
    for (const firstIndex of [1, 10, 12]) expect(() => wal.append({ ...write, firstIndex })).toThrow(broken);
    expect(() => wal.append({ ...write, reset: { index: -1, term: 1 } })).toThrow(broken);
    wal.append(write);
    expect(() => wal.append({ ...write, reset: null, firstIndex: 10 })).toThrow(broken);
    await wal.close();
  });
});

describe('segments as short as they can be', () => {
  it('hold a log reset and a hard state in one block, whatever was in them before', async () => {
    const limits = {
      ...SMALL,
      walSegmentBytes: 3072,
      walEntryBytesMax: 1024,
      walFirstFillBytes: 1024,
      walFillStepBytes: 512,
    };
    const disk = new MemoryDisk();
    const { wal } = await open(disk, { limits });
    for (let n = 1; n <= 120; n++) {
      // In the same block, where there is room.
      void append(wal, [Buffer.alloc((n * 97) % 700, n)]);
      const index = wal.lastIndex + 10;
      const hardState = Buffer.alloc(256, n);
      await append(wal, someEntries(n % 4, n, 900), { reset: { index, term: n }, hardState });
    }
    await wal.close();
    const again = await open(disk, { limits, begin: { index: 1e6, term: 1 } });
    expect(again.hardState).toEqual(Buffer.alloc(256, 120));
    expect(again).toMatchObject({ reset: { term: 120 } });
    await again.wal.close();
  });
});
