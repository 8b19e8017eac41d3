import { expect } from 'vitest';
import type { Cluster } from '../support/cluster.ts';

/**
 * A client that knows all three nodes writes, each write to a key of its own; the leader is killed under it. What a
 * program has to do is in `set`: true means that the client has reported the write as stored.
 */
interface Writer {
  set(key: string, value: string): Promise<boolean>;
  get(key: string): Promise<string | null>;
}

const WORKERS = 4;
const WRITES_BEFORE = 100;
const WRITES_AFTER = 200;
/** A program tries a write again after an error: each attempt is harmless, as it sets the same key to the same value. */
const AGAIN_AFTER_MS = 20;

/**
 * Kills the leader in the middle of it, and checks on the others that nothing reported as stored is lost. Returns the
 * node that was killed. How long clients wait for another leader is measured in cluster/failover.long.test.ts.
 */
export async function writeThroughAKill(cluster: Cluster, writer: Writer, prefix: string): Promise<number> {
  const leader = await cluster.leader();
  const stored: string[] = [];
  let next = 0;
  let enough = Number.POSITIVE_INFINITY;
  let atHalf = () => {};
  const half = new Promise<void>((resolve) => {
    atHalf = resolve;
  });
  const work = async () => {
    while (stored.length < enough) {
      const key = `${prefix}.${next++}`;
      while (!(await writer.set(key, `value of ${key}`))) {
        await new Promise((resolve) => setTimeout(resolve, AGAIN_AFTER_MS));
      }
      stored.push(key);
      if (stored.length === WRITES_BEFORE) atHalf();
    }
  };
  const workers = Array.from({ length: WORKERS }, work);
  await half;
  await cluster.kill(leader);
  enough = stored.length + WRITES_AFTER;
  await Promise.all(workers);

  const [survivor = 0] = cluster.running();
  const reader = await cluster.connect(survivor);
  for (const key of stored) expect(await reader.get(key)).toBe(`value of ${key}`);
  const sample = stored.filter((_, i) => i % 10 === 0);
  for (const key of sample) expect(await writer.get(key)).toBe(`value of ${key}`);
  return leader;
}
