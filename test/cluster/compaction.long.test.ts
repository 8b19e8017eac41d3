import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster, until } from '../support/cluster.ts';
import { logged, measureSets, percentile } from '../support/stored-data.ts';
import { COMPACTING, itCompactsItsLog, mib, NODES, restartAll, watchDisks } from './compaction.ts';

/**
 * A log that is many times as long as what it says: it is compacted under load, and what is left fits a bounded disk,
 * is read back quickly and is the same on every node.
 */
const MIB = 1024 * 1024;

describe('a log of many times the size of the store', () => {
  let cluster: Cluster;
  showLogOfFailure(() => cluster);
  beforeAll(async () => {
    cluster = await startCluster({ settings: COMPACTING });
  });
  afterAll(() => cluster?.stop());
  itCompactsItsLog(() => cluster, 13_000);
});

describe('two million sets over 100,000 keys with a log limit of 64 MiB', () => {
  const SETS = 2_000_000;
  const KEYS = 100_000;
  const CLIENTS = 64;
  const VALUE = 'x'.repeat(100);
  const POLL_MS = 50;
  /** What log, tail, spare segment and two snapshots take, with room; without compaction it would be some 900. */
  const DISK_MIB_MAX = 400;
  /** Below 2 on an idle machine; a busy one says little. */
  const P99_RATIO_MAX = 10;
  let cluster: Cluster;
  showLogOfFailure(() => cluster);
  beforeAll(async () => {
    cluster = await startCluster({ settings: { snapshotLogBytes: 64 * MIB } });
  });
  afterAll(() => cluster?.stop());

  it('take a bounded disk, and snapshots hardly slow them down', async () => {
    /** Moments at which the nodes were asked, whether any was writing a snapshot, and the newest term. */
    const asked: { atMs: number; writing: boolean; term: number }[] = [];
    const poll = async () => {
      const statuses = await Promise.all(NODES.map((id) => cluster.status(id)));
      asked.push({
        atMs: performance.now(),
        writing: statuses.some((status) => status?.snapshotting === true),
        term: Math.max(asked.at(-1)?.term ?? 0, ...statuses.map((status) => status?.term ?? 0)),
      });
    };
    await poll();
    let over = false;
    const polling = (async () => {
      while (!over) {
        await poll();
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      }
    })();
    const disks = watchDisks(cluster, 500);
    const startMs = performance.now();
    const { doneMs, tookMs, failures } = await measureSets(
      NODES.map((id) => cluster.node(id).clientPort),
      {
        clients: CLIENTS,
        total: SETS,
        itemOf: () => ({ key: `key${Math.floor(Math.random() * KEYS)}`, value: VALUE }),
      },
    );
    const seconds = (performance.now() - startMs) / 1000;
    over = true;
    await polling;
    const most = disks.stop();
    const [during, without]: [number[], number[]] = [[], []];
    for (let i = 0, at = 0; i < doneMs.length; i++) {
      while (at < asked.length - 2 && (asked[at + 1]?.atMs ?? 0) <= (doneMs[i] ?? 0)) at++;
      const writing = asked[at]?.writing || asked[at + 1]?.writing;
      (writing ? during : without).push(tookMs[i] ?? 0);
    }
    const elections = asked.filter(({ term }, i) => i > 0 && term > (asked[i - 1]?.term ?? 0));
    const p99 = [during, without].map((values) => percentile(values, 0.99));
    const ratio = (p99[0] ?? 0) / (p99[1] ?? 1);
    console.log(
      `${doneMs.length} sets in ${seconds.toFixed(1)} s (${Math.round(doneMs.length / seconds)}/s); disk at most ${most.map(mib)} MiB on nodes 1, 2, 3\n` +
        [during, without]
          .map((values, i) => {
            const [p50, p999, max] = [0.5, 0.999, 1].map((share) => percentile(values, share).toFixed(1));
            return `  ${i === 0 ? 'while a snapshot runs' : 'without'}: ${values.length} sets, p50 ${p50} p99 ${p99[i]?.toFixed(1)} p99.9 ${p999} max ${max} ms`;
          })
          .join('\n') +
        `\n  ratio of p99: ${ratio.toFixed(2)}; elections: ${elections.length}; snapshots: ${logged(cluster, 'took a snapshot').length}`,
    );
    expect(failures).toEqual([]);
    expect(doneMs.length).toBe(SETS);
    expect(during.length).toBeGreaterThan(0);
    for (const bytes of most) expect(mib(bytes)).toBeLessThan(DISK_MIB_MAX);
    expect(ratio).toBeLessThan(P99_RATIO_MAX);
    await cluster.caughtUp();
    const statuses = await Promise.all(NODES.map((id) => cluster.status(id)));
    expect(statuses.map((status) => status?.items)).toEqual(NODES.map(() => statuses[0]?.items));
    const restartMs = await restartAll(cluster);
    console.log(`  all nodes serve ${restartMs} ms after their restart`);
    await until('all items on every node', async () => {
      const after = await Promise.all(NODES.map((id) => cluster.status(id)));
      return after.every((status) => status?.items === statuses[0]?.items) || undefined;
    });
  });
});
