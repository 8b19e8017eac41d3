import { describe, expect, it } from 'vitest';
import { systemClock } from '../../../src/base/clock.ts';
import { type DiskOperation, MemoryDisk } from '../../support/memory-disk.ts';
import { seededRandom } from '../../support/random.ts';
import { append, errorOf, open, SMALL, texts, waitUntilIdle } from './harness.ts';

/** Timers that go off when the test says so. */
function manualClock() {
  const timers = new Set<() => void>();
  const delays: number[] = [];
  const clock = {
    ...systemClock,
    after(delayMs: number, callback: () => void) {
      timers.add(callback);
      delays.push(delayMs);
      return () => timers.delete(callback);
    },
  };
  const ring = async () => {
    for (const callback of [...timers]) {
      timers.delete(callback);
      callback();
    }
    for (let n = 0; n < 40; n++) await waitUntilIdle();
  };
  return { clock, timers, delays, ring };
}

/** Bodies that differ, so that one written twice or lost is seen. */
const bodyOf = (n: number) => Buffer.concat([Buffer.from(`entry ${n} `), Buffer.alloc(400, n)]);

const usedBytes = (disk: MemoryDisk) => disk.paths().reduce((sum, path) => sum + disk.contentOf(path).length, 0);

describe('a full disk', () => {
  it('takes what room is ready, then waits, and goes on with all that waited once there is room', async () => {
    const disk = new MemoryDisk();
    const { clock, ring, delays } = manualClock();
    const opened = await open(disk, { clock });
    const { wal } = opened;
    await append(wal, [bodyOf(1)]);
    await waitUntilIdle();
    disk.capacityBytes = usedBytes(disk);
    const done: number[] = [];
    for (let n = 2; n <= 100; n++) {
      wal.append({ reset: null, hardState: null, firstIndex: n, entries: [bodyOf(n)], done: () => done.push(n) });
      await waitUntilIdle();
    }
    expect(opened.full).toEqual([true]);
    expect(wal.full).toBe(true);
    expect(delays).toEqual([500]);
    const ready = done.length;
    expect(ready).toBeGreaterThan(5);
    expect(ready).toBeLessThan(60);
    for (let n = 0; n < 3; n++) await ring();
    expect(done).toHaveLength(ready);
    expect(disk.paths().filter((path) => path.endsWith('.tmp'))).toEqual([]);

    // A little more: it is used, and the disk is still full.
    disk.capacityBytes += 6 * 1024;
    await ring();
    expect(done.length).toBeGreaterThan(ready);
    expect(opened.full).toEqual([true]);

    disk.capacityBytes = Number.POSITIVE_INFINITY;
    await ring();
    expect(done).toEqual(Array.from({ length: 99 }, (_, n) => n + 2));
    expect(opened.full).toEqual([true, false]);
    expect(opened.fatal).toEqual([]);
    expect(texts(await wal.read(1, 100, 1e9))).toEqual(texts(Array.from({ length: 100 }, (_, n) => bodyOf(n + 1))));
    await wal.close();
    const again = await open(disk);
    expect(texts(again.entries)).toEqual(texts(Array.from({ length: 100 }, (_, n) => bodyOf(n + 1))));
    await again.wal.close();
  });

  it('has room again when old segments are removed', async () => {
    const disk = new MemoryDisk();
    const { clock, ring } = manualClock();
    const opened = await open(disk, { clock });
    const { wal } = opened;
    for (let n = 1; n <= 120; n++) await append(wal, [bodyOf(n)]);
    await waitUntilIdle();
    disk.capacityBytes = usedBytes(disk);
    const done: number[] = [];
    for (let n = 121; n <= 200; n++) {
      wal.append({ reset: null, hardState: null, firstIndex: n, entries: [bodyOf(n)], done: () => done.push(n) });
      await waitUntilIdle();
    }
    expect(wal.full).toBe(true);
    await wal.compact(120);
    await ring();
    expect(done).toHaveLength(80);
    expect(opened.full).toEqual([true, false]);
    await wal.close();
  });

  it('is waited for by whichever operation finds it full, and nothing is lost or written twice', async () => {
    const kinds: [string, (operation: DiskOperation) => boolean][] = [
      ['zeros', ({ kind, dataSync }) => kind === 'write' && !dataSync],
      ['a sync', ({ kind }) => kind === 'sync'],
      ['a new file', ({ kind, path }) => kind === 'open' && path.endsWith('.tmp')],
      ['a new name', ({ kind }) => kind === 'rename'],
      ['the folder', ({ kind }) => kind === 'syncDirectory'],
    ];
    for (const [name, matches] of kinds) {
      for (let seed = 1; seed <= 12; seed++) {
        const random = seededRandom(seed);
        const disk = new MemoryDisk();
        const { clock, ring } = manualClock();
        const opened = await open(disk, { clock });
        const { wal } = opened;
        let failures = 0;
        disk.fault = (operation) => {
          // The first of its kind always fails, so that every seed has a failure.
          if (!matches(operation) || (failures > 0 && random() < 0.5)) return null;
          failures++;
          return 'ENOSPC';
        };
        const done: number[] = [];
        for (let n = 1; n <= 150; n++) {
          wal.append({ reset: null, hardState: null, firstIndex: n, entries: [bodyOf(n)], done: () => done.push(n) });
          if (random() < 0.6) await waitUntilIdle();
          if (random() < 0.1) await ring();
        }
        for (let n = 0; n < 60 && done.length < 150; n++) await ring();
        expect(failures, name).toBeGreaterThan(0);
        expect(opened.fatal, name).toEqual([]);
        expect(done, name).toEqual(Array.from({ length: 150 }, (_, n) => n + 1));
        if (random() < 0.5) disk.crash(random);
        else await wal.close();
        disk.fault = () => null;
        const again = await open(disk, { mustExist: true });
        expect(texts(again.entries)).toEqual(texts(Array.from({ length: 150 }, (_, n) => bodyOf(n + 1))));
        await again.wal.close();
      }
    }
  });

  it('does not keep the log from closing; what waited was not acknowledged', async () => {
    for (const closeFirst of [true, false]) {
      const disk = new MemoryDisk();
      const { clock, timers } = manualClock();
      const { wal } = await open(disk, { clock });
      await append(wal, [bodyOf(1)]);
      await waitUntilIdle();
      disk.capacityBytes = usedBytes(disk);
      const done: number[] = [];
      const write = (n: number) =>
        wal.append({ reset: null, hardState: null, firstIndex: n, entries: [bodyOf(n)], done: () => done.push(n) });
      for (let n = 2; n <= 100; n++) {
        write(n);
        if (!closeFirst) await waitUntilIdle();
      }
      if (!closeFirst) expect(wal.full).toBe(true);
      await wal.close();
      expect(timers.size).toBe(0);
      expect(done.length).toBeLessThan(99);
      const again = await open(disk);
      expect(again.entries.length).toBeGreaterThanOrEqual(done.length + 1);
      await again.wal.close();
    }
  });

  it('does not keep the node from starting, unless there is no log yet', async () => {
    const disk = new MemoryDisk();
    const first = await open(disk);
    for (let n = 1; n <= 40; n++) await append(first.wal, [bodyOf(n)]);
    await first.wal.close();
    disk.capacityBytes = 0;
    const { clock, ring } = manualClock();
    const opened = await open(disk, { clock, mustExist: true });
    expect(opened.entries).toHaveLength(40);
    for (let n = 0; n < 20; n++) await waitUntilIdle();
    const before = opened.full.length;
    let done = 0;
    for (let n = 41; n <= 120; n++) {
      opened.wal.append({ reset: null, hardState: null, firstIndex: n, entries: [bodyOf(n)], done: () => done++ });
      await waitUntilIdle();
    }
    expect(before).toBeLessThanOrEqual(1);
    expect(opened.wal.full).toBe(true);
    disk.capacityBytes = Number.POSITIVE_INFINITY;
    await ring();
    expect(done).toBe(80);
    await opened.wal.close();

    const empty = new MemoryDisk();
    empty.capacityBytes = 0;
    expect((await errorOf(open(empty))) as unknown).toMatchObject({ code: 'ENOSPC' });
    empty.capacityBytes = Number.POSITIVE_INFINITY;
    await (await open(empty)).wal.close();
  });

  it('is no excuse for a log write: that had its room', async () => {
    const disk = new MemoryDisk();
    const { wal, fatal } = await open(disk, { limits: SMALL });
    await append(wal, [bodyOf(1)]);
    disk.failOnce('ENOSPC', ({ kind, dataSync }) => kind === 'write' && dataSync);
    wal.append({ reset: null, hardState: null, firstIndex: 2, entries: [bodyOf(2)], done() {} });
    await waitUntilIdle();
    expect(fatal).toHaveLength(1);
    expect(fatal[0]).toMatchObject({ code: 'WAL_WRITE_FAILED', remedy: expect.stringContaining('Free space') });
    await wal.close();
  });
});
