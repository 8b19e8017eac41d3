import { describe, expect, it } from 'vitest';
import { openMeta } from '../../src/storage/meta.ts';
import { MemoryDisk } from '../support/memory-disk.ts';
import { seededRandom } from '../support/random.ts';
import { append, errorOf, open, settle } from './wal-harness.ts';

const DIRECTORY = '/node';
const FILE = '/node/meta';
const openNode = (disk: MemoryDisk, { clusterId = 'demo', nodeId = 1 } = {}) =>
  openMeta({ disk, directory: DIRECTORY, clusterId, nodeId });

describe('meta', () => {
  it('counts the starts of a node, from 1', async () => {
    const disk = new MemoryDisk();
    for (let start = 1; start <= 4; start++) expect((await openNode(disk)).bootCount).toBe(start);
  });

  it('never gives a boot count twice, whenever power fails', async () => {
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
      for (let life = 0; life < 8; life++) {
        stopAt = operations + 1 + Math.floor(random() * 20);
        let handedOut = 0;
        openNode(disk).then((meta) => {
          handedOut = meta.bootCount;
        });
        await settle();
        if (handedOut > 0) {
          expect(handedOut, `seed ${seed}, life ${life}`).toBeGreaterThan(highest);
          highest = handedOut;
        }
        if (random() < 0.7) disk.crash(random);
        else disk.kill(random);
      }
      stopAt = Number.POSITIVE_INFINITY;
      expect((await openNode(disk)).bootCount, `seed ${seed}, last`).toBeGreaterThan(highest);
    }
  });

  it('hands out no boot count that the disk refused', async () => {
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
    await first.noteLogCreated();
    disk.crash(() => 0.99);
    const second = await openNode(disk);
    expect(second).toMatchObject({ logCreated: true, bootCount: 2 });
    await second.noteLogCreated();
    expect((await openNode(disk)).bootCount).toBe(3);
  });

  it('refuses the folder of another cluster or node, and counts no start', async () => {
    const disk = new MemoryDisk();
    await openNode(disk);
    for (const other of [{ clusterId: 'other' }, { nodeId: 2 }]) {
      const error = await errorOf(openNode(disk, other));
      expect(error.code).toBe('DATA_DIR_FOREIGN');
      expect(error.remedy).not.toBe('');
    }
    expect((await openNode(disk)).bootCount).toBe(2);
  });

  it('refuses itself with any one bit flipped, or cut short', async () => {
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
    disk.plant(FILE, Buffer.from('raftkv meta 2\n{}\n7fbe24de\n'));
    const error = await errorOf(openNode(disk));
    expect(error.code).toBe('FORMAT_UNSUPPORTED');
  });

  it('is not made anew beside a log', async () => {
    const disk = new MemoryDisk();
    const { wal } = await open(disk);
    await append(wal, [Buffer.from('a')]);
    await wal.close();
    expect((await errorOf(openNode(disk))).code).toBe('META_DAMAGED');
  });
});
