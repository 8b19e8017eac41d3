import { describe, expect, it } from 'vitest';
import type { Message, NodeId } from '../../src/raft/state/types.ts';
import type { CoreCluster } from './core-cluster.ts';
import type { SimulatedDisk } from './simulated-disk.ts';
import {
  crash,
  ELECTION_TIMEOUT_TICKS,
  elect,
  restart,
  smallCluster,
  stabilize,
  tick,
  votersOf,
} from './small-cluster.ts';

const ADDRESS = { host: 'new.example', clientPort: 1, peerPort: 2, adminPort: 3 };

function run(cluster: CoreCluster, ids: readonly NodeId[], ticks = 6 * ELECTION_TIMEOUT_TICKS): void {
  for (let i = 0; i < ticks; i++) {
    for (const id of ids) tick(cluster, id);
    stabilize(cluster);
  }
}

/** What is lost is so also where it answers what has just arrived. */
function stabilizeWithout(cluster: CoreCluster, isLost: (message: Message) => boolean): void {
  for (let moved = true; moved; ) {
    moved = [...cluster.nodes.keys()].some((id) => cluster.flushDisk(id));
    cluster.wire = cluster.wire.filter((message) => !isLost(message));
    if (cluster.wire.length === 0) continue;
    moved = true;
    cluster.deliver(0);
  }
}

const directoryIdOf = (cluster: CoreCluster, id: NodeId) =>
  cluster.node(1).core?.configurations.current.details.find((detail) => detail.id === id)?.directoryId;

/** Three voters, of which the third has earned its vote with a new disk. Gives the old one, too, as it was last. */
function healed(): { cluster: CoreCluster; old: SimulatedDisk } {
  const cluster = smallCluster(votersOf(3));
  elect(cluster, 1);
  cluster.propose(1, 'first');
  stabilize(cluster);
  crash(cluster, 3);
  cluster.wipe(3);
  restart(cluster, 3);
  run(cluster, [1, 2, 3]);
  const { disk } = cluster.node(3);
  expect(cluster.node(1).core?.configurations.current.voters).toEqual([1, 2, 3]);
  expect(directoryIdOf(cluster, 3)).toBe(disk.directoryId);
  const [old] = disk.ghosts;
  if (old === undefined) throw new Error('no disk was lost');
  return { cluster, old };
}

describe('an old disk that is put back after a newer directory has got its rights', () => {
  it('elects no node that lacks what the newer directory helped to commit', () => {
    const { cluster, old } = healed();
    cluster.propose(1, 'second');
    stabilize(cluster, ({ from, to }) => from === 2 || to === 2);
    expect(cluster.node(1).core?.log.commitIndex).toBe(cluster.node(1).core?.log.lastIndex);
    crash(cluster, 1);
    crash(cluster, 3);
    cluster.putBack(3, old);
    restart(cluster, 3);
    run(cluster, [2, 3]);
    expect(cluster.leader()).toBeUndefined();
    restart(cluster, 1);
    run(cluster, [1, 2, 3]);
    expect(cluster.leader()).toBeDefined();
    expect(directoryIdOf(cluster, 3)).toBe(0);
  });

  it('catches up under the same leader, which forgets what it knew of the newer directory', () => {
    const { cluster, old } = healed();
    crash(cluster, 3);
    cluster.putBack(3, old);
    restart(cluster, 3);
    run(cluster, [1, 2, 3]);
    expect(cluster.node(3).core?.log.lastIndex).toBe(cluster.node(1).core?.log.lastIndex);
    expect(directoryIdOf(cluster, 3)).toBe(0);
    expect(cluster.node(1).core?.configurations.current.voters).toEqual([1, 2, 3]);
  });

  it('confirms no read for a leader that was replaced with the help of the newer directory', () => {
    const { cluster, old } = healed();
    for (const peer of [2, 3]) cluster.partitions.add(`1->${peer}`).add(`${peer}->1`);
    tick(cluster, 3, ELECTION_TIMEOUT_TICKS);
    tick(cluster, 2, ELECTION_TIMEOUT_TICKS);
    stabilize(cluster);
    expect(cluster.leader()?.id).toBe(2);
    cluster.propose(2, 'newer');
    stabilize(cluster);
    cluster.crash(3);
    cluster.putBack(3, old);
    cluster.partitions.clear();
    for (const peer of [1, 3]) cluster.partitions.add(`2->${peer}`).add(`${peer}->2`);
    cluster.start(3);
    // The log, which would tell the old directory of the newer one, comes late.
    const isLost = ({ kind }: Message) => kind === 'append';
    const reads = [cluster.read(1)];
    stabilizeWithout(cluster, isLost);
    expect(cluster.node(3).core?.leader).toBe(1);
    reads.push(cluster.read(3));
    stabilizeWithout(cluster, isLost);
    expect(reads.map((read, i) => cluster.node(2 * i + 1).answers.get(read))).toEqual([undefined, undefined]);
  });
});

describe('a directory that a committed configuration names', () => {
  it('counts only from when it remembers that, so that a crash leaves no cluster without a leader', () => {
    const cluster = smallCluster(votersOf(1), { newcomers: [2] });
    elect(cluster, 1);
    cluster.start(2);
    cluster.change(1, { op: 'add', id: 2, address: ADDRESS, joins: true, replaces: 0 });
    cluster.remember = () => false;
    restart(cluster, 2);
    run(cluster, [1, 2]);
    expect(cluster.node(2).remembering).toBe('pending');
    expect(cluster.node(2).core?.rights.lifecycle).toBe('recovering');
    expect(cluster.node(1).core?.configurations.current).toMatchObject({ voters: [1], learners: [2] });
    for (const id of [1, 2]) crash(cluster, id);
    Reflect.deleteProperty(cluster, 'remember');
    for (const id of [1, 2]) restart(cluster, id);
    run(cluster, [1, 2]);
    expect(cluster.leader()?.configurations.current).toMatchObject({ voters: [1, 2], votersOutgoing: [] });
    expect(cluster.node(2).disk.lifecycle).toBe('normal');
  });

  it('says so once in an incarnation, and not when entries were applied, whose effects are not looked at', () => {
    let reports = 0;
    const cluster = smallCluster(votersOf(3), {
      observe: (_core, _before, { recovered }) => {
        if (recovered) reports++;
      },
    });
    elect(cluster, 1);
    cluster.crash(3);
    cluster.wipe(3);
    cluster.remember = () => false;
    restart(cluster, 3);
    run(cluster, [1, 2, 3]);
    expect(reports).toBe(1);
    const { raft } = cluster.node(3);
    if (raft === null) throw new Error('node 3 does not run');
    raft.core.rights.recoveryReported = false;
    expect(raft.step({ kind: 'applied', index: raft.core.log.commitIndex }).recovered).toBe(false);
    expect(raft.step({ kind: 'tick' }).recovered).toBe(true);
  });
});
