import { Memcache } from 'memcache';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster } from '../support/cluster.ts';
import { type ClientUnderTest, itKeepsTheContract } from './contract.ts';
import { writeThroughAKill } from './failover.ts';

/** npm's `memcache` (jaredwray): promises, a hash ring over the nodes; text values, no way to ask for a cas unique. */

let cluster: Cluster;
showLogOfFailure(() => cluster);
beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(() => cluster?.stop());

/** An election takes tens of milliseconds; the rest is the client's own. */
const PAUSE_MS_MAX = 2_000;

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

describe.concurrent.each([1, 2, 3])('memcache through node %i', (id) => {
  let client: ClientUnderTest;
  beforeAll(() => {
    const { host, clientPort } = cluster.node(id);
    client = adapt(new Memcache({ nodes: [`${host}:${clientPort}`] }));
  });
  afterAll(() => client?.close());
  itKeepsTheContract(() => client, `memcache${id}`, { bytes: false });
});

describe('memcache over all three nodes', () => {
  it('goes on through the others when its leader is killed, once the program takes the node out', async () => {
    const nodes = cluster.nodes.map(({ host, clientPort }) => `${host}:${clientPort}`);
    const client = new Memcache({ nodes, timeout: 12_000 });
    await client.connect();
    // Left in, a dead node would be a miss for every get and a failure for every set of its share of the keys.
    client.on('close', (node: string) => void client.removeNode(node));
    const set = (key: string, value: string) => client.set(key, value).catch(() => false);
    const get = async (key: string) => (await client.get(key)) ?? null;
    const { pauseMs, leader } = await writeThroughAKill(cluster, { set, get }, 'memcache');
    expect(pauseMs).toBeLessThan(PAUSE_MS_MAX);
    expect(client.nodeIds).toHaveLength(2);
    await cluster.start(leader);
    await cluster.serving(leader);
    const [gone = ''] = nodes.filter((node) => !client.nodeIds.includes(node));
    await client.addNode(gone);
    for (let i = 0; i < 20; i++) expect(await client.set(`memcache.back${i}`, 'x')).toBe(true);
    await client.disconnect();
  });
});
