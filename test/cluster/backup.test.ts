import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Cluster, createCluster, showLogOfFailure, startCluster, until } from '../support/cluster.ts';
import { startKeyedLoad } from '../support/load.ts';
import { runCommand } from '../support/node-process.ts';
import { differencesAt } from '../support/stored-data.ts';

/**
 * A backup of a cluster that is being written to, and a cluster of five nodes that begins with it:
 *
 *   three nodes, under load ── snapshot save ─▶ file ── inspect ── snapshot restore ─▶ five nodes, the same items
 */
const ITEMS = 400;
const FIVE = [1, 2, 3, 4, 5];

let cluster: Cluster;
let five: Cluster;
let backup: string;
/** Writes acknowledged before the backup was asked for, and all that were. */
let before: ReadonlyMap<string, string>;
let all: ReadonlyMap<string, string>;
showLogOfFailure(() => cluster);
showLogOfFailure(() => five);
beforeAll(async () => {
  [cluster, five] = await Promise.all([startCluster(), createCluster({ nodes: 5 })]);
  backup = join(cluster.folder, 'backup.snapshot');
});
afterAll(async () => {
  await five?.stop();
  await cluster?.stop();
});

const keyOf = (i: number) => `kept${i}`;

/** Every item with its flags and cas unique, by a linearizable read; and with its expiry time, as the node has it. */
async function itemsAt(of: Cluster, id: number): Promise<{ items: unknown[]; expiries: string[] }> {
  const client = await of.connect(id);
  const items = await client.gets(...Array.from({ length: ITEMS }, (_, i) => keyOf(i)));
  const listing = await client.request('lru_crawler metadump all\r\n', 'block');
  client.destroy();
  const expiries = [...listing.matchAll(/key=(kept\d+) exp=(\S+)/g)].map(([, key, at]) => `${key} ${at}`).sort();
  return { items, expiries };
}

describe('a backup', () => {
  it('is saved under load and holds everything acknowledged before', async () => {
    const client = await cluster.connect(1);
    const replies: Promise<string>[] = [];
    for (let i = 0; i < ITEMS; i++) {
      const options = { flags: i * 1000, exptime: i % 3 === 0 ? 3600 + i : 0 };
      replies.push(client.set(keyOf(i), 'é'.repeat(i % 50) + i, options));
      // So that uniques are not simply ascending.
      if (i % 7 === 0) replies.push(client.request(`touch ${keyOf(i >> 1)} ${5000 + i}\r\n`));
      if (i % 5 === 0) replies.push(client.store('append', keyOf(i >> 1), '+'));
    }
    expect(new Set(await Promise.all(replies))).toEqual(new Set(['STORED', 'TOUCHED']));
    const { load, stored } = startKeyedLoad(cluster, 'load', { clients: 8 });
    await load.progress(500);
    before = new Map(stored);
    const saved = await cluster.command('snapshot', 'save', backup);
    await load.progress(100);
    await load.stop();
    all = stored;
    expect(saved).toMatchObject({ code: 0 });
    console.log(saved.stdout.trim());
    expect(load.errors).toEqual([]);
    expect(await cluster.command('snapshot', 'save', backup)).toMatchObject({ code: 1 });
  });

  it('is verified by inspect, and refused where it was changed', async () => {
    const { code, stdout } = await runCommand(['snapshot', 'inspect', backup, '--json']);
    expect(code).toBe(0);
    const facts = JSON.parse(stdout) as Record<string, number>;
    expect(facts).toMatchObject({ cluster: 'test', voters: [1, 2, 3] });
    expect(facts['items']).toBeGreaterThanOrEqual(ITEMS + before.size);
    expect(facts['items']).toBeLessThanOrEqual(ITEMS + all.size);
    const damaged = join(cluster.folder, 'damaged.snapshot');
    const bytes = readFileSync(backup);
    bytes.writeUInt8(bytes.readUInt8(bytes.length >> 1) ^ 1, bytes.length >> 1);
    writeFileSync(damaged, bytes);
    const inspected = await runCommand(['snapshot', 'inspect', damaged]);
    expect(inspected.code).toBe(1);
    expect(inspected.stderr).toContain('SNAPSHOT_DAMAGED');
    expect(await five.command('snapshot', 'restore', damaged)).toMatchObject({ code: 1 });
  });

  it('becomes a cluster of five nodes with equal contents', async () => {
    const restored = await five.command('snapshot', 'restore', backup);
    expect(restored).toMatchObject({ code: 0 });
    // There is something now that it would overwrite.
    expect(await five.command('snapshot', 'restore', backup)).toMatchObject({ code: 1 });
    await Promise.all(FIVE.map((id) => five.start(id)));
    await Promise.all(FIVE.map((id) => five.serving(id)));
    const original = await itemsAt(cluster, 1);
    expect(original.items).toHaveLength(ITEMS);
    for (const id of FIVE) {
      expect(await itemsAt(five, id)).toEqual(original);
      expect(await differencesAt(five, id, before)).toEqual([]);
    }
    // The node that was restored has made voters of the others, who started empty.
    await until('five voters', async () => ((await five.status(1))?.voters.length === FIVE.length ? true : undefined));
    const idsOf = await Promise.all(FIVE.map(async (id) => (await five.status(id))?.clusterId));
    expect(new Set(idsOf)).toEqual(new Set([expect.not.stringMatching((await cluster.status(1))?.clusterId ?? '')]));
  });

  it('goes on like the cluster that it was taken from', async () => {
    const client = await five.connect(2);
    const [item] = await client.gets(keyOf(9));
    expect(await client.store('cas', keyOf(9), 'changed', { unique: item?.unique ?? 0n })).toBe('STORED');
    const [changed] = await client.gets(keyOf(9));
    expect(changed?.unique).toBeGreaterThan(item?.unique ?? 0n);
    await five.kill(await five.leader());
    expect(await (await five.connect(five.running()[0] ?? 0)).get(keyOf(9))).toBe('changed');
  });
});
