import { afterAll, beforeAll, beforeEach } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster } from '../support/cluster.ts';
import { itSurvivesCrashes } from './crashes.ts';

let cluster: Cluster;
showLogOfFailure(() => cluster);
beforeAll(async () => {
  cluster = await startCluster({ partitionable: true, quickElections: true });
});
beforeEach(() => cluster.heal());
afterAll(() => cluster?.stop());

itSurvivesCrashes(() => cluster, {
  leaders: 2,
  stops: 1,
  blackouts: 1,
  pauses: 1,
  isolations: 1,
  increments: 2,
  pauseMs: 5,
});
