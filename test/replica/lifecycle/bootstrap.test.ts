import { describe, expect, it } from 'vitest';
import { addressOf, Cluster, ELECTION_MS, TIMING } from '../cluster.ts';

/** Nodes with empty directories: which of them begin a cluster, and which find that there is one. */

/** For how long an uninitialized node hears others out before it bootstraps a cluster with them. */
const LISTEN_MS = TIMING.electionTimeoutMs;

const withoutRights = (cluster: Cluster) =>
  cluster.ids.filter((id) => cluster.node(id).alive && cluster.replica(id).status().lifecycle !== 'normal');

async function succeeds(cluster: Cluster, id: number, key: string): Promise<void> {
  const request = cluster.set(id, key, 'v');
  await cluster.run(ELECTION_MS);
  expect(request.outcomes).toEqual(['stored']);
}

describe('a new cluster', () => {
  it('waits for all initial members, and names those that are missing', async () => {
    const cluster = Cluster.empty();
    await cluster.startEmpty(1);
    await cluster.startEmpty(2);
    await cluster.run(10 * ELECTION_MS);
    expect(cluster.leader()).toBe(0);
    expect(cluster.replica(1).status()).toMatchObject({ lifecycle: 'uninitialized', term: 0 });
    expect(cluster.replica(1).status().healthProblem).toMatch(/missing: node 3$/);
    await cluster.startEmpty(3);
    await cluster.run(ELECTION_MS);
    expect(cluster.leader()).toBeGreaterThan(0);
    expect(withoutRights(cluster)).toEqual([]);
    expect(cluster.replica(1).status().healthProblem).toBe('');
  });

  it('is begun by a node alone where it is the only one', async () => {
    const cluster = await Cluster.start({ nodes: 1 });
    await succeeds(cluster, 1, 'a');
  });

  it('has all its votes where the lowest id connects late to one, and so can lose the leader at once', async () => {
    const cluster = Cluster.empty({ nodes: 5 });
    cluster.partition(1, 4);
    for (const id of cluster.ids) await cluster.startEmpty(id);
    await cluster.run(5 * ELECTION_MS);
    expect(cluster.leader()).toBe(0);
    expect(cluster.replica(1).status().healthProblem).toMatch(/missing: node 4$/);
    cluster.heal(1, 4);
    for (let ms = 0; ms < ELECTION_MS && cluster.leader() === 0; ms += 10) await cluster.run(10);
    const { current } = cluster.replica(1).raft.core.configurations;
    const directories = cluster.ids.map((id) => cluster.replica(id).raft.core.rights.directoryId);
    expect(current.details.map(({ directoryId }) => directoryId)).toEqual(directories);
    expect(current.voters).toEqual(cluster.ids);
    cluster.kill(cluster.leader());
    await cluster.run(ELECTION_MS);
    await succeeds(cluster, cluster.leader(), 'a');
  });

  it('is begun although two nodes without the lowest id never connect', async () => {
    const cluster = Cluster.empty({ nodes: 5 });
    cluster.partition(3, 4);
    for (const id of cluster.ids) await cluster.startEmpty(id);
    await cluster.run(3 * ELECTION_MS);
    expect(withoutRights(cluster)).toEqual([]);
    await succeeds(cluster, 3, 'a');
    await succeeds(cluster, 4, 'b');
  });

  it('has one cluster id, which every node keeps', async () => {
    const cluster = await Cluster.start();
    const idsOf = () => cluster.ids.map((id) => cluster.replica(id).status().clusterId);
    const before = idsOf();
    expect(before[0]).toMatch(/^[0-9a-f]{32}$/);
    expect(new Set(before).size).toBe(1);
    for (const id of cluster.ids) cluster.kill(id);
    for (const id of cluster.ids) await cluster.restart(id);
    await cluster.run(ELECTION_MS);
    expect(idsOf()).toEqual(before);
    cluster.kill(2);
    await cluster.startEmpty(2);
    await cluster.run(ELECTION_MS);
    expect(idsOf()).toEqual(before);
  });

  it('is begun by the node with the lowest id, and goes on if that is lost once another has heard of it', async () => {
    const cluster = Cluster.empty();
    for (const id of cluster.ids) await cluster.startEmpty(id);
    cluster.node(3).disk.stall();
    for (let ms = 0; ms <= LISTEN_MS + 20; ms += 10) await cluster.run(10);
    expect(cluster.ids.map((id) => cluster.replica(id).status().lifecycle)).toEqual([
      'normal',
      'normal',
      'uninitialized',
    ]);
    cluster.kill(1);
    cluster.kill(3);
    cluster.node(3).disk.resume();
    // Its directory is named by the first configuration, which node 2 tells it.
    await cluster.restart(3);
    await cluster.run(2 * ELECTION_MS);
    await succeeds(cluster, 3, 'a');
    await cluster.startEmpty(1);
    await cluster.run(2 * ELECTION_MS);
    expect(withoutRights(cluster)).toEqual([]);
    expect(cluster.value(1, 'a')).toBe('v');
  });

  it('takes in a first member that comes late through the leader, by a change of members', async () => {
    const cluster = Cluster.empty();
    for (const id of cluster.ids) await cluster.startEmpty(id);
    cluster.node(3).disk.stall();
    await cluster.run(LISTEN_MS + 20);
    cluster.kill(3);
    cluster.node(3).disk.resume();
    await cluster.run(ELECTION_MS);
    await succeeds(cluster, 1, 'a');
    await cluster.restart(3);
    await cluster.run(ELECTION_MS);
    expect(cluster.replica(1).raft.core.configurations.newest.index).toBeGreaterThan(0);
    expect(cluster.replica(3).status()).toMatchObject({ lifecycle: 'normal', voters: [1, 2, 3] });
    expect(cluster.value(3, 'a')).toBe('v');
  });

  it('is bootstrapped by no wiped nodes while another of the list is down', async () => {
    const cluster = await Cluster.start();
    await succeeds(cluster, 1, 'a');
    for (const id of cluster.ids) cluster.kill(id);
    for (const id of [1, 2]) await cluster.startEmpty(id);
    await cluster.run(20 * ELECTION_MS);
    for (const id of [1, 2])
      expect(cluster.replica(id).status()).toMatchObject({ lifecycle: 'uninitialized', term: 0 });
  });

  it('is bootstrapped although a node dies before it could persist that', async () => {
    const cluster = Cluster.empty();
    for (const id of [1, 2, 3]) await cluster.startEmpty(id);
    cluster.node(3).disk.stall();
    for (let ms = 0; ms <= LISTEN_MS + 20; ms += 10) await cluster.run(10);
    expect(cluster.replica(1).status()).toMatchObject({ lifecycle: 'normal', term: 0 });
    expect(cluster.replica(3).status().lifecycle).toBe('uninitialized');
    cluster.kill(3);
    await cluster.run(ELECTION_MS);
    cluster.node(3).disk.resume();
    await cluster.restart(3);
    await cluster.run(2 * ELECTION_MS);
    expect(withoutRights(cluster)).toEqual([]);
    await succeeds(cluster, 3, 'a');
  });
});

describe('a node whose disk was wiped', () => {
  it('gets its vote back by itself, and everything else with it', async () => {
    const cluster = await Cluster.start();
    await succeeds(cluster, 2, 'a');
    cluster.kill(2);
    await cluster.startEmpty(2);
    expect(cluster.replica(2).status().lifecycle).toBe('uninitialized');
    await cluster.run(ELECTION_MS);
    expect(withoutRights(cluster)).toEqual([]);
    for (const id of cluster.ids) {
      expect(cluster.replica(id).status()).toMatchObject({ voters: expect.arrayContaining([1, 2, 3]), learners: [] });
    }
    expect(cluster.value(2, 'a')).toBe('v');
    await succeeds(cluster, 2, 'b');
    cluster.kill(1);
    await cluster.run(ELECTION_MS);
    await succeeds(cluster, 2, 'c');
  });

  it('counts each write once, in this incarnation as in the one before', async () => {
    const cluster = await Cluster.start();
    cluster.set(2, 'n', '0');
    await cluster.run(100);
    for (let incarnation = 1; incarnation <= 3; incarnation++) {
      const request = cluster.incr(2, 'n');
      await cluster.run(ELECTION_MS);
      expect(request.outcomes).toEqual([String(incarnation)]);
      cluster.kill(2);
      await cluster.startEmpty(2);
      await cluster.run(ELECTION_MS);
    }
    expect(cluster.value(1, 'n')).toBe('3');
  });

  it('continues above the session ids of earlier incarnations that it cannot know of', async () => {
    const cluster = await Cluster.start();
    await succeeds(cluster, 2, 'a');
    cluster.set(1, 'n', '0');
    await cluster.run(100);
    cluster.kill(2);
    // Its clock went back, so it would begin to count below what it had reached.
    cluster.clock.wallOffsetMs -= 86_400_000;
    await cluster.startEmpty(2);
    // Accepted under the session that turns out to be used.
    const early = cluster.incr(2, 'n');
    await cluster.run(ELECTION_MS);
    expect(cluster.node(2).fatal).toEqual([]);
    expect(early.outcomes).toEqual(['1']);
    await succeeds(cluster, 2, 'b');
    expect(withoutRights(cluster)).toEqual([]);
    cluster.kill(2);
    await cluster.restart(2);
    await cluster.run(ELECTION_MS);
    await succeeds(cluster, 2, 'c');
    expect(cluster.value(1, 'n')).toBe('1');
  });

  it('waits for the node that is away where the others are no majority without it', async () => {
    const cluster = await Cluster.start();
    await succeeds(cluster, 1, 'a');
    for (const id of [1, 2, 3]) cluster.kill(id);
    await cluster.startEmpty(2);
    await cluster.restart(3);
    await cluster.run(10 * ELECTION_MS);
    expect(cluster.leader()).toBe(0);
    expect(withoutRights(cluster)).toEqual([2]);
    await cluster.restart(1);
    await cluster.run(2 * ELECTION_MS);
    expect(withoutRights(cluster)).toEqual([]);
    expect(cluster.value(2, 'a')).toBe('v');
    await succeeds(cluster, 2, 'b');
  });

  it('begins no second cluster with another that was wiped; and the cluster says what is lost', async () => {
    const cluster = await Cluster.start();
    await succeeds(cluster, 1, 'a');
    for (const id of [1, 2, 3]) cluster.kill(id);
    await cluster.startEmpty(2);
    await cluster.startEmpty(3);
    await cluster.run(5 * ELECTION_MS);
    expect(withoutRights(cluster)).toEqual([2, 3]);
    await cluster.restart(1);
    await cluster.run(5 * ELECTION_MS);
    expect(cluster.leader()).toBe(0);
    expect(cluster.replica(1).status().healthProblem).toMatch(/^nodes 2 and 3 lost data/);
    expect(cluster.replica(1).status().lastLogIndex).toBeGreaterThan(1);
  });
});

/** A cluster that `initialCount` nodes began, and that has grown. */
async function grown(initialCount: number, newcomers: readonly number[]): Promise<Cluster> {
  const cluster = await Cluster.start({ nodes: initialCount });
  for (const id of newcomers) {
    await cluster.startEmpty(id);
    await cluster.run(ELECTION_MS);
    const change = { op: 'add', id, address: addressOf(id), joins: true, replaces: 0 } as const;
    const added = cluster.replica(cluster.leader()).changeMembers(change);
    await cluster.run(4 * ELECTION_MS);
    await added;
  }
  await succeeds(cluster, newcomers[0] ?? 1, 'a');
  return cluster;
}

describe('an initial member of a cluster that has grown, whose disk was wiped and whose file was never brought up to date', () => {
  it('begins no second cluster alone, but says who is missing in its file; with all in it, it heals', async () => {
    const cluster = await grown(1, [2, 3]);
    cluster.kill(1);
    await cluster.startEmpty(1);
    await cluster.run(10 * ELECTION_MS);
    expect(cluster.replica(1).status()).toMatchObject({ lifecycle: 'uninitialized', term: 0 });
    expect(cluster.replica(1).status().healthProblem).toMatch(
      /^nodes 2 and 3 of this cluster are not in the configuration file/,
    );
    expect([2, 3]).toContain(cluster.leader());
    cluster.kill(1);
    cluster.list(1, [1, 2, 3]);
    await cluster.restart(1);
    await cluster.run(2 * ELECTION_MS);
    expect(cluster.replica(1).status()).toMatchObject({ healthProblem: '', voters: [1, 2, 3] });
    expect(withoutRights(cluster)).toEqual([]);
    expect(cluster.value(1, 'a')).toBe('v');
  });

  it('begins none with the other initial members either', async () => {
    const cluster = await grown(2, [3, 4, 5]);
    for (const id of [1, 2]) cluster.kill(id);
    for (const id of [1, 2]) await cluster.startEmpty(id);
    await cluster.run(10 * ELECTION_MS);
    expect(withoutRights(cluster)).toEqual([1, 2]);
    for (const id of [1, 2])
      expect(cluster.replica(id).status()).toMatchObject({ lifecycle: 'uninitialized', term: 0 });
    await succeeds(cluster, 3, 'b');
  });

  it('begins none with another that no member can reach: one that hears of an unknown node tells all', async () => {
    const cluster = await grown(2, [3, 4, 5]);
    for (const id of [1, 2]) cluster.kill(id);
    for (const id of [3, 4, 5]) cluster.partition(2, id);
    for (const id of [1, 2]) await cluster.startEmpty(id);
    await cluster.run(10 * ELECTION_MS);
    for (const id of [1, 2])
      expect(cluster.replica(id).status()).toMatchObject({ lifecycle: 'uninitialized', term: 0 });
    expect(cluster.replica(2).status().healthProblem).toMatch(
      /node 1 knows of nodes 1, 2, 3, 4 and 5, this node of nodes 1 and 2/,
    );
  });

  it('refuses no repair because its file lists no other node', async () => {
    const cluster = await grown(1, [2, 3]);
    await cluster.stop(1);
    const { disk } = cluster.node(1);
    const segment = disk.paths().find((path) => path.startsWith('/data/node/wal/'));
    disk.flipBit(segment ?? '', 8 * 1000);
    await cluster.restart(1);
    expect(cluster.replica(1).status().lifecycle).toBe('recovering');
    await cluster.run(2 * ELECTION_MS);
    // Who the others are it has lost with its log.
    expect(cluster.replica(1).status().healthProblem).toMatch(
      /^nodes 2 and 3 of this cluster are not in the configuration/,
    );
    cluster.kill(1);
    cluster.list(1, [1, 2, 3]);
    await cluster.restart(1);
    await cluster.run(2 * ELECTION_MS);
    expect(withoutRights(cluster)).toEqual([]);
    expect(cluster.value(1, 'a')).toBe('v');
  });
});

describe('a member that was away while all whom it knew were replaced', () => {
  it('says who asks for it, and finds them once its file lists them', async () => {
    const cluster = await Cluster.start();
    await succeeds(cluster, 1, 'a');
    cluster.kill(3);
    for (const [id, replaces] of [
      [4, 1],
      [5, 2],
    ] as const) {
      cluster.list(id, [1, 2, 3, 4, 5]);
      await cluster.startEmpty(id);
      const change = { op: 'add', id, address: addressOf(id), joins: true, replaces } as const;
      const replaced = cluster.replica(cluster.leader()).changeMembers(change);
      await cluster.run(4 * ELECTION_MS);
      await replaced;
      cluster.kill(replaces);
    }
    await succeeds(cluster, 4, 'b');
    await cluster.restart(3);
    await cluster.run(ELECTION_MS);
    expect(cluster.replica(3).status().healthProblem).toBe('');
    await cluster.run(3 * ELECTION_MS);
    await cluster.run(ELECTION_MS);
    expect(cluster.replica(3).status()).toMatchObject({ leader: 0, voters: [1, 2, 3] });
    expect(cluster.replica(3).status().healthProblem).toMatch(
      /^nodes 4 and 5 of this cluster are not in the configuration file\. List all/,
    );
    cluster.kill(3);
    cluster.list(3, [3, 4, 5]);
    await cluster.restart(3);
    await cluster.run(5 * ELECTION_MS);
    expect(cluster.replica(3).status()).toMatchObject({ healthProblem: '', voters: [3, 4, 5] });
    expect(cluster.value(3, 'b')).toBe('v');
    cluster.kill(4);
    await cluster.run(2 * ELECTION_MS);
    await succeeds(cluster, 3, 'c');
  });
});

describe('the last voter of a cluster that has shrunk, with a file that lists more', () => {
  async function shrunk(): Promise<Cluster> {
    const cluster = await Cluster.start();
    await succeeds(cluster, 1, 'a');
    for (const id of [3, 2]) {
      const removed = cluster.replica(cluster.leader()).changeMembers({ op: 'remove', id });
      await cluster.run(2 * ELECTION_MS);
      await removed;
    }
    await cluster.stop(1);
    return cluster;
  }

  it('refuses to start on damage in its log, and changes nothing', async () => {
    const cluster = await shrunk();
    const { disk } = cluster.node(1);
    const paths = disk.paths();
    disk.flipBit(paths.find((each) => each.startsWith('/data/node/wal')) ?? '', 8 * 1000);
    await expect(cluster.restart(1)).rejects.toMatchObject({ code: 'WAL_DAMAGED' });
    expect(disk.paths()).toEqual(paths);
  });

  it('keeps all of its data aside on damage in meta, which said that it is the last, and begins no other cluster', async () => {
    const cluster = await shrunk();
    const { disk } = cluster.node(1);
    const content = new Map(disk.paths().map((path) => [path, disk.contentOf(path)]));
    disk.flipBit('/data/node/meta', 8 * 30);
    await cluster.restart(1);
    await cluster.run(20 * ELECTION_MS);
    expect(cluster.replica(1).status()).toMatchObject({ lifecycle: 'recovering', leader: 0 });
    const aside = disk.paths().filter((path) => path.includes('/damaged/'));
    for (const part of ['wal', 'snapshots']) {
      for (const [path, bytes] of content) {
        if (!path.startsWith(`/data/node/${part}/`)) continue;
        const moved = aside.find((each) => each.endsWith(path.slice('/data/node'.length)));
        expect(disk.contentOf(moved ?? '')).toEqual(bytes);
      }
    }
    expect(aside.length).toBeGreaterThanOrEqual(2);
  });
});

describe('initial members with different files', () => {
  it('bootstrap no cluster, name the difference, and go on when it is gone', async () => {
    const cluster = Cluster.empty();
    cluster.list(3, [1, 2, 3, 4]);
    for (const id of [1, 2, 3]) await cluster.startEmpty(id);
    await cluster.run(5 * ELECTION_MS);
    expect(cluster.leader()).toBe(0);
    expect(cluster.replica(1).status().healthProblem).toMatch(
      /^the configuration files differ: node 3 knows of nodes 1, 2, 3 and 4, this node of nodes 1, 2 and 3/,
    );
    cluster.kill(3);
    cluster.list(3, [1, 2, 3]);
    await cluster.restart(3);
    await cluster.run(2 * ELECTION_MS);
    expect(withoutRights(cluster)).toEqual([]);
    await succeeds(cluster, 3, 'a');
  });
});
