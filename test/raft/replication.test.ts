import { describe, expect, it } from 'vitest';
import { elect, HEARTBEAT_INTERVAL_TICKS, settle, smallCluster, tick, votersOf } from './small-cluster.ts';

describe('replication', () => {
  it('finds a lost append however many reads begin rounds of their own', () => {
    const cluster = smallCluster(votersOf(5));
    elect(cluster, 1);
    cluster.propose(1, 'x');
    settle(cluster, ({ kind, to }) => kind === 'append' && to === 5);
    for (let i = 0; i < 4 * HEARTBEAT_INTERVAL_TICKS; i++) {
      cluster.read(1);
      tick(cluster, 1);
      settle(cluster);
    }
    expect(cluster.node(5).core?.log.commitIndex).toBe(2);
  });
});
