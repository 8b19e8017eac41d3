import { type Plan, planOf } from './plan.ts';
import { type RunResult, runSeed } from './run.ts';

/** Of so many seeds that plan a fault, one must show it. The rarest takes place in every fifth. */
const TRIES_MAX = 40;

/** Runs one seed. Throws if a promise was broken, or if the history was not judged. */
export async function runKept(seed: number): Promise<RunResult> {
  const result = await run(seed);
  if (result.violation !== null) throw new Error(`seed ${seed}: ${result.violation.message}`);
  if (result.undecided) throw new Error(`seed ${seed}: no verdict on its history`);
  return result;
}

/**
 * Runs seeds whose plan `has` a fault until it takes place in one of them; which that is changes with the source. Throws if
 * it takes place in none, or if a promise was broken on the way.
 */
export async function runUntilHappened(fault: string, has: (plan: Plan) => boolean): Promise<RunResult> {
  let tries = 0;
  for (let seed = 1; tries < TRIES_MAX; seed++) {
    const plan = planOf(seed);
    // Small worlds, which cost less.
    if (plan.clients > 6 || plan.nodeIds.length > 3 || !has(plan)) continue;
    tries++;
    const result = await runKept(seed);
    if ((result.faults[fault]?.happened ?? 0) > 0) return result;
  }
  throw new Error(`${fault} took place in none of ${TRIES_MAX} seeds that plan it`);
}

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
