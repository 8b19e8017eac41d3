import { describe, expect, it } from 'vitest';
import type { WalLimits } from '../../src/storage/wal.ts';
import { MemoryDisk } from '../support/memory-disk.ts';
import { seededRandom } from '../support/random.ts';
import { errorOf, type Opened, open, SMALL, settle } from './wal-harness.ts';

/**
 * The promise of durability, against a naive model: an array that is cut and appended to. Whatever a crash leaves must
 * be the model as it was after some record issued, and no earlier than after the last write that was done.
 */
type Log = readonly string[];

interface State {
  readonly entries: Log;
  readonly hardState: string;
}

/** Every state that the log on disk may pass through, record by record; those before `safe` may no longer come back. */
class Model {
  readonly states: State[];
  safe = 0;

  constructor(start: State) {
    this.states = [start];
  }

  get now(): State {
    return this.states.at(-1) ?? { entries: [], hardState: '' };
  }

  hardState(value: string): void {
    this.states.push({ entries: this.now.entries, hardState: value });
  }

  entry(index: number, value: string): void {
    this.states.push({ entries: [...this.now.entries.slice(0, index - 1), value], hardState: this.now.hardState });
  }

  allows(found: State): boolean {
    return this.states.slice(this.safe).some((state) => sameState(state, found));
  }
}

const sameState = (a: State, b: State) =>
  a.hardState === b.hardState && a.entries.length === b.entries.length && a.entries.every((e, n) => e === b.entries[n]);

const stateOf = ({ entries, hardState }: Opened): State => ({
  entries: entries.map((bytes) => bytes.toString('latin1')),
  hardState: hardState?.toString('latin1') ?? '',
});

/** Bodies with what is hardest to tell from a hole: long runs of zeros, and whole sectors of them. */
function body(random: () => number, label: string): Buffer {
  const size = random() < 0.15 ? 1200 + Math.floor(random() * 5000) : Math.floor(random() * 500);
  const bytes = Buffer.alloc(size);
  if (random() < 0.6) for (let i = 0; i < size; i++) bytes[i] = Math.floor(random() * 256);
  return Buffer.concat([random() < 0.8 ? Buffer.from(label) : Buffer.alloc(1), bytes]);
}

/** Appends at random until the disk has let `operations` of its operations end. */
async function writeAtRandom(wal: Opened['wal'], model: Model, random: () => number, stopped: () => boolean) {
  let counter = 0;
  while (!stopped()) {
    const burst = 1 + Math.floor(random() * 4);
    for (let n = 0; n < burst; n++) {
      const hardState = random() < 0.3 ? Buffer.from(`h${counter++}`) : null;
      if (hardState !== null) model.hardState(hardState.toString('latin1'));
      const back = random() < 0.15 ? Math.floor(random() * 5) : 0;
      const firstIndex = Math.max(1, wal.lastIndex + 1 - back);
      const count = hardState === null || random() < 0.7 ? 1 + Math.floor(random() * 3) : 0;
      const entries = Array.from({ length: count }, () => body(random, `e${counter++}`));
      entries.forEach((bytes, place) => {
        model.entry(firstIndex + place, bytes.toString('latin1'));
      });
      const reached = model.states.length - 1;
      wal.append({
        start: null,
        hardState,
        firstIndex,
        entries,
        done: () => {
          model.safe = Math.max(model.safe, reached);
        },
      });
    }
    await settle();
  }
}

/** One history: write, crash at a random operation, recover, check, go on, several times over. */
async function runHistory(seed: number, limits: Partial<WalLimits>): Promise<void> {
  const random = seededRandom(seed);
  let operations = 0;
  let stopAt = Number.POSITIVE_INFINITY;
  const disk = new MemoryDisk({
    schedule(_, complete) {
      // From here on the disk hangs: what is in flight is what the crash will tear.
      if (++operations >= stopAt) return;
      if (random() < 0.5) queueMicrotask(complete);
      else setImmediate(complete);
    },
  });
  let model = new Model({ entries: [], hardState: '' });
  for (let life = 0; life < 5; life++) {
    stopAt = random() < 0.15 ? operations + Math.ceil(random() * 12) : Number.POSITIVE_INFINITY;
    const opening = open(disk, { limits, mustExist: false });
    const opened = await Promise.race([opening, untilStopped(() => operations >= stopAt)]);
    if (opened !== null) {
      const found = stateOf(opened);
      expect(model.allows(found), `seed ${seed}, life ${life}: recovered ${found.entries.length} entries`).toBe(true);
      // What a start has reported is durable, whatever comes next.
      model = new Model(found);
      if (stopAt === Number.POSITIVE_INFINITY) stopAt = operations + 1 + Math.floor(random() * 60);
      await writeAtRandom(opened.wal, model, random, () => operations >= stopAt);
      expect(opened.fatal).toEqual([]);
    }
    if (random() < 0.3) disk.kill(random);
    if (random() < 0.8) disk.crash(random);
    else disk.kill(random);
  }
}

async function untilStopped(stopped: () => boolean): Promise<null> {
  while (!stopped()) await settle();
  await settle();
  return null;
}

describe('after a crash at any moment', () => {
  it('everything acknowledged is there, and nothing but a prefix of what was issued after it', async () => {
    for (let seed = 1; seed <= 200; seed++) await runHistory(seed, SMALL);
  });

  it('and also where segments are as short as they can be', async () => {
    const limits = { ...SMALL, walSegmentBytes: 10 * 1024, walFirstFillBytes: 1024, walFillStepBytes: 512 };
    for (let seed = 1001; seed <= 1100; seed++) await runHistory(seed, limits);
  });
});

describe('a last batch that was torn', () => {
  /** A log of one durable batch and one that was in flight, of `entries`, when power failed; `keep` chooses its sectors. */
  async function tornLog(entries: Buffer[], keep: (sector: number) => boolean) {
    let hang = false;
    const disk = new MemoryDisk({
      schedule(operation, complete) {
        if (!(hang && operation.kind === 'write' && operation.dataSync)) queueMicrotask(complete);
      },
    });
    const { wal } = await open(disk);
    await new Promise<void>((done) =>
      wal.append({ start: null, hardState: null, firstIndex: 1, entries: [Buffer.from('durable')], done }),
    );
    await settle();
    const before = disk.contentOf(SEGMENT);
    hang = true;
    wal.append({ start: null, hardState: null, firstIndex: 2, entries, done() {} });
    await settle();
    disk.kill(() => 0.999);
    const after = disk.contentOf(SEGMENT);
    hang = false;
    const torn = Buffer.from(after);
    for (let start = 1024; start < torn.length; start += 512) {
      if (!keep((start - 1024) / 512)) before.copy(torn, start, start, start + 512);
    }
    disk.plant(SEGMENT, torn);
    return { disk, torn, whole: after };
  }
  const SEGMENT = '/node/wal/0000000000000001.wal';
  const three = [Buffer.alloc(700, 1), Buffer.alloc(700, 2)];

  for (let lost = 0; lost < 3; lost++) {
    it(`is cut where its sector ${lost} is missing, and the log goes on`, async () => {
      const { disk } = await tornLog(three, (sector) => sector !== lost);
      const again = await open(disk);
      expect(again.entries).toEqual([Buffer.from('durable')]);
      expect(again.report.tornBytes).toBeGreaterThan(0);
      expect(
        disk
          .contentOf(SEGMENT)
          .subarray(1024)
          .every((byte) => byte === 0),
      ).toBe(true);
      await new Promise<void>((done) =>
        again.wal.append({ start: null, hardState: null, firstIndex: 2, entries: three, done }),
      );
      await again.wal.close();
      const third = await open(disk);
      expect(third.entries).toEqual([Buffer.from('durable'), ...three]);
      expect(third.report.tornBytes).toBe(0);
      await third.wal.close();
    });
  }

  it('is kept where all of it had arrived', async () => {
    const { disk } = await tornLog(three, () => true);
    const again = await open(disk);
    expect(again.entries).toEqual([Buffer.from('durable'), ...three]);
    await again.wal.close();
  });

  it('is no torn batch but nothing at all where none of it had arrived', async () => {
    const { disk } = await tornLog(three, () => false);
    const again = await open(disk);
    expect(again.entries).toEqual([Buffer.from('durable')]);
    expect(again.report.tornBytes).toBe(0);
    await again.wal.close();
  });

  it('is told from damage also where its values are nothing but zeros', async () => {
    const zeros = [Buffer.alloc(4000), Buffer.from('x')];
    const whole = await tornLog(zeros, () => true);
    const intact = await open(whole.disk);
    expect(intact.entries).toEqual([Buffer.from('durable'), ...zeros]);
    await intact.wal.close();
    // The last sector holds the second entry: with it lost, one sector more is blank than by right.
    const { disk } = await tornLog(zeros, (sector) => sector !== 7);
    const again = await open(disk);
    expect(again.entries).toEqual([Buffer.from('durable')]);
    await again.wal.close();
    // All its sectors are as they should be, but for one bit in a blank one: that is no tear.
    const rotten = await tornLog(zeros, () => true);
    rotten.disk.flipBit(SEGMENT, (1024 + 3 * 512 + 7) * 8);
    expect((await errorOf(open(rotten.disk))).code).toBe('WAL_DAMAGED');
  });

  it('is cut for good: a crash during the cut leaves something to cut again', async () => {
    for (let seed = 1; seed <= 40; seed++) {
      const random = seededRandom(seed);
      const { disk } = await tornLog([Buffer.alloc(3000, 9)], (sector) => sector !== seed % 6);
      disk.failOnce('EIO', ({ kind }) => kind === 'sync');
      await errorOf(open(disk));
      disk.crash(random);
      const again = await open(disk);
      expect(again.entries).toEqual([Buffer.from('durable')]);
      await again.wal.close();
    }
  });
});
