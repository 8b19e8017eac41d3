import { describe, expect, it } from 'vitest';
import { configurationWith } from './configurations.ts';
import type { CoreCluster } from './core-cluster.ts';
import { elect, smallCluster, stabilize, tick, votersOf } from './small-cluster.ts';

const answerOf = (cluster: CoreCluster, id: number, read: number) => cluster.node(id).answers.get(read);
const sentOf = (cluster: CoreCluster, kind: string) => cluster.wire.filter((message) => message.kind === kind).length;

/** Delivers what is on the wire now, but not what comes of it. */
function deliverOnce(cluster: CoreCluster): void {
  for (let left = cluster.wire.length; left > 0; left--) cluster.deliver(0);
}

describe('reads', () => {
  it('take a round of heartbeats at the leader', () => {
    const cluster = smallCluster(votersOf(3));
    elect(cluster, 1);
    const read = cluster.read(1);
    expect(sentOf(cluster, 'heartbeat')).toBe(2);
    expect(answerOf(cluster, 1, read)).toBeUndefined();
    deliverOnce(cluster);
    cluster.deliver(0);
    expect(answerOf(cluster, 1, read)).toBe(1);
  });

  it('take no round at a follower of three, whose request is the second voice', () => {
    const cluster = smallCluster(votersOf(3));
    elect(cluster, 1);
    const read = cluster.read(2);
    deliverOnce(cluster);
    expect(cluster.wire).toMatchObject([{ kind: 'readIndexReply', index: 1 }]);
    deliverOnce(cluster);
    expect(answerOf(cluster, 2, read)).toBe(1);
  });

  it('take a round at a follower of five, where two are no quorum', () => {
    const cluster = smallCluster(votersOf(5));
    elect(cluster, 1);
    const read = cluster.read(2);
    deliverOnce(cluster);
    expect(sentOf(cluster, 'readIndexReply')).toBe(0);
    expect(sentOf(cluster, 'heartbeat')).toBe(4);
    stabilize(cluster);
    expect(answerOf(cluster, 2, read)).toBe(1);
  });

  it('of a learner need a round in a cluster of three: a learner has no vote to withhold', () => {
    const cluster = smallCluster(configurationWith({ voters: [1, 2, 3], learners: [4] }));
    elect(cluster, 1);
    const read = cluster.read(4);
    deliverOnce(cluster);
    expect(sentOf(cluster, 'readIndexReply')).toBe(0);
    stabilize(cluster);
    expect(answerOf(cluster, 4, read)).toBe(1);
  });

  it('of a follower in the smaller half are not answered by a leader of five that was replaced', () => {
    const cluster = smallCluster(votersOf(5));
    elect(cluster, 1);
    for (const near of [1, 2])
      for (const far of [3, 4, 5]) cluster.partitions.add(`${near}->${far}`).add(`${far}->${near}`);
    for (const id of [3, 4, 5]) tick(cluster, id, 10);
    stabilize(cluster);
    cluster.propose(cluster.leader()?.id ?? 0, 'newer');
    stabilize(cluster);
    expect(cluster.checks.committed.length).toBe(3);
    const read = cluster.read(2);
    stabilize(cluster);
    expect(answerOf(cluster, 2, read)).toBeUndefined();
  });

  it('that were held for the no-op share one round', () => {
    const cluster = smallCluster(votersOf(5));
    tick(cluster, 1, 10);
    while (cluster.leader() === undefined) {
      cluster.flushDisk(1);
      for (const id of [2, 3]) cluster.flushDisk(id);
      deliverOnce(cluster);
    }
    const reads = [cluster.read(1), cluster.read(1), cluster.read(1)];
    const roundBefore = cluster.leader()?.round ?? 0;
    stabilize(cluster);
    expect(reads.map((read) => answerOf(cluster, 1, read))).toEqual([1, 1, 1]);
    expect(cluster.leader()?.round).toBe(roundBefore + 1);
  });

  it('that come while a round is under way wait for the next, which begins when that is answered', () => {
    const cluster = smallCluster(votersOf(5));
    elect(cluster, 1);
    const first = cluster.read(1);
    const second = cluster.read(1);
    expect(sentOf(cluster, 'heartbeat')).toBe(4);
    deliverOnce(cluster);
    cluster.deliver(0);
    cluster.deliver(0);
    expect(answerOf(cluster, 1, first)).toBe(1);
    expect(answerOf(cluster, 1, second)).toBeUndefined();
    expect(sentOf(cluster, 'heartbeat')).toBe(4);
    stabilize(cluster);
    expect(answerOf(cluster, 1, second)).toBe(1);
  });

  it('are served though the answer comes when the reader has seen a later term', () => {
    const cluster = smallCluster(votersOf(3));
    elect(cluster, 1);
    const read = cluster.read(2);
    deliverOnce(cluster);
    const heartbeat = {
      kind: 'heartbeat',
      from: 3,
      to: 2,
      term: 2,
      commitIndex: 0,
      directoryId: 0,
      round: 1,
      clusterFull: false,
    } as const;
    cluster.step(2, { kind: 'receive', message: heartbeat });
    deliverOnce(cluster);
    expect(answerOf(cluster, 2, read)).toBe(1);
  });

  it('are refused when their leader steps down, so that they can be asked for again', () => {
    const cluster = smallCluster(votersOf(3));
    elect(cluster, 1);
    cluster.wire = [];
    const read = cluster.read(1);
    cluster.wire = [];
    tick(cluster, 1, 25);
    expect(cluster.node(1).core?.role).not.toBe('leader');
    expect(answerOf(cluster, 1, read)).toBe(-1);
  });
});
