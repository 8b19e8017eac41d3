import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { newClient, type ServedStore, serveStore } from '../../support/client-port.ts';
import { FakeReplica } from '../../support/fake-replica.ts';
import { converse, type TextClient, turn } from '../../support/text-client.ts';

/** A store that answers only when the test says so. */
async function serveHeldStore(): Promise<ServedStore & { readonly client: TextClient }> {
  const replica = new FakeReplica();
  replica.hold = true;
  replica.proposals = [];
  const served = await serveStore({}, replica);
  return { ...served, client: await newClient(served.port) };
}

async function until(satisfied: () => boolean): Promise<void> {
  while (!satisfied()) await turn();
}

const set = (key: string, value: string) => `set ${key} 0 0 ${value.length}\r\n${value}\r\n`;

describe('one connection', () => {
  it('keeps replies that need no store behind a write that waits for its result', async () => {
    const { replica, client } = await serveHeldStore();
    client.send(`${set('a', 'x')}version\r\nbad\r\nverbosity 1\r\n`);
    await until(() => replica.pendingWrites === 1);
    await turn();
    expect(client.take()).toBe('');
    replica.deliverWrites();
    expect(await client.reply('OK\r\n')).toBe('STORED\r\nVERSION 1.6.45\r\nERROR\r\nOK\r\n');
  });

  it('executes a read only behind the results of the writes before it, though it was confirmed long since', async () => {
    const { replica, client } = await serveHeldStore();
    client.send(`${set('a', 'x')}get a\r\n`);
    await until(() => replica.pendingReads === 1);
    replica.deliverReads();
    await turn();
    expect(client.take()).toBe('');
    replica.deliverWrites();
    expect(await client.reply('END\r\n')).toBe('STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n');
  });

  it('executes a read only after its own confirmation, though the writes before it were answered', async () => {
    const { replica, client } = await serveHeldStore();
    client.send(`${set('a', 'x')}get a\r\n`);
    await until(() => replica.pendingReads === 1);
    replica.deliverWrites();
    expect(await client.reply('STORED\r\n')).toBe('STORED\r\n');
    await turn();
    expect(client.take()).toBe('');
    replica.deliverReads();
    expect(await client.reply('END\r\n')).toBe('VALUE a 0 1\r\nx\r\nEND\r\n');
  });

  it('proposes a write behind a read only when the read was executed', async () => {
    const { replica, client } = await serveHeldStore();
    client.send(`get a\r\n${set('a', 'x')}version\r\nget a\r\n${set('a', 'y')}`);
    await until(() => replica.pendingReads === 1);
    client.send('delete b\r\n');
    await turn();
    expect(replica.proposals).toEqual([]);
    replica.deliverReads();
    await until(() => replica.pendingWrites === 1 && replica.pendingReads === 1);
    expect(replica.proposals).toEqual(['set a']);
    replica.deliverReads();
    await turn();
    expect(replica.proposals).toEqual(['set a']);
    replica.deliverWrites();
    await until(() => replica.pendingWrites === 2);
    expect(replica.proposals).toEqual(['set a', 'set a', 'delete b']);
    replica.deliverWrites();
    expect(await client.reply('NOT_FOUND\r\n')).toBe(
      'END\r\nSTORED\r\nVERSION 1.6.45\r\nVALUE a 0 1\r\nx\r\nEND\r\nSTORED\r\nNOT_FOUND\r\n',
    );
  });

  it('holds gat and touch behind reads too: they are writes', async () => {
    const { replica, client } = await serveHeldStore();
    client.send('get a\r\ngat 0 a b\r\ntouch a 0\r\n');
    await until(() => replica.pendingReads === 1);
    await turn();
    expect(replica.proposals).toEqual([]);
    replica.deliverReads();
    await until(() => replica.pendingWrites === 3);
    expect(replica.proposals).toEqual(['getAndTouch a', 'getAndTouch b', 'touch a']);
    replica.deliverWrites();
    expect(await client.reply('NOT_FOUND\r\n')).toBe('END\r\nEND\r\nNOT_FOUND\r\n');
  });

  it('asks for one confirmation for all reads that came together, and for another for later ones', async () => {
    const { replica, client } = await serveHeldStore();
    client.send('get a\r\ngets a b\r\nversion\r\nget c\r\n');
    await until(() => replica.reads > 0);
    await turn();
    expect(replica.reads).toBe(1);
    client.send('get d\r\n');
    await until(() => replica.reads === 2);
    replica.deliverReads();
    expect(await client.bytes(4 * 5 + 16)).toBe('END\r\nEND\r\nVERSION 1.6.45\r\nEND\r\nEND\r\n');
  });

  it('does not hold up other connections', async () => {
    const { replica, client, port } = await serveHeldStore();
    client.send(`get a\r\n${set('a', 'x')}`);
    await until(() => replica.pendingReads === 1);
    const other = await newClient(port);
    other.send('version\r\n');
    expect(await other.reply('\r\n')).toBe('VERSION 1.6.45\r\n');
    other.send(set('b', 'y'));
    await until(() => replica.pendingWrites === 1);
    replica.deliverWrites();
    expect(await other.reply('\r\n')).toBe('STORED\r\n');
    expect(client.received).toBe('');
  });

  it('says what is known when there is no quorum, in order', async () => {
    const { replica, client } = await serveHeldStore();
    client.send(
      `${set('a', 'x')}set a 0 0 1 noreply\r\ny\r\ngat 0 a b\r\nversion\r\nget a\r\nget b\r\nlru_crawler metadump all\r\n`,
    );
    await until(() => replica.pendingReads === 1);
    replica.fail('timeout');
    const unknown = 'SERVER_ERROR no quorum: outcome unknown\r\n';
    const noQuorum = 'SERVER_ERROR no quorum\r\n';
    expect(await client.reply(noQuorum.repeat(3))).toBe(`${unknown.repeat(2)}VERSION 1.6.45\r\n${noQuorum.repeat(3)}`);
    client.send('get a\r\n');
    await until(() => replica.pendingReads === 1);
    replica.deliverReads();
    expect(await client.reply('\r\n')).toBe('END\r\n');
  });

  it('says so when the node is stopping', async () => {
    const { replica, client } = await serveHeldStore();
    client.send(`${set('a', 'x')}get a\r\n`);
    await until(() => replica.pendingReads === 1);
    replica.fail('stopping');
    const read = 'SERVER_ERROR node is stopping\r\n';
    expect(await client.reply(read)).toBe(`SERVER_ERROR node is stopping: outcome unknown\r\n${read}`);
  });

  it('that is gone leaves nothing behind that later answers would trip over', async () => {
    const { replica, client, port, server } = await serveHeldStore();
    client.send(`${set('a', 'x')}gat 0 a b\r\nget a\r\nget b\r\n`);
    await until(() => replica.pendingReads === 1);
    client.socket.resetAndDestroy();
    await until(() => server.connections === 0);
    replica.deliverReads();
    replica.deliverWrites();
    replica.release();
    expect(await converse(port, `get a\r\n${set('b', 'y')}get b\r\n`)).toBe(
      'VALUE a 0 1\r\nx\r\nEND\r\nSTORED\r\nVALUE b 0 1\r\ny\r\nEND\r\n',
    );
  });

  it('gets the same replies whatever the order in which confirmations and results come', async () => {
    const request = fc.constantFrom(
      'get a\r\n',
      'gets a b\r\n',
      'gat 0 a\r\n',
      'version\r\n',
      'bad\r\n',
      set('a', 'x'),
      'append a 0 0 2\r\nyz\r\n',
      'append a 0 0 1 noreply\r\nq\r\n',
      'delete a\r\n',
      'touch a 100\r\n',
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(request, { minLength: 1, maxLength: 30 }),
        fc.array(fc.constantFrom('reads', 'writes', 'turn'), { maxLength: 60 }),
        async (requests, schedule) => {
          const expected = await converse((await serveStore()).port, requests.join(''));
          const { replica, client } = await serveHeldStore();
          client.end(requests.join(''));
          for (const step of schedule) {
            await turn();
            if (step === 'reads') replica.deliverReads();
            if (step === 'writes') replica.deliverWrites();
          }
          replica.release();
          expect(await client.rest()).toBe(expected);
        },
      ),
      { numRuns: 40 },
    );
  });
});

describe('a pipeline', () => {
  const part = fc.constantFrom(
    set('a', 'x'),
    set('b', 'y'.repeat(300)),
    'set a 0 0 3\nxyz\n',
    'set a 0 0 3\nxyz\r\n',
    'set c 0 0 2 noreply\r\n\r\n\r\n',
    'set a 0 0 3\r\nxyzw\r\n',
    `set a 0 0 5000\r\n${'z'.repeat(5000)}\r\n`,
    `add a 0 0 5000 noreply\n${'z'.repeat(5000)}\n`,
    `set ${'k'.repeat(251)} 0 0 4\r\nmn\r\n\r\n`,
    'gets a b c\r\n',
    'get a\n',
    'gat 0 a c\r\n',
    'incr a 1\r\n',
    'delete b\r\n',
    'version\r\n',
    '\r\n',
    `get ${'a '.repeat(1500)}\r\n`,
  );

  it('gets the same replies however its bytes are split', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(part, { minLength: 1, maxLength: 20 }),
        fc.array(fc.nat(), { maxLength: 20 }),
        async (parts, splits) => {
          const text = parts.join('');
          const limits = { itemBytesMax: 2000 };
          const expected = await converse((await serveStore(limits)).port, text);
          const client = await newClient((await serveStore(limits)).port);
          const places = [...new Set(splits.map((c) => c % text.length))].sort((a, b) => a - b);
          let sent = 0;
          for (const place of places) {
            client.send(text.slice(sent, place));
            sent = place;
            await turn();
          }
          client.end(text.slice(sent));
          expect(await client.rest()).toBe(expected);
        },
      ),
      { numRuns: 40 },
    );
  });

  it('of single bytes works as any other', async () => {
    const { port } = await serveStore();
    const client = await newClient(port);
    for (const byte of `${set('a', 'hello')}get a\r\nset b 0 0 3\nabc\nbad\r\nget b\n`) {
      client.send(byte);
      await turn();
    }
    const replies = 'STORED\r\nVALUE a 0 5\r\nhello\r\nEND\r\nSTORED\r\nERROR\r\nVALUE b 0 3\r\nabc\r\nEND\r\n';
    expect(await client.bytes(replies.length)).toBe(replies);
  });
});
