import { expect } from 'vitest';
import type { Cluster } from '../support/cluster.ts';
import { record } from '../support/history.ts';
import { checkPartitioned } from '../support/linearizability/checker.ts';
import { memcachedModel } from '../support/linearizability/memcached-model.ts';
import type { Load } from '../support/load.ts';
import { seededRandom } from '../support/random.ts';

/**
 * What clients of a real cluster see while its nodes are killed, stopped, partitioned and restarted, judged as a whole: one
 * copy must explain every reply.
 */
const FAULTS = ['isolate', 'kill', 'pause', 'kill two'] as const;
type Fault = (typeof FAULTS)[number];

const CLIENTS = 30;
/** Leaves the processor to nodes that start. */
const PAUSE_MS = 10;
const CHECK_MS_MAX = 120_000;
/** In case that all clients have come to wait at the disturbed node. */
const DISTURBED_MS_MAX = 1_500;

export interface FaultHistory {
  readonly seed: number;
  /** How often each fault happens, in an order that the seed draws. */
  readonly repeats: number;
  /** Acknowledged requests around each fault. */
  readonly progress: number;
}

/** Records a history in which every fault happens, and checks it. The cluster must be partitionable. */
export async function expectLinearizableUnderFaults(cluster: Cluster, history: FaultHistory): Promise<void> {
  const { seed, repeats, progress } = history;
  const random = seededRandom(seed);
  const recording = record(cluster, {
    clients: CLIENTS,
    textKeys: 8,
    counterKeys: 3,
    seed,
    keyPrefix: `${seed}.`,
    pauseBetweenRequestsMs: PAUSE_MS,
  });
  const { load } = recording;
  await load.progress(progress);
  for (const fault of shuffled(Array.from({ length: repeats }, () => FAULTS).flat(), random)) {
    await disturb(cluster, fault, random, load);
    await load.progress(progress);
  }
  const operations = await recording.finish();
  expect(load.errors).toEqual([]);
  const known = operations.filter(({ output }) => output !== undefined);
  expect(known.length).toBeGreaterThan(progress * repeats * FAULTS.length);
  const startedMs = performance.now();
  const result = checkPartitioned(memcachedModel, operations, ({ key }) => key, { timeLimitMs: CHECK_MS_MAX });
  const tookMs = Math.round(performance.now() - startedMs);
  const unknown = operations.length - known.length;
  console.log(`${operations.length} operations, ${unknown} of unknown outcome: ${result.verdict}, ${tookMs} ms`);
  if (result.verdict !== 'linearizable') {
    console.log(`key ${result.key}: after`, result.longest.slice(-10), 'none of these can follow:', result.stuck);
  }
  expect(result.verdict).toBe('linearizable');
}

/** Does something to a node, most often the leader, while the clients go on, and undoes it. */
async function disturb(cluster: Cluster, fault: Fault, random: () => number, load: Load): Promise<void> {
  const leader = await cluster.leader();
  const [follower = 0, otherFollower = 0] = cluster.running().filter((id) => id !== leader);
  const victim = random() < 0.7 ? leader : follower;
  switch (fault) {
    case 'isolate':
      cluster.isolate(victim);
      // Its clients go on asking it, and it still thinks that it leads until it notices that it has no followers.
      await Promise.race([load.progress(400), sleep(DISTURBED_MS_MAX)]);
      cluster.reunite();
      return;
    case 'kill':
      await cluster.kill(victim);
      await load.progress(150);
      await cluster.start(victim);
      return;
    case 'pause':
      cluster.pause(victim);
      // Long enough for the others to elect and go on, and for clients to come and ask the stopped node, which answers
      // when it wakes.
      await Promise.race([load.progress(400), sleep(DISTURBED_MS_MAX)]);
      cluster.resume(victim);
      return;
    case 'kill two':
      await Promise.all([victim, victim === otherFollower ? follower : otherFollower].map((id) => cluster.kill(id)));
      await Promise.all(cluster.nodes.filter(({ id }) => !cluster.isRunning(id)).map(({ id }) => cluster.start(id)));
  }
}

function shuffled<T>(items: readonly T[], random: () => number): T[] {
  const rest = [...items];
  const drawn: T[] = [];
  while (rest.length > 0) drawn.push(...rest.splice(Math.floor(random() * rest.length), 1));
  return drawn;
}

function sleep(delayMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, delayMs));
}
