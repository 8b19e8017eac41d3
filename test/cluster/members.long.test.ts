import { afterAll, beforeAll } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster } from '../support/cluster.ts';
import { itChangesMembers } from './members.ts';

let cluster: Cluster;
showLogOfFailure(() => cluster);
beforeAll(async () => {
  cluster = await startCluster({ spares: 3 });
});
afterAll(() => cluster?.stop());

itChangesMembers(() => cluster, { between: 2_000, pauseBetweenRequestsMs: 0, nodesAsked: 3, killed: 'lower' });
