import { describe, expect, it } from 'vitest';
import { SCENARIO_KINDS } from './scenario-kinds.ts';
import { runKept, runUntilHappened } from './seeds.ts';
import { SUSTAINED_FAULT_KINDS } from './sustained-fault-kinds.ts';

/** A few; sim.long.test.ts runs more, and `npm run sim` as many as there is time for. */
const SEEDS = Array.from({ length: 8 }, (_, i) => 1 + i);

describe('the simulator', () => {
  it('comes to the same trace hash when a seed is run again, and to others for other seeds', async () => {
    const [once, again, other] = [await runKept(2), await runKept(2), await runKept(3)];
    expect(again.traceHash).toBe(once.traceHash);
    expect(again.events).toBe(once.events);
    expect(other.traceHash).not.toBe(once.traceHash);
  });

  it.each(SEEDS)('finds every promise kept in the world of seed %i', async (seed) => {
    const { elections, entries, replies } = await runKept(seed);
    expect(elections).toBeGreaterThan(0);
    expect(entries).toBeGreaterThan(0);
    expect(replies).toBeGreaterThan(0);
  });

  it.each(SUSTAINED_FAULT_KINDS)('sees the others serve while one node is %s', async (kind) => {
    await runUntilHappened(`sustained fault: ${kind}`, ({ sustainedFault }) => sustainedFault === kind);
  });

  it.each(SCENARIO_KINDS)('sees a cluster come through the scenario %s', async (kind) => {
    await runUntilHappened(`scenario: ${kind}`, ({ scenario }) => scenario === kind);
  });

  it.each(['wipe', 'rot', 'swapBack'] as const)('sees a cluster heal from the fault %s', async (kind) => {
    const { counts } = await runUntilHappened(kind, ({ sustainedFault, nodeIds, faults }) => {
      return sustainedFault === null && nodeIds.length > 1 && faults.includes(kind);
    });
    expect(counts['recoveries']).toBeGreaterThan(0);
  });

  it.each(['addMember', 'removeMember'] as const)('sees %s carried out', async (kind) => {
    const { counts } = await runUntilHappened(
      kind,
      ({ sustainedFault, faults }) => sustainedFault === null && faults.includes(kind),
    );
    expect(counts['configurations']).toBeGreaterThan(0);
  });
});
