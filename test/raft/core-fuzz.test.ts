import { describe, expect, it } from 'vitest';
import { runSeed } from './fuzz-run.ts';

/**
 * Random runs of a cluster of cores; see fuzz-run.ts. By hand:
 *
 *   RAFT_FUZZ_SEED=123 npx vitest run test/raft/core-fuzz.test.ts      one seed, with its whole trace
 *   RAFT_FUZZ_SEEDS=50000 RAFT_FUZZ_FROM=1000 npx vitest run test/raft/core-fuzz.test.ts
 */
const oneSeed = process.env['RAFT_FUZZ_SEED'];
const from = Number(process.env['RAFT_FUZZ_FROM'] ?? 1);
const seedsByHand = process.env['RAFT_FUZZ_SEEDS'];
const SEEDS_PER_TEST = 250;
const seeds = Number(seedsByHand ?? 4 * SEEDS_PER_TEST);

function runSeeds(first: number, count: number): void {
  for (let seed = first; seed < first + count; seed++) {
    try {
      runSeed(seed);
    } catch (error) {
      throw new Error(`seed ${seed} (repeat it with RAFT_FUZZ_SEED=${seed}): ${String(error)}`, { cause: error });
    }
  }
}

describe('a cluster of cores to which everything happens', () => {
  if (oneSeed !== undefined) {
    it(`keeps its promises, seed ${oneSeed}`, () => {
      const report = runSeed(Number(oneSeed), (line) => process.stdout.write(`${line}\n`));
      expect(report.committed).toBeGreaterThan(0);
    });
    return;
  }

  for (let first = from; first < from + seeds; first += SEEDS_PER_TEST) {
    const count = Math.min(SEEDS_PER_TEST, from + seeds - first);
    it(`keeps its promises and serves again afterwards, seeds ${first} to ${first + count - 1}`, () => {
      runSeeds(first, count);
    });
  }

  it('repeats a run exactly from the same seed', () => {
    const runs = [1, 2].map(() => {
      const trace: string[] = [];
      runSeed(from, (line) => trace.push(line));
      return trace;
    });
    expect(runs[0]?.length).toBeGreaterThan(100);
    expect(runs[0]).toEqual(runs[1]);
  });
});
