import { afterAll, beforeAll, describe } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster } from '../support/cluster.ts';
import { COMPACTING, itCompactsItsLog } from './compaction.ts';

/** A log that is longer than what it says and what is kept behind a snapshot. The long tests write many times as much. */
describe('a log that is longer than the store', () => {
  let cluster: Cluster;
  showLogOfFailure(() => cluster);
  beforeAll(async () => {
    cluster = await startCluster({ settings: COMPACTING });
  });
  afterAll(() => cluster?.stop());
  itCompactsItsLog(() => cluster, 3_000);
});
