import { describe, expect, it } from 'vitest';
import { type FuzzReport, runSeed } from './fuzz-run.ts';

const SEEDS_PER_TEST = 100;

/** Random runs of a cluster of cores; see fuzz-run.ts. Each must have elected leaders and committed entries. */
export function fuzzCores(from: number, seeds: number): void {
  describe('a cluster of cores to which everything happens', () => {
    const totals = new Map<string, number>();
    for (let first = from; first < from + seeds; first += SEEDS_PER_TEST) {
      const count = Math.min(SEEDS_PER_TEST, from + seeds - first);
      it(`keeps its promises and serves again afterwards, seeds ${first} to ${first + count - 1}`, () => {
        for (let seed = first; seed < first + count; seed++) {
          for (const [what, times] of Object.entries(expectRun(seed)))
            totals.set(what, (totals.get(what) ?? 0) + times);
        }
      });
    }

    it('meets every kind of event in some run', () => {
      expect(totals.size).toBeGreaterThan(10);
      expect([...totals].filter(([, times]) => times === 0)).toEqual([]);
    });
  });
}

function expectRun(seed: number): FuzzReport {
  try {
    const report = runSeed(seed);
    expect({ committed: report.committed > 0, terms: report.terms > 0 }).toEqual({ committed: true, terms: true });
    return report;
  } catch (error) {
    throw new Error(`seed ${seed} (repeat it with RAFT_FUZZ_SEED=${seed}): ${String(error)}`, { cause: error });
  }
}
