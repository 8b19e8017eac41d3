import { describe, expect, it } from 'vitest';
import { sealEntry } from '../../src/raft/state/entry.ts';
import { batchOf } from './core-cluster.ts';
import { elect, HEARTBEAT_INTERVAL_TICKS, smallCluster, stabilize, tick, votersOf } from './small-cluster.ts';

describe('replication', () => {
  it('finds a lost append however many reads begin rounds of their own', () => {
    const cluster = smallCluster(votersOf(5));
    elect(cluster, 1);
    cluster.propose(1, 'x');
    stabilize(cluster, ({ kind, to }) => kind === 'append' && to === 5);
    for (let i = 0; i < 4 * HEARTBEAT_INTERVAL_TICKS; i++) {
      cluster.read(1);
      tick(cluster, 1);
      stabilize(cluster);
    }
    expect(cluster.node(5).core?.log.commitIndex).toBe(2);
  });

  it('reads back from the disk what has left memory, a window at a time', () => {
    const cluster = smallCluster(votersOf(3), { cacheBytesMax: 0, appendBytesMax: 60 });
    elect(cluster, 1);
    cluster.crash(3);
    for (const payload of ['a', 'b', 'c', 'd', 'e', 'f']) {
      cluster.propose(1, payload);
      stabilize(cluster);
    }
    expect(cluster.node(1).core?.log.firstCachedIndex).toBe(8);
    cluster.start(3);
    cluster.step(1, { kind: 'linkUp', peer: 3 });
    expect(cluster.node(1).readBacks).toEqual([{ peer: 3, fromIndex: 2, bytesMax: 60 }]);
    stabilize(cluster);
    expect(cluster.node(3).core?.log).toMatchObject({ lastIndex: 7, persistedIndex: 7, commitIndex: 7 });
  });

  it('sends nothing that was read back before the log was truncated: it may be another leader’s', () => {
    const cluster = smallCluster(votersOf(3), { cacheBytesMax: 0 });
    elect(cluster, 1);
    cluster.crash(3);
    cluster.propose(1, 'x');
    stabilize(cluster);
    cluster.start(3);
    cluster.step(1, { kind: 'linkUp', peer: 3 });
    const [readBack] = cluster.node(1).readBacks.splice(0);
    expect(readBack).toMatchObject({ peer: 3, fromIndex: 2 });
    const foreign = sealEntry(batchOf('foreign'), 'data', 0, 2);
    const effects = cluster.step(1, { kind: 'readBack', peer: 3, entries: [foreign] });
    expect(effects).toMatchObject({ sendNow: [], readBacks: [{ peer: 3, fromIndex: 2 }] });
    stabilize(cluster);
    expect(cluster.node(3).core?.log.commitIndex).toBe(2);
  });

  it('goes no further with a follower than the limits of what may be in flight', () => {
    const cluster = smallCluster(votersOf(3), { flow: { inflightMessagesMax: 2, inflightBytesMax: 10_000 } });
    elect(cluster, 1);
    for (const payload of ['a', 'b', 'c', 'd']) cluster.propose(1, payload);
    const sentTo2 = () => cluster.wire.filter(({ kind, to }) => kind === 'append' && to === 2).length;
    expect(sentTo2()).toBe(2);
    stabilize(cluster);
    expect(cluster.node(2).core?.log.commitIndex).toBe(5);
  });
});
