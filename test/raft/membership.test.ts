import { describe, expect, it } from 'vitest';
import { MEMBERS_MAX } from '../../src/raft/state/configuration.ts';
import type { MemberChange, NodeId } from '../../src/raft/state/types.ts';
import { configurationWith, detailWith } from './configurations.ts';
import type { CoreCluster } from './core-cluster.ts';
import {
  ELECTION_TIMEOUT_TICKS,
  elect,
  HEARTBEAT_INTERVAL_TICKS,
  smallCluster,
  stabilize,
  tick,
  votersOf,
} from './small-cluster.ts';

const ADDRESS = { host: 'new.example', clientPort: 1, peerPort: 2, adminPort: 3 };

function added(id: NodeId, joins = false, replaces = 0): MemberChange {
  return { op: 'add', id, address: ADDRESS, joins, replaces };
}

/** A heartbeat interval passes, and all that comes of it. */
function beat(cluster: CoreCluster, id: NodeId, times = 1): void {
  for (let i = 0; i < times; i++) {
    tick(cluster, id, HEARTBEAT_INTERVAL_TICKS);
    stabilize(cluster);
  }
}

function led(newcomers: readonly NodeId[] = []): CoreCluster {
  const cluster = smallCluster(votersOf(3), { newcomers });
  elect(cluster, 1);
  beat(cluster, 1);
  return cluster;
}

const configurationOf = (cluster: CoreCluster, id: NodeId) => cluster.node(id).core?.configurations.current;

describe('a change of members', () => {
  it('is refused by a leader that has committed nothing of its term yet (copycat 23)', () => {
    const cluster = smallCluster(votersOf(3));
    tick(cluster, 1, ELECTION_TIMEOUT_TICKS);
    stabilize(cluster, (message) => message.kind === 'appendReply');
    expect(cluster.node(1).core?.role).toBe('leader');
    expect(cluster.change(1, added(4))?.refusal).toBe('LEADER_NOT_READY');
    beat(cluster, 1);
    expect(cluster.change(1, added(4))).toMatchObject({ refusal: null, text: '' });
  });

  it('is refused while another runs, and while leadership is handed over', () => {
    const cluster = led();
    cluster.change(1, added(4));
    expect(cluster.change(1, added(5))).toMatchObject({ refusal: 'CHANGE_RUNNING' });
    stabilize(cluster);
    cluster.change(1, { op: 'remove', id: 3 });
    expect(cluster.change(1, added(5))?.text).toBe('a change of the voters from 1, 2, 3 to 1, 2 is not finished');
    stabilize(cluster);
    cluster.step(1, { kind: 'transferLeadership', to: 2 });
    expect(cluster.change(1, added(5))?.refusal).toBe('LEADER_NOT_READY');
  });

  it('is refused where the voters that would be left have no majority that is there, or are none', () => {
    const cluster = led();
    cluster.crash(2);
    cluster.step(1, { kind: 'linkLost', peer: 2 });
    expect(cluster.change(1, { op: 'remove', id: 3 })).toMatchObject({
      refusal: 'WOULD_LOSE_QUORUM',
      text: 'the voters would be 1, 2, but 2 cannot be reached or has no vote',
    });
    expect(cluster.change(1, { op: 'remove', id: 2 })?.refusal).toBeNull();
    const alone = smallCluster(votersOf(1));
    elect(alone, 1);
    expect(alone.change(1, { op: 'remove', id: 1 })?.refusal).toBe('WOULD_LOSE_QUORUM');
  });

  it('is refused where there would be more members than fit', () => {
    const learners = Array.from({ length: MEMBERS_MAX - 1 }, (_, i) => i + 2);
    const cluster = smallCluster(configurationWith({ voters: [1], learners }));
    elect(cluster, 1);
    expect(cluster.change(1, added(1000))?.refusal).toBe('TOO_MANY_MEMBERS');
  });

  it('promotes by hand only a learner that keeps up', () => {
    const cluster = led([4]);
    cluster.change(1, added(4));
    stabilize(cluster);
    expect(cluster.change(1, { op: 'promote', id: 4 })?.refusal).toBe('NOT_CAUGHT_UP');
    cluster.start(4);
    beat(cluster, 1, 5);
    expect(configurationOf(cluster, 1)?.learners).toEqual([4]);
    expect(cluster.change(1, { op: 'promote', id: 4 })?.refusal).toBeNull();
    stabilize(cluster);
    expect(configurationOf(cluster, 4)).toMatchObject({ voters: [1, 2, 3, 4], votersOutgoing: [], learners: [] });
  });

  it('is finished by a later leader: the learner is promoted, the joint configuration left', () => {
    const cluster = led([4]);
    cluster.start(4);
    cluster.change(1, added(4, true, 3));
    stabilize(cluster);
    elect(cluster, 2);
    cluster.crash(1);
    tick(cluster, 3, ELECTION_TIMEOUT_TICKS);
    elect(cluster, 2);
    beat(cluster, 2, 5);
    expect(configurationOf(cluster, 2)).toMatchObject({ voters: [1, 2, 4], votersOutgoing: [], removed: [3] });
    expect(cluster.node(3).isRemoved).toBe(true);
  });

  it('is undone if the log is truncated', () => {
    const cluster = led();
    cluster.partitions.add('1->2').add('1->3');
    cluster.change(1, { op: 'remove', id: 3 });
    cluster.flushDisk(1);
    expect(configurationOf(cluster, 1)?.votersOutgoing).toEqual([1, 2, 3]);
    tick(cluster, 3, ELECTION_TIMEOUT_TICKS);
    elect(cluster, 2);
    cluster.partitions.clear();
    beat(cluster, 2);
    expect(configurationOf(cluster, 1)).toEqual(votersOf(3));
    const { core } = cluster.node(1);
    expect(core === null ? null : core.configurations.asOf(core.log.lastIndex)).toEqual(votersOf(3));
  });

  it('finds a promoted learner ready to vote though it does not know of its promotion (etcd 10998)', () => {
    const cluster = smallCluster(configurationWith({ voters: [1, 2], learners: [3] }));
    elect(cluster, 1);
    beat(cluster, 1, 3);
    cluster.partitions.add('1->3');
    cluster.change(1, { op: 'promote', id: 3 });
    stabilize(cluster);
    expect(configurationOf(cluster, 2)?.voters).toEqual([1, 2, 3]);
    expect(configurationOf(cluster, 3)?.learners).toEqual([3]);
    cluster.crash(1);
    tick(cluster, 3, ELECTION_TIMEOUT_TICKS);
    elect(cluster, 2);
    expect(cluster.node(2).core?.role).toBe('leader');
    expect(configurationOf(cluster, 3)?.voters).toEqual([1, 2, 3]);
  });

  it('leaves a removed node that was partitioned without a way to disturb the others (hashicorp/raft 524)', () => {
    const cluster = led();
    cluster.partitions.add('1->3').add('2->3').add('3->1').add('3->2');
    cluster.change(1, { op: 'remove', id: 3 });
    stabilize(cluster);
    beat(cluster, 1, 2 * ELECTION_TIMEOUT_TICKS);
    const term = cluster.node(1).core?.term;
    cluster.partitions.clear();
    for (let i = 0; i < 5; i++) {
      tick(cluster, 3, 2 * ELECTION_TIMEOUT_TICKS);
      stabilize(cluster);
      beat(cluster, 1);
    }
    expect(cluster.node(1).core).toMatchObject({ role: 'leader', term });
    expect(cluster.node(1).core?.leading?.progress.has(3)).toBe(false);
  });
});

describe('a directory that may have forgotten something', () => {
  it('counts for nothing in the check of the quorum', () => {
    const cluster = led();
    cluster.crash(2);
    cluster.crash(3);
    cluster.wipe(3, 'uninitialized');
    cluster.start(3);
    beat(cluster, 1, 3 * ELECTION_TIMEOUT_TICKS);
    expect(cluster.node(1).core?.role).not.toBe('leader');
  });

  it('says nothing of itself while it is uninitialized, and asks for its rights once it knows that there is a cluster', () => {
    const cluster = led();
    cluster.crash(3);
    cluster.wipe(3, 'uninitialized');
    cluster.start(3);
    beat(cluster, 1, ELECTION_TIMEOUT_TICKS);
    expect(configurationOf(cluster, 1)).toEqual(votersOf(3));
    cluster.step(3, { kind: 'lifecycle', lifecycle: 'recovering', directoryId: 77 });
    stabilize(cluster);
    expect(configurationOf(cluster, 1)?.details[2]).toMatchObject({ id: 3, directoryId: 77, joins: true });
    expect(cluster.node(3).core?.rights.lifecycle).toBe('normal');
    beat(cluster, 1, 5);
    expect(configurationOf(cluster, 3)).toMatchObject({ voters: [1, 2, 3], votersOutgoing: [] });
  });

  it('becomes a voter only under its own name, also where it was removed and came back as it was', () => {
    const cluster = led();
    cluster.crash(3);
    cluster.wipe(3);
    cluster.start(3);
    beat(cluster, 1, 8);
    const { directoryId } = cluster.node(3).disk;
    expect(configurationOf(cluster, 1)).toMatchObject({ voters: [1, 2, 3] });
    cluster.change(1, { op: 'remove', id: 3 });
    stabilize(cluster);
    cluster.crash(3);
    cluster.start(3);
    cluster.change(1, added(3, true));
    for (let i = 0; i < 8; i++) {
      beat(cluster, 1);
      const detail = configurationOf(cluster, 1)?.details.find(({ id }) => id === 3);
      if (configurationOf(cluster, 1)?.voters.includes(3)) expect(detail?.directoryId).toBe(directoryId);
    }
    expect(configurationOf(cluster, 3)).toMatchObject({ voters: [1, 2, 3], votersOutgoing: [] });
    expect(cluster.node(3).core).toMatchObject({ rights: { lifecycle: 'normal', isSuperseded: false } });
  });

  it('has no vote where the cluster has given its rights to another, until it has earned them again', () => {
    const named = configurationWith({
      voters: [1, 2, 3],
      details: [1, 2, 3].map((id) => detailWith({ id, directoryId: id === 3 ? 9 : 0 })),
    });
    const cluster = smallCluster(named);
    expect(cluster.node(3).core).toMatchObject({ rights: { lifecycle: 'normal', isSuperseded: true } });
    tick(cluster, 3, 3 * ELECTION_TIMEOUT_TICKS);
    expect(cluster.node(3).core).toMatchObject({ role: 'follower', term: 0 });
  });
});

describe('a full disk', () => {
  it('is told to the leader, and by it to all once no quorum has room', () => {
    const cluster = led();
    cluster.step(2, { kind: 'diskFull', full: true });
    beat(cluster, 1, 2);
    expect(cluster.node(3).core?.clusterFull).toBe(false);
    cluster.step(3, { kind: 'diskFull', full: true });
    beat(cluster, 1, 2);
    expect([1, 2, 3].map((id) => cluster.node(id).core?.clusterFull)).toEqual([true, true, true]);
    cluster.step(3, { kind: 'diskFull', full: false });
    beat(cluster, 1, 2);
    expect([1, 2, 3].map((id) => cluster.node(id).core?.clusterFull)).toEqual([false, false, false]);
  });

  it('makes a leader hand over to a voter that has room', () => {
    const cluster = led();
    cluster.step(2, { kind: 'diskFull', full: true });
    beat(cluster, 1);
    cluster.step(1, { kind: 'diskFull', full: true });
    tick(cluster, 1);
    stabilize(cluster);
    expect(cluster.node(3).core?.role).toBe('leader');
  });
});
