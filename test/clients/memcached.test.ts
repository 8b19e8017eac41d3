import Memcached from 'memcached';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster } from '../support/cluster.ts';
import { adaptMemcached } from './adapters.ts';
import { type ClientUnderTest, itKeepsTheContract } from './contract.ts';
import { writeThroughAKill } from './failover.ts';

/** npm's `memcached` (3rd-Eden): callbacks, a hash ring over the nodes, connection pools. */

let cluster: Cluster;
showLogOfFailure(() => cluster);
beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(() => cluster?.stop());

describe.concurrent.each([1, 2, 3])('memcached through node %i', (id) => {
  let client: ClientUnderTest;
  beforeAll(() => {
    const { host, clientPort } = cluster.node(id);
    client = adaptMemcached(new Memcached(`${host}:${clientPort}`));
  });
  afterAll(() => client?.close());
  itKeepsTheContract(() => client, `memcached${id}`, { bytes: true });
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

describe('memcached over all three nodes', () => {
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
