import { describe, expect, it } from 'vitest';
import { newClient, serveStore } from '../../support/client-port.ts';
import { FakeReplica } from '../../support/fake-replica.ts';
import { createManualClock } from '../../support/manual-clock.ts';
import { converse, turn } from '../../support/text-client.ts';

const IDLE_MS = 1000;

async function serveImpatient(replica = new FakeReplica(), limits = {}) {
  const time = createManualClock();
  const store = await serveStore({ connectionIdleMsMax: IDLE_MS, ...limits }, replica, { clock: time.clock });
  /** A quarter of the limit at a time, as the port itself looks. */
  const pass = (ms: number) => {
    for (let passed = 0; passed < ms; passed += IDLE_MS / 4) time.advance(IDLE_MS / 4);
  };
  return { ...store, pass };
}

describe('a client port with a limit for silence', () => {
  it('keeps a connection that is silent up to the limit, and closes it after', async () => {
    const { port, pass } = await serveImpatient();
    const client = await newClient(port);
    client.send('version\r\n');
    await client.reply('\r\n');
    pass(IDLE_MS);
    client.send('version\r\n');
    expect(await client.reply('\r\n')).toBe('VERSION 1.6.45\r\n');
    pass(IDLE_MS + IDLE_MS / 4);
    expect(await client.rest()).toBe('');
    expect(await converse(port, 'stats\r\n')).toMatch(/STAT idle_kicks 1\r\n/);
  });

  it('never closes one that waits for its answer', async () => {
    const replica = new FakeReplica();
    const { port, pass } = await serveImpatient(replica);
    const client = await newClient(port);
    replica.hold = true;
    client.send('set a 0 0 1\r\nx\r\n');
    while (replica.pendingWrites === 0) await turn();
    pass(10 * IDLE_MS);
    replica.release();
    expect(await client.reply('\r\n')).toBe('STORED\r\n');
  });

  it('never closes one that watches, unless it does not read what it gets', async () => {
    const { port, pass, server } = await serveImpatient(new FakeReplica(), { unsentBytesMax: 1000 });
    const watcher = await newClient(port);
    watcher.send('watch mutations\r\n');
    await watcher.reply('OK\r\n');
    pass(10 * IDLE_MS);
    await converse(port, 'set a 0 0 1\r\nx\r\n');
    await watcher.reply('size=1\n');
    watcher.socket.pause();
    while (!/log_watcher_skipped [1-9]/.test(await converse(port, 'stats\r\n'))) {
      await converse(port, `${`set ${'k'.repeat(240)} 0 0 1 noreply\r\nx\r\n`.repeat(5000)}mn\r\n`);
    }
    pass(2 * IDLE_MS);
    while (server.connections > 0) await turn();
  });

  it('closes one that does not read what it asked for', async () => {
    const { port, pass, server } = await serveImpatient(new FakeReplica(), { unsentBytesMax: 1000 });
    const client = await newClient(port);
    const value = 'v'.repeat(1_000_000);
    client.send(`set a 0 0 ${value.length}\r\n${value}\r\n`);
    await client.reply('STORED\r\n');
    client.socket.pause();
    client.send('get a\r\n'.repeat(50));
    for (let i = 0; i < 200; i++) await turn();
    pass(2 * IDLE_MS);
    while (server.connections > 0) await turn();
  });

  it('is off by default', async () => {
    const { port } = await serveStore();
    expect(await converse(port, 'stats settings\r\n')).toMatch(/STAT idle_timeout 0\r\n/);
  });
});
