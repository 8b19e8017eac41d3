import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster, until } from '../support/cluster.ts';
import { percentile } from '../support/stored-data.ts';

/**
 * How late items expire: some tens of milliseconds on an idle machine. What is asserted leaves room for a busy one.
 */
const ITEMS = 10;
const MEDIAN_LATE_MS_MAX = 5_000;

let cluster: Cluster;
showLogOfFailure(() => cluster);
beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(() => cluster?.stop());

describe('expiry', () => {
  it('comes on time', async () => {
    const [writer, reader] = [await cluster.connect(1), await cluster.connect(2)];
    const lateMs: number[] = [];
    for (let i = 0; i < ITEMS; i++) {
      expect(await writer.set(`brief${i}`, 'x', { exptime: 1 })).toBe('STORED');
      const dueMs = performance.now() + 1000;
      await until('the item to expire', async () => (await reader.get(`brief${i}`)) === null || undefined);
      lateMs.push(performance.now() - dueMs);
    }
    const [median, worst] = [0.5, 1].map((share) => Math.round(percentile(lateMs, share)));
    console.log(`${ITEMS} items expired ${median} ms after their moment, at worst ${worst} ms`);
    expect(median).toBeLessThan(MEDIAN_LATE_MS_MAX);
  });
});
