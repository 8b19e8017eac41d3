import { Memcache } from 'memcache';
import { afterAll, beforeAll, describe } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster } from '../support/cluster.ts';
import { type ClientUnderTest, itKeepsTheContract } from './contract.ts';

/** npm's `memcache` (jaredwray): promises, a hash ring over the nodes; text values, no way to ask for a cas unique. */

let cluster: Cluster;
showLogOfFailure(() => cluster);
beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(() => cluster?.stop());

function adapt(client: Memcache): ClientUnderTest {
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

describe.each([1, 2, 3])('memcache through node %i', (id) => {
  let client: ClientUnderTest;
  beforeAll(() => {
    const { host, clientPort } = cluster.node(id);
    client = adapt(new Memcache({ nodes: [`${host}:${clientPort}`] }));
  });
  afterAll(() => client?.close());
  itKeepsTheContract(() => client, `memcache${id}`, { bytes: false });
});
