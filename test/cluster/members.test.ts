import { afterAll, beforeAll } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster } from '../support/cluster.ts';
import { itChangesMembers } from './members.ts';

let cluster: Cluster;
showLogOfFailure(() => cluster);
beforeAll(async () => {
  cluster = await startCluster({ spares: 3 });
});
afterAll(() => cluster?.stop());

itChangesMembers(() => cluster, { between: 150, pauseBetweenRequestsMs: 10, nodesAsked: 1, killed: 'higher' });
