import { describe, expect, it } from 'vitest';
import type { LogBase } from '../../../src/storage/wal/types.ts';
import { MemoryDisk } from '../../support/memory-disk.ts';
import { seededRandom } from '../../support/random.ts';
import {
  append,
  errorOf,
  NO_SNAPSHOT,
  type Opened,
  open,
  SMALL,
  someEntries,
  texts,
  waitUntilIdle,
} from './harness.ts';

const pathOf = (number: number) => `/node/wal/${String(number).padStart(16, '0')}.wal`;
const LIMITS = {
  ...SMALL,
  walSegmentBytes: 3072,
  walEntryBytesMax: 1024,
  walBlockBytesMax: 2048,
  walFirstFillBytes: 1024,
  walFillAheadBytes: 1024,
  walFillStepBytes: 512,
};
const ASIDE = '/node/damaged';
/** Decides the sizes of the entries. With a few seeds no segment is seen empty between two blocks. */
const BUILD_SEED = 1000;
const BLOCKS_MAX = 200;

/** The log after one of its blocks, and where on disk that block is. */
interface Step {
  readonly segment: number;
  readonly from: number;
  readonly to: number;
  readonly first: number;
  readonly entries: readonly string[];
  readonly hardState: string;
}

interface Built {
  readonly files: ReadonlyMap<string, Buffer>;
  readonly begin: LogBase;
  /** Seals are steps too. */
  readonly steps: readonly Step[];
}

/** Writes block by block until `segments` are there, and truncates the prefix of the log up to `compactTo`. */
async function build(segments: number, compactTo = 0): Promise<Built> {
  const writes: { path: string; position: number; length: number }[] = [];
  const disk = new MemoryDisk({
    schedule(operation, complete) {
      if (operation.kind === 'write' && operation.dataSync) writes.push(operation);
      queueMicrotask(complete);
    },
  });
  const { wal } = await open(disk, { limits: LIMITS });
  const steps: Step[] = [];
  const entries: string[] = [];
  let hardState = '';
  // And an empty one behind them, as there is most of the time.
  const isDone = () => steps.at(-1)?.segment === segments && disk.paths().includes(pathOf(segments + 1));
  for (let n = 1; !isDone(); n++) {
    if (n > BLOCKS_MAX) throw new Error(`no empty segment was ever behind segment ${segments}`);
    const before = { first: 1, entries: [...entries], hardState };
    // One record at a time: only a seal may go out before it, and never between two of its parts.
    const more = n % 4 === 0 ? [] : someEntries(1, BUILD_SEED + n, 500);
    const state = n % 4 === 0 ? Buffer.from(`h${n}`) : null;
    await append(wal, more, { hardState: state });
    entries.push(...texts(more));
    hardState = state?.toString() ?? hardState;
    const after = { first: 1, entries: [...entries], hardState };
    for (const [place, { path, position, length }] of writes.entries()) {
      const isLast = place === writes.length - 1;
      const at = { segment: Number(path.slice(-20, -4)), from: position, to: position + length };
      steps.push({ ...at, ...(isLast ? after : before) });
    }
    writes.length = 0;
    await waitUntilIdle();
  }
  if (compactTo > 0) await wal.compact(compactTo);
  const { firstIndex } = wal;
  await wal.close();
  const files = new Map(disk.paths().map((path) => [path, disk.contentOf(path)]));
  const compacted = steps.map((step) => ({ ...step, first: firstIndex, entries: step.entries.slice(firstIndex - 1) }));
  const kept = compacted.filter(({ segment }) => files.has(pathOf(segment)));
  return { files, begin: { index: compactTo, term: 1 }, steps: kept };
}

const diskOf = (files: ReadonlyMap<string, Buffer>, ...options: ConstructorParameters<typeof MemoryDisk>) => {
  const disk = new MemoryDisk(...options);
  for (const [path, content] of files) disk.plant(path, content);
  return disk;
};

/** What must be left where the byte at `position` of `segment` is damaged, and whether it must be noticed. */
function expected({ steps, begin }: Built, segment: number, position: number) {
  const hit = steps.findIndex((step) =>
    position < 512 ? step.segment === segment : step.segment === segment && position < step.to,
  );
  const last = steps.at(-1);
  if (last === undefined) throw new Error('an empty log');
  const sealed = segment < last.segment;
  const isSpare = segment > last.segment;
  const noticed = isSpare ? position < 512 : hit >= 0 || (!sealed && position < last.to + 512);
  const kept = hit >= 0 ? steps[hit - 1] : last;
  if (kept !== undefined) return { noticed, first: kept.first, entries: kept.entries, hardState: kept.hardState };
  return { noticed, first: begin.index + 1, entries: [], hardState: '' };
}

const heldBy = ({ wal, entries, hardState }: Opened) => ({
  first: wal.firstIndex,
  entries: texts(entries),
  hardState: hardState?.toString() ?? '',
});

const sameLog = (a: ReturnType<typeof heldBy>, b: Omit<ReturnType<typeof expected>, 'noticed'>) =>
  a.first === b.first && a.hardState === b.hardState && a.entries.join('|') === b.entries.join('|');

const sameFiles = (disk: MemoryDisk, files: ReadonlyMap<string, Buffer>) =>
  disk.paths().length === files.size && disk.paths().every((path) => files.get(path)?.equals(disk.contentOf(path)));

/** Opens a damaged copy and says what went otherwise than it must; null where nothing did. */
async function faultOf(built: Built, segment: number, bit: number): Promise<string | null> {
  const disk = diskOf(built.files);
  disk.flipBit(pathOf(segment), bit);
  const damaged = new Map(disk.paths().map((path) => [path, disk.contentOf(path)]));
  const wanted = expected(built, segment, bit >> 3);
  let calls = 0;
  let fault: string | null = null;
  const onDamage = async () => {
    calls++;
    if (!sameFiles(disk, damaged)) fault = 'the disk was changed before anybody was told';
    return ASIDE;
  };
  const { begin } = built;
  const opened = await open(disk, { limits: LIMITS, begin, onDamage });
  if (fault !== null) return fault;
  if (calls !== (wanted.noticed ? 1 : 0)) return `damage was reported ${calls} times`;
  if ((opened.report.damage !== null) !== wanted.noticed) return `the report says ${opened.report.damage}`;
  const held = heldBy(opened);
  if (!sameLog(held, wanted)) return `kept ${JSON.stringify(held).slice(0, 200)}`;
  for (const path of disk.paths().filter((each) => each.startsWith(ASIDE))) {
    const origin = damaged.get(path.replace(ASIDE, '/node/wal'));
    if (origin === undefined || !disk.contentOf(path).equals(origin)) return `${path} is not what was damaged`;
  }
  // Every so often: it takes longer than all the rest.
  if (bit % 40 >= 8) return opened.wal.close().then(() => null);
  await append(opened.wal, [Buffer.from('next')], { hardState: Buffer.from('newer') });
  await opened.wal.close();
  const again = await open(disk, { limits: LIMITS, begin });
  await again.wal.close();
  const next = { ...wanted, entries: [...wanted.entries, 'next'], hardState: 'newer' };
  return sameLog(heldBy(again), next) ? null : `after the next start: ${JSON.stringify(heldBy(again)).slice(0, 200)}`;
}

/** One `expect` costs more than a start, and the sweeps make thousands. */
async function sweep(built: Built, stride: number): Promise<void> {
  const random = seededRandom(1);
  let noticed = 0;
  for (const [path, content] of built.files) {
    const segment = Number(path.slice(-20, -4));
    for (let byte = 0; byte < content.length; byte += stride) {
      const bit = byte * 8 + Math.floor(random() * 8);
      const isHarmless = !expected(built, segment, byte).noticed;
      if (isHarmless && byte % 16 > 0) continue;
      if (!isHarmless) noticed++;
      const fault = await faultOf(built, segment, bit);
      if (fault !== null) expect.fail(`segment ${segment}, bit ${bit} (byte ${byte}): ${fault}`);
    }
  }
  expect(noticed).toBeGreaterThan(1000 / stride);
}

describe('a log with one flipped bit, where its node can heal', () => {
  it('keeps exactly what was good in front of it, wherever it is', async () => {
    const built = await build(2);
    expect(built.files.size).toBe(3);
    await sweep(built, 1);
  });

  it('does so as well where its prefix was truncated behind a snapshot', async () => {
    const built = await build(5, 9);
    expect(built.files.has(pathOf(1))).toBe(false);
    expect(built.steps[0]?.first).toBeGreaterThan(1);
    await sweep(built, 3);
  });
});

describe('a log that lacks files, where its node can heal', () => {
  const heal = (disk: MemoryDisk, begin: LogBase, mustExist = true) =>
    open(disk, { limits: LIMITS, begin, mustExist, onDamage: async () => ASIDE });

  it('keeps what comes before a missing segment', async () => {
    const built = await build(4);
    for (const number of [1, 2, 3, 4]) {
      const disk = diskOf(built.files);
      disk.wipe(pathOf(number));
      const opened = await heal(disk, NO_SNAPSHOT);
      const kept = built.steps.filter(({ segment }) => segment < number).at(-1);
      expect(opened.report.damage).toContain(number === 1 ? 'begins with entry' : 'is missing');
      const lost = { first: 1, entries: [], hardState: built.steps.at(-1)?.hardState ?? '' };
      expect(sameLog(heldBy(opened), kept ?? lost), `segment ${number}`).toBe(true);
      await opened.wal.close();
    }
  });

  it('is reset to the snapshot if all of it is gone', async () => {
    const disk = new MemoryDisk();
    const opened = await heal(disk, { index: 70, term: 3 });
    expect(opened.report.damage).toContain('the log is missing');
    expect(opened.wal).toMatchObject({ firstIndex: 71, lastIndex: 70 });
    await append(opened.wal, [Buffer.from('a')]);
    await opened.wal.close();
    const again = await open(disk, { limits: LIMITS, begin: { index: 70, term: 3 } });
    expect(again).toMatchObject({ reset: { index: 70, term: 3 }, entries: [Buffer.from('a')] });
    await again.wal.close();
  });

  it('is reset to an older snapshot if the one it begins behind is gone, and keeps its hard state', async () => {
    const built = await build(5, 9);
    const last = built.steps.at(-1);
    expect(
      (await errorOf(open(diskOf(built.files), { limits: LIMITS, begin: { index: 3, term: 1 } }))).message,
    ).toContain(`begins with entry ${last?.first}, but the newest snapshot ends at 3`);
    const disk = diskOf(built.files);
    const opened = await heal(disk, { index: 3, term: 1 });
    expect(heldBy(opened)).toEqual({ first: 4, entries: [], hardState: last?.hardState });
    expect(disk.paths().filter((path) => path.startsWith(ASIDE))).toHaveLength(built.files.size);
    await opened.wal.close();
    const again = await open(disk, { limits: LIMITS, begin: { index: 3, term: 1 } });
    expect(heldBy(again)).toEqual({ first: 4, entries: [], hardState: last?.hardState });
    // It speaks of entries that were lost: a reader must see first what has come in their place.
    for (const entry of someEntries(30, 5, 400)) await append(again.wal, [entry]);
    await again.wal.close();
    const third = await open(disk, { limits: LIMITS, begin: { index: 3, term: 1 } });
    expect(third.hardState?.toString()).toBe(last?.hardState);
    expect(third.entriesBeforeHardState).toBe(30);
    await append(third.wal, someEntries(2), { hardState: Buffer.from('newer') });
    await append(third.wal, someEntries(2));
    await third.wal.close();
    const fourth = await open(disk, { limits: LIMITS, begin: { index: 3, term: 1 } });
    expect(fourth.hardState?.toString()).toBe('newer');
    await fourth.wal.close();
  });

  it('is named, and left alone, where only empty segments are left of it', async () => {
    const built = await build(3);
    const disk = diskOf(built.files);
    const spare = Math.max(...[...built.files.keys()].map((path) => Number(path.slice(-20, -4))));
    for (let number = 1; number < spare; number++) disk.wipe(pathOf(number));
    const error = await errorOf(open(disk, { limits: LIMITS, begin: { index: 500, term: 1 } }));
    expect(error.message).toContain('the start of the log is unknown');
    expect(disk.paths()).toEqual([pathOf(spare)]);
  });

  it('does not put one damaged file over another', async () => {
    const built = await build(3);
    const disk = diskOf(built.files);
    disk.plant(`${ASIDE}/${pathOf(3).slice(10)}`, Buffer.from('earlier'));
    disk.flipBit(pathOf(3), 600 * 8);
    await (await heal(disk, NO_SNAPSHOT)).wal.close();
    expect(disk.contentOf(`${ASIDE}/${pathOf(3).slice(10)}`).toString()).toBe('earlier');
    expect(disk.paths()).toContain(`${ASIDE}/${pathOf(3).slice(10)}.2`);
  });

  it('keeps what comes before a place that the disk cannot read', async () => {
    const built = await build(3);
    for (const number of [2, 3]) {
      const disk = diskOf(built.files);
      const isThere = () => !disk.paths().some((path) => path.startsWith(ASIDE));
      disk.fault = ({ kind, path }) => (kind === 'read' && path === pathOf(number) && isThere() ? 'EIO' : null);
      expect((await errorOf(open(disk, { limits: LIMITS }))).message).toContain('cannot read');
      const opened = await heal(disk, NO_SNAPSHOT);
      const kept = built.steps.filter(({ segment }) => segment < number).at(-1);
      expect(kept !== undefined && sameLog(heldBy(opened), kept), `segment ${number}`).toBe(true);
      await opened.wal.close();
    }
  });

  it('belongs to another cluster: that is no damage to repair', async () => {
    const disk = diskOf((await build(3)).files);
    const onDamage = async () => ASIDE;
    expect((await errorOf(open(disk, { limits: LIMITS, clusterName: 'other', onDamage }))).code).toBe(
      'DATA_DIR_FOREIGN',
    );
  });

  it('stays as it was where the disk has no room for the repair, and is repaired when it has', async () => {
    const built = await build(3);
    const disk = diskOf(built.files);
    disk.flipBit(pathOf(2), 1100 * 8);
    const before = disk.paths();
    disk.capacityBytes = 0;
    expect((await errorOf(heal(disk, NO_SNAPSHOT))) as unknown).toMatchObject({ code: 'ENOSPC' });
    expect(disk.paths()).toEqual(before);
    disk.capacityBytes = Number.POSITIVE_INFINITY;
    const opened = await heal(disk, NO_SNAPSHOT);
    expect(sameLog(heldBy(opened), expected(built, 2, 1100))).toBe(true);
    await opened.wal.close();
  });
});

describe('a repair interrupted at any of its steps', () => {
  /** Where bits are flipped: a header, the first block, one in the middle, the last, and what is behind it. */
  function places({ steps }: Built): { segment: number; byte: number }[] {
    const last = steps.at(-1);
    const middle = steps[Math.floor(steps.length / 2)];
    const first = steps[0];
    if (last === undefined || middle === undefined || first === undefined) throw new Error('an empty log');
    return [
      { segment: first.segment, byte: 30 },
      { segment: first.segment, byte: first.from + 60 },
      { segment: middle.segment, byte: 30 },
      { segment: middle.segment, byte: middle.from + 10 },
      { segment: last.segment, byte: last.from + 60 },
      { segment: last.segment, byte: last.to + 5 },
    ];
  }

  async function interrupt(built: Built, { segment, byte }: { segment: number; byte: number }, seed: number) {
    let operations = 0;
    for (let stopAt = 1; ; stopAt++) {
      const random = seededRandom(seed * 1000 + stopAt);
      let left = stopAt;
      const disk = diskOf(built.files, {
        schedule(_, complete) {
          operations++;
          if (left-- > 0) queueMicrotask(complete);
        },
      });
      disk.flipBit(pathOf(segment), byte * 8);
      const marks: string[] = [];
      const before = new Map(disk.paths().map((path) => [path, disk.contentOf(path)]));
      const onDamage = async () => {
        marks.push('marked');
        return ASIDE;
      };
      const { begin } = built;
      const first = await Promise.race([
        open(disk, { limits: LIMITS, begin, onDamage }),
        (async () => {
          while (left >= 0) await waitUntilIdle();
          await waitUntilIdle();
          return null;
        })(),
      ]);
      if (marks.length === 0 && !sameFiles(disk, before)) expect.fail(`step ${stopAt}: changed before it was marked`);
      if (random() < 0.2) disk.kill(random);
      else disk.crash(random);
      left = Number.POSITIVE_INFINITY;
      const second = await open(disk, { limits: LIMITS, begin, onDamage });
      const wanted = expected(built, segment, byte);
      const held = heldBy(second);
      if (marks.length === 0) expect.fail(`step ${stopAt}: no report`);
      if (!sameLog(held, wanted)) expect.fail(`step ${stopAt}: kept ${JSON.stringify(held).slice(0, 300)}`);
      await append(second.wal, [Buffer.from('next')], { hardState: Buffer.from('newer') });
      disk.crash(random);
      const third = await open(disk, { limits: LIMITS, begin });
      const next = { ...wanted, entries: [...wanted.entries, 'next'], hardState: 'newer' };
      if (!sameLog(heldBy(third), next)) expect.fail(`step ${stopAt}: lost what came after the repair`);
      expect(disk.paths().filter((path) => path.includes('.repair'))).toEqual([]);
      await third.wal.close();
      if (first !== null) return { steps: stopAt, operations };
    }
  }

  it('is completed, or done again, by the next start', async () => {
    const built = await build(4);
    let steps = 0;
    for (const [seed, place] of places(built).entries()) steps += (await interrupt(built, place, seed + 1)).steps;
    expect(steps).toBeGreaterThan(150);
  });

  it('is so as well where the log begins behind a snapshot', async () => {
    const built = await build(5, 9);
    for (const [seed, place] of places(built).entries()) await interrupt(built, place, seed + 11);
  });
});
