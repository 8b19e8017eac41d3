import { afterEach, describe, expect, it } from 'vitest';
import { type Cluster, showLogOfFailure } from '../support/cluster.ts';
import { missedRestore, mixedBackups, volumesNotMounted } from './history.ts';

/** Old and new data directories that meet, several times each, because terms and elections differ from run to run. */
const ROUNDS = Array.from({ length: 3 }, (_, i) => i + 1);

let cluster: Cluster | undefined;
showLogOfFailure(() => cluster);
afterEach(() => cluster?.stop());

describe.each(ROUNDS)('round %i', () => {
  it.each([
    ['a node that missed a restore', missedRestore],
    ['volumes that were not mounted', volumesNotMounted],
    ['nodes that were restored from two backups', mixedBackups],
  ])('%s', async (_, scenario) => {
    expect.hasAssertions();
    await scenario((started) => {
      cluster = started;
    });
  });
});
