import { afterAll, beforeAll, describe, it } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster } from '../support/cluster.ts';
import { expectLinearizableUnderFaults } from './fault-history.ts';

const HISTORIES = 10;
const SEED = Number(process.env['RAFTKV_SEED'] ?? Math.floor(Math.random() * 1e6));

let cluster: Cluster;
showLogOfFailure(() => cluster);
beforeAll(async () => {
  cluster = await startCluster({ partitionable: true, quickElections: true });
});
afterAll(() => cluster?.stop());

describe('a long history recorded under kills, pauses and partitions', () => {
  const seeds = Array.from({ length: HISTORIES }, (_, i) => SEED + i);
  it.each(seeds)('is linearizable (RAFTKV_SEED=%i)', (seed) =>
    expectLinearizableUnderFaults(cluster, { seed, repeats: 2, progress: 300 }),
  );
});
