import { describe, expect, it } from 'vitest';
import { BATCH_HEADER_BYTES } from '../../src/kv/batch.ts';
import { ENTRY_HEADER_BYTES, sealEntry } from '../../src/raft/entry.ts';
import { encodeMessage } from '../../src/replica/wire.ts';
import { batchOf, Cluster, ELECTION_MS, TIMING } from './support.ts';

/** The first bytes of frames. */
const KIND = { readIndex: 11, proposal: 13 };

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
    cluster.network.admits = (_, to, bytes) => to !== 2 || bytes[0] !== KIND.proposal || ++proposals !== 2;
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
    const proposal = { kind: 'proposal', term, session: 1, sequence: 1, oldestSequence: 1 } as const;
    const frames = [
      Buffer.from('garbage'),
      Buffer.concat(encodeMessage({ ...proposal, bytes: batchOf('k', 'v', { origin: 2 }) })),
      Buffer.concat(encodeMessage({ ...proposal, bytes: batchOf('k', 'v', { origin: 3, sequence: 2 }) })),
      Buffer.concat(encodeMessage({ ...proposal, bytes: batchOf('k', 'v', { origin: 3 }).subarray(0, -1) })),
    ];
    for (const frame of frames) {
      expect(() => replica.onFrame(3, frame)).toThrow(expect.objectContaining({ code: 'MESSAGE_INVALID' }));
    }
    const write = cluster.set(1, 'a', 'x');
    await cluster.settle();
    expect(write.outcomes).toEqual(['stored']);
    expect(fatal).toEqual([]);
  });

  it('asks for the reads behind a round that was given up', async () => {
    const cluster = await Cluster.start();
    cluster.network.admits = (from, _, bytes) => from !== 3 || bytes[0] !== KIND.readIndex;
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
    cluster.network.admits = (from, _, bytes) => from !== 3 || bytes[0] !== KIND.proposal;
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
    await cluster.settle();
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
    const { replica, wal } = cluster.node(3);
    const write = cluster.set(3, 'a', 'x');
    await wal.close();
    expect(() => replica.stop()).toThrow(expect.objectContaining({ code: 'WAL_CLOSED' }));
    expect(write.outcomes).toEqual(['failed: stopping']);
  });

  it('tells the next start how far it knew the log to be committed', async () => {
    const cluster = await Cluster.start();
    for (let i = 0; i < 3; i++) {
      cluster.set(1, `k${i}`, 'v');
      await cluster.settle();
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
  it('reports it once, and tells nobody anything after that', async () => {
    const cluster = await Cluster.start();
    const { replica, disk, fatal } = cluster.node(1);
    disk.failOnce('EIO', ({ kind }) => kind === 'write');
    const write = cluster.set(1, 'a', 'x');
    await cluster.settle();
    // The log has reported its failure itself; the replica meets it when it writes again.
    expect(fatal).toMatchObject([{ code: 'WAL_WRITE_FAILED' }]);
    fatal.length = 0;
    const later = [cluster.set(1, 'b', 'y'), cluster.read(1, 'a')];
    await cluster.run(2 * TIMING.requestTimeoutMs);
    expect(fatal).toMatchObject([{ code: 'WAL_WRITE_FAILED' }]);
    replica.onLinkUp(2);
    replica.stop();
    expect(fatal).toHaveLength(1);
    expect(later.map(({ outcomes }) => outcomes)).toEqual([[], []]);
    expect(write.outcomes.filter((outcome) => outcome !== 'stored')).toEqual([]);
  });
});
