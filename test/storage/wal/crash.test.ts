import { describe, expect, it } from 'vitest';
import type { LogBase } from '../../../src/storage/wal/types.ts';
import type { WalLimits } from '../../../src/storage/wal/wal.ts';
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

const SHORT = { ...SMALL, walSegmentBytes: 10 * 1024, walFirstFillBytes: 1024, walFillStepBytes: 512 };

/**
 * The promise of durability, against a naive model: an array that is truncated, appended to and reset. Whatever a crash
 * leaves must be the model as it was after some record issued, and no earlier than after the last write that was done;
 * but for a truncated prefix.
 */
interface State {
  /** The entries come after this index. */
  readonly base: number;
  readonly entries: readonly string[];
  readonly hardState: string;
}

const lastOf = ({ base, entries }: State) => base + entries.length;

/** Every state that the log on disk may pass through, record by record; those before `safe` may no longer come back. */
class Model {
  readonly states: State[];
  safe = 0;
  /** What the newest snapshot stands for: how far the front may be gone. */
  begin: LogBase;
  /** The newest log reset was issued in the state of this place; 0 for none. */
  startedAt = 0;

  constructor(found: State, begin: LogBase) {
    this.states = [found];
    this.begin = begin;
  }

  get now(): State {
    return this.states.at(-1) ?? { base: 0, entries: [], hardState: '' };
  }

  hardState(value: string): void {
    this.states.push({ ...this.now, hardState: value });
  }

  entry(index: number, value: string): void {
    const { base, entries } = this.now;
    this.states.push({ ...this.now, entries: [...entries.slice(0, index - base - 1), value] });
  }

  /** Together, or not at all. */
  reset(begin: LogBase, hardState: string | null): void {
    this.startedAt = this.states.length;
    this.begin = begin;
    this.states.push({ base: begin.index, entries: [], hardState: hardState ?? this.now.hardState });
  }

  /** Entries up to here are durable, and no write on its way replaces them: they may pass for committed. */
  get stableIndex(): number {
    const open = this.states.slice(this.safe);
    if (open.some(({ base }) => base !== this.now.base)) return 0;
    return Math.min(...open.map(lastOf)) - (open.length > 1 ? 1 : 0);
  }

  /** The place of the state that was found; -1 where there can be none like it. */
  placeOf(found: State): number {
    return this.states.findLastIndex((state, place) => place >= this.safe && this.sameState(state, found));
  }

  private sameState(state: State, found: State): boolean {
    if (state.hardState !== found.hardState) return false;
    // A log in which nothing was ever begins where the snapshot ends.
    if (state.entries.length === 0 && found.entries.length === 0 && found.base === this.begin.index) return true;
    if (lastOf(state) !== lastOf(found) || found.base < state.base) return false;
    if (found.base > state.base && found.base > this.begin.index) return false;
    return found.entries.every((entry, n) => entry === state.entries[n + found.base - state.base]);
  }
}

const stateOf = ({ wal, entries, hardState }: Opened): State => ({
  base: wal.firstIndex - 1,
  entries: texts(entries),
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
  let compacting = false;
  const write = (reset: LogBase | null) => {
    const hardState = random() < 0.3 ? Buffer.from(`h${counter++}`) : null;
    const value = hardState?.toString('latin1') ?? null;
    if (reset !== null) model.reset(reset, value);
    else if (value !== null) model.hardState(value);
    const back = random() < 0.15 && reset === null ? Math.floor(random() * 5) : 0;
    // What a snapshot stands for is committed, and never replaced.
    const lowest = Math.max(model.begin.index, wal.firstIndex - 1) + 1;
    const firstIndex = reset === null ? Math.max(lowest, wal.lastIndex + 1 - back) : reset.index + 1;
    const count = (reset ?? hardState) === null || random() < 0.7 ? 1 + Math.floor(random() * 3) : 0;
    const entries = Array.from({ length: count }, () => body(random, `e${counter++}`));
    for (const [place, bytes] of entries.entries()) model.entry(firstIndex + place, bytes.toString('latin1'));
    const reached = model.states.length - 1;
    const done = () => {
      model.safe = Math.max(model.safe, reached);
    };
    wal.append({ reset, hardState, firstIndex, entries, done });
  };
  // A process that died between a snapshot it had received and the log reset behind it.
  if (model.startedAt < 0 || wal.lastIndex < model.begin.index) write(model.begin);
  while (!stopped()) {
    const burst = 1 + Math.floor(random() * 4);
    for (let n = 0; n < burst; n++) {
      const jump = random() < 0.04 ? 1 + Math.floor(random() * (wal.lastIndex - model.begin.index + 8)) : 0;
      write(jump === 0 ? null : { index: model.begin.index + jump, term: counter });
    }
    await waitUntilIdle();
    if (compacting || random() < 0.7) continue;
    const stable = model.stableIndex;
    if (stable > model.begin.index && random() < 0.7) model.begin = { index: stable, term: 1 };
    compacting = true;
    wal.compact(Math.max(0, model.begin.index - Math.floor(random() * 4))).then(
      () => {
        compacting = false;
      },
      () => {},
    );
    // What a process has asked the disk for when it dies, it must have asked for.
    await waitUntilIdle();
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
  let model = new Model({ base: 0, entries: [], hardState: '' }, NO_SNAPSHOT);
  for (let incarnation = 0; incarnation < 5; incarnation++) {
    stopAt = random() < 0.15 ? operations + Math.ceil(random() * 12) : Number.POSITIVE_INFINITY;
    const opening = open(disk, { limits, mustExist: false, begin: model.begin });
    const opened = await Promise.race([opening, untilStopped(() => operations >= stopAt)]);
    if (opened !== null) {
      const found = stateOf(opened);
      const place = model.placeOf(found);
      if (place < 0)
        expect.fail(
          `seed ${seed}, incarnation ${incarnation}: recovered ${found.base} + ${found.entries.length} entries`,
        );
      // What a start has reported is durable, whatever comes next.
      const { startedAt, begin } = model;
      model = new Model(found, begin);
      if (startedAt < 0 || place < startedAt) model.startedAt = found.base === begin.index ? 0 : -1;
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
  while (!stopped()) await waitUntilIdle();
  await waitUntilIdle();
  return null;
}

describe('after a crash at any moment', () => {
  it('everything acknowledged is there, and nothing but a prefix of what was issued after it', async () => {
    for (let seed = 1; seed <= 200; seed++) await runHistory(seed, SMALL);
  });

  it('and also where segments are as short as they can be', async () => {
    for (let seed = 1001; seed <= 1100; seed++) await runHistory(seed, SHORT);
  });
});

describe('power loss at every single operation of the disk', () => {
  /** Does `work` on a log of `entries`, interrupted after ever more operations, until it is done; `check` sees each next start. */
  async function atEveryStep(
    work: (opened: Opened) => Promise<void>,
    begin: LogBase,
    check: (found: State, whole: readonly string[], isDone: boolean) => string | null,
  ): Promise<number> {
    for (let stopAt = 0; ; stopAt++) {
      for (let seed = 1; ; seed++) {
        const random = seededRandom(stopAt * 10 + seed);
        let left = Number.POSITIVE_INFINITY;
        const disk = new MemoryDisk({
          schedule(_, complete) {
            if (left-- > 0) queueMicrotask(complete);
          },
        });
        const first = await open(disk, { limits: SHORT });
        const entries = someEntries(90);
        await append(first.wal, [], { hardState: Buffer.from('old') });
        for (const entry of entries) await append(first.wal, [entry]);
        await waitUntilIdle();
        left = stopAt;
        const isDone = await Promise.race([
          work(first).then(() => true),
          untilStopped(() => left < 0).then(() => false),
        ]);
        if (seed === 4) disk.kill(random);
        else disk.crash(random);
        left = Number.POSITIVE_INFINITY;
        const again = await open(disk, { limits: SHORT, begin, mustExist: true });
        const fault = check(stateOf(again), texts(entries), isDone);
        if (fault !== null) expect.fail(`step ${stopAt}, seed ${seed}: ${fault}`);
        await append(again.wal, [Buffer.from('next')], again.wal.lastIndex < begin.index ? { reset: begin } : {});
        disk.crash(random);
        const third = await open(disk, { limits: SHORT, begin });
        if (third.entries.at(-1)?.toString() !== 'next') expect.fail(`step ${stopAt}: what came later is lost`);
        if (isDone) return stopAt;
        if (seed === 4) break;
      }
    }
  }

  it('leaves a log whose prefix was being truncated, with all behind it', async () => {
    const steps = await atEveryStep(
      ({ wal }) => wal.compact(60),
      { index: 60, term: 1 },
      (found, whole) => {
        if (found.base > 60 || lastOf(found) !== 90 || found.hardState !== 'old') return JSON.stringify(found);
        return found.entries.join('|') === whole.slice(found.base).join('|') ? null : 'other entries';
      },
    );
    expect(steps).toBeGreaterThan(4);
  });

  it('leaves a log that was being reset as it was, or reset with its hard state', async () => {
    const begin = { index: 200, term: 5 };
    const work = async ({ wal }: Opened) => {
      await append(wal, [Buffer.from('a'), Buffer.from('b')], { reset: begin, hardState: Buffer.from('new') });
      await wal.compact(200);
    };
    const seen = new Set<string>();
    const steps = await atEveryStep(work, begin, ({ base, entries, hardState }, whole, isDone) => {
      const state = `${base} ${entries.length} ${hardState}`;
      seen.add(state);
      if (state === '200 2 new') return entries.join() === 'a,b' ? null : 'other entries';
      return !isDone && state === '0 90 old' && entries.join('|') === whole.join('|') ? null : state;
    });
    expect(steps).toBeGreaterThan(6);
    expect(seen).toEqual(new Set(['0 90 old', '200 2 new']));
  });
});

describe('a last block that was torn', () => {
  /** A log of one durable block and one that was in flight, of `entries`, when power failed; `keep` chooses its sectors. */
  async function tornLog(entries: Buffer[], keep: (sector: number) => boolean) {
    let hang = false;
    const disk = new MemoryDisk({
      schedule(operation, complete) {
        if (!(hang && operation.kind === 'write' && operation.dataSync)) queueMicrotask(complete);
      },
    });
    const { wal } = await open(disk);
    await new Promise<void>((done) =>
      wal.append({ reset: null, hardState: null, firstIndex: 1, entries: [Buffer.from('durable')], done }),
    );
    await waitUntilIdle();
    const before = disk.contentOf(SEGMENT);
    hang = true;
    wal.append({ reset: null, hardState: null, firstIndex: 2, entries, done() {} });
    await waitUntilIdle();
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
    it(`is truncated where its sector ${lost} is missing, and the log goes on`, async () => {
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
        again.wal.append({ reset: null, hardState: null, firstIndex: 2, entries: three, done }),
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

  it('is no torn block but nothing at all where none of it had arrived', async () => {
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

  it('is truncated for good: a crash during the truncation leaves something to truncate again', async () => {
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
