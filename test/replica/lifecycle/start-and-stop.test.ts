import { describe, expect, it } from 'vitest';
import { BATCH_HEADER_BYTES } from '../../../src/kv/batch.ts';
import { ENTRY_HEADER_BYTES, sealEntry } from '../../../src/raft/state/entry.ts';
import { encodeMessage } from '../../../src/replica/peers/wire.ts';
import { Cluster, ELECTION_MS, FRAME_KIND, TIMING } from '../cluster.ts';
import { batchOf, type Request } from '../support.ts';

describe('handing over', () => {
  it('moves leadership, and loses or doubles no write that comes meanwhile', async () => {
    const cluster = await Cluster.start();
    cluster.set(1, 'n', '0');
    await cluster.waitUntilIdle();
    const writes = [cluster.incr(1, 'n'), cluster.incr(2, 'n')];
    let over = false;
    void cluster
      .replica(1)
      .handOver()
      .then(() => {
        over = true;
      });
    writes.push(cluster.incr(1, 'n'), cluster.incr(3, 'n'));
    await cluster.run(50);
    expect(over).toBe(true);
    expect(cluster.leader()).not.toBe(1);
    const numbers = writes.flatMap(({ outcomes }) => outcomes);
    expect(numbers.sort()).toEqual(['1', '2', '3', '4']);
  });

  it('that comes to nothing holds writes for an election timeout at most', async () => {
    const cluster = await Cluster.start();
    cluster.network.admits = (_from, _to, bytes) => bytes[0] !== FRAME_KIND.timeoutNow;
    let over = false;
    void cluster
      .replica(1)
      .handOver()
      .then(() => {
        over = true;
      });
    const writes = [cluster.set(1, 'a', 'x'), cluster.set(2, 'b', 'y')];
    await cluster.run(TIMING.electionTimeoutMs - 50);
    expect([over, writes.flatMap(({ outcomes }) => outcomes)]).toEqual([false, []]);
    await cluster.run(100);
    expect(over).toBe(true);
    expect(cluster.leader()).toBe(1);
    expect(writes.flatMap(({ outcomes }) => outcomes)).toEqual(['stored', 'stored']);
  });

  it('is over at once where this node does not lead, or is alone', async () => {
    const cluster = await Cluster.start();
    await cluster.replica(2).handOver();
    const alone = await Cluster.start({ nodes: 1 });
    await alone.replica(1).handOver();
    expect([cluster.leader(), alone.leader()]).toEqual([1, 1]);
  });
});

describe('time', () => {
  it('passes for items when there are no writes: they are gone on every node, at the cost of one entry', async () => {
    const cluster = await Cluster.start();
    for (let i = 0; i < 5; i++) cluster.set(2, `k${i}`, 'v', 1);
    cluster.set(2, 'keep', 'v');
    await cluster.waitUntilIdle();
    const { lastLogIndex } = cluster.replica(1).status();
    await cluster.run(990);
    expect(cluster.ids.map((id) => cluster.replica(id).status().items)).toEqual([6, 6, 6]);
    expect(cluster.replica(1).status().lastLogIndex).toBe(lastLogIndex);
    await cluster.run(30);
    expect(cluster.ids.map((id) => cluster.replica(id).status().items)).toEqual([1, 1, 1]);
    await cluster.run(1000);
    expect(cluster.replica(1).status().lastLogIndex).toBe(lastLogIndex + 1);
  });

  it('that waits for a quorum fills no log', async () => {
    const cluster = await Cluster.start();
    cluster.set(1, 'a', 'v', 1);
    await cluster.waitUntilIdle();
    const { lastLogIndex } = cluster.replica(1).status();
    for (const id of [2, 3]) cluster.node(id).disk.stall();
    await cluster.run(3000);
    expect(cluster.leader()).toBe(1);
    expect(cluster.replica(1).status().lastLogIndex).toBe(lastLogIndex + 1);
    expect(cluster.value(1, 'a')).toBe('v');
    cluster.node(2).disk.resume();
    await cluster.run(100);
    expect(cluster.value(1, 'a')).toBeUndefined();
    cluster.node(3).disk.resume();
  });

  it('passes under a new leader too', async () => {
    const cluster = await Cluster.start();
    cluster.set(1, 'a', 'v', 1);
    await cluster.waitUntilIdle();
    cluster.isolate(1);
    await cluster.run(ELECTION_MS);
    expect(cluster.leader()).not.toBe(1);
    expect([cluster.value(1, 'a'), cluster.value(2, 'a'), cluster.value(3, 'a')]).toEqual(['v', undefined, undefined]);
  });

  it('does not go back where the next leader has a slower clock', async () => {
    const cluster = await Cluster.start();
    cluster.set(1, 'a', 'v');
    await cluster.waitUntilIdle();
    const before = cluster.replica(3).status().clusterTimeMs;
    cluster.clock.wallOffsetMs -= 60_000;
    cluster.set(1, 'b', 'v', 100);
    await cluster.waitUntilIdle();
    expect(cluster.replica(3).status().clusterTimeMs).toBe(before);
  });

  it('that a paused process missed is no proof that its leader is gone', async () => {
    const cluster = await Cluster.start();
    const { term } = cluster.replica(3).status();
    cluster.clock.moveTo(cluster.clock.nowMs + 60_000);
    await cluster.run(ELECTION_MS);
    expect(cluster.replica(3).status().term).toBe(term);
    expect(cluster.leader()).toBe(1);
  });
});

describe('a restart', () => {
  it('of all nodes at once brings back every write that was answered', async () => {
    const cluster = await Cluster.start();
    const writes: Request[] = [];
    for (let i = 0; i < 300; i++) {
      writes.push(cluster.set((i % 3) + 1, `k${i}`, `${i}`.repeat(200)));
      if (i % 2 === 0) await cluster.waitUntilIdle();
    }
    const answered = writes.flatMap(({ outcomes }, i) => (outcomes[0] === 'stored' ? [i] : []));
    expect(answered.length).toBeGreaterThan(290);
    for (const id of cluster.ids) cluster.kill(id);
    for (const id of cluster.ids) await cluster.restart(id);
    await cluster.run(ELECTION_MS);
    const reads = answered.map((i) => cluster.read((i % 3) + 1, `k${i}`));
    await cluster.waitUntilIdle();
    expect(reads.map(({ outcomes }) => outcomes[0])).toEqual(answered.map((i) => `${i}`.repeat(200)));
  });

  it('begins a new session: what the process before it left unsent is gone, and new writes count from one', async () => {
    const cluster = await Cluster.start();
    cluster.set(2, 'n', '0');
    await cluster.waitUntilIdle();
    cluster.isolate(2);
    const lost = cluster.incr(2, 'n');
    await cluster.waitUntilIdle();
    cluster.kill(2);
    cluster.rejoin(2);
    await cluster.restart(2);
    await cluster.run(200);
    const write = cluster.incr(2, 'n');
    await cluster.run(200);
    expect([lost.outcomes, write.outcomes]).toEqual([[], ['1']]);
  });

  it('catches up from the disks of the others, where their memory no longer has what is missing', async () => {
    const cluster = await Cluster.start({ cacheBytesMax: 8 * 1024 });
    cluster.kill(3);
    for (let i = 0; i < 200; i++) {
      cluster.set(1, `k${i}`, 'v'.repeat(500));
      await cluster.waitUntilIdle();
    }
    expect(cluster.replica(1).raft.core.log.firstCachedIndex).toBeGreaterThan(150);
    await cluster.restart(3);
    await cluster.run(1000);
    expect(cluster.replica(3).status().items).toBe(200);
    const write = cluster.set(3, 'after', 'x');
    await cluster.waitUntilIdle();
    expect(write.outcomes).toEqual(['stored']);
  });

  it('rebuilds a store that is larger than the memory kept for the log', async () => {
    const cluster = await Cluster.start({ nodes: 1, cacheBytesMax: 8 * 1024 });
    for (let i = 0; i < 200; i++) {
      cluster.set(1, `k${i}`, 'v'.repeat(500));
      await cluster.waitUntilIdle();
    }
    cluster.kill(1);
    await cluster.restart(1);
    await cluster.run(ELECTION_MS);
    expect(cluster.replica(1).status().items).toBe(200);
  });
});

describe('a replica', () => {
  it('starts again after it rejoined a cluster that had replaced its unfinished entries', async () => {
    const cluster = await Cluster.start();
    cluster.isolate(1);
    const lost = [cluster.set(1, 'a', 'old'), cluster.set(1, 'b', 'old')];
    await cluster.waitUntilIdle();
    await cluster.run(ELECTION_MS);
    expect(cluster.leader()).toBe(2);
    for (let i = 0; i < 5; i++) {
      cluster.set(2, `c${i}`, 'new');
      await cluster.waitUntilIdle();
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
    await cluster.waitUntilIdle();
    // Leader 1 gets both batches into the logs of itself and of node 2, and learns of no quorum.
    cluster.network.held.add('2>1').add('1>3');
    const first = [cluster.incr(3, 'n')];
    await cluster.waitUntilIdle();
    first.push(cluster.incr(3, 'n'));
    await cluster.waitUntilIdle();
    expect(first.map(({ outcomes }) => outcomes)).toEqual([[], []]);

    let proposals = 0;
    cluster.network.admits = (_, to, bytes) => to !== 2 || bytes[0] !== FRAME_KIND.proposal || ++proposals !== 2;
    cluster.network.held.clear();
    cluster.isolate(1);
    await cluster.run(ELECTION_MS);
    expect(cluster.leader()).toBe(2);
    expect(proposals).toBeGreaterThanOrEqual(2);

    const later = cluster.incr(3, 'n');
    await cluster.run(1000);
    expect([...first, later].map(({ outcomes }) => outcomes)).toEqual([['1'], ['2'], ['3']]);
  });

  it('ends on a committed entry that no replica can apply, rather than blaming the link that brought it', async () => {
    const cluster = await Cluster.start();
    const { replica, fatal } = cluster.node(3);
    const { lastLogIndex: prevIndex, term } = replica.status();
    const batch = batchOf('k', 'v');
    batch.writeUInt8(0xee, ENTRY_HEADER_BYTES + BATCH_HEADER_BYTES);
    const entry = sealEntry(batch, 'data', term, prevIndex + 1);
    const place = { prevIndex, prevTerm: term, commitIndex: prevIndex + 1, entries: [entry] };
    replica.onFrame(1, Buffer.concat(encodeMessage({ kind: 'append', from: 1, to: 3, term, ...place })));
    expect(fatal).toEqual([expect.objectContaining({ code: 'MESSAGE_INVALID' })]);
  });

  it("throws back at the link what is no message, and proposals that are not their sender's, and runs on", async () => {
    const cluster = await Cluster.start();
    const { replica, fatal } = cluster.node(1);
    const { term } = replica.status();
    const proposal = { kind: 'proposal', term, sessionId: 1, sequence: 1, oldestSequence: 1 } as const;
    const frames = [
      Buffer.from('garbage'),
      Buffer.concat(encodeMessage({ ...proposal, bytes: batchOf('k', 'v', { proposer: 2 }) })),
      Buffer.concat(encodeMessage({ ...proposal, bytes: batchOf('k', 'v', { proposer: 3, sequence: 2 }) })),
      Buffer.concat(encodeMessage({ ...proposal, bytes: batchOf('k', 'v', { proposer: 3 }).subarray(0, -1) })),
    ];
    for (const frame of frames) {
      expect(() => replica.onFrame(3, frame)).toThrow(expect.objectContaining({ code: 'MESSAGE_INVALID' }));
    }
    const write = cluster.set(1, 'a', 'x');
    await cluster.waitUntilIdle();
    expect(write.outcomes).toEqual(['stored']);
    expect(fatal).toEqual([]);
  });

  it('asks for the reads behind a round that was given up', async () => {
    const cluster = await Cluster.start();
    cluster.network.admits = (from, _, bytes) => from !== 3 || bytes[0] !== FRAME_KIND.readIndex;
    const first = cluster.read(3, 'a');
    await cluster.run(TIMING.requestTimeoutMs - 100);
    const second = cluster.read(3, 'a');
    await cluster.run(60);
    cluster.network.admits = () => true;
    await cluster.run(100);
    expect([first.outcomes, second.outcomes]).toEqual([['failed: timeout'], ['none']]);
  });

  it('sends on what a full link did not take as soon as it takes more', async () => {
    const cluster = await Cluster.start();
    cluster.network.admits = (from, _, bytes) => from !== 3 || bytes[0] !== FRAME_KIND.proposal;
    const write = cluster.set(3, 'a', 'x');
    await cluster.run(50);
    expect(write.outcomes).toEqual([]);
    cluster.network.admits = () => true;
    await cluster.run(10);
    expect(write.outcomes).toEqual(['stored']);
  });
});

describe('a replica that stops', () => {
  it('tells all that wait, and all that still ask, that it is stopping, each once', async () => {
    const cluster = await Cluster.start();
    cluster.isolate(2);
    await cluster.run(ELECTION_MS);
    const { replica } = cluster.node(2);
    const requests = [cluster.set(2, 'a', 'x'), cluster.read(2, 'a')];
    await cluster.waitUntilIdle();
    requests.push(cluster.set(2, 'b', 'y'), cluster.read(2, 'b'));
    replica.stop();
    requests.push(cluster.set(2, 'c', 'z'), cluster.read(2, 'c'));
    await cluster.run(ELECTION_MS);
    expect(requests.map(({ outcomes }) => outcomes)).toEqual(Array(6).fill(['failed: stopping']));
    replica.stop();
    expect(cluster.node(2).fatal).toEqual([]);
  });

  it('says so to those who wait even where the log takes nothing more', async () => {
    const cluster = await Cluster.start();
    const { replica, disk, fatal } = cluster.node(3);
    cluster.set(1, 'a', 'x');
    disk.fault = () => 'EIO';
    await cluster.waitUntilIdle();
    expect(fatal).toMatchObject([{ code: 'WAL_WRITE_FAILED' }]);
    const write = cluster.set(3, 'a', 'y');
    expect(() => replica.stop()).toThrow(expect.objectContaining({ code: 'WAL_WRITE_FAILED' }));
    expect(write.outcomes).toEqual(['failed: stopping']);
  });

  it('tells the next start how far it knew the log to be committed', async () => {
    const cluster = await Cluster.start();
    for (let i = 0; i < 3; i++) {
      cluster.set(1, `k${i}`, 'v');
      await cluster.waitUntilIdle();
    }
    const { commitIndex } = cluster.replica(2).status();
    cluster.isolate(2);
    await cluster.stop(2);
    await cluster.restart(2);
    const status = cluster.replica(2).status();
    expect([status.commitIndex, status.appliedIndex]).toEqual([commitIndex, commitIndex]);
    expect(cluster.value(2, 'k2')).toBe('v');
  });
});

describe('a replica whose log fails', () => {
  it('reports it once, and sends nothing after that', async () => {
    const cluster = await Cluster.start();
    const { replica, disk, fatal } = cluster.node(1);
    disk.failOnce('EIO', ({ kind }) => kind === 'write');
    const write = cluster.set(1, 'a', 'x');
    await cluster.waitUntilIdle();
    // The log has reported its failure itself; the replica meets it when it writes again.
    expect(fatal).toMatchObject([{ code: 'WAL_WRITE_FAILED' }]);
    fatal.length = 0;
    const later = [cluster.set(1, 'b', 'y'), cluster.read(1, 'a')];
    await cluster.run(2 * TIMING.requestTimeoutMs);
    expect(fatal).toMatchObject([{ code: 'WAL_WRITE_FAILED' }]);
    replica.onLinkUp(2, replica.status().clusterId);
    replica.stop();
    expect(fatal).toHaveLength(1);
    expect(later.map(({ outcomes }) => outcomes)).toEqual([[], []]);
    expect(write.outcomes.filter((outcome) => outcome !== 'stored')).toEqual([]);
  });
});
