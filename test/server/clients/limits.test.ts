import { describe, expect, it } from 'vitest';
import { DEFAULT_CLIENT_LIMITS } from '../../../src/server/clients/limits.ts';
import { newClient, serveStore } from '../../support/client-port.ts';
import { FakeReplica } from '../../support/fake-replica.ts';
import { converse, type TextClient, turn } from '../../support/text-client.ts';

const set = (key: string, value: string) => `set ${key} 0 0 ${value.length}\r\n${value}\r\n`;

async function until(satisfied: () => boolean): Promise<void> {
  while (!satisfied()) await turn();
}

/** Turns until nothing moves any more between client and server. */
async function quiet(...counters: (() => number)[]): Promise<void> {
  const read = () => counters.map((counter) => counter()).join();
  let still = 0;
  for (let last = read(); still < 20; ) {
    await turn();
    const now = read();
    still = now === last ? still + 1 : 0;
    last = now;
  }
}

const unsent = (client: TextClient) => client.socket.writableLength;

describe('the client port', () => {
  it('answers one connection too many with an error, and takes the next when one has left', async () => {
    const { port, server } = await serveStore({ connectionsMax: 2 });
    const first = await newClient(port);
    const second = await newClient(port);
    expect(await converse(port, 'version\r\n')).toBe('ERROR Too many open connections\r\n');
    first.destroy();
    await until(() => server.connections === 1);
    expect(await converse(port, 'version\r\n')).toBe('VERSION 1.6.45\r\n');
    second.send('stats\r\n');
    expect(await second.reply('END\r\n')).toMatch(/STAT rejected_connections 1\r\n/);
  });

  it('takes no more requests of a connection than may wait, and no more bytes than may be held', async () => {
    const replica = new FakeReplica();
    replica.hold = true;
    const { port } = await serveStore({ pendingRequestsMax: 10, heldInputBytesMax: 4096 }, replica);
    const client = await newClient(port);
    const count = 200_000;
    client.send('incr n 1\r\n'.repeat(count));
    await quiet(
      () => unsent(client),
      () => replica.pendingWrites,
    );
    expect(replica.pendingWrites).toBe(10);
    // The rest is held back in the kernel's buffers: read were one limit and what was on its way at that moment.
    const bytesRead = /STAT bytes_read (\d+)/.exec(await converse(port, 'stats\r\n'))?.[1];
    expect(Number(bytesRead)).toBeLessThan(300_000);
    replica.release();
    expect(await client.bytes(count * 'NOT_FOUND\r\n'.length)).toBe('NOT_FOUND\r\n'.repeat(count));
  });

  it('takes no request while the replica does not accept, and goes on when it does', async () => {
    const replica = new FakeReplica();
    replica.proposals = [];
    const { port } = await serveStore({}, replica);
    replica.setAccepting(false);
    const clients = [await newClient(port), await newClient(port)];
    for (const client of clients) client.send(`version\r\n${set('a', 'x')}get a\r\n`);
    for (const client of clients) expect(await client.reply('\r\n')).toBe('VERSION 1.6.45\r\n');
    for (const client of clients) client.send('get a\r\n');
    await turn();
    expect([replica.proposals.length, replica.reads]).toEqual([0, 0]);
    replica.setAccepting(true);
    const value = 'VALUE a 0 1\r\nx\r\nEND\r\n';
    for (const client of clients) expect(await client.bytes(8 + 2 * value.length)).toBe(`STORED\r\n${value}${value}`);
  });

  it('executes nothing more for a client that does not read its replies, and goes on when it does', async () => {
    const replica = new FakeReplica();
    const { port } = await serveStore({ unsentBytesMax: 64 * 1024 }, replica);
    const value = 'v'.repeat(100_000);
    const client = await newClient(port);
    client.send(set('a', value));
    await client.reply('STORED\r\n');
    let looked = 0;
    const get = replica.get.bind(replica);
    replica.get = (key) => {
      looked++;
      return get(key);
    };
    client.socket.pause();
    const count = 1000;
    client.send(`${'get a\r\n'.repeat(count / 2)}get${' a'.repeat(count / 2)}\r\n`);
    await quiet(
      () => looked,
      () => unsent(client),
    );
    // What was looked up went into the kernel's buffers (a few MB), plus one limit.
    expect(looked).toBeLessThan(count / 4);
    client.socket.resume();
    const block = `VALUE a 0 ${value.length}\r\n${value}\r\n`;
    const expected = (block.length + 5) * (count / 2) + block.length * (count / 2) + 5;
    const replies = await client.bytes(expected);
    expect(replies.length).toBe(expected);
    expect(replies.endsWith(`${block}END\r\n`)).toBe(true);
  });

  it('sends a slow reader the right bytes, though others are served from the same memory meanwhile', async () => {
    const { port } = await serveStore({ unsentBytesMax: 4 * 1024 * 1024 });
    const slow = await newClient(port);
    const other = await newClient(port);
    const blockOf = (i: number) => `VALUE k${i} 0 50000\r\n${String.fromCharCode(65 + i).repeat(50_000)}\r\n`;
    for (let i = 0; i < 20; i++) slow.send(set(`k${i}`, String.fromCharCode(65 + i).repeat(50_000)));
    await slow.bytes(20 * 8);
    slow.socket.pause();
    let expected = '';
    for (let round = 0; round < 300; round++) {
      slow.send(`get k${round % 20}\r\n`);
      expected += `${blockOf(round % 20)}END\r\n`;
      other.send(`get k${(round + 7) % 20}\r\n`);
      await other.reply('END\r\n');
    }
    slow.socket.resume();
    expect((await slow.bytes(expected.length)) === expected).toBe(true);
  });

  it('lets others have their turn while it lists the keys for one', async () => {
    const replica = new FakeReplica();
    const { port } = await serveStore({ keysPerTurnMax: 10 }, replica);
    const writer = await newClient(port);
    writer.send(Array.from({ length: 1000 }, (_, i) => set(`key${i}`, 'x')).join(''));
    await writer.bytes(8 * 1000);
    const client = await newClient(port);
    client.send('lru_crawler metadump all\r\nversion\r\n');
    await until(() => client.received.length > 0);
    writer.send('version\r\n');
    await writer.reply('\r\n');
    expect(client.received.endsWith('VERSION 1.6.45\r\n')).toBe(false);
    const lines = (await client.reply('VERSION 1.6.45\r\n')).split('\n');
    const keys = lines.filter((line) => line.startsWith('key=')).map((line) => line.slice(4, line.indexOf(' ')));
    expect(new Set(keys).size).toBe(1000);
    expect(lines.slice(-3)).toEqual(['END\r', 'VERSION 1.6.45\r', '']);
  });

  it('refuses a request that needs more memory than all unfinished requests may take', async () => {
    const { port } = await serveStore({ inputBytesMax: 150_000 });
    const half = `set a 0 0 100000\r\n${'x'.repeat(50_000)}`;
    const first = await newClient(port);
    first.send(half);
    await quiet(() => unsent(first));
    const second = await newClient(port);
    second.send(half);
    expect(await second.rest()).toBe('SERVER_ERROR out of memory reading request\r\n');
    first.send(`${'x'.repeat(50_000)}\r\n`);
    expect(await first.reply('\r\n')).toBe('STORED\r\n');
    // What the refused one held is free again.
    expect(await converse(port, set('b', 'y'.repeat(100_000)))).toBe('STORED\r\n');
  });

  it('takes a large value in small pieces in a time that grows with its size only', async () => {
    const { port } = await serveStore();
    const client = await newClient(port);
    const value = 'v'.repeat(DEFAULT_CLIENT_LIMITS.itemBytesMax - 100);
    client.send(`set a 0 0 ${value.length}\r\n`);
    for (let sent = 0; sent < value.length; sent += 500) {
      client.send(value.slice(sent, sent + 500));
      if (sent % 5000 === 0) await turn();
    }
    client.send('\r\n');
    expect(await client.reply('\r\n')).toBe('STORED\r\n');
  });
});
