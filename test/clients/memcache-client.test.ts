import { MemcacheClient } from 'memcache-client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster, until } from '../support/cluster.ts';
import { type ClientUnderTest, itKeepsTheContract } from './contract.ts';
import { writeThroughAKill } from './failover.ts';

/** npm's `memcache-client` (electrode): promises, a random node for each request, failed ones left out for a while. */

let cluster: Cluster;
showLogOfFailure(() => cluster);
beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(() => cluster?.stop());

/** An election takes tens of milliseconds; the rest is the client's own. */
const PAUSE_MS_MAX = 2_000;

interface Found {
  readonly value: string | Buffer;
  readonly casUniq: string;
}

function adapt(client: MemcacheClient): ClientUnderTest {
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

describe.concurrent.each([1, 2, 3])('memcache-client through node %i', (id) => {
  let client: ClientUnderTest;
  beforeAll(() => {
    const { host, clientPort } = cluster.node(id);
    client = adapt(new MemcacheClient({ server: `${host}:${clientPort}` }));
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
      connectTimeout: 1_000,
      cmdTimeout: 12_000,
    });
    const plain = adapt(client);
    // What was on its way to the killed node rejects; the program asks again.
    const set = (key: string, value: string) => plain.set(key, value).catch(() => false);
    const get = async (key: string) => (await plain.get(key)) as string | null;
    const { pauseMs, leader } = await writeThroughAKill(cluster, { set, get }, 'memcache-client');
    expect(pauseMs).toBeLessThan(PAUSE_MS_MAX);
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
