import { describe, expect, it } from 'vitest';
import { runKept, runUntilHappened } from './seeds.ts';

/** Those behind the ones of sim.test.ts. */
const SEEDS = Array.from({ length: 92 }, (_, i) => 9 + i);

describe('the simulator', () => {
  it('comes to the same trace hash when a seed is run again', async () => {
    for (const seed of [1, 5, 7]) {
      const [once, again] = [await runKept(seed), await runKept(seed)];
      expect(again.traceHash, `seed ${seed}`).toBe(once.traceHash);
      expect(again.events).toBe(once.events);
    }
  });

  it.each(SEEDS)('finds every promise kept in the world of seed %i', async (seed) => {
    // In a world of two short clients none may have had a reply.
    const { elections, entries } = await runKept(seed);
    expect(elections).toBeGreaterThan(0);
    expect(entries).toBeGreaterThan(0);
  });

  it.each(['replaceMember', 'promoteMember'] as const)('sees %s carried out', async (kind) => {
    const { counts } = await runUntilHappened(
      kind,
      ({ sustainedFault, faults }) => sustainedFault === null && faults.includes(kind),
    );
    expect(counts['configurations']).toBeGreaterThan(0);
  });
});
