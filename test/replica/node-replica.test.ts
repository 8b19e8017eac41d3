import { describe, expect, it } from 'vitest';
import { Cluster, ELECTION_MS } from './support.ts';

/** The first byte of a proposal's frame. */
const PROPOSAL_KIND = 13;

describe('a replica', () => {
  it('applies a write that came through the leader on every node', async () => {
    const cluster = await Cluster.start();
    const write = cluster.set(1, 'a', 'hello');
    expect(write.outcomes).toEqual([]);
    await cluster.settle();
    expect(write.outcomes).toEqual(['stored']);
    await cluster.settle();
    expect(cluster.ids.map((id) => cluster.value(id, 'a'))).toEqual(['hello', 'hello', 'hello']);
  });
  it('starts again after it rejoined a cluster that had replaced its unfinished entries', async () => {
    const cluster = await Cluster.start();
    cluster.isolate(1);
    const lost = [cluster.set(1, 'a', 'old'), cluster.set(1, 'b', 'old')];
    await cluster.settle();
    await cluster.run(ELECTION_MS);
    expect(cluster.leader()).toBe(2);
    for (let i = 0; i < 5; i++) {
      cluster.set(2, `c${i}`, 'new');
      await cluster.settle();
    }
    cluster.rejoin(1);
    await cluster.run(ELECTION_MS);
    expect(lost.map((write) => write.outcomes)).toEqual([['stored'], ['stored']]);
    cluster.kill(1);
    await cluster.restart(1);
    await cluster.run(ELECTION_MS);
    expect(cluster.ids.map((id) => cluster.value(id, 'a'))).toEqual(['old', 'old', 'old']);
  });

  it('goes on where a new leader lost the second of two batches that an earlier leader had put into the log', async () => {
    const cluster = await Cluster.start();
    cluster.set(3, 'n', '0');
    await cluster.settle();
    // Leader 1 gets both batches into the logs of itself and of node 2, and learns of no quorum.
    cluster.network.held.add('2>1').add('1>3');
    const first = [cluster.incr(3, 'n')];
    await cluster.settle();
    first.push(cluster.incr(3, 'n'));
    await cluster.settle();
    expect(first.map(({ outcomes }) => outcomes)).toEqual([[], []]);

    let proposals = 0;
    cluster.network.admits = (_, to, bytes) => to !== 2 || bytes[0] !== PROPOSAL_KIND || ++proposals !== 2;
    cluster.network.held.clear();
    cluster.isolate(1);
    await cluster.run(ELECTION_MS);
    expect(cluster.leader()).toBe(2);
    expect(proposals).toBeGreaterThanOrEqual(2);

    const later = cluster.incr(3, 'n');
    await cluster.run(1000);
    expect([...first, later].map(({ outcomes }) => outcomes)).toEqual([['1'], ['2'], ['3']]);
  });
});
