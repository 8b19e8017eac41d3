import { describe, expect, it } from 'vitest';
import { checkCore } from '../../../src/raft/invariants.ts';
import { Cluster, ELECTION_MS, FRAME_KIND, TIMING } from '../cluster.ts';
import { LIMITS, type Request } from '../support.ts';

describe('writes', () => {
  it('are applied by every node, whichever they came through, and answered by that one', async () => {
    const cluster = await Cluster.start();
    const writes = cluster.ids.map((id) => cluster.set(id, `from${id}`, `${id}`));
    expect(writes.map(({ outcomes }) => outcomes)).toEqual([[], [], []]);
    await cluster.waitUntilIdle();
    expect(writes.map(({ outcomes }) => outcomes)).toEqual([['stored'], ['stored'], ['stored']]);
    for (const id of cluster.ids) {
      expect(cluster.ids.map((from) => cluster.value(id, `from${from}`))).toEqual(['1', '2', '3']);
      checkCore(cluster.replica(id).raft.core);
      expect(cluster.replica(id).raft.core.log.appliedIndex).toBe(cluster.replica(id).status().appliedIndex);
    }
  });

  it('of one turn share one log entry, and take effect in the order they came', async () => {
    const cluster = await Cluster.start();
    const { lastLogIndex } = cluster.replica(2).status();
    const writes = [
      cluster.set(2, 'a', 'x'),
      cluster.append(2, 'a', 'y'),
      cluster.append(2, 'a', 'z'),
      cluster.incr(2, 'a'),
    ];
    await cluster.waitUntilIdle();
    expect(writes.flatMap(({ outcomes }) => outcomes)).toEqual(['stored', 'stored', 'stored', 'nonNumeric']);
    expect(cluster.value(1, 'a')).toBe('xyz');
    expect(cluster.replica(2).status().lastLogIndex).toBe(lastLogIndex + 1);
  });

  it('are split into several entries where a turn brings more than one may hold', async () => {
    const cluster = await Cluster.start();
    const { lastLogIndex } = cluster.replica(1).status();
    const writes = Array.from({ length: 10 }, (_, i) => cluster.set(1, `k${i}`, 'v'.repeat(LIMITS.batchBytesMax / 2)));
    await cluster.waitUntilIdle();
    expect(writes.flatMap(({ outcomes }) => outcomes)).toEqual(Array(10).fill('stored'));
    expect(cluster.replica(1).status().lastLogIndex).toBe(lastLogIndex + 5);
  });

  it('are answered only when a majority has them on disk', async () => {
    const cluster = await Cluster.start();
    for (const id of [2, 3]) cluster.node(id).disk.stall();
    const write = cluster.set(1, 'a', 'x');
    await cluster.run(100);
    expect(write.outcomes).toEqual([]);
    cluster.node(3).disk.resume();
    await cluster.waitUntilIdle();
    expect(write.outcomes).toEqual(['stored']);
    cluster.node(2).disk.resume();
  });

  it('of a lone node are answered only when its own disk has them', async () => {
    const cluster = await Cluster.start({ nodes: 1 });
    cluster.node(1).disk.stall();
    const write = cluster.set(1, 'a', 'x');
    await cluster.run(100);
    expect(write.outcomes).toEqual([]);
    cluster.node(1).disk.resume();
    await cluster.waitUntilIdle();
    expect(write.outcomes).toEqual(['stored']);
  });

  it('go round a leader whose disk hangs: it keeps committing through the others, and steps aside', async () => {
    const cluster = await Cluster.start();
    cluster.node(1).disk.stall();
    const first = cluster.set(3, 'a', 'x');
    await cluster.waitUntilIdle();
    expect(first.outcomes).toEqual(['stored']);
    await cluster.run(ELECTION_MS);
    expect(cluster.leader()).not.toBe(1);
    const second = cluster.set(3, 'a', 'y');
    await cluster.waitUntilIdle();
    expect(second.outcomes).toEqual(['stored']);
    cluster.node(1).disk.resume();
    await cluster.run(100);
    expect(cluster.value(1, 'a')).toBe('y');
  });

  it('in flight when their leader is partitioned are applied exactly once by the next, in order', async () => {
    const cluster = await Cluster.start();
    for (const id of cluster.ids) cluster.set(id, `n${id}`, '0');
    await cluster.waitUntilIdle();
    // The leader takes and spreads some; of others it never hears; of none does it learn that a quorum has them.
    cluster.network.held.add('2>1').add('1>3');
    const writes = new Map(cluster.ids.map((id) => [id, [cluster.incr(id, `n${id}`)]]));
    await cluster.waitUntilIdle();
    cluster.network.held.add('3>1');
    for (const [id, sent] of writes) sent.push(cluster.incr(id, `n${id}`), cluster.incr(id, `n${id}`));
    await cluster.waitUntilIdle();
    cluster.network.held.clear();
    cluster.isolate(1);
    for (const [id, sent] of writes) sent.push(cluster.incr(id, `n${id}`));
    await cluster.run(ELECTION_MS);
    const outcomes = (id: number) => writes.get(id)?.map((write) => write.outcomes);
    expect(cluster.leader()).toBe(2);
    expect([outcomes(2), outcomes(3)]).toEqual(Array(2).fill([['1'], ['2'], ['3'], ['4']]));

    cluster.rejoin(1);
    await cluster.run(ELECTION_MS);
    expect(outcomes(1)).toEqual([['1'], ['2'], ['3'], ['4']]);
    for (const id of cluster.ids) expect(cluster.ids.map((of) => cluster.value(id, `n${of}`))).toEqual(['4', '4', '4']);
  });

  it('count once under any number of changes of leader', async () => {
    const cluster = await Cluster.start();
    cluster.set(3, 'n', '0');
    await cluster.waitUntilIdle();
    const writes: Request[] = [];
    for (let round = 0; round < 6; round++) {
      const leader = cluster.leader();
      for (const id of cluster.ids) writes.push(cluster.incr(id, 'n'));
      await cluster.waitUntilIdle();
      for (const id of cluster.ids) writes.push(cluster.incr(id, 'n'));
      cluster.isolate(leader);
      await cluster.run(700);
      cluster.rejoin(leader);
      await cluster.run(200);
    }
    await cluster.run(ELECTION_MS);
    const numbers = writes.map(({ outcomes: [only, ...more] }) => (more.length === 0 ? Number(only) : Number.NaN));
    expect(numbers.sort((a, b) => a - b)).toEqual(writes.map((_, i) => i + 1));
    for (const id of cluster.ids) expect(cluster.value(id, 'n')).toBe(`${writes.length}`);
  });

  it('wait out a time without a quorum, and are answered when it is back', async () => {
    const cluster = await Cluster.start();
    cluster.kill(2);
    cluster.kill(3);
    const write = cluster.set(1, 'a', 'x');
    await cluster.run(TIMING.requestTimeoutMs - 500);
    expect(write.outcomes).toEqual([]);
    await cluster.restart(2);
    await cluster.run(400);
    expect(write.outcomes).toEqual(['stored']);
  });

  it('that took too long are failed once, and applied once all the same when a quorum is back', async () => {
    const cluster = await Cluster.start();
    cluster.set(1, 'n', '0');
    await cluster.waitUntilIdle();
    cluster.isolate(1);
    const late = cluster.incr(1, 'n');
    await cluster.run(TIMING.requestTimeoutMs - 10);
    expect(late.outcomes).toEqual([]);
    await cluster.run(20);
    expect(late.outcomes).toEqual(['failed: timeout']);
    expect(cluster.replica(1).status().pendingWrites).toBe(0);
    const young = cluster.incr(1, 'n');
    cluster.rejoin(1);
    await cluster.run(ELECTION_MS);
    expect(late.outcomes).toEqual(['failed: timeout']);
    expect(young.outcomes).toEqual(['2']);
    expect(cluster.value(3, 'n')).toBe('2');
  });

  it('are pushed back while too much waits, and taken again when it has been applied', async () => {
    const cluster = await Cluster.start({ limits: { pendingWriteBytesMax: 10_000 } });
    const { replica } = cluster.node(3);
    cluster.isolate(3);
    const writes: Request[] = [];
    while (replica.accepting()) {
      writes.push(cluster.set(3, `k${writes.length}`, 'v'.repeat(1000)));
      if (writes.length % 3 === 0) await cluster.waitUntilIdle();
    }
    expect(writes.length).toBeGreaterThan(5);
    expect(writes.length).toBeLessThanOrEqual(10);
    let calls = 0;
    replica.onceAccepting(() => calls++);
    // What is applied of others makes no room.
    cluster.network.admits = (_from, _to, bytes) => bytes[0] !== FRAME_KIND.proposal;
    cluster.rejoin(3);
    await cluster.run(200);
    cluster.set(1, 'theirs', 'v');
    await cluster.run(100);
    expect(cluster.value(3, 'theirs')).toBe('v');
    expect([calls, replica.accepting()]).toEqual([0, false]);
    cluster.network.admits = () => true;
    await cluster.run(ELECTION_MS);
    expect([calls, replica.accepting()]).toEqual([1, true]);
    expect(writes.flatMap(({ outcomes }) => outcomes)).toEqual(writes.map(() => 'stored'));
    cluster.set(3, 'k', 'v');
    await cluster.waitUntilIdle();
    expect(calls).toBe(1);
  });
});

describe('reads', () => {
  it('see every write answered before they came, through any node', async () => {
    const cluster = await Cluster.start();
    for (const writer of cluster.ids) {
      const write = cluster.set(writer, 'a', `by ${writer}`);
      while (write.outcomes.length === 0) await cluster.waitUntilIdle();
      const reads = cluster.ids.map((id) => cluster.read(id, 'a'));
      expect(reads.map(({ outcomes }) => outcomes)).toEqual([[], [], []]);
      await cluster.waitUntilIdle();
      expect(reads.flatMap(({ outcomes }) => outcomes)).toEqual(Array(3).fill(`by ${writer}`));
    }
  });

  it('wait on a node that lags until it has applied what was answered elsewhere', async () => {
    const cluster = await Cluster.start();
    const news: number[] = [FRAME_KIND.append, FRAME_KIND.commit];
    cluster.network.admits = (_, to, bytes) => to !== 3 || !news.includes(bytes[0] ?? 0);
    const write = cluster.set(1, 'a', 'new');
    await cluster.waitUntilIdle();
    expect(write.outcomes).toEqual(['stored']);
    const read = cluster.read(3, 'a');
    await cluster.run(30);
    expect([read.outcomes, cluster.value(3, 'a')]).toEqual([[], undefined]);
    cluster.network.admits = () => true;
    await cluster.run(200);
    expect(read.outcomes).toEqual(['new']);
  });

  it('are not served by a leader that others have replaced without its knowing', async () => {
    const cluster = await Cluster.start();
    cluster.set(1, 'a', 'old');
    await cluster.waitUntilIdle();
    // Nothing gets through, and no link breaks.
    for (const direction of ['1>2', '1>3', '2>1', '3>1']) cluster.network.held.add(direction);
    await cluster.run(TIMING.electionTimeoutMs);
    expect(cluster.replica(1).status().role).toBe('leader');
    const read = cluster.read(1, 'a');
    await cluster.run(ELECTION_MS - TIMING.electionTimeoutMs);
    cluster.set(2, 'a', 'new');
    await cluster.run(100);
    expect(cluster.value(2, 'a')).toBe('new');
    expect([cluster.value(1, 'a'), read.outcomes]).toEqual(['old', []]);
    cluster.network.held.clear();
    await cluster.run(300);
    expect(read.outcomes).toEqual(['new']);
  });

  it('that come while others are being confirmed are asked for as soon as those are', async () => {
    const cluster = await Cluster.start();
    cluster.network.held.add('1>3');
    const reads = [cluster.read(3, 'a')];
    await cluster.waitUntilIdle();
    reads.push(cluster.read(3, 'a'));
    await cluster.waitUntilIdle();
    cluster.network.held.clear();
    await cluster.waitUntilIdle();
    expect(reads.map(({ outcomes }) => outcomes)).toEqual([['none'], ['none']]);
  });

  it('and writes go on within a hundred milliseconds of the death of the leader', async () => {
    const cluster = await Cluster.start();
    cluster.set(3, 'n', '0');
    await cluster.waitUntilIdle();
    cluster.network.held.add('1>2').add('1>3');
    const requests = [cluster.incr(3, 'n'), cluster.read(3, 'x'), cluster.incr(2, 'n'), cluster.read(2, 'x')];
    await cluster.waitUntilIdle();
    cluster.network.held.clear();
    cluster.kill(1);
    await cluster.run(100);
    const outcomes = requests.map((request) => request.outcomes.length);
    expect(outcomes).toEqual([1, 1, 1, 1]);
  });

  it('are asked again of the next leader', async () => {
    const cluster = await Cluster.start();
    cluster.set(1, 'a', 'x');
    await cluster.waitUntilIdle();
    cluster.network.held.add('1>3').add('2>1');
    const reads = [cluster.read(1, 'a'), cluster.read(3, 'a')];
    await cluster.waitUntilIdle();
    cluster.network.held.clear();
    cluster.isolate(1);
    reads.push(cluster.read(3, 'a'));
    await cluster.run(ELECTION_MS);
    expect(reads.map(({ outcomes }) => outcomes)).toEqual([[], ['x'], ['x']]);
    cluster.rejoin(1);
    await cluster.run(400);
    expect(reads[0]?.outcomes).toEqual(['x']);
  });

  it('fail when no quorum was there for too long', async () => {
    const cluster = await Cluster.start();
    cluster.isolate(3);
    await cluster.run(ELECTION_MS);
    const early = cluster.read(3, 'a');
    await cluster.run(TIMING.requestTimeoutMs - 50);
    const late = cluster.read(3, 'a');
    await cluster.run(100);
    expect([early.outcomes, late.outcomes]).toEqual([['failed: timeout'], []]);
    expect(cluster.replica(3).status().pendingReads).toBe(1);
    cluster.rejoin(3);
    await cluster.run(ELECTION_MS);
    expect([early.outcomes, late.outcomes]).toEqual([['failed: timeout'], ['none']]);
  });

  it('of a five-node cluster wait for a quorum, not for one answer', async () => {
    const cluster = await Cluster.start({ nodes: 5 });
    cluster.set(1, 'a', 'x');
    await cluster.waitUntilIdle();
    for (const id of [3, 4, 5]) cluster.network.held.add(`${id}>1`);
    const read = cluster.read(2, 'a');
    await cluster.run(20);
    expect(read.outcomes).toEqual([]);
    cluster.network.held.delete('5>1');
    await cluster.waitUntilIdle();
    expect(read.outcomes).toEqual(['x']);
  });
});

describe('the core', () => {
  it('is given no input while effects of another are carried out', async () => {
    const cluster = await Cluster.start();
    const replica = cluster.replica(1);
    const { raft, stateMachine } = replica;
    const events: string[] = [];
    const apply = stateMachine.apply.bind(stateMachine);
    stateMachine.apply = (...args) => {
      events.push('applying');
      replica.diskFull(false);
      const outcome = apply(...args);
      events.push('applied');
      return outcome;
    };
    const step = raft.step.bind(raft);
    raft.step = (input) => {
      if (input.kind === 'diskFull') events.push('disk has room');
      return step(input);
    };
    const write = cluster.set(1, 'a', 'x');
    await cluster.waitUntilIdle();
    expect(write.outcomes).toEqual(['stored']);
    expect(events).toEqual(['applying', 'applied', 'disk has room']);
  });
});
