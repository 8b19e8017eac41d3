import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster } from '../support/cluster.ts';
import type { MemcachedClient } from '../support/memcached-client.ts';
import { seededRandom } from '../support/random.ts';

/** The client protocol against three real processes: on every node, from many clients at once, in any shape of bytes. */

const NODES = [1, 2, 3];
let cluster: Cluster;
showLogOfFailure(() => cluster);
beforeAll(async () => {
  cluster = await startCluster({ inProcess: true });
});
afterAll(() => cluster?.stop());

/** A request and the exact reply, without the last CRLF. `{k}` is a key of this run's own. */
const CONVERSATION: readonly (readonly [string, string])[] = [
  ['get {k}', 'END'],
  ['set {k} 7 0 5\r\nhello', 'STORED'],
  ['get {k}', 'VALUE {k} 7 5\r\nhello\r\nEND'],
  ['get {k} missing {k}', 'VALUE {k} 7 5\r\nhello\r\nVALUE {k} 7 5\r\nhello\r\nEND'],
  ['add {k} 0 0 1\r\nx', 'NOT_STORED'],
  ['add {k}.new 1 0 1\r\nx', 'STORED'],
  ['replace {k}.none 0 0 1\r\nx', 'NOT_STORED'],
  ['replace {k} 8 0 3\r\nabc', 'STORED'],
  ['append {k} 99 0 3\r\ndef', 'STORED'],
  ['prepend {k} 99 0 3\r\n123', 'STORED'],
  ['get {k}', 'VALUE {k} 8 9\r\n123abcdef\r\nEND'],
  ['append {k}.none 0 0 1\r\nx', 'NOT_STORED'],
  ['prepend {k}.none 0 0 1\r\nx', 'NOT_STORED'],
  ['cas {k} 0 0 1 0\r\nx', 'EXISTS'],
  ['cas {k}.none 0 0 1 5\r\nx', 'NOT_FOUND'],
  ['set {k}.n 0 0 2\r\n10', 'STORED'],
  ['incr {k}.n 5', '15'],
  ['decr {k}.n 6', '9'],
  ['get {k}.n', 'VALUE {k}.n 0 2\r\n9 \r\nEND'],
  ['decr {k}.n 100', '0'],
  ['set {k}.n 0 0 20\r\n18446744073709551615', 'STORED'],
  ['incr {k}.n 2', '1'],
  ['incr {k}.none 1', 'NOT_FOUND'],
  ['incr {k} 1', 'CLIENT_ERROR cannot increment or decrement non-numeric value'],
  ['incr {k} x', 'CLIENT_ERROR invalid numeric delta argument'],
  ['touch {k} 100', 'TOUCHED'],
  ['touch {k}.none 100', 'NOT_FOUND'],
  ['gat 100 {k}', 'VALUE {k} 8 9\r\n123abcdef\r\nEND'],
  ['gat 100 {k}.none', 'END'],
  ['set {k}.gone 0 -1 1\r\nx', 'STORED'],
  ['get {k}.gone', 'END'],
  ['delete {k}', 'DELETED'],
  ['delete {k}', 'NOT_FOUND'],
  ['delete {k}.new 0', 'DELETED'],
  ['delete {k}.n 5', 'CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]'],
  ['set {k} 0 0 abc', 'CLIENT_ERROR bad command line format'],
  [`get ${'k'.repeat(251)}`, 'CLIENT_ERROR bad command line format'],
  ['set {k} 0 0 1\r\ntoolong', 'CLIENT_ERROR bad data chunk'],
  ['', 'ERROR'],
  ['get', 'ERROR'],
  ['bogus', 'ERROR'],
  ['verbosity 1', 'OK'],
  ['mn', 'MN'],
  ['shutdown', 'ERROR: shutdown not enabled'],
];

describe('every node', () => {
  it.each(NODES)('serves every classic command: node %i', async (id) => {
    const client = await cluster.connect(id);
    for (const [request, reply] of CONVERSATION) {
      const named = (text: string) => text.replaceAll('{k}', `talk${id}`);
      const shape = reply.endsWith('END') ? 'block' : 'line';
      expect([request, await client.request(`${named(request)}\r\n`, shape)]).toEqual([request, named(reply)]);
      // What follows a bad chunk is read as a command of its own.
      if (reply.includes('bad data chunk')) expect(await client.reply()).toBe('ERROR');
    }
    expect(await client.request('version\r\n')).toMatch(/^VERSION 1\.\d+\.\d+$/);
    expect(await client.request('stats\r\n', 'block')).toMatch(/STAT curr_items \d+\r\n/);
    expect(await client.request('stats settings\r\n', 'block')).toMatch(/STAT maxconns \d+\r\n/);
    expect(await client.request('lru_crawler metadump all\r\n', 'block')).toMatch(/END$/);
    client.send('quit\r\n');
    expect(await client.rest()).toBe('');
  });

  it.each(NODES)('executes noreply commands and answers nothing: node %i', async (id) => {
    const client = await cluster.connect(id);
    const key = `quiet${id}`;
    const commands = [
      `set ${key} 0 0 1 noreply\r\n1\r\n`,
      `incr ${key} 4 noreply\r\n`,
      `append ${key} 0 0 1 noreply\r\n0\r\n`,
      `touch ${key} 0 noreply\r\n`,
      `incr ${key} bad noreply\r\n`,
      `set ${key}.b 0 0 1 noreply\r\nx\r\n`,
      `delete ${key}.b noreply\r\n`,
    ];
    const reply = await client.request(`${commands.join('')}get ${key} ${key}.b\r\n`, 'block');
    expect(reply).toBe(`VALUE ${key} 0 2\r\n50\r\nEND`);
  });

  it('sees a write as soon as any other node has acknowledged it, with the same cas unique', async () => {
    const clients = await Promise.all(NODES.map((id) => cluster.connect(id)));
    for (let round = 0; round < 30; round++) {
      const writer = clients[round % 3] as MemcachedClient;
      expect(await writer.set('shared', `${round}`)).toBe('STORED');
      const seen = await Promise.all(clients.map((client) => client.gets('shared')));
      expect(seen.map(([item]) => item?.value)).toEqual(NODES.map(() => `${round}`));
      expect(new Set(seen.map(([item]) => item?.unique)).size).toBe(1);
    }
  });

  it('serves netcat: bare newlines, one command and a half-close', async () => {
    for (const id of NODES) {
      const client = await cluster.connect(id);
      client.send(`set nc${id} 0 0 5\nhello\nget nc${id}\n`);
      client.end();
      expect(await client.rest()).toBe(`STORED\r\nVALUE nc${id} 0 5\r\nhello\r\nEND\r\n`);
    }
  });
});

describe('many clients', () => {
  it('get all 10,000 replies, all right: 50 clients, 200 mixed commands each, over all nodes', async () => {
    const starter = await cluster.connect(1);
    await starter.set('total', '0');
    const increments = await Promise.all(
      Array.from({ length: 50 }, async (_, number) => {
        const client = await cluster.connect((number % 3) + 1);
        const script = mixedScript(`mixed${number}`, seededRandom(number), 200);
        // Every other client sends all of its commands at once.
        const replies: string[] = [];
        if (number % 2 === 0) for (const { text, shape } of script) replies.push(await client.request(text, shape));
        else replies.push(...(await Promise.all(script.map(({ text, shape }) => client.request(text, shape)))));
        script.forEach(({ text, reply }, i) => {
          if (reply !== ANY_NUMBER) expect([text, replies[i]]).toEqual([text, reply]);
        });
        return replies.filter((_, i) => script[i]?.reply === ANY_NUMBER).map(Number);
      }),
    );
    const numbers = increments.flat().sort((a, b) => a - b);
    expect(numbers).toEqual(numbers.map((_, i) => i + 1));
    expect(await starter.get('total')).toBe(`${numbers.length}`);
  });

  it('have one winner when they add the same key', async () => {
    const clients = await Promise.all(Array.from({ length: 21 }, (_, i) => cluster.connect((i % 3) + 1)));
    for (let round = 0; round < 5; round++) {
      const replies = await Promise.all(clients.map((client, i) => client.store('add', `race${round}`, `${i}`)));
      expect(replies.filter((reply) => reply === 'STORED')).toHaveLength(1);
      expect(replies.filter((reply) => reply === 'NOT_STORED')).toHaveLength(20);
      expect(await clients[0]?.get(`race${round}`)).toBe(`${replies.indexOf('STORED')}`);
    }
  });

  it('have one winner when they cas from the same unique, and set makes all of them lose', async () => {
    const clients = await Promise.all(Array.from({ length: 21 }, (_, i) => cluster.connect((i % 3) + 1)));
    const first = clients[0] as MemcachedClient;
    await first.set('casrace', 'start');
    for (let round = 0; round < 5; round++) {
      const [item] = await first.gets('casrace');
      const unique = item?.unique ?? 0n;
      const replies = await Promise.all(clients.map((client, i) => client.store('cas', 'casrace', `${i}`, { unique })));
      expect(replies.filter((reply) => reply === 'STORED')).toHaveLength(1);
      expect(replies.filter((reply) => reply === 'EXISTS')).toHaveLength(20);
      expect(await first.get('casrace')).toBe(`${replies.indexOf('STORED')}`);
    }
    const [stale] = await first.gets('casrace');
    await first.set('casrace', 'set in between');
    const replies = await Promise.all(
      clients.map((client, i) => client.store('cas', 'casrace', `${i}`, { unique: stale?.unique ?? 0n })),
    );
    expect(new Set(replies)).toEqual(new Set(['EXISTS']));
  });

  it('lose no increment and see no number twice', async () => {
    const clients = await Promise.all(Array.from({ length: 15 }, (_, i) => cluster.connect((i % 3) + 1)));
    await clients[0]?.set('counter', '0');
    const replies = await Promise.all(
      clients.flatMap((client) => Array.from({ length: 40 }, () => client.request('incr counter 1\r\n'))),
    );
    expect(replies.map(Number).sort((a, b) => a - b)).toEqual(replies.map((_, i) => i + 1));
  });
});

describe('bytes', () => {
  const everyByte = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(byte)).join('');

  it('come back as they were, whatever they are', async () => {
    const [writer, reader] = [await cluster.connect(1), await cluster.connect(3)];
    const values = [
      everyByte,
      '',
      '\r\n',
      'END\r\n',
      'VALUE x 0 3\r\nabc\r\nEND\r\n',
      '\0'.repeat(1000),
      everyByte.repeat(1000),
    ];
    for (const value of values) {
      expect(await writer.set('bytes', value)).toBe('STORED');
      expect((await reader.get('bytes')) === value).toBe(true);
    }
    const key = 'k\x01\x7f\x80\xff\t';
    expect(await writer.set(key, 'odd key')).toBe('STORED');
    expect(await reader.get(key)).toBe('odd key');
  });

  it('of the largest item pass, and of one byte more are refused in one reply', async () => {
    const [writer, reader] = [await cluster.connect(2), await cluster.connect(3)];
    const large = 'x'.repeat(1024 * 1024 - 512);
    expect(await writer.set('large', large)).toBe('STORED');
    expect((await reader.get('large')) === large).toBe(true);
    expect(await writer.set('large', 'x'.repeat(1024 * 1024 + 1))).toBe('SERVER_ERROR object too large for cache');
    expect(await reader.get('large')).toBeNull();
  });

  it('may come one at a time', async () => {
    const client = await cluster.connect(2);
    const text = 'set slow 1 0 4\r\n\r\n\r\n\r\nappend slow 0 0 1\r\n!\r\nget slow\r\ndelete slow\r\n';
    for (const byte of text) {
      client.send(byte);
      await new Promise((resolve) => setImmediate(resolve));
    }
    client.end();
    expect(await client.rest()).toBe('STORED\r\nSTORED\r\nVALUE slow 1 5\r\n\r\n\r\n!\r\nEND\r\nDELETED\r\n');
  });

  it('may be split anywhere', async () => {
    const client = await cluster.connect(3);
    const text = 'set split 0 0 6\r\nab\r\ncd\r\nget split\r\n';
    for (let at = 1; at < text.length; at++) {
      client.send(text.slice(0, at));
      await new Promise((resolve) => setImmediate(resolve));
      client.send(text.slice(at));
      expect(await client.reply()).toBe('STORED');
      expect(await client.reply('block')).toBe('VALUE split 0 6\r\nab\r\ncd\r\nEND');
    }
  });

  it('may come as one pipeline of thousands of requests, answered in order', async () => {
    await Promise.all(
      NODES.map(async (id) => {
        const client = await cluster.connect(id);
        const numbers = Array.from({ length: 3000 }, (_, i) => 1000 + i);
        const set = (i: number) => `set pipe${id}.${i % 10} 0 0 4\r\n${i}\r\n`;
        const get = (i: number) => `get pipe${id}.${i % 10}\r\n`;
        const found = (i: number) => `VALUE pipe${id}.${i % 10} 0 4\r\n${i}\r\nEND\r\n`;
        const lastTen = numbers.slice(-10);
        client.send(numbers.map(set).join('') + lastTen.map(get).join('') + numbers.map(get).join(''));
        client.end();
        const expected = [
          ...numbers.map(() => 'STORED\r\n'),
          ...lastTen.map(found),
          ...numbers.map((i) => found(3990 + (i % 10))),
        ];
        expect((await client.rest()) === expected.join('')).toBe(true);
      }),
    );
  });

  it('of writes and reads in turn take effect in the order sent', async () => {
    await Promise.all(
      NODES.map(async (id) => {
        const client = await cluster.connect(id);
        const numbers = Array.from({ length: 200 }, (_, i) => 1000 + i);
        client.send(numbers.map((i) => `set turn${id} 0 0 4\r\n${i}\r\nget turn${id}\r\n`).join(''));
        client.send('quit\r\n');
        const expected = numbers.map((i) => `STORED\r\nVALUE turn${id} 0 4\r\n${i}\r\nEND\r\n`).join('');
        expect((await client.rest()) === expected).toBe(true);
      }),
    );
  });

  it('of a get with hundreds of keys find them all', async () => {
    const client = await cluster.connect(1);
    const keys = Array.from({ length: 800 }, (_, i) => `${'k'.repeat(200)}${i}`);
    await Promise.all(keys.map((key) => client.set(key, key)));
    const values = await (await cluster.connect(2)).gets(...keys);
    expect(values.map(({ value }) => value)).toEqual(keys);
  });
});

describe('flush_all', () => {
  it('empties every node, and spares what is written after it', async () => {
    const clients = await Promise.all(NODES.map((id) => cluster.connect(id)));
    const [first, second, third] = clients as [MemcachedClient, MemcachedClient, MemcachedClient];
    await first.set('before', 'x');
    expect(await second.request('flush_all\r\n')).toBe('OK');
    expect(await third.set('after', 'y')).toBe('STORED');
    for (const client of clients) {
      expect(await client.get('before')).toBeNull();
      expect(await client.get('after')).toBe('y');
    }
  });
});

/** Stands for a reply that other clients have a say in. */
const ANY_NUMBER = 'any number';

interface Step {
  readonly text: string;
  readonly reply: string;
  readonly shape: 'line' | 'block';
}

/** Random commands on keys of one client's own, with the replies that they must get. */
function mixedScript(prefix: string, random: () => number, count: number): Step[] {
  const items = new Map<string, string>();
  const below = (limit: number) => Math.floor(random() * limit);
  const line = (text: string, reply: string): Step => ({ text, reply, shape: 'line' });
  return Array.from({ length: count }, (_, i): Step => {
    const key = `${prefix}.${below(5)}`;
    const value = items.get(key);
    switch (below(8)) {
      case 0:
      case 1:
        items.set(key, `${i}`);
        return line(`set ${key} 0 0 ${`${i}`.length}\r\n${i}\r\n`, 'STORED');
      case 2:
        if (value === undefined) items.set(key, `${i}`);
        return line(`add ${key} 0 0 ${`${i}`.length}\r\n${i}\r\n`, value === undefined ? 'STORED' : 'NOT_STORED');
      case 3:
        items.delete(key);
        return line(`delete ${key}\r\n`, value === undefined ? 'NOT_FOUND' : 'DELETED');
      case 4: {
        if (value === undefined) return line(`incr ${key} 3\r\n`, 'NOT_FOUND');
        items.set(key, `${BigInt(value) + 3n}`);
        return line(`incr ${key} 3\r\n`, `${BigInt(value) + 3n}`);
      }
      case 5:
        return line('incr total 1\r\n', ANY_NUMBER);
      default: {
        const found = value === undefined ? '' : `VALUE ${key} 0 ${value.length}\r\n${value}\r\n`;
        return { text: `get ${key}\r\n`, reply: `${found}END`, shape: 'block' };
      }
    }
  });
}
