import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster, until } from '../support/cluster.ts';
import type { MemcachedClient } from '../support/memcached-client.ts';
import { itemsHeldBy } from '../support/stored-data.ts';

/**
 * Items expire at their moment: everywhere, across restarts, and never a later item of the same name. On a slow machine
 * an item with a short time to live may be gone before the next request, so that none is expected to be there still.
 */

const NODES = [1, 2, 3];
/** Both clocks are read in whole milliseconds. */
const ROUNDING_MS = 2;

let cluster: Cluster;
showLogOfFailure(() => cluster);
beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(() => cluster?.stop());

const expired = (client: MemcachedClient, key: string) =>
  until(`${key} to expire`, async () => (await client.get(key)) === null || undefined);

describe('expiry', () => {
  it('comes no sooner than asked for, for every command, and on all nodes once it has on one', async () => {
    const clients = await Promise.all(NODES.map((id) => cluster.connect(id)));
    const [first, second, third] = clients as [MemcachedClient, MemcachedClient, MemcachedClient];
    expect(await first.set('lasting', 'x', { exptime: 1000 })).toBe('STORED');
    const sentMs = Date.now();
    expect(await first.set('brief', '1', { exptime: 1 })).toBe('STORED');
    await expired(second, 'brief');
    expect(Date.now() - sentMs).toBeGreaterThanOrEqual(1000 - ROUNDING_MS);
    for (const client of clients) expect(await client.get('brief')).toBeNull();
    expect(await first.request('incr brief 1\r\n')).toBe('NOT_FOUND');
    expect(await second.request('touch brief 100\r\n')).toBe('NOT_FOUND');
    expect(await third.store('append', 'brief', 'x')).toBe('NOT_STORED');
    expect(await third.request('delete brief\r\n')).toBe('NOT_FOUND');
    expect(await third.store('add', 'brief', 'again')).toBe('STORED');
    for (const client of clients) expect(await client.get('lasting')).toBe('x');
  });

  it('of an earlier item never takes a later one of the same name', async () => {
    const [writer, reader] = [await cluster.connect(1), await cluster.connect(2)];
    // In one piece, so that all become one entry of the log, which has one time.
    writer.send(
      'set recreated 0 1 3\r\nold\r\ndelete recreated\r\nset recreated 0 0 3\r\nnew\r\n' +
        'set prolonged 0 1 3\r\nold\r\ntouch prolonged 1000\r\n' +
        'set overwritten 0 1 3\r\nold\r\nset overwritten 0 1000 3\r\nnew\r\n' +
        'set witness 0 2 1\r\nx\r\n',
    );
    const replies: string[] = [];
    for (let i = 0; i < 8; i++) replies.push(await writer.reply());
    expect(replies).toEqual('STORED DELETED STORED STORED TOUCHED STORED STORED STORED'.split(' '));
    await expired(reader, 'witness');
    expect(await reader.get('recreated')).toBe('new');
    expect(await reader.get('prolonged')).toBe('old');
    expect(await reader.get('overwritten')).toBe('new');
  });

  it('keeps its moment when every node is killed and restarted', async () => {
    const writer = await cluster.connect(1);
    expect(await writer.set('restarted', 'x', { exptime: 1000 })).toBe('STORED');
    expect(await writer.set('later', 'x', { exptime: 2000 })).toBe('STORED');
    await cluster.caughtUp();
    const expiries = async (id: number) =>
      (await itemsHeldBy(cluster, id)).filter((line) => /^(restarted|later) /.test(line));
    const before = await expiries(1);
    expect(before).toHaveLength(2);
    // It may expire before, while and after the nodes are down.
    expect(await writer.set('meanwhile', 'x', { exptime: 2 })).toBe('STORED');
    await Promise.all(NODES.map((id) => cluster.kill(id)));
    await Promise.all(NODES.map((id) => cluster.start(id)));
    await Promise.all(NODES.map((id) => cluster.serving(id)));
    await cluster.caughtUp();
    for (const id of NODES) expect(await expiries(id)).toEqual(before);
    await expired(await cluster.connect(3), 'meanwhile');
  });
});
