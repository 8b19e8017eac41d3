import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MetaFlag } from '../../src/kv/meta.ts';
import { StateMachine } from '../../src/kv/state-machine.ts';
import { Op } from '../../src/kv/types.ts';
import { type Command, Driver, metaValue, START_MS } from './harness.ts';
import { applyAll, CHUNK_BYTES_MIN, drain, FILLING, LogWriter, load, portrait, turn } from './snapshot-harness.ts';

const bytesMax = fc.integer({ min: CHUNK_BYTES_MIN, max: 2500 });
const between = fc.record({ turns: fc.array(turn, { maxLength: 2 }), bytesMax });

const set = (key: string, value: string, exptime = 0): Command => ({ op: Op.set, key, value, exptime });
const filled = (items: number, value = 'old', exptime = 0): Driver => {
  const driver = new Driver();
  driver.runAll(Array.from({ length: items }, (_, i) => set(`key ${i}`, value, exptime)));
  return driver;
};

describe('a snapshot iterator', () => {
  it('holds the state as it was when it began, whatever is applied between its slices', () => {
    fc.assert(
      fc.property(
        fc.array(turn, { maxLength: 10 }),
        fc.array(between, { maxLength: 12 }),
        fc.array(turn, { maxLength: 10 }),
        bytesMax,
        (before, during, after, lastBytesMax) => {
          const log = new LogWriter();
          const machine = new StateMachine();
          applyAll(
            machine,
            [FILLING, ...before].map((one) => log.batch(one)),
          );
          const asItWas = portrait(machine);

          const iterator = machine.beginSnapshot();
          const chunks: Buffer[] = [];
          const since: Buffer[] = [];
          const results: object[] = [];
          for (const slice of during) {
            const batches = slice.turns.map((one) => log.batch(one));
            since.push(...batches);
            results.push(...applyAll(machine, batches));
            const chunk = iterator.next(slice.bytesMax);
            if (chunk !== null) chunks.push(Buffer.from(chunk));
          }
          chunks.push(...drain(iterator, lastBytesMax));
          expect(iterator.isOpen).toBe(false);

          const loaded = load(chunks);
          expect(portrait(loaded)).toEqual(asItWas);
          expect(applyAll(loaded, since)).toEqual(results);
          const further = after.map((one) => log.batch(one));
          expect(applyAll(loaded, further)).toEqual(applyAll(machine, further));
          expect(portrait(loaded)).toEqual(portrait(machine));
        },
      ),
      { numRuns: 400 },
    );
  });

  it('can be taken again and again, of what was loaded and of what was given up', () => {
    const round = fc.record({ turns: fc.array(turn, { maxLength: 3 }), slices: fc.nat(12), adopts: fc.boolean() });
    fc.assert(
      fc.property(fc.array(round, { minLength: 2, maxLength: 6 }), (rounds) => {
        const log = new LogWriter();
        const machine = new StateMachine();
        const witness = new StateMachine();
        let batches = [log.batch(FILLING)];
        for (const { turns, slices, adopts } of rounds) {
          const iterator = machine.beginSnapshot();
          batches.push(...turns.map((one) => log.batch(one)));
          applyAll(machine, batches);
          applyAll(witness, batches);
          batches = [];
          for (let i = 0; i < slices; i++) iterator.next(CHUNK_BYTES_MIN);
          iterator.close();
          const again = drain(machine.beginSnapshot(), 1000);
          expect(portrait(load(again))).toEqual(portrait(witness));
          if (adopts) machine.adopt(load(again));
          expect(portrait(machine)).toEqual(portrait(witness));
        }
      }),
      { numRuns: 150 },
    );
  });

  it('of nothing is one chunk', () => {
    const chunks = drain(new StateMachine().beginSnapshot());
    expect(chunks.map(({ length }) => length)).toEqual([64]);
    expect(portrait(load(chunks))).toEqual(portrait(new StateMachine()));
  });

  it('has what was flushed meanwhile, and nothing of what came after', () => {
    for (const flushes of [
      (driver: Driver) => driver.run({ op: Op.flushAll }),
      (driver: Driver) => driver.pass(10_000),
      (driver: Driver) => driver.run({ op: Op.flushAll, arg: 5n }) && driver.pass(5000),
    ]) {
      const driver = filled(100, 'old', 10);
      const asItWas = portrait(driver.machine);
      const iterator = driver.machine.beginSnapshot();
      const chunks = [1, 2].map(() => Buffer.from(iterator.next(1000) ?? ''));
      flushes(driver);
      expect(driver.machine.items).toBe(0);
      driver.runAll([set('key 7', 'new'), set('key 99', 'new'), set('other', 'new')]);
      expect(portrait(load([...chunks, ...drain(iterator)]))).toEqual(asItWas);
      expect(driver.machine.items).toBe(3);
      expect(portrait(load(drain(driver.machine.beginSnapshot())))).toEqual(portrait(driver.machine));
    }
  });

  it('has what expired meanwhile, many items at once', () => {
    const driver = filled(300, 'short', 5);
    driver.runAll(Array.from({ length: 100 }, (_, i) => set(`lasting ${i}`, 'x', i % 2 === 0 ? 0 : 100)));
    const asItWas = portrait(driver.machine);
    const iterator = driver.machine.beginSnapshot();
    const chunks = [1, 2, 3].map(() => Buffer.from(iterator.next(2000) ?? ''));
    driver.pass(5000);
    expect(driver.machine.items).toBe(100);
    expect(portrait(load([...chunks, ...drain(iterator)]))).toEqual(asItWas);
  });

  it('has an item as it was, though it is deleted and made again, touched or marked', () => {
    const asked = MetaFlag.invalidate | MetaFlag.exptime;
    const changes: Command[][] = [
      [{ op: Op.delete, key: 'key 3' }, set('key 3', 'made again')],
      [set('key 3', 'new'), { op: Op.delete, key: 'key 3' }, set('key 3', 'made again')],
      [{ op: Op.touch, key: 'key 3', exptime: 77 }],
      [{ op: Op.touch, key: 'key 3', exptime: -1 }],
      [{ op: Op.metaDelete, key: 'key 3', value: metaValue({ asked: MetaFlag.invalidate }) }],
      [{ op: Op.metaDelete, key: 'key 3', value: metaValue({ asked }), exptime: 9 }],
      [{ op: Op.metaDelete, key: 'key 3', value: metaValue({ asked: MetaFlag.removeValue }) }],
      [{ op: Op.metaGet, key: 'key 3', value: metaValue({ asked: MetaFlag.recache, recacheSeconds: 9999 }) }],
      [{ op: Op.metaGet, key: 'key 3', value: metaValue({ asked: MetaFlag.exptime }), exptime: -1 }],
    ];
    for (const commands of changes) {
      const driver = filled(10, '8', 50);
      const asItWas = portrait(driver.machine);
      const iterator = driver.machine.beginSnapshot();
      driver.runAll(commands);
      expect(portrait(driver.machine)).not.toEqual(asItWas);
      const chunks = drain(iterator);
      expect(portrait(load(chunks))).toEqual(asItWas);
    }
  });

  it('breaks a value that is longer than a chunk', () => {
    const driver = filled(3);
    const long = Buffer.from(Array.from({ length: 10_000 }, (_, i) => i)).toString('latin1');
    driver.runAll([set('long', long), set('key 1', 'x'.repeat(CHUNK_BYTES_MIN * 2)), set('last', '')]);
    const chunks = drain(driver.machine.beginSnapshot(), CHUNK_BYTES_MIN);
    expect(chunks.length).toBeGreaterThan(30);
    expect(Math.max(...chunks.map(({ length }) => length))).toBe(CHUNK_BYTES_MIN);
    const loaded = load(chunks);
    expect(loaded.get('long')?.value).toBe(long);
    expect(portrait(loaded)).toEqual(portrait(driver.machine));
  });

  it('looks at a bounded number of items in a slice, though most were taken before', () => {
    const driver = filled(20_000);
    const asItWas = portrait(driver.machine);
    const iterator = driver.machine.beginSnapshot();
    driver.runAll(Array.from({ length: 19_999 }, (_, i) => set(`key ${i}`, 'new')));
    const chunks = drain(iterator, 1_000_000);
    // The one item that was not written is found after a search through all of them.
    expect(chunks.filter(({ length }) => length === 4).length).toBeGreaterThanOrEqual(1);
    expect(chunks.length).toBeLessThan(20);
    expect(portrait(load(chunks))).toEqual(asItWas);
  });

  it('keeps when items were fetched', () => {
    const driver = filled(3);
    const [first, second] = [driver.machine.get('key 0'), driver.machine.get('key 1')];
    if (first === undefined || second === undefined) throw new Error('the items are missing');
    first.accessedAtSeconds = START_MS / 1000 + 5;
    const loaded = load(drain(driver.machine.beginSnapshot()));
    expect(loaded.get('key 0')?.accessedAtSeconds).toBe(START_MS / 1000 + 5);
    expect(loaded.get('key 1')?.accessedAtSeconds).toBe(-START_MS / 1000);
  });

  it('is one at a time, and over when it has ended or was closed', () => {
    const { machine } = filled(50);
    const broken = expect.objectContaining({ code: 'INVARIANT_BROKEN' });
    const first = machine.beginSnapshot();
    expect(() => machine.beginSnapshot()).toThrow(broken);
    expect(() => first.next(CHUNK_BYTES_MIN - 1)).toThrow(broken);
    first.next(CHUNK_BYTES_MIN);
    first.close();
    expect(first.isOpen).toBe(false);
    // Not null, which would be taken for a whole snapshot.
    expect(() => first.next(1000)).toThrow(broken);

    const second = machine.beginSnapshot();
    first.close();
    expect(drain(second).length).toBe(2);
    expect(second.isOpen).toBe(false);
    second.close();
    expect(second.next(1000)).toBeNull();
    expect(machine.beginSnapshot().items).toBe(50);
  });
});

describe('adopting', () => {
  it('replaces the state in place, keeps the observer, and closes an open snapshot', () => {
    const source = filled(80, 'of the source', 20);
    source.run({ op: Op.flushAll, arg: 15n });
    source.run(set('later', 'x'));
    const chunks = drain(source.machine.beginSnapshot());

    const driver = filled(30, 'of the target', 10);
    const heard: string[] = [];
    driver.machine.observer = { changed: ({ key, code }) => heard.push(`${key} ${code}`) };
    const iterator = driver.machine.beginSnapshot();
    iterator.next(1000);
    iterator.next(1000);
    driver.machine.adopt(load(chunks));
    expect(iterator.isOpen).toBe(false);
    expect(() => iterator.next(1000)).toThrow(expect.objectContaining({ code: 'INVARIANT_BROKEN' }));
    expect(portrait(driver.machine)).toEqual(portrait(source.machine));

    const log = new LogWriter();
    const batches = [
      { ...FILLING, proposer: 9 },
      { ...FILLING, proposer: 9, passMs: 2000, commands: [{ op: Op.metaDelete, key: 'later', value: metaValue() }] },
    ].map((one) => log.batch(one));
    const since = portrait(driver.machine);
    const next = driver.machine.beginSnapshot();
    expect(applyAll(driver.machine, batches)).toEqual(applyAll(source.machine, batches));
    expect(portrait(driver.machine)).toEqual(portrait(source.machine));
    expect(heard.at(-1)).toBe('later deleted');
    expect(portrait(load(drain(next)))).toEqual(since);
    const other = load(chunks);
    other.beginSnapshot();
    driver.machine.adopt(other);
    expect(driver.machine.beginSnapshot().items).toBe(81);
  });
});
