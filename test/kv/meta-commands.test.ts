import { describe, expect, it } from 'vitest';
import { META_BLOCK_BYTES, MetaFlag, MetaMode, STALE, WON } from '../../src/kv/meta.ts';
import { Op } from '../../src/kv/types.ts';
import { applyTo, batchOf, Driver, metaValue, START_MS } from './harness.ts';

const get = (key: string, fields = {}, exptime = 0) => ({ op: Op.metaGet, key, value: metaValue(fields), exptime });
const set = (key: string, data: string, fields = {}, arg = 0n) => ({
  op: Op.metaSet,
  key,
  value: metaValue(fields, data),
  arg,
});
const invalidate = (key: string, exptime?: number) => ({
  op: Op.metaDelete,
  key,
  value: metaValue({ asked: MetaFlag.invalidate | (exptime === undefined ? 0 : MetaFlag.exptime) }),
  exptime: exptime ?? 0,
});
const count = (key: string, fields = {}, exptime = 0) => ({
  op: Op.metaArithmetic,
  key,
  value: metaValue({ deltaLow: 1, ...fields }),
  exptime,
});

function filled(): Driver {
  const driver = new Driver();
  driver.run({ op: Op.set, key: 'k', value: 'old', exptime: 100 });
  return driver;
}

describe('tokens', () => {
  it('go to one reader of a stale item, and end with the next value', () => {
    const driver = filled();
    expect(driver.say(invalidate('k', 30))).toBe('deleted');
    expect(driver.machine.get('k')).toMatchObject({ tokens: STALE, cas: 2, expiresAtMs: START_MS + 30_000 });
    expect(driver.run(get('k')).text).toBe(`,W,${START_MS + 30_000},${START_MS + 30_000}`);
    expect(driver.run(get('k')).text).toBe(`,,${START_MS + 30_000},${START_MS + 30_000}`);
    expect(driver.machine.get('k')?.tokens).toBe(STALE | WON);
    driver.run({ op: Op.append, key: 'k', value: '+' });
    expect(driver.machine.get('k')).toMatchObject({ tokens: 0, value: 'old+' });
  });

  it('go to one reader who asks while little time is left', () => {
    const driver = filled();
    const low = (seconds: number) => driver.run(get('k', { asked: MetaFlag.recache, recacheSeconds: seconds })).text;
    expect(low(100)).toBe(`,,${START_MS + 100_000},${START_MS + 100_000}`);
    expect(low(101)).toContain('W');
    expect(low(101)).not.toContain('W');
  });

  it('stay on a number that is counted up in its place, and go with it when it grows', () => {
    const driver = new Driver();
    driver.run({ op: Op.set, key: 'n', value: '8' });
    driver.run(invalidate('n'));
    driver.run({ op: Op.incr, key: 'n', arg: 1n });
    expect(driver.machine.get('n')?.tokens).toBe(STALE);
    driver.run(count('n'));
    expect(driver.machine.get('n')).toMatchObject({ value: '10', tokens: 0 });
  });

  it('are part of the state that replicas compare', () => {
    const [one, other] = [filled(), filled()];
    expect(one.machine.hash()).toBe(other.machine.hash());
    const asked = MetaFlag.recache;
    one.run(get('k', { asked, recacheSeconds: 200 }));
    other.run(get('k', { asked, recacheSeconds: 1 }));
    expect(one.machine.hash()).not.toBe(other.machine.hash());
  });
});

describe('a cas unique of 64 bits', () => {
  it.each([2n ** 53n - 1n, 2n ** 53n, 2n ** 53n + 1n, 2n ** 64n - 1n])('is kept and compared exactly: %s', (cas) => {
    const driver = new Driver();
    const block = { asked: MetaFlag.newCas, newCasHigh: Number(cas >> 32n), newCasLow: Number(cas & 0xffff_ffffn) };
    const stored = driver.run(set('k', 'v', block));
    expect(BigInt(stored.item?.cas ?? 0)).toBe(cas);
    expect(typeof stored.item?.cas).toBe(cas < 2n ** 53n ? 'number' : 'bigint');
    const compare = { asked: MetaFlag.cas };
    expect(driver.say(set('k', 'w', compare, cas - 1n))).toBe('exists');
    expect(driver.say({ op: Op.cas, key: 'k', value: 'x', arg: cas - 1n })).toBe('exists');
    expect(driver.say({ op: Op.cas, key: 'k', value: 'x', arg: cas })).toBe('stored');
    expect(driver.item('k').cas).toBe(1);
  });

  it('shows in the digest', () => {
    const [one, other] = [2 ** 21, 2 ** 21 + 1].map((newCasHigh) => {
      const driver = new Driver();
      driver.run(set('k', 'v', { asked: MetaFlag.newCas, newCasHigh }));
      return driver.machine.hash();
    });
    expect(one).not.toBe(other);
  });
});

describe('metaSet', () => {
  it('keeps a late value as a stale one, with the time that was left', () => {
    const driver = filled();
    const late = { asked: MetaFlag.cas | MetaFlag.invalidate };
    driver.run({ op: Op.set, key: 'k', value: 'new', exptime: 100 });
    expect(driver.say(set('k', 'late', late, 0n))).toBe('exists');
    expect(driver.say(set('k', 'late', late, 1n))).toBe('stored');
    const expected = { value: 'late', tokens: STALE, cas: 3, expiresAtMs: START_MS + 100_000 };
    expect(driver.machine.get('k')).toMatchObject(expected);
    expect(driver.say(set('k', 'later', late, 9n))).toBe('exists');
  });

  it('makes what is to be appended to, where N asks for it', () => {
    const driver = new Driver();
    const { append } = MetaMode;
    expect(driver.say(set('k', 'a', { mode: append }))).toBe('notStored');
    expect(driver.say(set('k', 'a', { mode: append, asked: MetaFlag.vivify, vivifySeconds: 5 }))).toBe('stored');
    expect(driver.say(set('k', 'b', { mode: append, asked: MetaFlag.vivify, vivifySeconds: 9 }))).toBe('stored');
    expect(driver.item('k')).toMatchObject({ value: 'ab', expiresAtMs: START_MS + 5000 });
  });

  it('that fails for its size takes the old item with it only where it was unconditional', () => {
    const driver = filled();
    driver.itemBytesMax = 64;
    expect(driver.say(set('k', 'x'.repeat(5), { mode: MetaMode.replace }))).toBe('tooLarge');
    expect(driver.say(set('k', 'x'.repeat(5), { asked: MetaFlag.cas }, 1n))).toBe('tooLarge');
    expect(driver.value('k')).toBe('old');
    expect(driver.say(set('k', 'x'.repeat(4)))).toBe('stored');
    expect(driver.say(set('k', 'x'.repeat(5)))).toBe('tooLarge');
    expect(driver.value('k')).toBeUndefined();
  });
});

describe('metaDelete', () => {
  it('leaves an empty item where only the value is to go', () => {
    const driver = filled();
    expect(driver.say({ op: Op.metaDelete, key: 'k', value: metaValue({ asked: MetaFlag.removeValue }) })).toBe(
      'deleted',
    );
    expect(driver.machine.get('k')).toMatchObject({ value: '', flags: 0, tokens: 0, cas: 2 });
    expect(driver.machine.storeBytes).toBe(201);
  });
});

describe('metaArithmetic', () => {
  it('begins a counter where there is none, and touches it', () => {
    const driver = new Driver();
    const made = { asked: MetaFlag.vivify, vivifySeconds: 30, initialHigh: 0xffff_ffff, initialLow: 0xffff_ffff };
    expect(driver.run(count('n'))).toMatchObject({ code: 'notFound' });
    expect(driver.run(count('n', made)).text).toBe(`18446744073709551615,W,Infinity,${START_MS + 30_000}`);
    expect(driver.run(count('n', { asked: MetaFlag.exptime }, 60)).text).toBe(
      `0,,${START_MS + 30_000},${START_MS + 60_000}`,
    );
    expect(driver.item('n').expiresAtMs).toBe(START_MS + 60_000);
  });
});

describe('an item that a meta command lets expire at once', () => {
  it.each([
    ['vivified', get('none', { asked: MetaFlag.vivify, vivifySeconds: -1 })],
    ['touched', get('k', { asked: MetaFlag.exptime }, -1)],
    ['invalidated', invalidate('k', -1)],
  ])('is gone: %s', (_, command) => {
    const driver = filled();
    driver.run(command);
    expect(driver.machine.get(command.key)).toBeUndefined();
    expect(driver.machine.nextEventMs()).toBe(command.key === 'k' ? Number.POSITIVE_INFINITY : START_MS + 100_000);
  });
});

describe('a meta command that makes no sense', () => {
  const bad = (edit: (bytes: Buffer) => void, length = META_BLOCK_BYTES) => {
    const bytes = Buffer.from(metaValue(), 'latin1');
    edit(bytes);
    return bytes.toString('latin1', 0, length);
  };
  it.each([
    ['a truncated block', bad(() => {}, META_BLOCK_BYTES - 1)],
    ['an unknown question', bad((bytes) => bytes.writeUInt16LE(1024, 0))],
    ['an unknown mode', bad((bytes) => bytes.writeUInt8(5, 2))],
    ['a reserved byte', bad((bytes) => bytes.writeUInt8(1, 3))],
    ['half a second', bad((bytes) => bytes.writeDoubleLE(0.5, 8))],
    ['no number', bad((bytes) => bytes.writeDoubleLE(Number.NaN, 16))],
  ])('spoils its whole batch: %s', (_, value) => {
    const driver = filled();
    const fields = {
      timeMs: START_MS,
      proposer: 1,
      sessionId: 1,
      sequence: 2,
      itemBytesMax: 1000,
      storeBytesMax: 1000,
    };
    const commands = [
      { op: Op.delete, key: 'k' },
      { op: Op.metaGet, key: 'k', value },
    ];
    expect(() => applyTo(driver.machine, batchOf(commands, fields))).toThrow(
      expect.objectContaining({ code: 'MESSAGE_INVALID' }),
    );
    expect(driver.value('k')).toBe('old');
  });
});
