import { MemcacheClient } from 'memcache-client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster, until } from '../support/cluster.ts';
import { adaptMemcacheClient } from './adapters.ts';
import { type ClientUnderTest, itKeepsTheContract } from './contract.ts';
import { writeThroughAKill } from './failover.ts';

/** npm's `memcache-client` (electrode): promises, a random node for each request, failed ones left out for a while. */

let cluster: Cluster;
showLogOfFailure(() => cluster);
beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(() => cluster?.stop());

describe.concurrent.each([1, 2, 3])('memcache-client through node %i', (id) => {
  let client: ClientUnderTest;
  beforeAll(() => {
    const { host, clientPort } = cluster.node(id);
    client = adaptMemcacheClient(new MemcacheClient({ server: `${host}:${clientPort}` }));
  });
  afterAll(() => client?.close());
  itKeepsTheContract(() => client, `memcache-client${id}`, { bytes: true });
});

describe('memcache-client over all three nodes', () => {
  it('goes on through the others when its leader is killed, and comes back', async () => {
    const servers = cluster.nodes.map(({ host, clientPort }) => ({
      server: `${host}:${clientPort}`,
      maxConnections: 2,
    }));
    const client = new MemcacheClient({
      server: { servers, config: { failedServerOutTime: 500, retryFailedServerInterval: 100 } },
      connectTimeout: 10_000,
      cmdTimeout: 12_000,
    });
    const plain = adaptMemcacheClient(client);
    // What was on its way to the killed node rejects; the program asks again.
    const set = (key: string, value: string) => plain.set(key, value).catch(() => false);
    const get = async (key: string) => (await plain.get(key)) as string | null;
    const leader = await writeThroughAKill(cluster, { set, get }, 'memcache-client');
    await cluster.start(leader);
    await cluster.serving(leader);
    const restarted = await cluster.connect(leader);
    const connections = async () =>
      Number(/STAT total_connections (\d+)/.exec(await restarted.request('stats\r\n', 'block'))?.[1]);
    await until('the client to use the node again', async () => {
      for (let i = 0; i < 10; i++) expect(await set(`memcache-client.back${i}`, 'x')).toBe(true);
      return (await connections()) > 1 || undefined;
    });
    client.shutdown();
  });
});
