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
  noise: 60,
  mangledCommands: 300,
  absurdMib: 3,
  unfinished: 20,
  readers: 5,
  getsPerReader: 100,
  silentClients: 300,
  mangledFrames: 150,
  silentPeers: 100,
  nonsense: 40,
  growthMibMax: 250,
});
