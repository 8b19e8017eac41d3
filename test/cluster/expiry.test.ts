import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster, until } from '../support/cluster.ts';
import type { MemcachedClient } from '../support/memcached-client.ts';
import { watchStalls } from '../support/stalls.ts';

/** Items end at their moment: everywhere, across restarts, and never a later item of the same name. */

const NODES = [1, 2, 3];
/** Expiry is told by the leader's clock as it stamps entries, and it stamps one at least this often while items wait. */
const LATE_MS_MAX = 1_500;
/** The stamp is taken before the reply that a test starts to count from. */
const EARLY_MS_MAX = 250;

const stalls = watchStalls();
let cluster: Cluster;
showLogOfFailure(() => cluster);
beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(async () => {
  stalls.stop();
  await cluster?.stop();
});

/** How long after `sinceMs` the key was first missed. */
async function goneAfterMs(client: MemcachedClient, key: string, sinceMs: number): Promise<number> {
  return until(`${key} to expire`, async () =>
    (await client.get(key)) === null ? performance.now() - sinceMs : undefined,
  );
}

function expectOnTime(measuredMs: number, dueMs: number, sinceMs: number): void {
  expect(measuredMs).toBeGreaterThan(dueMs - EARLY_MS_MAX);
  expect(measuredMs).toBeLessThan(dueMs + LATE_MS_MAX + stalls.stalledMs(sinceMs));
}

describe('expiry', () => {
  it('comes on time, for every command, and on all nodes once it has on one', async () => {
    const clients = await Promise.all(NODES.map((id) => cluster.connect(id)));
    const [first, second, third] = clients as [MemcachedClient, MemcachedClient, MemcachedClient];
    expect(await first.set('brief', '1', { exptime: 1 })).toBe('STORED');
    const storedMs = performance.now();
    expect(await second.get('brief')).toBe('1');
    expectOnTime(await goneAfterMs(second, 'brief', storedMs), 1000, storedMs);
    for (const client of clients) expect(await client.get('brief')).toBeNull();
    expect(await first.request('incr brief 1\r\n')).toBe('NOT_FOUND');
    expect(await second.request('touch brief 100\r\n')).toBe('NOT_FOUND');
    expect(await third.store('append', 'brief', 'x')).toBe('NOT_STORED');
    expect(await third.request('delete brief\r\n')).toBe('NOT_FOUND');
    expect(await third.store('add', 'brief', 'again')).toBe('STORED');
  });

  it('of an earlier item never takes a later one of the same name', async () => {
    const [writer, reader] = [await cluster.connect(1), await cluster.connect(2)];
    await writer.set('recreated', 'old', { exptime: 1 });
    expect(await writer.request('delete recreated\r\n')).toBe('DELETED');
    await writer.set('recreated', 'new');
    await writer.set('prolonged', 'x', { exptime: 1 });
    expect(await writer.request('touch prolonged 100\r\n')).toBe('TOUCHED');
    await writer.set('overwritten', 'old', { exptime: 1 });
    await writer.set('overwritten', 'new', { exptime: 100 });
    await writer.set('witness', 'x', { exptime: 2 });
    await goneAfterMs(reader, 'witness', performance.now());
    expect(await reader.get('recreated')).toBe('new');
    expect(await reader.get('prolonged')).toBe('x');
    expect(await reader.get('overwritten')).toBe('new');
  });

  it('keeps its original moment when every node is killed and restarted', async () => {
    const writer = await cluster.connect(1);
    await writer.set('long', 'x', { exptime: 100 });
    await writer.set('recreated', 'old', { exptime: 1 });
    await writer.request('delete recreated\r\n');
    await writer.set('recreated', 'new');
    await writer.set('restarted', 'x', { exptime: 4 });
    const storedMs = performance.now();
    await Promise.all(NODES.map((id) => cluster.kill(id)));
    await Promise.all(NODES.map((id) => cluster.start(id)));
    const reader = await cluster.connect(3);
    const value = await reader.get('restarted');
    if (performance.now() - storedMs < 4000 - EARLY_MS_MAX) expect(value).toBe('x');
    expectOnTime(await goneAfterMs(reader, 'restarted', storedMs), 4000, storedMs);
    expect(await reader.get('long')).toBe('x');
    expect(await reader.get('recreated')).toBe('new');
  });
});
