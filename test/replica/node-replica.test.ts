import { describe, expect, it } from 'vitest';
import { Cluster, ELECTION_MS } from './support.ts';

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
});
