import { describe, expect, it } from 'vitest';
import { Watch } from '../../../src/server/clients/watchers.ts';
import { newCounters } from '../../../src/server/counters.ts';
import { newClient, serveStore } from '../../support/client-port.ts';
import { FakeReplica } from '../../support/fake-replica.ts';
import { converse, turn } from '../../support/text-client.ts';

async function watching(port: number) {
  const client = await newClient(port);
  client.send('watch mutations\r\n');
  expect(await client.reply('\r\n')).toBe('OK\r\n');
  return client;
}

/** Without what differs from run to run. */
function told(lines: string): string[] {
  return lines
    .trimEnd()
    .split('\n')
    .map((line) => line.replace(/^ts=\d{10}\.\d{3}000 /, ''));
}

describe('watch mutations', () => {
  it('tells of every command that stores, counts or deletes, in their order, whatever it came to', async () => {
    const { port } = await serveStore();
    const watcher = await watching(port);
    await converse(
      port,
      [
        'set a 5 0 3\r\nabc\r\nset a 5 100 3 noreply\r\nabc\r\nappend a 0 0 1\r\nd\r\nadd a 0 0 2\r\nxx\r\n',
        'cas a 0 0 1 999\r\nx\r\nreplace b 0 9 1\r\nx\r\nset gone 0 -1 3\r\nabc\r\n',
        'set n 0 0 1\r\n9\r\nincr n 1\r\ndecr n 1\r\nincr none 1\r\ntouch n 0\r\nget n\r\ndelete n\r\ndelete n\r\n',
        'ms m 2 T30\r\nxx\r\nms m 1 MA\r\ny\r\nms m 1 C1\r\ny\r\nma m\r\nma c N0 J7\r\nma c MD\r\nmd m I\r\nmd m\r\n',
        'flush_all\r\nset last 0 0 0\r\n\r\n',
      ].join(''),
    );
    expect(
      told(await watcher.reply('gid=18 type=item_store key=last status=stored cmd=set ttl=0 clsid=1 cfd=0 size=0\n')),
    ).toEqual(
      [
        'type=item_store key=a status=stored cmd=set ttl=0 clsid=1 cfd=0 size=3',
        'type=item_store key=a status=stored cmd=set ttl=100 clsid=1 cfd=0 size=3',
        'type=item_store key=a status=stored cmd=append ttl=100 clsid=1 cfd=0 size=4',
        'type=item_store key=a status=not_stored cmd=add ttl=0 clsid=1 cfd=0 size=2',
        'type=item_store key=a status=exists cmd=cas ttl=0 clsid=1 cfd=0 size=1',
        'type=item_store key=b status=not_stored cmd=replace ttl=9 clsid=1 cfd=0 size=1',
        'type=item_store key=gone status=stored cmd=set ttl=0 clsid=1 cfd=0 size=3',
        'type=item_store key=n status=stored cmd=set ttl=0 clsid=1 cfd=0 size=1',
        'type=item_store key=n status=stored cmd=incr ttl=0 clsid=1 cfd=0 size=2',
        'type=item_store key=n status=stored cmd=decr ttl=0 clsid=1 cfd=0 size=2',
        'type=deleted key=n cmd=delete clsid=1 cfd=0 size=0',
        'type=item_store key=m status=stored cmd=set ttl=30 clsid=1 cfd=0 size=2',
        'type=item_store key=m status=stored cmd=append ttl=30 clsid=1 cfd=0 size=3',
        'type=item_store key=m status=exists cmd=cas ttl=0 clsid=1 cfd=0 size=1',
        'type=item_store key=c status=stored cmd=incr ttl=0 clsid=1 cfd=0 size=1',
        'type=item_store key=c status=stored cmd=decr ttl=0 clsid=1 cfd=0 size=1',
        'type=deleted key=m cmd=delete clsid=1 cfd=0 size=0',
        'type=item_store key=last status=stored cmd=set ttl=0 clsid=1 cfd=0 size=0',
      ].map((line, i) => `gid=${i + 1} ${line}`),
    );
  });

  it('tells the time of the entry, and why a write was refused', async () => {
    const { port, replica } = await serveStore({ itemBytesMax: 1024 }, new FakeReplica({ storeBytesMax: 300 }));
    const watcher = await watching(port);
    await converse(port, `set a 0 0 1\r\n1\r\nset b 0 0 99\r\n${'x'.repeat(99)}\r\nset a 0 0 2000\r\n`);
    const { timeMs } = replica.machine;
    const ts = `${Math.floor(timeMs / 1000)}.${String(timeMs % 1000).padStart(3, '0')}000`;
    expect(await watcher.reply('gid=3 type=deleted key=a cmd=delete clsid=1 cfd=0 size=0\n')).toBe(
      `ts=${ts} gid=1 type=item_store key=a status=stored cmd=set ttl=0 clsid=1 cfd=0 size=1\n` +
        `ts=${ts} gid=2 type=item_store key=b status=no_memory cmd=set ttl=0 clsid=1 cfd=0 size=99\n` +
        `ts=${ts} gid=3 type=deleted key=a cmd=delete clsid=1 cfd=0 size=0\n`,
    );
  });

  it('shows keys as listings do', async () => {
    const { port } = await serveStore();
    const watcher = await watching(port);
    await converse(port, 'set k%"/~-_.\xe4\x01 0 0 1\r\n1\r\n');
    expect(await watcher.reply('\n')).toContain(' key=k%25%22%2F~-_.%E4%01 status=');
  });

  it('streams to all who watch behind the replies to what they asked before, and looks at nothing they send later', async () => {
    const { port, replica } = await serveStore();
    const watchers = [await newClient(port), await newClient(port)];
    for (const watcher of watchers) watcher.send('version\r\nget none\r\nwatch mutations\r\nversion\r\n');
    for (const watcher of watchers) expect(await watcher.reply('OK\r\n')).toBe('VERSION 1.6.45\r\nEND\r\nOK\r\n');
    for (const watcher of watchers) watcher.send('version\r\nset x 0 0 1\r\n1\r\nquit\r\n');
    await turn();
    await converse(port, 'set a 0 0 1\r\n1\r\n');
    for (const watcher of watchers) expect(told(await watcher.reply('\n'))).toHaveLength(1);
    expect(replica.machine.get('x')).toBeUndefined();
    expect(await converse(port, 'stats\r\n')).toContain('STAT log_watchers 2\r\n');
    expect(await converse(port, 'stats conns\r\n')).toContain('conn_watch\r\n');
  });

  it('keeps lines back until what was asked before is answered', async () => {
    const { port, replica } = await serveStore();
    replica.hold = true;
    const [watcher, writer] = [await newClient(port), await newClient(port)];
    watcher.send('get none\r\nwatch mutations\r\n');
    while (replica.machine.observer === null) await turn();
    writer.send('set a 0 0 1\r\n1\r\n');
    while (replica.pendingWrites === 0) await turn();
    replica.deliverWrites();
    await writer.reply('STORED\r\n');
    replica.deliverReads();
    expect(await watcher.reply('size=1\n')).toMatch(/^END\r\nOK\r\nts=.*\n$/);
  });

  it('observes the state machine only while somebody watches, and ends with the client', async () => {
    const { port, replica } = await serveStore();
    expect(replica.machine.observer).toBeNull();
    const watcher = await watching(port);
    expect(replica.machine.observer).not.toBeNull();
    watcher.end();
    expect(await watcher.rest()).toBe('');
    expect(await converse(port, 'stats\r\n')).toContain('STAT log_watchers 0\r\n');
    expect(replica.machine.observer).toBeNull();
  });

  it('ends with the port, too', async () => {
    const { port, server } = await serveStore();
    const watcher = await watching(port);
    await Promise.all([server.stop(), watcher.rest().then(() => watcher.end())]);
    expect(server.connections).toBe(0);
  });

  it('lets only so many watch', async () => {
    const { port } = await serveStore({ watchersMax: 1 });
    await watching(port);
    expect(await converse(port, 'watch mutations\r\nversion\r\n')).toBe(
      'WATCHER_TOO_MANY log watcher limit reached\r\nVERSION 1.6.45\r\n',
    );
  });

  it('knows no other stream', async () => {
    const { port } = await serveStore();
    const lines = 'watch\r\nwatch fetchers\r\nwatch mutations evictions\r\nwatch mutations noreply\r\nversion\r\n';
    expect(await converse(port, lines)).toBe('ERROR\r\nERROR\r\nERROR\r\nVERSION 1.6.45\r\n');
  });

  it('loses lines of a client that does not read them, tells it how many, and delays no other client', async () => {
    const { port } = await serveStore({ watchedBytesMax: 4096, unsentBytesMax: 1024 });
    const watcher = await watching(port);
    watcher.socket.pause();
    const writer = await newClient(port);
    const skipped = async () => Number(/log_watcher_skipped (\d+)/.exec(await converse(port, 'stats\r\n'))?.[1]);
    while ((await skipped()) === 0) {
      writer.send(`${`set ${'k'.repeat(240)} 0 0 1 noreply\r\n1\r\n`.repeat(5000)}mn\r\n`);
      await writer.reply('MN\r\n');
    }
    watcher.socket.resume();
    while (!watcher.received.includes('skipped=')) {
      writer.send('set one 0 0 1\r\n1\r\n');
      await writer.reply('STORED\r\n');
      await turn();
    }
    const lines = watcher.received.slice(0, watcher.received.lastIndexOf('\n')).split('\n');
    const notes = lines.flatMap((line) => /^skipped=(\d+)$/.exec(line)?.[1] ?? []).map(Number);
    const lost = notes.reduce((sum, count) => sum + count, 0);
    expect(lost).toBe(await skipped());
    expect(lines.at(-1)).toContain(` gid=${lines.length - notes.length + lost} `);
  });
});

describe('what waits for one who watches', () => {
  const line = (n: number) => `${n}`.padEnd(9, '.').concat('\n');
  const taken = (watch: Watch) => Array.from({ length: 9 }, () => watch.take() ?? '').join('');

  it('is bounded to the byte, and the next line that finds room tells how many did not', () => {
    const counters = newCounters();
    const watch = new Watch(30, counters, () => {});
    for (let n = 1; n <= 3; n++) watch.push(line(n));
    watch.push(line(4));
    watch.push(line(5));
    expect(watch.take()).toBe(line(1));
    watch.push(line(6));
    expect(taken(watch)).toBe(line(2) + line(3));
    watch.push(line(7));
    watch.push(line(8));
    expect(taken(watch)).toBe(`skipped=3\n${line(7)}${line(8)}`);
    expect(counters).toMatchObject({ log_watcher_skipped: 3, log_watcher_sent: 5 });
  });

  it('comes out in order for a reader that is always a few lines behind', () => {
    const watch = new Watch(100, newCounters(), () => {});
    for (let n = 0; n < 7; n++) watch.push(line(n));
    for (let n = 0; n < 1000; n++) {
      expect(watch.take()).toBe(line(n));
      watch.push(line(n + 7));
    }
  });
});
