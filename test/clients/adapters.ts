import type { Memcache } from 'memcache';
import type { MemcacheClient } from 'memcache-client';
import type Memcached from 'memcached';
import type { ClientUnderTest } from './contract.ts';

/** Each client's own calls, as those of the contract. */

interface Found {
  readonly value: string | Buffer;
  readonly casUniq: string;
}

export function adaptMemcacheClient(client: MemcacheClient): ClientUnderTest {
  /** Everything but success rejects with the server's own word. */
  const unless = async (refusal: string, answer: Promise<unknown>) => {
    try {
      await answer;
      return true;
    } catch (error) {
      if (error instanceof Error && error.message === refusal) return false;
      throw error;
    }
  };
  const number = async (answer: Promise<unknown>) => {
    try {
      return Number(await answer);
    } catch (error) {
      if (error instanceof Error && error.message === 'NOT_FOUND') return null;
      throw error;
    }
  };
  return {
    set: (key, value, lifetime = 0) => unless('NOT_STORED', client.set(key, value, { lifetime })),
    add: (key, value) => unless('NOT_STORED', client.add(key, value, { lifetime: 0 })),
    replace: (key, value) => unless('NOT_STORED', client.replace(key, value, { lifetime: 0 })),
    append: (key, value) => unless('NOT_STORED', client.append(key, value)),
    prepend: (key, value) => unless('NOT_STORED', client.prepend(key, value)),
    get: async (key) => ((await client.get(key)) as Found | undefined)?.value ?? null,
    getMany: async (keys) => {
      const found = (await client.get([...keys])) as unknown as Record<string, Found>;
      return new Map(Object.entries(found).map(([key, { value }]) => [key, value]));
    },
    gets: async (key) => {
      const { value, casUniq } = (await client.gets(key)) as unknown as Found;
      return { value, unique: casUniq };
    },
    cas: (key, value, casUniq) => unless('EXISTS', client.cas(key, value, { casUniq, lifetime: 0 })),
    incr: (key, delta) => number(client.incr(key, delta)),
    decr: (key, delta) => number(client.decr(key, delta)),
    touch: (key, exptime) => unless('NOT_FOUND', client.touch(key, `${exptime}`)),
    delete: (key) => unless('NOT_FOUND', client.delete(key)),
    version: async () => ((await client.version()) as unknown as string[])[1] ?? '',
    close: () => client.shutdown(),
  };
}

export function adaptMemcache(client: Memcache): ClientUnderTest {
  return {
    set: (key, value, exptime = 0) => client.set(key, value.toString(), exptime),
    add: (key, value) => client.add(key, value),
    replace: (key, value) => client.replace(key, value),
    append: (key, value) => client.append(key, value),
    prepend: (key, value) => client.prepend(key, value),
    get: async (key) => (await client.get(key)) ?? null,
    getMany: (keys) => client.gets([...keys]),
    gets: null,
    cas: (key, value, unique) => client.cas(key, value, unique),
    incr: async (key, delta) => countOf(await client.incr(key, delta)),
    decr: async (key, delta) => countOf(await client.decr(key, delta)),
    touch: (key, exptime) => client.touch(key, exptime),
    delete: (key) => client.delete(key),
    version: async () => [...(await client.version()).values()][0]?.replace('VERSION ', '') ?? '',
    close: () => void client.disconnect(),
  };
}

/** Gives the reply as it came where it is no number. */
function countOf(reply: unknown): number | null {
  return typeof reply === 'number' ? reply : null;
}

export function adaptMemcached(client: Memcached): ClientUnderTest {
  const ask = <T>(call: (done: (error: unknown, result: T) => void) => void) =>
    new Promise<T>((resolve, reject) => {
      call((error, result) => (error === undefined || error === null ? resolve(result) : reject(error)));
    });
  /** A refusal comes as an error that carries `notStored`. */
  const stored = async (call: (done: (error: unknown, result: boolean) => void) => void) => {
    try {
      return await ask(call);
    } catch (error) {
      if ((error as { notStored?: boolean }).notStored === true) return false;
      throw error;
    }
  };
  const orNull = (result: unknown) => (result === undefined || result === false ? null : (result as never));
  return {
    set: (key, value, exptime = 0) => stored((done) => client.set(key, value, exptime, done)),
    add: (key, value) => stored((done) => client.add(key, value, 0, done)),
    replace: (key, value) => stored((done) => client.replace(key, value, 0, done)),
    append: (key, value) => stored((done) => client.append(key, value, done)),
    prepend: (key, value) => stored((done) => client.prepend(key, value, done)),
    get: async (key) => orNull(await ask<unknown>((done) => client.get(key, done))),
    getMany: async (keys) =>
      new Map(Object.entries(await ask<Record<string, string>>((done) => client.getMulti([...keys], done)))),
    gets: async (key) => {
      const result = await ask<{ [key: string]: string; cas: string }>((done) => client.gets(key, done));
      return { value: result[key] ?? '', unique: result.cas };
    },
    cas: (key, value, unique) => stored((done) => client.cas(key, value, unique, 0, done)),
    incr: async (key, delta) => orNull(await ask<unknown>((done) => client.incr(key, delta, done))),
    decr: async (key, delta) => orNull(await ask<unknown>((done) => client.decr(key, delta, done))),
    touch: (key, exptime) => ask<boolean>((done) => client.touch(key, exptime, done as (error: unknown) => void)),
    delete: (key) => ask<boolean>((done) => client.del(key, done)),
    version: async () => {
      const [first] = await ask<Memcached.VersionData[]>((done) => client.version(done));
      return first?.version ?? '';
    },
    close: () => client.end(),
  };
}
