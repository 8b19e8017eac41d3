import { describe, expect, it } from 'vitest';
import { ITEM_OVERHEAD_BYTES, STORE_OVERHEAD_BYTES } from '../../src/kv/store.ts';
import { Op } from '../../src/kv/types.ts';
import { Driver, START_MS } from './harness.ts';

const NEVER = Number.POSITIVE_INFINITY;
const MONTH_SECONDS = 2_592_000;

function driverWith(value = 'old', exptime = 0): Driver {
  const driver = new Driver();
  driver.run({ op: Op.set, key: 'k', value, flags: 7, exptime });
  return driver;
}

describe('storing', () => {
  it('set stores, whether or not there is an item', () => {
    const driver = driverWith();
    expect(driver.item('k')).toEqual({ value: 'old', flags: 7, expiresAtMs: NEVER, cas: 1 });
    expect(driver.say({ op: Op.set, key: 'k', value: 'new', flags: 0xffff_ffff, exptime: 9 })).toBe('stored');
    const expiresAtMs = START_MS + 9000;
    expect(driver.item('k')).toEqual({ value: 'new', flags: 0xffff_ffff, expiresAtMs, cas: 2 });
  });

  it('keys and values are any bytes', () => {
    const bytes = String.fromCharCode(...Array.from({ length: 250 }, (_, i) => i));
    const driver = new Driver();
    driver.run({ op: Op.set, key: bytes, value: `${bytes}\xfa\xff\r\n` });
    expect(driver.value(bytes)).toBe(`${bytes}\xfa\xff\r\n`);
    driver.run({ op: Op.append, key: bytes, value: '\xfe\0' });
    expect(driver.value(bytes)).toBe(`${bytes}\xfa\xff\r\n\xfe\0`);
  });

  it('add stores only where there is no item, replace only where there is one', () => {
    const driver = driverWith();
    expect(driver.say({ op: Op.add, key: 'k', value: 'x' })).toBe('notStored');
    expect(driver.say({ op: Op.replace, key: 'other', value: 'x' })).toBe('notStored');
    expect([driver.value('k'), driver.value('other')]).toEqual(['old', undefined]);
    expect(driver.say({ op: Op.add, key: 'other', value: 'x' })).toBe('stored');
    expect(driver.say({ op: Op.replace, key: 'k', value: 'y' })).toBe('stored');
    expect([driver.value('k'), driver.value('other')]).toEqual(['y', 'x']);
  });

  it('append and prepend join, and keep flags and expiry', () => {
    const driver = driverWith('old', 50);
    expect(driver.say({ op: Op.append, key: 'k', value: '>', flags: 1, exptime: 1 })).toBe('stored');
    expect(driver.say({ op: Op.prepend, key: 'k', value: '<', flags: 1, exptime: -1 })).toBe('stored');
    expect(driver.item('k')).toEqual({ value: '<old>', flags: 7, expiresAtMs: START_MS + 50_000, cas: 3 });
    expect(driver.say({ op: Op.append, key: 'none', value: 'x' })).toBe('notStored');
    expect(driver.say({ op: Op.prepend, key: 'none', value: 'x' })).toBe('notStored');
    expect(driver.value('none')).toBeUndefined();
  });

  it('append and prepend join values longer than the joining buffer', () => {
    const driver = driverWith('a'.repeat(30_000));
    driver.run({ op: Op.append, key: 'k', value: 'b'.repeat(30_000) });
    driver.run({ op: Op.prepend, key: 'k', value: 'c' });
    expect(driver.value('k')).toBe(`c${'a'.repeat(30_000)}${'b'.repeat(30_000)}`);
  });

  it('delete removes', () => {
    const driver = driverWith();
    expect(driver.say({ op: Op.delete, key: 'k' })).toBe('deleted');
    expect(driver.value('k')).toBeUndefined();
    expect(driver.say({ op: Op.delete, key: 'k' })).toBe('notFound');
  });

  it('the commands of a batch take effect in their order', () => {
    const codes = new Driver().runAll([
      { op: Op.add, key: 'k', value: '1' },
      { op: Op.incr, key: 'k', arg: 1n },
      { op: Op.delete, key: 'k' },
      { op: Op.incr, key: 'k', arg: 1n },
    ]);
    expect(codes.map(({ code, text }) => code + text)).toEqual(['stored', 'number2', 'deleted', 'notFound']);
  });
});

describe('cas unique', () => {
  it('stores only where the unique is that of the item', () => {
    const driver = driverWith();
    const { cas } = driver.item('k');
    expect(driver.say({ op: Op.cas, key: 'none', value: 'x', arg: 1n })).toBe('notFound');
    expect(driver.say({ op: Op.cas, key: 'k', value: 'x', arg: 0n })).toBe('exists');
    expect(driver.say({ op: Op.cas, key: 'k', value: 'x', arg: BigInt(cas) + 1n })).toBe('exists');
    expect(driver.value('k')).toBe('old');
    expect(driver.say({ op: Op.cas, key: 'k', value: 'x', arg: BigInt(cas) })).toBe('stored');
    expect(driver.say({ op: Op.cas, key: 'k', value: 'y', arg: BigInt(cas) })).toBe('exists');
    expect(driver.value('k')).toBe('x');
  });

  it('is compared in all its 64 bits', () => {
    const driver = driverWith();
    for (const high of [1n << 32n, 1n << 53n, 1n << 63n]) {
      expect(driver.say({ op: Op.cas, key: 'k', value: 'x', arg: high + 1n })).toBe('exists');
    }
  });

  it('rises with every write of an item, and only then', () => {
    const driver = driverWith('1');
    const writes = [Op.set, Op.replace, Op.append, Op.prepend, Op.incr, Op.decr];
    for (const [i, op] of writes.entries()) {
      driver.run({ op, key: 'k', value: '1', arg: 1n });
      expect(driver.item('k').cas).toBe(i + 2);
    }
    driver.run({ op: Op.touch, key: 'k', exptime: 100 });
    driver.run({ op: Op.getAndTouch, key: 'k', exptime: 100 });
    driver.run({ op: Op.add, key: 'k', value: 'x' });
    driver.run({ op: Op.cas, key: 'k', value: 'x', arg: 1n });
    driver.run({ op: Op.delete, key: 'none' });
    expect(driver.item('k').cas).toBe(7);
    expect(driver.machine.casCounter).toBe(7);
    driver.run({ op: Op.flushAll });
    driver.run({ op: Op.add, key: 'k', value: 'x' });
    expect(driver.item('k').cas).toBe(8);
  });
});

describe('incr and decr', () => {
  it('count, keep flags and expiry, and answer the number', () => {
    const driver = driverWith('10', 50);
    expect(driver.say({ op: Op.incr, key: 'k', arg: 5n })).toBe('15');
    expect(driver.say({ op: Op.decr, key: 'k', arg: 3n, exptime: -1 })).toBe('12');
    expect(driver.item('k')).toEqual({ value: '12', flags: 7, expiresAtMs: START_MS + 50_000, cas: 3 });
    expect(driver.say({ op: Op.incr, key: 'none', arg: 5n })).toBe('notFound');
  });

  it('a shorter result is padded with spaces to the length of the value', () => {
    const driver = driverWith('10');
    expect(driver.say({ op: Op.decr, key: 'k', arg: 1n })).toBe('9');
    expect(driver.value('k')).toBe('9 ');
    expect(driver.say({ op: Op.incr, key: 'k', arg: 1n })).toBe('10');
    expect(driver.value('k')).toBe('10');
  });

  it('a longer result replaces the value', () => {
    const driver = driverWith('99');
    expect(driver.say({ op: Op.incr, key: 'k', arg: 1n })).toBe('100');
    expect(driver.value('k')).toBe('100');
    expect(driver.machine.storeBytes).toBe(4 + STORE_OVERHEAD_BYTES);
  });

  it('incr wraps at 2^64 and decr stops at 0', () => {
    const driver = driverWith('18446744073709551615');
    expect(driver.say({ op: Op.incr, key: 'k', arg: 1n })).toBe('0');
    expect(driver.value('k')).toBe('0'.padEnd(20));
    expect(driver.say({ op: Op.decr, key: 'k', arg: 2n ** 64n - 1n })).toBe('0');
  });

  it('a value that is not a number stays as it is', () => {
    for (const value of ['', 'x', '-1', '18446744073709551616']) {
      const driver = driverWith(value);
      expect(driver.say({ op: Op.incr, key: 'k', arg: 1n })).toBe('nonNumeric');
      expect(driver.item('k')).toMatchObject({ value, cas: 1 });
    }
  });
});

describe('expiry', () => {
  it('exptime 0 is never', () => {
    const driver = driverWith('old', 0);
    driver.pass(1e12);
    expect(driver.value('k')).toBe('old');
    expect(driver.machine.nextEventMs()).toBe(NEVER);
  });

  it('up to thirty days exptime counts from the time of the batch', () => {
    const driver = driverWith('old', MONTH_SECONDS);
    expect(driver.machine.nextEventMs()).toBe(START_MS + MONTH_SECONDS * 1000);
    driver.pass(MONTH_SECONDS * 1000 - 1);
    expect(driver.value('k')).toBe('old');
    driver.pass(1);
    expect(driver.value('k')).toBeUndefined();
    expect(driver.machine.items).toBe(0);
    expect(driver.machine.storeBytes).toBe(0);
  });

  it('above thirty days exptime is Unix time, also beyond 2038', () => {
    const driver = new Driver();
    driver.run({ op: Op.set, key: 'past', value: 'x', exptime: MONTH_SECONDS + 1 });
    driver.run({ op: Op.set, key: 'soon', value: 'x', exptime: START_MS / 1000 + 5 });
    driver.run({ op: Op.set, key: 'late', value: 'x', exptime: 2 ** 40 });
    expect(driver.value('past')).toBeUndefined();
    expect(driver.item('soon').expiresAtMs).toBe(START_MS + 5000);
    expect(driver.item('late').expiresAtMs).toBe(2 ** 40 * 1000);
  });

  for (const exptime of [-1, Number.MIN_SAFE_INTEGER, START_MS / 1000]) {
    it(`with exptime ${exptime} an item is stored and gone at once, and so is what it replaced`, () => {
      const driver = driverWith();
      expect(driver.say({ op: Op.set, key: 'k', value: 'x', exptime })).toBe('stored');
      expect(driver.value('k')).toBeUndefined();
      expect(driver.say({ op: Op.add, key: 'k', value: 'x', exptime })).toBe('stored');
      expect(driver.value('k')).toBeUndefined();
      expect(driver.machine).toMatchObject({ items: 0, storeBytes: 0, casCounter: 3, totalItems: 3 });
    });
  }

  it('an item whose time has come is gone for every command of that batch', () => {
    const driver = new Driver();
    const keys = ['add', 'replace', 'append', 'cas', 'delete', 'incr', 'touch', 'getAndTouch'] as const;
    for (const key of keys) driver.run({ op: Op.set, key, value: '1', exptime: 1 });
    driver.timeMs += 1000;
    const results = driver.runAll(keys.map((key) => ({ op: Op[key], key, value: '2', arg: 1n })));
    const gone = ['notStored', 'notStored', 'notFound', 'notFound', 'notFound', 'notFound', 'notFound'];
    expect(results.map(({ code }) => code)).toEqual(['stored', ...gone]);
    expect(driver.machine.items).toBe(1);
  });

  it('time never goes back', () => {
    const driver = driverWith('old', 10);
    driver.pass(5000);
    driver.timeMs = START_MS;
    driver.run({ op: Op.set, key: 'later', value: 'x', exptime: 10 });
    expect(driver.machine.timeMs).toBe(START_MS + 5000);
    expect(driver.item('later').expiresAtMs).toBe(START_MS + 15_000);
  });

  it('touch and getAndTouch give a new time', () => {
    const driver = driverWith('old', 10);
    expect(driver.say({ op: Op.touch, key: 'k', exptime: 20 })).toBe('touched');
    expect(driver.machine.nextEventMs()).toBe(START_MS + 20_000);
    const { code, item } = driver.run({ op: Op.getAndTouch, key: 'k', exptime: 0 });
    expect(code).toBe('value');
    expect(item).toEqual({ value: 'old', flags: 7, expiresAtMs: NEVER, cas: 1 });
    expect(driver.machine.nextEventMs()).toBe(NEVER);
    expect(driver.say({ op: Op.touch, key: 'none', exptime: 20 })).toBe('notFound');
    expect(driver.say({ op: Op.getAndTouch, key: 'none', exptime: 20 })).toBe('notFound');
  });

  it('touched into the past an item is gone, but getAndTouch still answers it', () => {
    const driver = driverWith();
    expect(driver.run({ op: Op.getAndTouch, key: 'k', exptime: -1 }).item?.value).toBe('old');
    expect(driver.value('k')).toBeUndefined();
    driver.run({ op: Op.set, key: 'k', value: 'x' });
    expect(driver.say({ op: Op.touch, key: 'k', exptime: -1 })).toBe('touched');
    expect(driver.value('k')).toBeUndefined();
  });

  it('an item that was deleted and made again keeps its new time', () => {
    const driver = driverWith('old', 10);
    driver.run({ op: Op.delete, key: 'k' });
    driver.run({ op: Op.set, key: 'k', value: 'new', exptime: 20 });
    driver.pass(10_000);
    expect(driver.value('k')).toBe('new');
    driver.pass(10_000);
    expect(driver.value('k')).toBeUndefined();
  });
});

describe('flush_all', () => {
  it('empties at once; what is set after it survives', () => {
    const driver = driverWith('old', 50);
    driver.runAll([{ op: Op.flushAll }, { op: Op.set, key: 'new', value: 'x' }]);
    expect([driver.value('k'), driver.value('new')]).toEqual([undefined, 'x']);
    expect(driver.machine).toMatchObject({ items: 1, storeBytes: 4 + STORE_OVERHEAD_BYTES });
    expect(driver.machine.nextEventMs()).toBe(NEVER);
  });

  it('with a delay empties when that is over, also what was written meanwhile, and before the commands of that batch', () => {
    const driver = driverWith();
    expect(driver.say({ op: Op.flushAll, arg: 10n })).toBe('ok');
    expect(driver.machine.nextEventMs()).toBe(START_MS + 10_000);
    driver.timeMs += 9999;
    driver.run({ op: Op.set, key: 'meanwhile', value: 'x' });
    expect(driver.value('k')).toBe('old');
    driver.timeMs += 1;
    driver.run({ op: Op.set, key: 'after', value: 'x' });
    expect([...driver.machine.entries()].map(([key]) => key)).toEqual(['after']);
    driver.pass(1e6);
    expect(driver.value('after')).toBe('x');
  });

  it('the newest takes the place of a pending one', () => {
    const driver = driverWith();
    driver.run({ op: Op.flushAll, arg: 10n });
    driver.run({ op: Op.flushAll, arg: 100n });
    driver.pass(50_000);
    expect(driver.value('k')).toBe('old');
    driver.runAll([{ op: Op.flushAll }, { op: Op.set, key: 'k', value: 'new' }]);
    expect(driver.machine.flushAtMs).toBe(NEVER);
    driver.pass(100_000);
    expect(driver.value('k')).toBe('new');
  });

  it('takes a delay above thirty days for Unix time; a moment in the past is now', () => {
    const driver = driverWith();
    driver.run({ op: Op.flushAll, arg: BigInt(START_MS / 1000 + 60) });
    expect(driver.machine.flushAtMs).toBe(START_MS + 60_000);
    driver.run({ op: Op.flushAll, arg: BigInt(MONTH_SECONDS + 1) });
    expect(driver.machine).toMatchObject({ items: 0, flushAtMs: NEVER });
  });
});

describe('limits', () => {
  it('a value of 1 MiB is too large for an item limit of 1 MiB', () => {
    const driver = new Driver();
    const largest = 1024 * 1024 - ITEM_OVERHEAD_BYTES - 1;
    expect(driver.say({ op: Op.set, key: 'k', value: 'x'.repeat(largest) })).toBe('stored');
    expect(driver.say({ op: Op.set, key: 'k', value: 'x'.repeat(largest + 1) })).toBe('tooLarge');
    expect(driver.say({ op: Op.set, key: 'k', value: 'x'.repeat(1024 * 1024) })).toBe('tooLarge');
  });

  it('a set that is too large takes the old item with it; the other commands keep it', () => {
    const driver = driverWith();
    const value = 'x'.repeat(1024 * 1024);
    for (const op of [Op.add, Op.replace, Op.append, Op.prepend, Op.cas]) {
      expect(driver.say({ op, key: 'k', value, arg: 1n })).toBe('tooLarge');
      expect(driver.item('k')).toMatchObject({ value: 'old', cas: 1 });
    }
    expect(driver.say({ op: Op.set, key: 'k', value })).toBe('tooLarge');
    expect(driver.value('k')).toBeUndefined();
  });

  it('an item cannot grow beyond the limit', () => {
    const driver = driverWith('99');
    driver.itemBytesMax = 3 + ITEM_OVERHEAD_BYTES;
    expect(driver.say({ op: Op.append, key: 'k', value: 'x' })).toBe('tooLarge');
    expect(driver.say({ op: Op.prepend, key: 'k', value: 'x' })).toBe('tooLarge');
    expect(driver.say({ op: Op.incr, key: 'k', arg: 1n })).toBe('tooLarge');
    expect(driver.say({ op: Op.decr, key: 'k', arg: 1n })).toBe('98');
  });

  it('a full store refuses what would grow it and evicts nothing', () => {
    const driver = driverWith('99');
    driver.storeBytesMax = driver.machine.storeBytes;
    expect(driver.say({ op: Op.set, key: 'n', value: 'x' })).toBe('outOfMemory');
    expect(driver.say({ op: Op.add, key: 'n', value: 'x' })).toBe('outOfMemory');
    expect(driver.say({ op: Op.replace, key: 'k', value: 'xxx' })).toBe('outOfMemory');
    expect(driver.say({ op: Op.cas, key: 'k', value: 'xxx', arg: 1n })).toBe('outOfMemory');
    expect(driver.say({ op: Op.append, key: 'k', value: 'x' })).toBe('outOfMemory');
    expect(driver.say({ op: Op.incr, key: 'k', arg: 1n })).toBe('outOfMemory');
    expect(driver.item('k')).toMatchObject({ value: '99', cas: 1 });
    expect(driver.say({ op: Op.set, key: 'k', value: 'yy' })).toBe('stored');
    expect(driver.say({ op: Op.set, key: 'k', value: 'yyy' })).toBe('outOfMemory');
    expect(driver.value('k')).toBeUndefined();
  });

  it('a store above a lowered limit still takes what does not grow it', () => {
    const driver = driverWith('99');
    driver.storeBytesMax = 0;
    expect(driver.say({ op: Op.set, key: 'k', value: '98' })).toBe('stored');
    expect(driver.say({ op: Op.set, key: 'k', value: '' })).toBe('stored');
    expect(driver.say({ op: Op.append, key: 'k', value: 'x' })).toBe('outOfMemory');
  });

  it('bytes and items are counted', () => {
    const driver = driverWith('12345');
    driver.run({ op: Op.append, key: 'k', value: '6' });
    driver.run({ op: Op.set, key: 'longer', value: 'x' });
    expect(driver.machine).toMatchObject({ items: 2, totalItems: 3, storeBytes: 14 + 2 * STORE_OVERHEAD_BYTES });
    driver.run({ op: Op.delete, key: 'k' });
    expect(driver.machine).toMatchObject({ items: 1, totalItems: 3, storeBytes: 7 + STORE_OVERHEAD_BYTES });
  });
});
