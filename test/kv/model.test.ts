import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Op } from '../../src/kv/types.ts';
import { collectGarbage } from '../support/garbage.ts';
import { type Command, Driver, plain, START_MS } from './harness.ts';
import { ReferenceStore } from './reference-store.ts';

const ITEM_BYTES_MAX = 120;
const STORE_BYTES_MAX = 900;

const value = fc.oneof(
  fc.constantFrom(
    '',
    '0',
    '9',
    ' 12',
    '12 ',
    '99',
    '-1',
    '+3',
    '5 x',
    '18446744073709551615',
    '9007199254740991',
    '10',
  ),
  fc.integer({ min: 0, max: 70 }).map((length) => 'x'.repeat(length)),
);
const exptime = fc.constantFrom(0, 0, 0, 1, 2, 3, 30, -1, 2_592_000, 2_592_001, START_MS / 1000 + 2, 2 ** 45);
const uint64 = fc.oneof(fc.bigInt({ min: 0n, max: 40n }), fc.constantFrom(2n ** 53n, 2n ** 63n, 2n ** 64n - 1n));
const CLASSIC_OPS = Object.values(Op).filter((one) => one <= Op.flushAll);
/** Every operation as often as any other but flush_all, after which there is little to see. */
const op = fc.constantFrom(...CLASSIC_OPS, ...CLASSIC_OPS.filter((one) => one !== Op.flushAll), Op.set, Op.incr);
const command: fc.Arbitrary<Command> = fc
  .record({ op, key: fc.constantFrom('a', 'b', 'c', 'dd', 'eee'), value, flags: fc.nat(5), exptime, arg: uint64 })
  .map((one) => (one.op === Op.flushAll ? { ...one, arg: one.arg % 7n } : one));
const step = fc.record({
  passMs: fc.constantFrom(0, 0, 0, 1, 500, 1000, 2500, -700),
  commands: fc.array(command, { maxLength: 8 }),
});

describe('the state machine', () => {
  it('does what the reference model does', () => {
    const seen = new Set<string>();
    const agree = (steps: { passMs: number; commands: Command[] }[]) => {
      const driver = new Driver();
      driver.itemBytesMax = ITEM_BYTES_MAX;
      driver.storeBytesMax = STORE_BYTES_MAX;
      const model = new ReferenceStore();
      for (const { passMs, commands } of steps) {
        driver.timeMs += passMs;
        const results = driver.runAll(commands);
        const expected = model.apply(driver.timeMs, commands, ITEM_BYTES_MAX, STORE_BYTES_MAX);
        expect(results).toEqual(expected);
        for (const { code } of results) seen.add(code);
        const { machine } = driver;
        expect(new Map([...machine.entries()].map(([key, item]) => [key, plain(item)]))).toEqual(model.items);
        expect(machine).toMatchObject({ items: model.items.size, storeBytes: model.bytes, timeMs: model.timeMs });
        expect(machine).toMatchObject({ casCounter: model.lastCas, totalItems: model.totalItems });
        expect(machine.nextEventMs()).toBe(model.nextEventMs);
        expect(machine.get('none')).toBeUndefined();
      }
    };
    fc.assert(fc.property(fc.array(step, { minLength: 1, maxLength: 30 }), agree), { numRuns: 400 });
    const rare: string[] = ['exists', 'tooLarge', 'outOfMemory', 'nonNumeric', 'value', 'touched'];
    expect(rare.filter((code) => !seen.has(code))).toEqual([]);
  });

  it('stays bounded when an item is touched a million times', () => {
    const driver = new Driver();
    driver.run({ op: Op.set, key: 'k', value: 'x', exptime: 1 });
    const touches: Command[] = Array.from({ length: 1000 }, (_, i) => ({
      op: Op.touch,
      key: 'k',
      exptime: 1 + (i % 60),
    }));
    const heapBytes = (): number => {
      collectGarbage();
      return process.memoryUsage().heapUsed;
    };
    const before = heapBytes();
    for (let i = 0; i < 1000; i++) driver.runAll(touches);
    // A million leftovers of 16 bytes each would be 16 MB.
    expect(heapBytes() - before).toBeLessThan(4e6);
    expect(driver.machine).toMatchObject({ items: 1, casCounter: 1 });
    expect(driver.machine.nextEventMs()).toBe(START_MS + 40_000);
    driver.pass(40_000);
    expect(driver.machine.nextEventMs()).toBe(Number.POSITIVE_INFINITY);
    expect(driver.machine.items).toBe(0);
  });
});
