import { describe, expect, it } from 'vitest';
import { fuzzCores } from './core-fuzz.ts';
import { runSeed } from './fuzz-run.ts';

/** By hand: `RAFT_FUZZ_SEED=123 npx vitest run test/raft/core-fuzz.test.ts` prints the whole trace of one seed. */
const oneSeed = process.env['RAFT_FUZZ_SEED'];

if (oneSeed === undefined) {
  fuzzCores(1, 100);

  describe('a seed', () => {
    it('gives the same run again', () => {
      const runs = [1, 2].map(() => {
        const trace: string[] = [];
        runSeed(1, (line) => trace.push(line));
        return trace;
      });
      expect(runs[0]?.length).toBeGreaterThan(100);
      expect(runs[0]).toEqual(runs[1]);
    });
  });
} else {
  it(`keeps its promises, seed ${oneSeed}`, () => {
    const { committed } = runSeed(Number(oneSeed), (line) => process.stdout.write(`${line}\n`));
    expect(committed).toBeGreaterThan(0);
  });
}
