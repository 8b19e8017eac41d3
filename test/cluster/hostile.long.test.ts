import { afterAll, beforeAll } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster } from '../support/cluster.ts';
import { itSurvivesHostility } from './hostile.ts';

let cluster: Cluster;
showLogOfFailure(() => cluster);
beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(() => cluster?.stop());

itSurvivesHostility(() => cluster, {
  noise: 300,
  mangledCommands: 1500,
  absurdMib: 20,
  unfinished: 100,
  readers: 20,
  getsPerReader: 2000,
  silentClients: 10_000,
  mangledFrames: 600,
  silentPeers: 600,
  nonsense: 150,
  growthMibMax: 250,
});
