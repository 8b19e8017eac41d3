import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster } from '../support/cluster.ts';
import { record } from '../support/history.ts';
import { checkPartitioned } from '../support/linearizability/checker.ts';
import { memcachedModel } from '../support/linearizability/memcached-model.ts';
import type { Load } from '../support/load.ts';
import { seededRandom } from '../support/random.ts';

/**
 * What clients of a real cluster saw while its nodes were killed, stopped, partitioned and restarted, judged as a whole: one copy
 * must explain every reply.
 */
const HISTORIES = process.env['RAFTKV_LONG'] === undefined ? 1 : 10;
const ROUNDS = 8;
const SEED = Number(process.env['RAFTKV_SEED'] ?? Math.floor(Math.random() * 1e6));
const CHECK_MS_MAX = 60_000;
/** Below the request timeout, in case that all clients have come to wait at the disturbed node. */
const DISTURBED_MS_MAX = 1_500;

let cluster: Cluster;
showLogOfFailure(() => cluster);
beforeAll(async () => {
  cluster = await startCluster({ partitionable: true });
});
afterAll(() => cluster?.stop());

/** Does something to a node while the clients go on, and undoes it. */
async function disturb(random: () => number, load: Load): Promise<void> {
  const leader = await cluster.leader();
  const [follower = 0, otherFollower = 0] = await cluster.followers();
  const victim = random() < 0.7 ? leader : follower;
  const choice = random();
  if (choice < 0.3) {
    cluster.isolate(victim);
    // Its clients go on asking it, and it still thinks that it leads until it notices that it has no followers.
    await Promise.race([load.progress(400), sleep(DISTURBED_MS_MAX)]);
    cluster.reunite();
  } else if (choice < 0.55) {
    await cluster.kill(victim);
    await load.progress(150);
    await cluster.start(victim);
  } else if (choice < 0.85) {
    cluster.pause(victim);
    // Long enough for the others to elect and go on, and for clients to come and ask the stopped node, which answers
    // when it wakes.
    await Promise.race([load.progress(400), sleep(DISTURBED_MS_MAX)]);
    cluster.resume(victim);
  } else {
    await cluster.kill(victim);
    await cluster.kill(victim === otherFollower ? follower : otherFollower);
    for (const { id } of cluster.nodes) if (!cluster.isRunning(id)) await cluster.start(id);
  }
  await load.progress(150);
}

function sleep(delayMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, delayMs));
}

describe('a history recorded under kills, pauses and partitions', () => {
  const seeds = Array.from({ length: HISTORIES }, (_, i) => SEED + i);
  it.each(seeds)('is linearizable (RAFTKV_SEED=%i)', { timeout: ROUNDS * 10_000 + CHECK_MS_MAX }, async (seed) => {
    const random = seededRandom(seed);
    const recording = record(cluster, {
      clients: 30,
      textKeys: 8,
      counterKeys: 3,
      seed,
      keyPrefix: `${seed}.`,
      pauseBetweenRequestsMs: 1,
    });
    const { load } = recording;
    await load.progress(500);
    for (let round = 0; round < ROUNDS; round++) await disturb(random, load);
    const history = await recording.finish();
    expect(load.errors).toEqual([]);
    const known = history.filter(({ output }) => output !== undefined);
    expect(known.length).toBeGreaterThan(500 + ROUNDS * 200);
    const startedMs = performance.now();
    const result = checkPartitioned(memcachedModel, history, ({ key }) => key, { timeLimitMs: CHECK_MS_MAX });
    const tookMs = Math.round(performance.now() - startedMs);
    const unknown = history.length - known.length;
    console.log(`${history.length} operations, ${unknown} of unknown outcome: ${result.verdict}, ${tookMs} ms`);
    if (result.verdict !== 'linearizable') {
      console.log(`key ${result.key}: after`, result.longest.slice(-10), 'none of these can follow:', result.stuck);
    }
    expect(result.verdict).toBe('linearizable');
  });
});
