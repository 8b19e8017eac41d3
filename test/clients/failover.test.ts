import { Memcache } from 'memcache';
import { MemcacheClient } from 'memcache-client';
import Memcached from 'memcached';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster, until } from '../support/cluster.ts';
import { adaptMemcacheClient, adaptMemcached } from './adapters.ts';
import { writeThroughAKill } from './failover.ts';

/** npm's clients, each over all three nodes, while the leader is killed under them. */

let cluster: Cluster;
showLogOfFailure(() => cluster);
beforeAll(async () => {
  cluster = await startCluster();
});
afterEach(() => cluster.heal());
afterAll(() => cluster?.stop());

describe('memcache (jaredwray): promises, a hash ring over the nodes', () => {
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

describe('memcache-client (electrode): promises, a random node for each request', () => {
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

/** A connection that breaks forgets what was under way on it: its callback is never called. */
const CALLBACK_MS_MAX = 1_000;

function falseIfLate(answer: Promise<boolean>): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), CALLBACK_MS_MAX);
    const finish = (stored: boolean) => {
      clearTimeout(timer);
      resolve(stored);
    };
    answer.then(finish, () => finish(false));
  });
}

describe('memcached (3rd-Eden): callbacks, a hash ring over the nodes, connection pools', () => {
  it('goes on through the others when its leader is killed', async () => {
    const servers = cluster.nodes.map(({ host, clientPort }) => `${host}:${clientPort}`);
    // The first error takes a node out of the ring: left in, it would be refused for `retry` ms, 30 s by default.
    const client = new Memcached(servers, { retries: 0, timeout: 10_000, failures: 0, remove: true, idle: 12_000 });
    const removed: string[] = [];
    client.on('remove', ({ server }) => removed.push(server));
    const plain = adaptMemcached(client);
    const set = (key: string, value: string) => falseIfLate(plain.set(key, value));
    const get = async (key: string) => (await plain.get(key)) as string | null;
    await writeThroughAKill(cluster, { set, get }, 'memcached');
    expect(new Set(removed).size).toBe(1);
    client.end();
  });
});
