import { afterAll, beforeAll, describe, it } from 'vitest';
import { showLogOfFailure } from '../support/cluster.ts';
import { expectFlipsToHeal, type HealingCluster, SEED, startHealingCluster } from './healing.ts';

const FLIPS = 200;
const FLIPS_PER_HISTORY = 10;

let on: HealingCluster;
showLogOfFailure(() => on?.cluster);
beforeAll(async () => {
  on = await startHealingCluster();
});
afterAll(() => on?.cluster.stop());

describe(`one flipped bit at each of ${FLIPS} places in the log and the snapshots of one node`, () => {
  it(`heals by itself, and nothing is lost (RAFTKV_SEED=${SEED})`, () =>
    expectFlipsToHeal(on, FLIPS, FLIPS_PER_HISTORY));
});
