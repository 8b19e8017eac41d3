import { describe, expect, it } from 'vitest';
import { Cluster, ELECTION_MS } from './cluster.ts';

/** Nodes with empty directories: which of them begin a cluster, and which find that there is one. */

const voteless = (cluster: Cluster) =>
  cluster.ids.filter((id) => cluster.node(id).alive && cluster.replica(id).status().standing !== 'member');

async function succeeds(cluster: Cluster, id: number, key: string): Promise<void> {
  const request = cluster.set(id, key, 'v');
  await cluster.run(ELECTION_MS);
  expect(request.outcomes).toEqual(['stored']);
}

describe('a new cluster', () => {
  it('waits until all its nodes have met, and names who is missing', async () => {
    const cluster = Cluster.empty();
    await cluster.startEmpty(1);
    await cluster.startEmpty(2);
    await cluster.run(10 * ELECTION_MS);
    expect(cluster.leader()).toBe(0);
    expect(cluster.replica(1).status()).toMatchObject({ standing: 'blank', term: 0 });
    expect(cluster.replica(1).status().trouble).toMatch(/missing: node 3$/);
    await cluster.startEmpty(3);
    await cluster.run(ELECTION_MS);
    expect(cluster.leader()).toBeGreaterThan(0);
    expect(voteless(cluster)).toEqual([]);
    expect(cluster.replica(1).status().trouble).toBe('');
  });

  it('is begun by a node alone where it is the only one', async () => {
    const cluster = await Cluster.start({ nodes: 1 });
    await succeeds(cluster, 1, 'a');
  });

  it('is begun although a node dies before it could remember that all had met', async () => {
    const cluster = Cluster.empty();
    for (const id of [1, 2, 3]) await cluster.startEmpty(id);
    cluster.node(3).disk.stall();
    await cluster.settle();
    cluster.kill(3);
    await cluster.run(ELECTION_MS);
    cluster.node(3).disk.resume();
    await cluster.restart(3);
    await cluster.run(2 * ELECTION_MS);
    expect(voteless(cluster)).toEqual([]);
    await succeeds(cluster, 3, 'a');
  });
});

describe('a node whose disk was wiped', () => {
  it('gets its vote back by itself, and everything else with it', async () => {
    const cluster = await Cluster.start();
    await succeeds(cluster, 2, 'a');
    cluster.kill(2);
    await cluster.startEmpty(2);
    expect(cluster.replica(2).status().standing).toBe('blank');
    await cluster.run(ELECTION_MS);
    expect(voteless(cluster)).toEqual([]);
    for (const id of cluster.ids) {
      expect(cluster.replica(id).status()).toMatchObject({ voters: expect.arrayContaining([1, 2, 3]), learners: [] });
    }
    expect(cluster.value(2, 'a')).toBe('v');
    await succeeds(cluster, 2, 'b');
    cluster.kill(1);
    await cluster.run(ELECTION_MS);
    await succeeds(cluster, 2, 'c');
  });

  it('counts each write once, in this life as in the one before', async () => {
    const cluster = await Cluster.start();
    cluster.set(2, 'n', '0');
    await cluster.run(100);
    for (let life = 1; life <= 3; life++) {
      const request = cluster.incr(2, 'n');
      await cluster.run(ELECTION_MS);
      expect(request.outcomes).toEqual([String(life)]);
      cluster.kill(2);
      await cluster.startEmpty(2);
      await cluster.run(ELECTION_MS);
    }
    expect(cluster.value(1, 'n')).toBe('3');
  });

  it('counts on from an earlier life whose starts it can not know of', async () => {
    const cluster = await Cluster.start();
    await succeeds(cluster, 2, 'a');
    cluster.kill(2);
    // Its clock went back, so it would begin to count below what it had reached.
    cluster.clock.wallOffsetMs -= 86_400_000;
    await cluster.startEmpty(2);
    await cluster.run(ELECTION_MS);
    const { fatal } = cluster.node(2);
    expect(fatal).toEqual([expect.objectContaining({ code: 'SESSION_BEHIND' })]);
    cluster.kill(2);
    await cluster.restart(2);
    await cluster.run(ELECTION_MS);
    await succeeds(cluster, 2, 'b');
    expect(voteless(cluster)).toEqual([]);
  });

  it('waits for the node that is away where the others are no majority without it', async () => {
    const cluster = await Cluster.start();
    await succeeds(cluster, 1, 'a');
    for (const id of [1, 2, 3]) cluster.kill(id);
    await cluster.startEmpty(2);
    await cluster.restart(3);
    await cluster.run(10 * ELECTION_MS);
    expect(cluster.leader()).toBe(0);
    expect(voteless(cluster)).toEqual([2]);
    await cluster.restart(1);
    await cluster.run(2 * ELECTION_MS);
    expect(voteless(cluster)).toEqual([]);
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
    expect(voteless(cluster)).toEqual([2, 3]);
    await cluster.restart(1);
    await cluster.run(5 * ELECTION_MS);
    expect(cluster.leader()).toBe(0);
    expect(cluster.replica(1).status().trouble).toMatch(/^nodes 2 and 3 lost data/);
    expect(cluster.replica(1).status().lastLogIndex).toBeGreaterThan(1);
  });
});
