import { describe, expect, it } from 'vitest';
import type { Snapshots } from '../../../src/storage/snapshots/types.ts';
import { MemoryDisk } from '../../support/memory-disk.ts';
import { seededRandom } from '../../support/random.ts';
import { texts, waitUntilIdle } from '../wal/harness.ts';
import { ASIDE, chunksOf, DIRECTORY, newestGood, openFolder, transfer, writeSnapshot } from './harness.ts';

/**
 * Power fails, or the process ends, after every single operation of the disk. What is asked of the next start: the newest
 * good snapshot is the old one or the new one, the new one for certain where `finish` had returned, and no file was found
 * damaged: what a crash tears never has a name of its own.
 */
const OLD = 10;
const NEW = 20;
/** Several sectors each: so that what was not synced is torn and not just missing. */
const chunks = (index: number) => chunksOf(index, 5, 1800);
const runs = (complete: () => void) => queueMicrotask(complete);

async function folderWithOld(): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  await writeSnapshot(await openFolder(disk), OLD, { chunks: chunks(OLD) });
  return disk;
}

const leader = async (): Promise<Snapshots> => {
  const snapshots = await openFolder(new MemoryDisk());
  await writeSnapshot(snapshots, NEW, { chunks: chunks(NEW) });
  return snapshots;
};

/** Runs `work` again and again, each time with the disk hanging one operation later, until it ends by itself. */
async function atEveryOperation(
  start: MemoryDisk,
  work: (disk: MemoryDisk) => Promise<unknown>,
  check: (disk: MemoryDisk, ended: boolean, where: string) => Promise<void>,
): Promise<number> {
  for (let stopAfter = 0; ; stopAfter++) {
    let endedByItself = false;
    for (let seed = 1; seed <= 12; seed++) {
      const random = seededRandom(stopAfter * 1000 + seed);
      const disk = start.clone();
      let operations = 0;
      disk.schedule = (_, complete) => {
        if (operations++ < stopAfter) runs(complete);
      };
      let ended = false;
      void work(disk).then(() => {
        ended = true;
      });
      await waitUntilIdle();
      endedByItself = ended;
      // Everything that was not synced is lost, or any part of it, or none: the process alone has ended.
      if (seed === 1) disk.crash(() => 0.99);
      else if (seed === 2) disk.kill(random);
      else disk.crash(random);
      disk.schedule = (_, complete) => runs(complete);
      await check(disk, ended, `after ${stopAfter} operations, seed ${seed}`);
    }
    if (endedByItself) return stopAfter;
  }
}

/** The folder opens, and is as good as before; the next snapshot leaves nothing else behind. */
async function expectOneOf(disk: MemoryDisk, indexes: readonly (number | null)[], where: string): Promise<void> {
  const snapshots = await openFolder(disk);
  const found = await newestGood(snapshots);
  expect(indexes, where).toContain(found?.index ?? null);
  if (found !== null) expect(texts(found.chunks), where).toEqual(texts(chunks(found.index)));
  expect(
    disk.paths().filter((path) => path.startsWith(ASIDE)),
    where,
  ).toEqual([]);
  await writeSnapshot(snapshots, 99);
  expect(disk.paths(), where).toEqual([`${DIRECTORY}/0000000000000099-3.snapshot`]);
}

describe('a crash after any operation of the disk', () => {
  it('leaves none or the whole of a first snapshot', async () => {
    const start = new MemoryDisk();
    const operations = await atEveryOperation(
      start,
      async (disk) => writeSnapshot(await openFolder(disk), NEW, { chunks: chunks(NEW) }),
      (disk, ended, where) => expectOneOf(disk, ended ? [NEW] : [null, NEW], where),
    );
    expect(operations).toBeGreaterThan(6);
  });

  it('leaves the old or the new one where one takes the place of another', async () => {
    const operations = await atEveryOperation(
      await folderWithOld(),
      async (disk) => writeSnapshot(await openFolder(disk), NEW, { chunks: chunks(NEW) }),
      (disk, ended, where) => expectOneOf(disk, ended ? [NEW] : [OLD, NEW], where),
    );
    expect(operations).toBeGreaterThan(10);
  });

  it('leaves the old or the new one where the new one comes from a leader', async () => {
    const from = await leader();
    await atEveryOperation(
      await folderWithOld(),
      async (disk) => transfer(from, await openFolder(disk), NEW, 3, 1500),
      (disk, ended, where) => expectOneOf(disk, ended ? [NEW] : [OLD, NEW], where),
    );
  });

  it('leaves the old or the new one also where a transfer held the old one and lets it go', async () => {
    await atEveryOperation(
      await folderWithOld(),
      async (disk) => {
        const snapshots = await openFolder(disk);
        snapshots.hold(OLD, 3);
        await writeSnapshot(snapshots, NEW, { chunks: chunks(NEW) });
        snapshots.release(OLD, 3);
        await snapshots.close();
      },
      (disk, ended, where) => expectOneOf(disk, ended ? [NEW] : [OLD, NEW], where),
    );
  });

  it('leaves the older good one where a damaged one is moved aside', async () => {
    const start = await folderWithOld();
    const older = start.contentOf(`${DIRECTORY}/0000000000000010-3.snapshot`);
    await writeSnapshot(await openFolder(start), NEW, { chunks: chunks(NEW) });
    start.plant(`${DIRECTORY}/0000000000000010-3.snapshot`, older);
    start.flipBit(`${DIRECTORY}/0000000000000020-3.snapshot`, 9000);
    await atEveryOperation(
      start,
      async (disk) => newestGood(await openFolder(disk)),
      async (disk, _, where) => {
        const found = await newestGood(await openFolder(disk));
        expect(found?.index, where).toBe(OLD);
        expect(texts(found?.chunks ?? []), where).toEqual(texts(chunks(OLD)));
      },
    );
  });

  it('leaves one between the last that was done and the last begun, over many incarnations', async () => {
    for (let seed = 1; seed <= 60; seed++) {
      const random = seededRandom(seed);
      const disk = new MemoryDisk();
      let operations = 0;
      let stopAt = Number.POSITIVE_INFINITY;
      disk.schedule = (_, complete) => {
        if (++operations >= stopAt) return;
        if (random() < 0.5) queueMicrotask(complete);
        else setImmediate(complete);
      };
      let begun = 0;
      let done = 0;
      const from = await openFolder(new MemoryDisk());
      const live = async () => {
        const snapshots = await openFolder(disk);
        for (;;) {
          const index = begun + 1;
          await writeSnapshot(from, index, { chunks: chunks(index) });
          begun = index;
          if (random() < 0.4) await transfer(from, snapshots, index, 3, 2000);
          else await writeSnapshot(snapshots, index, { chunks: chunks(index) });
          done = index;
        }
      };
      for (let incarnation = 0; incarnation < 4; incarnation++) {
        stopAt = operations + 1 + Math.floor(random() * 80);
        void live();
        while (operations < stopAt) await waitUntilIdle();
        await waitUntilIdle();
        if (random() < 0.8) disk.crash(random);
        else disk.kill(random);
        stopAt = Number.POSITIVE_INFINITY;
        const found = await newestGood(await openFolder(disk));
        const where = `seed ${seed}, incarnation ${incarnation}`;
        expect(found?.index ?? 0, where).toBeGreaterThanOrEqual(done);
        expect(found?.index ?? 0, where).toBeLessThanOrEqual(begun);
        if (found !== null) expect(texts(found.chunks), where).toEqual(texts(chunks(found.index)));
        expect(
          disk.paths().filter((path) => path.startsWith(ASIDE)),
          where,
        ).toEqual([]);
        done = found?.index ?? 0;
      }
    }
  });
});
