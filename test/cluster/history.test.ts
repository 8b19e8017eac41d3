import { afterEach, expect, it } from 'vitest';
import { type Cluster, showLogOfFailure } from '../support/cluster.ts';
import { missedRestore } from './history.ts';

let cluster: Cluster | undefined;
showLogOfFailure(() => cluster);
afterEach(() => cluster?.stop());

it('a node that missed a restore is refused with both cluster ids, and is filled again once it is empty', async () => {
  expect.hasAssertions();
  await missedRestore((started) => {
    cluster = started;
  });
});
