import { describe, expect, it } from 'vitest';
import type { RaftkvError } from '../../src/base/errors.ts';
import { configurationOf } from '../../src/raft/state/configuration.ts';
import { type MetaOptions, openMeta } from '../../src/storage/meta.ts';
import { MemoryDisk } from '../support/memory-disk.ts';
import { seededRandom } from '../support/random.ts';
import { append, errorOf, open, waitUntilIdle } from './wal/harness.ts';

const DIRECTORY = '/node';
const FILE = '/node/meta';
const ASIDE = '/node/damaged-1';
const openNode = (disk: MemoryDisk, options: Partial<MetaOptions> = {}) =>
  openMeta({ disk, directory: DIRECTORY, clusterName: 'demo', nodeId: 1, newDirectoryId: () => 42, ...options });
/** Moves what is damaged to `ASIDE`; `errors` has what was said of it. */
const healing = () => {
  const errors: RaftkvError[] = [];
  const onDamage = async (error: RaftkvError) => {
    errors.push(error);
    return ASIDE;
  };
  return { errors, onDamage };
};
/** A directory as a node leaves it that has been a member for a while. */
async function usedNode(): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  const meta = await openNode(disk);
  await meta.persist({ logCreated: true, lifecycle: 'normal' });
  const { wal } = await open(disk);
  await append(wal, [Buffer.from('a')]);
  await wal.close();
  disk.plant('/node/snapshots/0000000000000001-1.snapshot', Buffer.from('a snapshot'));
  return disk;
}

describe('meta', () => {
  it('counts no start below what it is told to, so that an old disk passes those that it has missed', async () => {
    const disk = new MemoryDisk();
    expect((await openNode(disk, { incarnationMin: 100 })).incarnation).toBe(100);
    expect((await openNode(disk, { incarnationMin: 100 })).incarnation).toBe(101);
    expect((await openNode(disk, { incarnationMin: 5000 })).incarnation).toBe(5000);
    expect((await openNode(disk, { incarnationMin: 4000 })).incarnation).toBe(5001);
  });

  it('draws the directory id once, when the directory is made', async () => {
    const disk = new MemoryDisk();
    expect((await openNode(disk, { newDirectoryId: () => 7 })).directoryId).toBe(7);
    expect((await openNode(disk, { newDirectoryId: () => 8 })).directoryId).toBe(7);
  });

  it('remembers which history the directory belongs to, and how that began', async () => {
    const disk = new MemoryDisk();
    const meta = await openNode(disk);
    expect([meta.lifecycle, meta.clusterId, meta.first, meta.onlyVoter]).toEqual(['uninitialized', '', null, null]);
    const first = configurationOf([1, 2, 5], [], '0123456789abcdef0123456789abcdef');
    await meta.persist({ lifecycle: 'normal', clusterId: first.clusterId, first });
    await meta.persist({ onlyVoter: false });
    const next = await openNode(disk);
    expect([next.lifecycle, next.directoryId, next.clusterId]).toEqual(['normal', 42, first.clusterId]);
    expect([next.first, next.onlyVoter]).toEqual([first, false]);
  });

  it('continues from a number that it was raised to, and never goes back', async () => {
    const disk = new MemoryDisk();
    const meta = await openNode(disk, { incarnationMin: 10 });
    await meta.raiseIncarnation(50);
    await meta.raiseIncarnation(7);
    expect((await openNode(disk)).incarnation).toBe(51);
  });

  it('counts the starts of a node, from 1', async () => {
    const disk = new MemoryDisk();
    for (let start = 1; start <= 4; start++) expect((await openNode(disk)).incarnation).toBe(start);
  });

  it('never gives an incarnation twice, whenever power fails', async () => {
    for (let seed = 1; seed <= 200; seed++) {
      const random = seededRandom(seed);
      let operations = 0;
      let stopAt = 0;
      const disk = new MemoryDisk({
        schedule: (_, complete) => {
          if (++operations < stopAt) queueMicrotask(complete);
        },
      });
      let highest = 0;
      for (let incarnation = 0; incarnation < 8; incarnation++) {
        stopAt = operations + 1 + Math.floor(random() * 20);
        let handedOut = 0;
        openNode(disk).then((meta) => {
          handedOut = meta.incarnation;
        });
        await waitUntilIdle();
        if (handedOut > 0) {
          expect(handedOut, `seed ${seed}, incarnation ${incarnation}`).toBeGreaterThan(highest);
          highest = handedOut;
        }
        if (random() < 0.7) disk.crash(random);
        else disk.kill(random);
      }
      stopAt = Number.POSITIVE_INFINITY;
      expect((await openNode(disk)).incarnation, `seed ${seed}, last`).toBeGreaterThan(highest);
    }
  });

  it('hands out no incarnation that the disk refused', async () => {
    for (const kind of ['write', 'sync', 'rename', 'syncDirectory'] as const) {
      const disk = new MemoryDisk();
      await openNode(disk);
      disk.failOnce('EIO', (operation) => operation.kind === kind);
      await expect(openNode(disk), kind).rejects.toMatchObject({ code: 'EIO' });
    }
  });

  it('remembers that there has been a log', async () => {
    const disk = new MemoryDisk();
    const first = await openNode(disk);
    expect(first.logCreated).toBe(false);
    await first.persist({ logCreated: true });
    disk.crash(() => 0.99);
    const second = await openNode(disk);
    expect(second).toMatchObject({ logCreated: true, incarnation: 2 });
    expect((await openNode(disk)).incarnation).toBe(3);
  });

  it('refuses the folder of another cluster or node, and counts no start', async () => {
    const disk = new MemoryDisk();
    await openNode(disk);
    for (const other of [{ clusterName: 'other' }, { nodeId: 2 }]) {
      const error = await errorOf(openNode(disk, other));
      expect(error.code).toBe('DATA_DIR_FOREIGN');
      expect(error.remedy).not.toBe('');
    }
    expect((await openNode(disk)).incarnation).toBe(2);
  });

  it('refuses itself with any one bit flipped, or truncated', async () => {
    const disk = new MemoryDisk();
    await openNode(disk);
    const content = disk.contentOf(FILE);
    for (let bit = 0; bit < content.length * 8; bit++) {
      disk.flipBit(FILE, bit);
      expect((await errorOf(openNode(disk))).code, `bit ${bit}`).toBe('META_DAMAGED');
      disk.flipBit(FILE, bit);
    }
    for (let length = 0; length < content.length; length++) {
      disk.plant(FILE, content.subarray(0, length));
      expect((await errorOf(openNode(disk))).code, `length ${length}`).toBe('META_DAMAGED');
    }
  });

  it('refuses a format of the future', async () => {
    const disk = new MemoryDisk();
    await disk.makeDirectory(DIRECTORY);
    // CRC-32 of the two lines, worked out elsewhere.
    disk.plant(FILE, Buffer.from('raftkv meta 3\n{}\n42de0d6e\n'));
    const error = await errorOf(openNode(disk));
    expect(error.code).toBe('FORMAT_UNSUPPORTED');
  });

  it('is not created again beside a log', async () => {
    const disk = new MemoryDisk();
    const { wal } = await open(disk);
    await append(wal, [Buffer.from('a')]);
    await wal.close();
    expect((await errorOf(openNode(disk))).code).toBe('META_DAMAGED');
  });
});

describe('the lifecycle status of a directory', () => {
  it('is uninitialized in a fresh directory, and from then on what it was persisted as', async () => {
    const disk = new MemoryDisk();
    const first = await openNode(disk);
    expect(first).toMatchObject({ lifecycle: 'uninitialized', directoryId: 42 });
    await first.persist({ lifecycle: 'recovering', directoryId: 77 });
    expect(first).toMatchObject({ lifecycle: 'recovering', directoryId: 77 });
    await first.persist({ logCreated: true });
    expect(await openNode(disk)).toMatchObject({
      lifecycle: 'recovering',
      directoryId: 77,
      logCreated: true,
      incarnation: 2,
    });
  });

  it('is one that was persisted, and none before the last that was done, whenever power fails', async () => {
    /** How often power failed before the third change was done, and after it. */
    const failures = { early: 0, late: 0 };
    for (let seed = 1; seed <= 300; seed++) {
      const random = seededRandom(seed);
      let operations = 0;
      let stopAt = Number.POSITIVE_INFINITY;
      const disk = new MemoryDisk({
        schedule: (_, complete) => {
          if (++operations < stopAt) queueMicrotask(complete);
        },
      });
      const meta = await openNode(disk, { newDirectoryId: () => 0 });
      stopAt = operations + 1 + Math.floor(random() * 40);
      let begun = 0;
      let done = 0;
      const persistAll = async () => {
        for (let directoryId = 1; directoryId <= 6; directoryId++) {
          begun = directoryId;
          const persisted = meta.persist({ lifecycle: 'recovering', directoryId });
          // At the same time: they share a temporary name.
          if (directoryId === 3) await meta.persist({ logCreated: true });
          await persisted;
          done = directoryId;
        }
      };
      void persistAll();
      await waitUntilIdle();
      if (random() < 0.7) disk.crash(random);
      else disk.kill(random);
      stopAt = Number.POSITIVE_INFINITY;
      const again = await openNode(disk);
      expect(again.directoryId, `seed ${seed}`).toBeGreaterThanOrEqual(done);
      expect(again.directoryId, `seed ${seed}`).toBeLessThanOrEqual(begun);
      expect(again.lifecycle).toBe(again.directoryId === 0 ? 'uninitialized' : 'recovering');
      if (done >= 3) expect(again.logCreated).toBe(true);
      failures[done >= 3 ? 'late' : 'early']++;
    }
    expect(Math.min(failures.early, failures.late)).toBeGreaterThan(10);
  });

  it('that the disk refused is not said to stand, and nothing is persisted after it', async () => {
    for (const kind of ['write', 'sync', 'rename', 'syncDirectory'] as const) {
      const disk = new MemoryDisk();
      const meta = await openNode(disk);
      disk.failOnce('EIO', (operation) => operation.kind === kind);
      await expect(meta.persist({ lifecycle: 'normal' }), kind).rejects.toMatchObject({ code: 'EIO' });
      expect(meta.lifecycle).toBe('uninitialized');
      await expect(meta.persist({ logCreated: true }), kind).rejects.toMatchObject({ code: 'EIO' });
    }
  });
});

describe('a full disk', () => {
  it('refuses a change, and takes another once there is room', async () => {
    for (const kind of ['write', 'sync', 'rename', 'syncDirectory'] as const) {
      const disk = new MemoryDisk();
      const meta = await openNode(disk);
      disk.failOnce('ENOSPC', (operation) => operation.kind === kind);
      await expect(meta.persist({ onlyVoter: true }), kind).rejects.toMatchObject({ code: 'ENOSPC' });
      expect(meta.onlyVoter).toBeNull();
      await meta.persist({ logCreated: true });
      expect(await openNode(disk), kind).toMatchObject({ logCreated: true, onlyVoter: null });
    }
  });
});

describe('the first incarnation', () => {
  it('is at least the one that is asked for, also in an old directory, which may have missed starts', async () => {
    const disk = new MemoryDisk();
    expect((await openNode(disk, { incarnationMin: 5000 })).incarnation).toBe(5000);
    expect((await openNode(disk, { incarnationMin: 4000 })).incarnation).toBe(5001);
    expect((await openNode(disk, { incarnationMin: 9000 })).incarnation).toBe(9000);
  });
});

describe('damage, where it may be moved aside', () => {
  const FOLDERS = ['/node/wal', '/node/snapshots'];
  const left = (disk: MemoryDisk) => disk.paths().filter((path) => FOLDERS.some((f) => path.startsWith(`${f}/`)));

  it('starts empty with log and snapshots moved away, and the damaged meta kept', async () => {
    const disk = await usedNode();
    const content = new Map(left(disk).map((path) => [path, disk.contentOf(path)]));
    expect(content.size).toBeGreaterThanOrEqual(2);
    disk.flipBit(FILE, 300);
    const damagedMeta = disk.contentOf(FILE);
    const { errors, onDamage } = healing();
    const meta = await openNode(disk, { onDamage, incarnationMin: 100 });
    expect(errors.map(({ code }) => code)).toEqual(['META_DAMAGED']);
    expect(meta).toMatchObject({ lifecycle: 'recovering', clusterId: '', logCreated: false, incarnation: 100 });
    expect(left(disk)).toEqual([]);
    expect(disk.contentOf(`${ASIDE}/meta`)).toEqual(damagedMeta);
    for (const [path, bytes] of content) expect(disk.contentOf(path.replace('/node', ASIDE))).toEqual(bytes);
    expect(await openNode(disk)).toMatchObject({ lifecycle: 'recovering', incarnation: 101 });
  });

  it('leaves a directory with a new id', async () => {
    const disk = await usedNode();
    disk.flipBit(FILE, 300);
    const meta = await openNode(disk, { onDamage: healing().onDamage, newDirectoryId: () => 4711 });
    expect(meta).toMatchObject({ lifecycle: 'recovering', directoryId: 4711 });
  });

  it('is a meta that is missing beside a log, and also beside a snapshot alone', async () => {
    for (const lost of [FILE, '/node/wal/']) {
      const disk = await usedNode();
      for (const path of disk.paths()) if (path === FILE || path.startsWith(lost)) disk.wipe(path);
      expect((await errorOf(openNode(disk))).code).toBe('META_DAMAGED');
      const { errors, onDamage } = healing();
      await openNode(disk, { onDamage });
      expect(errors).toHaveLength(1);
      expect(left(disk)).toEqual([]);
    }
  });

  it('is not the folder of another node, nor a format of the future', async () => {
    const { errors, onDamage } = healing();
    const disk = await usedNode();
    expect((await errorOf(openNode(disk, { onDamage, nodeId: 2 }))).code).toBe('DATA_DIR_FOREIGN');
    disk.plant(FILE, Buffer.from('raftkv meta 3\n{}\n42de0d6e\n'));
    expect((await errorOf(openNode(disk, { onDamage }))).code).toBe('FORMAT_UNSUPPORTED');
    expect(errors).toEqual([]);
    expect(left(disk).length).toBeGreaterThan(0);
  });

  for (const lost of ['damaged', 'missing'] as const) {
    it(`of a ${lost} meta never leaves old log under a new one, nor forgets itself, whenever power fails`, async () => {
      const whole = await usedNode();
      if (lost === 'damaged') whole.flipBit(FILE, 300);
      else whole.wipe(FILE);
      let hasEnded = false;
      for (let stopAfter = 0; !hasEnded; stopAfter++) {
        for (let seed = 1; seed <= 12; seed++) {
          const random = seededRandom(stopAfter * 100 + seed);
          const disk = whole.clone();
          let operations = 0;
          disk.schedule = (_, complete) => {
            if (operations++ < stopAfter) queueMicrotask(complete);
          };
          let ended = false;
          void openNode(disk, { onDamage: healing().onDamage, newDirectoryId: () => 4711 }).then(() => {
            ended = true;
          });
          await waitUntilIdle();
          hasEnded = ended;
          if (seed % 3 === 0) disk.kill(random);
          else disk.crash(random);
          disk.schedule = (_, complete) => queueMicrotask(complete);
          const again = await openNode(disk, { onDamage: healing().onDamage, newDirectoryId: () => 4712 });
          const where = `stopped after ${stopAfter}, seed ${seed}`;
          expect(again.lifecycle, where).toBe('recovering');
          expect(left(disk), where).toEqual([]);
          expect(again.incarnation, where).toBe(ended ? 2 : again.directoryId === 4711 ? 2 : 1);
        }
      }
    });
  }
});
