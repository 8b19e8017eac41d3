import { afterAll, beforeAll, describe, it } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster } from '../support/cluster.ts';
import { expectLinearizableUnderFaults } from './fault-history.ts';

/** One short history with every fault in it. The long tests record many, with more between the faults. */
const SEED = Number(process.env['RAFTKV_SEED'] ?? Math.floor(Math.random() * 1e6));

let cluster: Cluster;
showLogOfFailure(() => cluster);
beforeAll(async () => {
  cluster = await startCluster({ partitionable: true, quickElections: true });
});
afterAll(() => cluster?.stop());

describe('a history recorded under kills, pauses and partitions', () => {
  it(`is linearizable (RAFTKV_SEED=${SEED})`, () =>
    expectLinearizableUnderFaults(cluster, { seed: SEED, repeats: 1, progress: 150 }));
});
