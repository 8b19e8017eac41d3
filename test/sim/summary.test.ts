import { expect, it } from 'vitest';
import type { RunResult } from './run.ts';
import { NEVER_HAPPENED_PLANS_MIN, Summary } from './summary.ts';

const run = (faults: RunResult['faults']) =>
  ({ violation: null, simulatedMs: 1, cpuMs: 1, undecided: false, counts: {}, faults }) as unknown as RunResult;

it('a summary names the kinds of faults that were planned often and never happened, over all runs', () => {
  const summary = new Summary();
  const half = NEVER_HAPPENED_PLANS_MIN / 2;
  summary.add(run({ often: { planned: half, happened: 0 }, once: { planned: half, happened: 1 } }));
  expect(summary.neverHappened()).toEqual([]);
  summary.add(run({ often: { planned: half, happened: 0 }, once: { planned: half, happened: 0 } }));
  summary.add(run({ rare: { planned: half, happened: 0 } }));
  expect(summary.neverHappened()).toEqual(['often']);
});
