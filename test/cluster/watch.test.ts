import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster } from '../support/cluster.ts';
import { connectText } from '../support/text-client.ts';

let cluster: Cluster;
showLogOfFailure(() => cluster);
beforeAll(async () => {
  cluster = await startCluster({ inProcess: true });
});
afterAll(async () => {
  await cluster?.stop();
});

it('shows one who watches the same changes at every node, whichever node was asked for them', async () => {
  const ports = cluster.nodes.map((node) => node.clientPort);
  const watchers = await Promise.all(ports.map(connectText));
  const writers = await Promise.all(ports.map(connectText));
  for (const watcher of watchers) watcher.send('watch mutations\r\n');
  for (const watcher of watchers) expect(await watcher.reply('\r\n')).toBe('OK\r\n');
  for (const [i, writer] of writers.entries()) {
    writer.send(`set key${i} 0 100 3\r\nabc\r\n`);
    expect(await writer.reply('\r\n')).toBe('STORED\r\n');
  }
  const streams = await Promise.all(
    watchers.map((watcher) => watcher.reply('key=key2 status=stored cmd=set ttl=100 clsid=1 cfd=0 size=3\n')),
  );
  expect(streams[0]?.match(/ key=\w+/g)).toEqual([' key=key0', ' key=key1', ' key=key2']);
  expect(new Set(streams).size).toBe(1);
  for (const client of [...watchers, ...writers]) client.destroy();
}, 20_000);
