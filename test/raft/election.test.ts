import { describe, expect, it } from 'vitest';
import { configurationWith } from './configurations.ts';
import { ELECTION_TIMEOUT_TICKS, elect, smallCluster, stabilize, tick, votersOf } from './small-cluster.ts';

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
    cluster.flushDisk(1);
    tick(cluster, 1, ELECTION_TIMEOUT_TICKS - 1);
    stabilize(cluster);
    expect(cluster.node(1).core).toMatchObject({ role: 'leader', term: 1 });
  });

  it('has a learner forget a leader that is silent, so that it neither vouches for it nor asks it for reads', () => {
    const cluster = smallCluster(configurationWith({ voters: [1, 2, 3], learners: [4] }));
    elect(cluster, 1);
    expect(cluster.node(4).core?.leader).toBe(1);
    tick(cluster, 4, ELECTION_TIMEOUT_TICKS);
    expect(cluster.node(4).core).toMatchObject({ role: 'follower', leader: 0 });
    const read = cluster.read(4);
    expect(cluster.node(4).answers.get(read)).toBe(-1);
  });

  it('has a node that gives its vote stop asking for one', () => {
    const cluster = smallCluster(votersOf(3));
    tick(cluster, 1, ELECTION_TIMEOUT_TICKS);
    cluster.partitions.add('2->1').add('3->1');
    while (cluster.wire.length > 0) cluster.deliver(0);
    // Node 2 knows term 1 but has not voted in it, and asks for votes itself when node 1's request comes.
    const vote = { kind: 'vote', from: 1, to: 2, term: 1, lastIndex: 0, lastTerm: 0, transfer: false } as const;
    const refusal = {
      kind: 'preVoteReply',
      from: 3,
      to: 2,
      term: 1,
      granted: false,
      directoryId: 0,
      withoutRights: false,
    } as const;
    cluster.step(2, { kind: 'receive', message: refusal });
    stabilize(cluster);
    tick(cluster, 2, ELECTION_TIMEOUT_TICKS);
    expect(cluster.node(2).core?.role).toBe('preCandidate');
    cluster.step(2, { kind: 'receive', message: vote });
    expect(cluster.node(2).core).toMatchObject({ role: 'follower', vote: 1 });
  });
});
