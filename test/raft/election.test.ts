import { describe, expect, it } from 'vitest';
import { ELECTION_TIMEOUT_TICKS, settle, smallCluster, tick, votersOf } from './small-cluster.ts';

describe('election', () => {
  it('ends also where the disk is slower than the time-out', () => {
    const cluster = smallCluster(votersOf(1));
    for (let i = 0; i < 5; i++) {
      tick(cluster, 1, 3 * ELECTION_TIMEOUT_TICKS);
      cluster.persist(1);
      cluster.complete(1);
    }
    expect(cluster.node(1).core?.role).toBe('leader');
    expect(cluster.node(1).core?.term).toBe(1);
  });

  it('gives voters the whole time-out, counted from when their vote could be asked for', () => {
    const cluster = smallCluster(votersOf(3));
    tick(cluster, 1, ELECTION_TIMEOUT_TICKS);
    while (cluster.wire.length > 0) cluster.deliver(0);
    expect(cluster.node(1).core?.role).toBe('candidate');
    tick(cluster, 1, ELECTION_TIMEOUT_TICKS - 1);
    cluster.settleDisk(1);
    tick(cluster, 1, ELECTION_TIMEOUT_TICKS - 1);
    settle(cluster);
    expect(cluster.node(1).core).toMatchObject({ role: 'leader', term: 1 });
  });
});
