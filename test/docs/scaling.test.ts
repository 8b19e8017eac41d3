import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster, until } from '../support/cluster.ts';
import { connect } from '../support/memcached-client.ts';
import { type PortBlock, reservePorts } from '../support/ports.ts';

/** The configuration of docs/scaling.md, its addresses exchanged for those of two real clusters. */
const FILE = resolve(import.meta.dirname, '../../docs/scaling.md');
const installed = spawnSync('nutcracker', ['--version']).error === undefined;
if (!installed) console.warn("skipped: no nutcracker on this machine (Debian's nutcracker)");
const KEYS = Array.from({ length: 200 }, (_, i) => `user:${i}`);
const WAIT_MS = 25;

let a: Cluster;
let b: Cluster;
let proxy: ChildProcess;
let block: PortBlock;
let folder: string;
let port = 0;
showLogOfFailure(() => a);

describe.skipIf(!installed)('two clusters behind nutcracker, as docs/scaling.md has it', () => {
  beforeAll(async () => {
    [a, b] = await Promise.all([startCluster(), startCluster()]);
    block = await reservePorts(4);
    folder = mkdtempSync(join(tmpdir(), 'raftkv-nutcracker-'));
    const [outer = 0, innerA = 0, innerB = 0, stats = 0] = block.ports;
    port = outer;
    const file = join(folder, 'nutcracker.yml');
    writeFileSync(file, configuration({ 22120: outer, 22131: innerA, 22132: innerB }));
    const args = [
      '-c',
      file,
      '-a',
      '127.0.0.1',
      '-s',
      `${stats}`,
      '-p',
      join(folder, 'pid'),
      '-o',
      join(folder, 'log'),
    ];
    proxy = spawn('nutcracker', args, { stdio: 'ignore' });
    await until('nutcracker to listen', async () => {
      const client = await connect(port).catch(() => undefined);
      client?.destroy();
      return client;
    });
  });
  afterAll(async () => {
    proxy?.kill('SIGKILL');
    if (proxy !== undefined && proxy.exitCode === null && proxy.signalCode === null) await once(proxy, 'exit');
    await Promise.all([a?.stop(), b?.stop()]);
    block?.release();
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  });

  it('keeps each key in one cluster, and both have their share', async () => {
    const client = await connect(port);
    for (const key of KEYS) expect(await client.set(key, `value of ${key}`)).toBe('STORED');
    const [inA, inB] = await Promise.all([keysIn(a), keysIn(b)]);
    expect([...inA, ...inB].sort()).toEqual([...KEYS].sort());
    expect(Math.min(inA.length, inB.length)).toBeGreaterThan(KEYS.length / 10);
    client.destroy();
  });

  it('answers a get of keys in both clusters as one, and cas, incr and touch', async () => {
    const client = await connect(port);
    const found = await client.gets(...KEYS.slice(0, 20));
    expect(found.map(({ key }) => key).sort()).toEqual(KEYS.slice(0, 20).sort());
    for (const key of KEYS.slice(20, 30)) {
      const [item] = await client.gets(key);
      expect(await client.store('cas', key, '41', { unique: item?.unique ?? 0n })).toBe('STORED');
      expect(await client.store('cas', key, 'late', { unique: item?.unique ?? 0n })).toBe('EXISTS');
      expect(await client.request(`incr ${key} 1\r\n`)).toBe('42');
      expect(await client.request(`touch ${key} 100\r\n`)).toBe('TOUCHED');
    }
    client.destroy();
  });

  it('goes on when a node of a cluster is killed, and loses nothing', async () => {
    const leader = await a.leader();
    const client = await connect(port);
    const stored: string[] = [];
    for (const [i, key] of KEYS.entries()) {
      if (i === 50) await a.kill(leader);
      expect(await inTheEnd(() => client.set(key, `second ${key}`))).toBe('STORED');
      stored.push(key);
    }
    for (const key of stored) {
      const found = await inTheEnd(() => client.request(`get ${key}\r\n`, 'block'));
      expect(found).toBe(`VALUE ${key} 0 ${key.length + 7}\r\nsecond ${key}\r\nEND`);
    }
    await a.start(leader);
    await a.serving(leader);
    client.destroy();
  });

  it('answers with errors for the keys of a cluster that is down, serves the others, and sends none astray', async () => {
    const [inA, inB] = await Promise.all([keysIn(a), keysIn(b)]);
    await Promise.all(a.running().map((id) => a.kill(id)));
    const client = await connect(port);
    for (const key of inA.slice(0, 10)) expect(await client.set(key, 'astray')).toMatch(/^SERVER_ERROR/);
    for (const key of inB.slice(0, 10)) expect(await client.set(key, 'served')).toBe('STORED');
    expect((await keysIn(b)).sort()).toEqual(inB.sort());
    client.destroy();
  });
});

function configuration(ports: Readonly<Record<string, number>>): string {
  const yaml = /```yaml\n([\s\S]*?)```/.exec(readFileSync(FILE, 'utf8'))?.[1] ?? '';
  return yaml
    .replace(/127\.0\.0\.1:(221\d\d)/g, (_, listed: string) => `127.0.0.1:${ports[listed]}`)
    .replace(/192\.0\.2\.([12])([123]):11211/g, (_, cluster: string, id: string) => {
      const { host, clientPort } = (cluster === '1' ? a : b).node(Number(id));
      return `${host}:${clientPort}`;
    });
}

async function keysIn(cluster: Cluster): Promise<string[]> {
  const client = await cluster.connect(1);
  client.send('lru_crawler metadump all\r\n');
  client.end();
  const listing = await client.rest();
  return [...listing.matchAll(/^key=(\S+)/gm)].map(([, key]) => decodeURIComponent(key ?? ''));
}

/** Sends a request until the reply is no error of the proxy's: what is asked here does no harm twice. */
async function inTheEnd(ask: () => Promise<string>): Promise<string> {
  return until('a reply that is no error', async () => {
    const reply = await ask();
    if (!reply.startsWith('SERVER_ERROR')) return reply;
    await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
    return undefined;
  });
}
