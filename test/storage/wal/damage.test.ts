import { crc32 } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import type { RaftkvError } from '../../../src/base/errors.ts';
import { MemoryDisk } from '../../support/memory-disk.ts';
import { seededRandom } from '../../support/random.ts';
import { append, errorOf, open, SMALL, someEntries } from './harness.ts';

const pathOf = (number: number) => `/node/wal/${String(number).padStart(16, '0')}.wal`;
const LIMITS = { ...SMALL, walSegmentBytes: 6 * 1024, walEntryBytesMax: 3000, walFillAheadBytes: 4096 };

/** A log, closed in good order, whose last block is in its third segment; with where in each segment its blocks end. */
async function threeSegments(seed = 1) {
  const disk = new MemoryDisk();
  const { wal } = await open(disk, { limits: LIMITS });
  const entries: Buffer[] = [];
  const add = async (more: Buffer[]) => {
    entries.push(...more);
    await append(wal, more, { hardState: Buffer.from(`h${entries.length}`) });
  };
  const isLast = () => disk.paths().includes(pathOf(3)) && !blank(disk.contentOf(pathOf(3)), 512);
  while (!isLast()) await add(someEntries(2, seed * 1000 + entries.length, 700));
  await add([Buffer.alloc(1300, 7), Buffer.alloc(1), Buffer.from('the end')]);
  await wal.close();
  const ends = [1, 2, 3].map((number) => endOf(disk.contentOf(pathOf(number))));
  return { disk, entries, ends };
}

const blank = (bytes: Buffer, from: number) => bytes.subarray(from).every((byte) => byte === 0);

/** Where the last sector that holds anything ends. */
function endOf(content: Buffer): number {
  let end = content.length;
  while (end > 0 && blank(content.subarray(end - 512, end), 0)) end -= 512;
  return end;
}

/** Starting must fail as damaged and leave every byte as it was. Says what went otherwise; null where nothing did. */
async function faultOf(disk: MemoryDisk): Promise<string | null> {
  const before = new Map(disk.paths().map((path) => [path, disk.contentOf(path)]));
  const refused = await open(disk, { limits: LIMITS }).then(
    () => null,
    (error: RaftkvError) => error,
  );
  if (refused === null) return 'the log was accepted';
  if (refused.code !== 'WAL_DAMAGED') return `${refused.code}: ${refused.message}`;
  if (!refused.message.includes('/node/wal') || refused.remedy === '') return `no help: ${refused.message}`;
  const paths = disk.paths();
  const same = paths.length === before.size && paths.every((path) => before.get(path)?.equals(disk.contentOf(path)));
  return same ? null : 'the disk was changed';
}

async function expectDamage(disk: MemoryDisk, where: string): Promise<void> {
  const fault = await faultOf(disk);
  // One `expect` costs more than a start, and the sweeps make thousands.
  if (fault !== null) expect.fail(`${where}: ${fault}`);
}

describe('one flipped bit', () => {
  it('anywhere in what was durable, zeros between records included, keeps the node from starting', async () => {
    const { disk, ends } = await threeSegments();
    const random = seededRandom(1);
    for (const [place, end] of ends.entries()) {
      // The last segment byte for byte, as only there a block might pass for torn; the others by samples.
      for (let byte = 0; byte < end; byte += place === 2 ? 1 : 3) {
        const bit = byte * 8 + Math.floor(random() * 8);
        disk.flipBit(pathOf(place + 1), bit);
        await expectDamage(disk, `segment ${place + 1}, bit ${bit}`);
        disk.flipBit(pathOf(place + 1), bit);
      }
    }
  });

  it('in the sector where the next block would begin is damage: one more block may have been there', async () => {
    const { disk, ends } = await threeSegments();
    disk.flipBit(pathOf(3), ((ends[2] ?? 0) + 100) * 8);
    await expectDamage(disk, 'first sector behind the end');
  });

  it('further behind the end of the log does no harm', async () => {
    const { disk, entries, ends } = await threeSegments();
    const lengths = disk.contentOf(pathOf(3)).length;
    for (let byte = (ends[2] ?? 0) + 512; byte < lengths; byte += 97) {
      const copy = disk.clone();
      copy.flipBit(pathOf(3), byte * 8);
      const again = await open(copy, { limits: LIMITS });
      expect(again.entries).toHaveLength(entries.length);
      await again.wal.close();
      expect(copy.contentOf(pathOf(3)).readUInt8(byte)).toBe(0);
    }
  });
});

describe('files that are not as they were left', () => {
  it('a missing segment is noticed, wherever it was', async () => {
    const { disk } = await threeSegments();
    for (const number of [1, 2, 3]) {
      const copy = disk.clone();
      // With all behind it gone as well, only the seal before it tells.
      for (let gone = number; copy.paths().includes(pathOf(gone)); gone++)
        if (number > 1 || gone === 1) copy.wipe(pathOf(gone));
      await expectDamage(copy, `segment ${number} and all behind it`);
      const single = disk.clone();
      single.wipe(pathOf(number));
      await expectDamage(single, `segment ${number}`);
      const missing = ['begins with entry', `${pathOf(2).slice(10)} is missing`, 'the next segment'][number - 1];
      expect((await errorOf(open(single, { limits: LIMITS }))).message).toContain(missing);
    }
  });

  it('a log that is gone altogether is noticed where there must be one', async () => {
    const disk = new MemoryDisk();
    const error = await errorOf(open(disk, { mustExist: true }));
    expect(error.code).toBe('WAL_DAMAGED');
    await (await open(disk, { mustExist: false })).wal.close();
  });

  it('a truncated file is noticed at every length at which anything is lost', async () => {
    const { disk, entries, ends } = await threeSegments();
    for (const [place, end] of ends.entries()) {
      const path = pathOf(place + 1);
      const content = disk.contentOf(path);
      const sealed = place < 2;
      for (let length = 0; length < end + (sealed ? 0 : 512); length += 256) {
        const copy = disk.clone();
        copy.plant(path, content.subarray(0, length));
        await expectDamage(copy, `segment ${place + 1} truncated to ${length}`);
      }
      const copy = disk.clone();
      copy.plant(path, content.subarray(0, end + (sealed ? 0 : 512)));
      const again = await open(copy, { limits: LIMITS });
      expect(again.entries).toHaveLength(entries.length);
      await again.wal.close();
    }
  });

  it('a block wiped by zeros is noticed where any follows', async () => {
    const { disk, ends } = await threeSegments();
    for (const [place, end] of ends.entries()) {
      for (let start = 512; start < end; start += 512) {
        // From here to the end of the segment; in the last segment that is what no block follows.
        if (place === 2) break;
        const copy = disk.clone();
        const content = copy.contentOf(pathOf(place + 1));
        copy.plant(pathOf(place + 1), content.fill(0, start));
        await expectDamage(copy, `segment ${place + 1} zeroed from ${start}`);
      }
    }
  });

  it('a segment of another log, or under another number, is noticed', async () => {
    const { disk } = await threeSegments(1);
    const other = await threeSegments(2);
    for (const number of [1, 2, 3]) {
      const copy = disk.clone();
      copy.plant(pathOf(number), other.disk.contentOf(pathOf(number)));
      await expectDamage(copy, `segment ${number} of another log`);
    }
    disk.plant(pathOf(2), disk.contentOf(pathOf(1)));
    await expectDamage(disk, 'segment 1 as segment 2');
    expect((await errorOf(open(disk, { limits: LIMITS }))).message).toContain('is segment 1, but has another name');
  });

  it('a segment of a log with as many blocks, of the same lengths, is noticed by its content', async () => {
    const logOf = async (letter: string) => {
      const disk = new MemoryDisk();
      const { wal } = await open(disk, { limits: LIMITS });
      for (let n = 0; n < 12; n++) await append(wal, [Buffer.alloc(900, letter)]);
      await wal.close();
      return disk;
    };
    const [disk, other] = [await logOf('a'), await logOf('b')];
    disk.plant(pathOf(2), other.contentOf(pathOf(2)));
    await expectDamage(disk, 'segment 2 of its twin');
  });

  it('a block that landed in the wrong place is never read as one', async () => {
    const { disk, entries, ends } = await threeSegments();
    const content = disk.contentOf(pathOf(3));
    const end = ends[2] ?? 0;
    const behind = disk.clone();
    behind.plant(
      pathOf(3),
      Buffer.concat([content.subarray(0, end + 512), content.subarray(512, 1024), Buffer.alloc(1024)]),
    );
    const again = await open(behind, { limits: LIMITS });
    expect(again.entries).toHaveLength(entries.length);
    await again.wal.close();
    content.copy(content, end - 512, 512, 1024);
    disk.plant(pathOf(3), content);
    await expectDamage(disk, 'the first block over the last');
  });

  it('what an interrupted creation left is removed', async () => {
    const { disk, entries } = await threeSegments();
    disk.plant(`${pathOf(4)}.tmp`, Buffer.alloc(700, 3));
    const again = await open(disk, { limits: LIMITS });
    expect(again.entries).toHaveLength(entries.length);
    await again.wal.close();
    expect(disk.paths().filter((path) => path.endsWith('.tmp'))).toEqual([]);
  });
});

describe('a log that is not for this node', () => {
  it('is refused where it belongs to another cluster', async () => {
    const { disk } = await threeSegments();
    const error = await errorOf(open(disk, { limits: LIMITS, clusterName: 'other' }));
    expect(error).toMatchObject({ code: 'DATA_DIR_FOREIGN', message: expect.stringContaining('"test"') });
  });

  it('is refused where it has a format of the future', async () => {
    const { disk } = await threeSegments();
    const content = disk.contentOf(pathOf(1));
    content.writeUInt32LE(2, 8);
    content.writeUInt32LE(crc32(content.subarray(0, 508)), 508);
    disk.plant(pathOf(1), content);
    expect((await errorOf(open(disk, { limits: LIMITS }))).code).toBe('FORMAT_UNSUPPORTED');
  });

  it('is refused where the limits could not hold', async () => {
    const limits = [
      { walSegmentBytes: 1000 },
      { walSegmentBytes: 8192, walEntryBytesMax: 8192 },
      { walFirstFillBytes: 512 },
      { walBlockBytesMax: Number.NaN },
    ];
    for (const bad of limits) {
      const error = await errorOf(open(new MemoryDisk(), { limits: { ...SMALL, ...bad } }));
      expect(error.code, JSON.stringify(bad)).toBe('CONFIG_INVALID');
    }
    const error = await errorOf(open(new MemoryDisk(), { clusterName: 'x'.repeat(256) }));
    expect(error.code).toBe('CONFIG_INVALID');
  });
});
