import { describe, expect, it } from 'vitest';
import { ORDEAL_KINDS } from './ordeal-kinds.ts';
import { planOf } from './plan.ts';
import { type RunResult, runSeed } from './run.ts';
import { SIEGE_KINDS } from './siege-kinds.ts';

/** A small fixed set; `npm run sim` runs as many as there is time for. */
const SEEDS = Array.from({ length: 30 }, (_, i) => 1 + i);

/** The world drains microtasks itself, so it must not run inside one. */
function run(seed: number): Promise<RunResult> {
  return new Promise((resolve, reject) => {
    setImmediate(() => {
      try {
        resolve(runSeed(seed));
      } catch (error) {
        reject(error);
      }
    });
  });
}

function firstSeed(what: string, fits: (seed: number) => boolean): number {
  for (let seed = 1; seed < 10_000; seed++) if (fits(seed)) return seed;
  throw new Error(`no seed has ${what}`);
}

describe('the simulator', () => {
  it('comes to the same trace hash when a seed is run again', async () => {
    for (const seed of SEEDS.slice(0, 3)) {
      const [once, again] = [await run(seed), await run(seed)];
      expect(again.traceHash, `seed ${seed}`).toBe(once.traceHash);
      expect(again.events).toBe(once.events);
    }
  });

  it('comes to different traces for different seeds', async () => {
    expect((await run(1)).traceHash).not.toBe((await run(2)).traceHash);
  });

  it.each(SEEDS)('finds every promise kept in the world of seed %i', async (seed) => {
    const { violation, undecided } = await run(seed);
    expect(violation).toBeNull();
    expect(undecided).toBe(false);
  });

  it.each(SIEGE_KINDS)('sees the others serve while one node is %s', async (kind) => {
    const seed = firstSeed(`the siege ${kind}`, (each) => planOf(each).siege === kind);
    expect((await run(seed)).violation).toBeNull();
  });

  it.each(ORDEAL_KINDS)('sees a cluster come through the ordeal %s', async (kind) => {
    const seed = firstSeed(`the ordeal ${kind}`, (each) => planOf(each).ordeal === kind);
    expect((await run(seed)).violation).toBeNull();
  });

  it.each(['wipe', 'rot', 'swapBack'] as const)('sees a cluster heal from the fault %s', async (kind) => {
    const seed = firstSeed(kind, (each) => {
      const { faults, siege, nodeIds } = planOf(each);
      return siege === null && nodeIds.length > 1 && faults.includes(kind);
    });
    expect((await run(seed)).violation).toBeNull();
  });

  it('sees members come and go', async () => {
    const seed = firstSeed('changes of members', (each) => {
      const { faults, siege } = planOf(each);
      return siege === null && faults.includes('addMember') && faults.includes('removeMember');
    });
    expect((await run(seed)).violation).toBeNull();
  });
});
