import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster } from '../support/cluster.ts';
import { type Acknowledgement, startKeyedLoad } from '../support/load.ts';
import { differencesAt, fill, logged, percentile, residentBytes } from '../support/stored-data.ts';

/**
 * What a large store costs: a snapshot of it, the memory that an item takes, a restart, and a new member that starts
 * from nothing while others write. The figures are printed. On an idle machine a node with a million items serves 5 s
 * after its start.
 */
const ITEMS = 1_000_000;
const VALUE = 'x'.repeat(100);
const MIB = 1024 * 1024;
const SNAPSHOT_LOG_BYTES = 64 * MIB;
/** Keys, values and what a node's own tables take. */
const BYTES_PER_ITEM_MAX = 1_000;
const FILL_MS_MAX = 300_000;
const NODES = [1, 2, 3];
const NEWCOMER = 4;

const itemOf = (i: number) => ({ key: `large:${String(i).padStart(8, '0')}`, value: VALUE });
const mib = (bytes: number) => Math.round(bytes / MIB);

let cluster: Cluster;
let emptyBytes: readonly number[] = [];
const resident = () => NODES.map((id) => residentBytes(cluster.pid(id)));
showLogOfFailure(() => cluster);
beforeAll(async () => {
  cluster = await startCluster({ spares: 1, settings: { snapshotLogBytes: SNAPSHOT_LOG_BYTES } });
  emptyBytes = resident();
  const startMs = performance.now();
  await fill(
    NODES.map((id) => cluster.node(id).clientPort),
    ITEMS,
    itemOf,
  );
  console.log(`stored ${ITEMS} items of ${VALUE.length} bytes in ${Math.round(performance.now() - startMs)} ms`);
  await cluster.caughtUp();
}, FILL_MS_MAX);
afterAll(() => cluster?.stop());

async function takeSnapshot(id: number): Promise<number> {
  const { host, adminPort } = cluster.node(id);
  const response = await fetch(`http://${host}:${adminPort}/snapshot`);
  expect(response.status).toBe(200);
  let bytes = 0;
  for await (const part of response.body ?? []) bytes += part.length;
  return bytes;
}

function latency(acknowledged: readonly Acknowledgement[], fromMs: number, toMs: number): string {
  const tookMs = acknowledged
    .filter(({ doneMs }) => doneMs >= fromMs && doneMs < toMs)
    .map(({ sentMs, doneMs }) => doneMs - sentMs);
  const [p50, p99, max] = [0.5, 0.99, 1].map((share) => percentile(tookMs, share).toFixed(1));
  return `${tookMs.length} writes, p50 ${p50} p99 ${p99} max ${max} ms`;
}

describe(`a store of ${ITEMS} items`, () => {
  it('is written into a snapshot while the node serves', async () => {
    const id = (await cluster.followers())[0] ?? 0;
    const from = cluster.lines().length;
    // One more write, so that no snapshot that is there already will do.
    await fill([cluster.node(id).clientPort], 1, itemOf);
    const startMs = performance.now();
    const bytes = await takeSnapshot(id);
    const tookMs = Math.round(performance.now() - startMs);
    const [own] = logged(cluster, 'took a snapshot', from).filter(({ node }) => node === id);
    console.log(`snapshot of ${mib(bytes)} MiB: taken in ${own?.['tookMs']} ms, in hand after ${tookMs} ms`);
    expect(own).toBeDefined();
    expect(bytes).toBeGreaterThan(ITEMS * VALUE.length);
  });

  it('takes so much memory', () => {
    const perItem = resident().map((bytes, i) => Math.round((bytes - (emptyBytes[i] ?? 0)) / ITEMS));
    console.log(`resident: ${resident().map(mib)} MiB, ${emptyBytes.map(mib)} when empty: ${perItem} bytes per item`);
    for (const bytes of perItem) expect(bytes).toBeLessThan(BYTES_PER_ITEM_MAX);
  });

  it('is there again after a kill', async () => {
    const id = (await cluster.followers())[0] ?? 0;
    await cluster.kill(id);
    const startMs = performance.now();
    await cluster.start(id);
    await cluster.serving(id);
    const tookMs = Math.round(performance.now() - startMs);
    const perItem = Math.round((residentBytes(cluster.pid(id)) - (emptyBytes[id - 1] ?? 0)) / ITEMS);
    console.log(`node ${id} serves ${tookMs} ms after its start; ${perItem} resident bytes per item then`);
    expect((await cluster.status(id))?.items).toBe(ITEMS);
  });

  it('is copied to a new member under write load, with no failed request', async () => {
    const { load, stored } = startKeyedLoad(cluster, 'meanwhile', { clients: 16 });
    await load.avoid(NEWCOMER);
    const fromMs = performance.now();
    await load.progress(1_000);
    const startMs = performance.now();
    const [added] = await Promise.all([cluster.command('member', 'add', `${NEWCOMER}`), cluster.start(NEWCOMER)]);
    const endMs = performance.now();
    expect(added).toMatchObject({ code: 0 });
    expect(added.stdout).toContain(`ode ${NEWCOMER} is a voter`);
    // From now on its clients are served like everybody's.
    await load.avoid();
    await load.progress(500);
    await load.stop();
    console.log(
      `node ${NEWCOMER} from nothing to voter in ${Math.round(endMs - startMs)} ms; meanwhile ${latency(load.acknowledged, startMs, endMs)}; ` +
        `before ${latency(load.acknowledged, fromMs, startMs)}`,
    );
    expect(load.errors).toEqual([]);
    expect(load.unknown()).toBe(0);
    await cluster.caughtUp();
    const statuses = await Promise.all([...NODES, NEWCOMER].map((id) => cluster.status(id)));
    for (const status of statuses) {
      expect(status).toMatchObject({ items: ITEMS + stored.size, voters: [...NODES, NEWCOMER], learners: [] });
    }
    expect(await differencesAt(cluster, NEWCOMER, stored)).toEqual([]);
    const some = Array.from({ length: 1_000 }, (_, i) => itemOf(Math.floor((i * ITEMS) / 1_000)));
    expect(await differencesAt(cluster, NEWCOMER, new Map(some.map(({ key, value }) => [key, value])))).toEqual([]);
  });
});
