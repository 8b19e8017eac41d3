import { once } from 'node:events';
import { createServer } from 'node:net';
import { describe, expect, it } from 'vitest';
import { systemClock } from '../../../src/base/clock.ts';
import { silentLogger } from '../../../src/base/logger.ts';
import { openClientPort } from '../../../src/server/clients/client-port.ts';
import { newClient, serveStore } from '../../support/client-port.ts';
import { FakeReplica } from '../../support/fake-replica.ts';
import { connectText, converse, turn } from '../../support/text-client.ts';

const set = (key: string, value: string) => `set ${key} 0 0 ${value.length}\r\n${value}\r\n`;

async function until(satisfied: () => boolean): Promise<void> {
  while (!satisfied()) await turn();
}

function heldReplica(): FakeReplica {
  const replica = new FakeReplica();
  replica.hold = true;
  return replica;
}

describe('a connection', () => {
  it('whose client has ended gets every reply, then the end', async () => {
    const replica = heldReplica();
    const { port, server } = await serveStore({}, replica);
    const client = await newClient(port);
    client.end(`get a\r\n${set('a', 'x')}get a\r\nversion\r\nset a 0 0 5\r\nunfin`);
    await until(() => replica.pendingReads === 1);
    replica.release();
    expect(await client.rest()).toBe('END\r\nSTORED\r\nVALUE a 0 1\r\nx\r\nEND\r\nVERSION 1.6.45\r\n');
    await until(() => server.connections === 0);
  });

  it('whose client has ended is answered even where the replica accepts only later', async () => {
    const replica = new FakeReplica();
    const { port } = await serveStore({}, replica);
    replica.setAccepting(false);
    const client = await newClient(port);
    client.end(`version\r\n${set('a', 'x')}get a\r\n`);
    expect(await client.reply('1.6.45\r\n')).toBe('VERSION 1.6.45\r\n');
    for (let i = 0; i < 5; i++) await turn();
    replica.setAccepting(true);
    expect(await client.rest()).toBe('STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n');
  });

  it('that says quit gets the earlier replies, then the end, and nothing behind it is done', async () => {
    const replica = heldReplica();
    replica.proposals = [];
    const { port, server } = await serveStore({}, replica);
    const client = await newClient(port);
    client.send(`${set('a', 'x')}quit\r\ndelete a\r\n`);
    await until(() => replica.pendingWrites === 1);
    client.send('delete a\r\n');
    replica.release();
    expect(await client.rest()).toBe('STORED\r\n');
    expect(replica.proposals).toEqual(['set a']);
    client.destroy();
    await until(() => server.connections === 0);
  });

  it('that was ended from here is closed even if the client never ends its side', async () => {
    const { port, server } = await serveStore({ lingerMsMax: 20 });
    const client = await newClient(port);
    client.send('quit\r\n');
    await client.rest();
    expect(client.socket.writable).toBe(true);
    await until(() => server.connections === 0);
  });

  it.each([0x80, 0x81])('that begins with the byte %i of the binary protocol is reset at once', async (magic) => {
    const { port, server } = await serveStore();
    const client = await newClient(port);
    const failed = once(client.socket, 'error');
    client.send(`${String.fromCharCode(magic, 0x0b)}${'\0'.repeat(22)}`);
    expect((await failed)[0]).toMatchObject({ code: 'ECONNRESET' });
    expect(client.received).toBe('');
    await until(() => server.connections === 0);
  });

  it('that sends such a byte later gets an error for its line, and goes on', async () => {
    const { port } = await serveStore();
    expect(await converse(port, 'version\r\n\x80\r\nversion\r\n')).toBe(
      'VERSION 1.6.45\r\nERROR\r\nVERSION 1.6.45\r\n',
    );
  });

  it('that is reset in the middle of everything is just gone', async () => {
    const replica = heldReplica();
    const { port, server } = await serveStore({}, replica);
    const clients = await Promise.all(Array.from({ length: 20 }, () => connectText(port)));
    for (const client of clients) client.send(`${set('a', 'x')}get a\r\nset b 0 0 100\r\nunfin`);
    await until(() => replica.pendingWrites === 20);
    for (const client of clients) client.socket.resetAndDestroy();
    await until(() => server.connections === 0);
    replica.release();
    expect(await converse(port, 'get a\r\n')).toBe('VALUE a 0 1\r\nx\r\nEND\r\n');
  });
});

describe('stop', () => {
  it('answers what is in flight, closes idle connections, takes no new ones', async () => {
    const replica = heldReplica();
    const { port, server } = await serveStore({}, replica);
    const idle = await newClient(port);
    const busy = await newClient(port);
    busy.send(`get a\r\n${set('a', 'x')}get a\r\n`);
    await until(() => replica.pendingReads === 1);
    let stopped = false;
    const stopping = server.stop().then(() => {
      stopped = true;
    });
    expect(await idle.rest()).toBe('');
    await expect(connectText(port)).rejects.toThrow('ECONNREFUSED');
    busy.send('version\r\n');
    await turn();
    expect([stopped, busy.received]).toEqual([false, '']);
    replica.release();
    expect(await busy.rest()).toBe('END\r\nSTORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n');
    idle.destroy();
    busy.destroy();
    await stopping;
    expect(server.connections).toBe(0);
  });

  it('waits for what hangs no longer than its limit', async () => {
    const replica = heldReplica();
    const { port, server } = await serveStore({ drainMsMax: 50 }, replica);
    const client = await newClient(port);
    client.send(set('a', 'x'));
    await until(() => replica.pendingWrites === 1);
    await server.stop();
    expect(server.connections).toBe(0);
    expect(await client.rest()).toBe('');
    replica.release();
    await turn();
  });

  it('may be asked for twice', async () => {
    const { server } = await serveStore();
    await Promise.all([server.stop(), server.stop()]);
    await server.stop();
  });
});

describe('openClientPort', () => {
  it('says which port is taken and what to do', async () => {
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    const address = other.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    const opening = openClientPort({
      host: '127.0.0.1',
      port,
      clock: systemClock,
      logger: silentLogger,
      replica: new FakeReplica(),
      version: '1.0.0',
      storeBytesMax: 1,
    });
    await expect(opening).rejects.toMatchObject({
      code: 'PORT_UNAVAILABLE',
      message: expect.stringContaining(`${port}`),
    });
    await new Promise((resolve) => other.close(resolve));
  });
});
