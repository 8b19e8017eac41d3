import { Memcache } from 'memcache';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster } from '../support/cluster.ts';
import { adaptMemcache } from './adapters.ts';
import { type ClientUnderTest, itKeepsTheContract } from './contract.ts';
import { writeThroughAKill } from './failover.ts';

/** npm's `memcache` (jaredwray): promises, a hash ring over the nodes; text values, no way to ask for a cas unique. */

let cluster: Cluster;
showLogOfFailure(() => cluster);
beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(() => cluster?.stop());

describe.concurrent.each([1, 2, 3])('memcache through node %i', (id) => {
  let client: ClientUnderTest;
  beforeAll(() => {
    const { host, clientPort } = cluster.node(id);
    client = adaptMemcache(new Memcache({ nodes: [`${host}:${clientPort}`] }));
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
    const leader = await writeThroughAKill(cluster, { set, get }, 'memcache');
    expect(client.nodeIds).toHaveLength(2);
    await cluster.start(leader);
    await cluster.serving(leader);
    const [gone = ''] = nodes.filter((node) => !client.nodeIds.includes(node));
    await client.addNode(gone);
    for (let i = 0; i < 20; i++) expect(await client.set(`memcache.back${i}`, 'x')).toBe(true);
    await client.disconnect();
  });
});
