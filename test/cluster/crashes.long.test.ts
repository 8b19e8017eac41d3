import { afterAll, beforeAll, beforeEach, describe, it } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster } from '../support/cluster.ts';
import { itSurvivesCrashes, killAndBringBack } from './crashes.ts';

let cluster: Cluster;
showLogOfFailure(() => cluster);
beforeAll(async () => {
  cluster = await startCluster({ partitionable: true, quickElections: true });
});
beforeEach(() => cluster.heal());
afterAll(() => cluster?.stop());

itSurvivesCrashes(() => cluster, {
  leaders: 15,
  stops: 5,
  blackouts: 6,
  pauses: 10,
  isolations: 10,
  increments: 15,
  pauseMs: 0,
});

describe('three of five killed', () => {
  let five: Cluster;
  showLogOfFailure(() => five);
  afterAll(() => five?.stop());

  it('leave no quorum: no write is acknowledged, and what waits is answered once three run again', async () => {
    five = await startCluster({ nodes: 5, quickElections: true });
    const leader = await five.leader();
    const followers = five.running().filter((id) => id !== leader);
    await killAndBringBack(five, [leader, ...followers.slice(0, 2)]);
  });
});
