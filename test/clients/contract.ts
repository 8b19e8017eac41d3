import { expect, it } from 'vitest';
import { until } from '../support/cluster.ts';

/**
 * What every client is asked to do, through the few calls that an adapter gives it. An adapter only translates: the
 * client's own packing, parsing and errors are what is under test.
 */
export interface ClientUnderTest {
  /** True where stored; rejects where the client reports an error. */
  set(key: string, value: string | Buffer, exptime?: number): Promise<boolean>;
  add(key: string, value: string): Promise<boolean>;
  replace(key: string, value: string): Promise<boolean>;
  append(key: string, value: string): Promise<boolean>;
  prepend(key: string, value: string): Promise<boolean>;
  /** Null on a miss. */
  get(key: string): Promise<string | Buffer | null>;
  getMany(keys: readonly string[]): Promise<ReadonlyMap<string, string | Buffer>>;
  /** A value and its cas unique; null for a client that can't ask for it. */
  readonly gets: ((key: string) => Promise<{ value: string | Buffer; unique: string }>) | null;
  /** False where the unique was another. */
  cas(key: string, value: string, unique: string): Promise<boolean>;
  incr(key: string, delta: number): Promise<number | null>;
  decr(key: string, delta: number): Promise<number | null>;
  touch(key: string, exptime: number): Promise<boolean>;
  delete(key: string): Promise<boolean>;
  version(): Promise<string>;
  close(): void;
}

export interface ClientTraits {
  /** Whether values may be bytes that are no text. */
  readonly bytes: boolean;
}

const LARGE_BYTES = 900_000;

/** One test per area, each on keys of its own. */
export function itKeepsTheContract(client: () => ClientUnderTest, prefix: string, { bytes }: ClientTraits): void {
  const key = (name: string) => `${prefix}.${name}`;

  it('sets, gets, misses and deletes', async () => {
    expect(await client().get(key('a'))).toBeNull();
    expect(await client().set(key('a'), 'hello')).toBe(true);
    expect(await client().get(key('a'))).toBe('hello');
    expect(await client().set(key('a'), 'Grüße, 世界 🌍')).toBe(true);
    expect(await client().get(key('a'))).toBe('Grüße, 世界 🌍');
    expect(await client().delete(key('a'))).toBe(true);
    expect(await client().delete(key('a'))).toBe(false);
    expect(await client().get(key('a'))).toBeNull();
  });

  it('adds, replaces, appends and prepends only where that applies', async () => {
    expect(await client().replace(key('b'), 'x')).toBe(false);
    expect(await client().append(key('b'), 'x')).toBe(false);
    expect(await client().add(key('b'), 'middle')).toBe(true);
    expect(await client().add(key('b'), 'x')).toBe(false);
    expect(await client().append(key('b'), ' end')).toBe(true);
    expect(await client().prepend(key('b'), 'start ')).toBe(true);
    expect(await client().get(key('b'))).toBe('start middle end');
    expect(await client().replace(key('b'), 'new')).toBe(true);
    expect(await client().get(key('b'))).toBe('new');
  });

  it('gets many keys at once, missing ones left out', async () => {
    const names = Array.from({ length: 100 }, (_, i) => key(`many${i}`));
    await Promise.all(names.map((name, i) => client().set(name, `value ${i}`)));
    const found = await client().getMany([...names, key('many.missing')]);
    expect(new Map(found)).toEqual(new Map(names.map((name, i) => [name, `value ${i}`])));
  });

  it('counts up and down, and stops at 0', async () => {
    expect(await client().incr(key('n'), 1)).toBeNull();
    expect(await client().set(key('n'), '10')).toBe(true);
    expect(await client().incr(key('n'), 32)).toBe(42);
    expect(await client().decr(key('n'), 2)).toBe(40);
    expect(await client().decr(key('n'), 100)).toBe(0);
    const counts = await Promise.all(Array.from({ length: 50 }, () => client().incr(key('n'), 1)));
    expect(counts.sort((a, b) => Number(a) - Number(b))).toEqual(counts.map((_, i) => i + 1));
  });

  it('swaps by cas unless another has written', async ({ skip }) => {
    const { gets } = client();
    if (gets === null) return skip('this client gives no cas unique');
    await client().set(key('c'), 'one');
    const { value, unique } = await gets(key('c'));
    expect(value).toBe('one');
    expect(await client().cas(key('c'), 'two', unique)).toBe(true);
    expect(await client().cas(key('c'), 'three', unique)).toBe(false);
    expect(await client().get(key('c'))).toBe('two');
  });

  it('lets items expire, at the time that touch sets', async () => {
    const expired = (name: string) =>
      until(`${name} to expire`, async () => ((await client().get(key(name))) === null ? true : undefined));
    await client().set(key('short'), 'x', 1);
    await client().set(key('touched'), 'y', 1000);
    await client().set(key('kept'), 'z', 1000);
    expect(await client().touch(key('touched'), 1)).toBe(true);
    expect(await client().touch(key('untouchable'), 100)).toBe(false);
    await expired('short');
    await expired('touched');
    expect(await client().get(key('kept'))).toBe('z');
  });

  it('carries empty and large values', async () => {
    expect(await client().set(key('empty'), '')).toBe(true);
    expect(await client().get(key('empty'))).toBe('');
    const large = 'large value '.repeat(LARGE_BYTES / 12);
    expect(await client().set(key('large'), large)).toBe(true);
    expect((await client().get(key('large'))) === large).toBe(true);
  });

  it('carries any bytes', async ({ skip }) => {
    if (!bytes) return skip('this client carries text only');
    const every = Buffer.from(Array.from({ length: 1024 }, (_, i) => i & 0xff));
    for (const value of [
      every,
      Buffer.from('\r\nEND\r\n'),
      Buffer.from('VALUE x 0 1\r\n\0\r\nEND\r\n'),
      Buffer.of(0),
    ]) {
      expect(await client().set(key('bytes'), value)).toBe(true);
      expect(await client().get(key('bytes'))).toEqual(value);
    }
  });

  it('knows the version', async () => {
    expect(await client().version()).toMatch(/^1\.6\.\d+$/);
  });
}
