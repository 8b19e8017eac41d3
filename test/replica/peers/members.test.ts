import { describe, expect, it } from 'vitest';
import type { MemberChange } from '../../../src/raft/state/types.ts';
import { addressOf, Cluster, ELECTION_MS, TIMING } from '../cluster.ts';

/** Members that come, go and take each other's place while the cluster works. */

const add = (id: number, { joins = true, replaces = 0 } = {}): MemberChange => ({
  op: 'add',
  id,
  address: addressOf(id),
  joins,
  replaces,
});
const remove = (id: number): MemberChange => ({ op: 'remove', id });

const voters = (cluster: Cluster, id = cluster.leader()) => [...cluster.replica(id).status().voters].sort();
const fatal = (cluster: Cluster) => cluster.ids.flatMap((id) => cluster.node(id).fatal);

/** What becomes of a request within `withinMs`: `done`, the error, or `open`. */
async function outcomeOf(cluster: Cluster, asked: Promise<unknown>, withinMs = 500): Promise<unknown> {
  let outcome: unknown = 'open';
  asked.then(
    () => {
      outcome = 'done';
    },
    (error) => {
      outcome = error;
    },
  );
  await cluster.run(withinMs);
  return outcome;
}

/** Asked of the leader. */
const change = (cluster: Cluster, wanted: MemberChange, withinMs?: number) =>
  outcomeOf(cluster, cluster.replica(cluster.leader()).changeMembers(wanted), withinMs);
const refusedFor = (reason: string) => ({
  code: 'MEMBER_CHANGE_REFUSED',
  message: expect.stringContaining(`(${reason})`),
  remedy: expect.stringMatching(/\w/),
});

async function succeeds(cluster: Cluster, id: number, key: string): Promise<void> {
  const request = cluster.set(id, key, 'v');
  await cluster.run(ELECTION_MS);
  expect(request.outcomes).toEqual(['stored']);
}

describe('a newcomer', () => {
  it('joins by a snapshot, is promoted, and leads alone once all others are removed, who are told', async () => {
    const cluster = await Cluster.start({
      snapshotLimits: { snapshotLogBytes: 2000, logTailBytes: 0, snapshotChunkBytes: 512 },
    });
    for (let i = 0; i < 40; i++) {
      cluster.set(1, `k${i}`, 'v'.repeat(100));
      await cluster.waitUntilIdle();
    }
    await cluster.startEmpty(4);
    await cluster.run(ELECTION_MS);
    expect(cluster.replica(4).status()).toMatchObject({ lifecycle: 'uninitialized', voters: [] });
    expect(await change(cluster, add(4))).toBe('done');
    await cluster.run(ELECTION_MS);
    expect(voters(cluster)).toEqual([1, 2, 3, 4]);
    expect(cluster.replica(4).status()).toMatchObject({ lifecycle: 'normal', learners: [] });
    expect(cluster.replica(4).status().snapshotIndex).toBeGreaterThan(0);
    expect(cluster.replica(4).stateMachine.hash()).toBe(cluster.replica(1).stateMachine.hash());
    for (const leaving of [3, 1, 2]) {
      expect(await change(cluster, remove(leaving), 2 * ELECTION_MS)).toBe('done');
      await cluster.run(ELECTION_MS);
      expect([leaving, cluster.node(leaving).removed]).toEqual([leaving, true]);
      cluster.kill(leaving);
      await cluster.run(ELECTION_MS);
      expect(voters(cluster)).not.toContain(leaving);
    }
    expect(cluster.leader()).toBe(4);
    expect(cluster.node(4).removed).toBe(false);
    await succeeds(cluster, 4, 'a');
    cluster.kill(4);
    await cluster.restart(4);
    await cluster.run(ELECTION_MS);
    await succeeds(cluster, 4, 'b');
    expect(fatal(cluster)).toEqual([]);
  });

  it('takes the place of a member, who is told', async () => {
    const cluster = await Cluster.start();
    await cluster.startEmpty(4);
    await cluster.run(ELECTION_MS);
    expect(await change(cluster, add(4, { replaces: 2 }))).toBe('done');
    await cluster.run(2 * ELECTION_MS);
    expect(voters(cluster)).toEqual([1, 3, 4]);
    expect(cluster.node(2).removed).toBe(true);
    cluster.kill(2);
    cluster.kill(1);
    await cluster.run(2 * ELECTION_MS);
    expect([3, 4]).toContain(cluster.leader());
    await succeeds(cluster, 4, 'a');
    expect(fatal(cluster)).toEqual([]);
  });

  it('takes the place of a member that is dead, who is told when it comes back', async () => {
    const cluster = await Cluster.start();
    cluster.kill(3);
    await cluster.startEmpty(4);
    await cluster.run(ELECTION_MS);
    expect(await change(cluster, add(4, { replaces: 3 }))).toBe('done');
    await cluster.run(4 * ELECTION_MS);
    expect(voters(cluster)).toEqual([1, 2, 4]);
    await cluster.restart(3);
    await cluster.run(2 * ELECTION_MS);
    expect(cluster.node(3).removed).toBe(true);
    expect(cluster.leader()).toBe(1);
  });

  it('that does not join stays a learner until it is promoted, and writes all the same', async () => {
    const cluster = await Cluster.start();
    await cluster.startEmpty(4);
    expect(await change(cluster, add(4, { joins: false }))).toBe('done');
    await cluster.run(2 * ELECTION_MS);
    expect(cluster.replica(1).status()).toMatchObject({ voters: [1, 2, 3], learners: [4] });
    await succeeds(cluster, 4, 'a');
    expect(await change(cluster, { op: 'promote', id: 4 })).toBe('done');
    await cluster.run(ELECTION_MS);
    expect(voters(cluster)).toEqual([1, 2, 3, 4]);
  });

  it('under an id that was removed is added as another directory', async () => {
    const cluster = await Cluster.start();
    expect(await change(cluster, remove(3))).toBe('done');
    await cluster.run(ELECTION_MS);
    cluster.kill(3);
    await cluster.startEmpty(3);
    await cluster.run(2 * ELECTION_MS);
    expect(cluster.node(3).removed).toBe(false);
    expect(await change(cluster, add(3))).toBe('done');
    await cluster.run(2 * ELECTION_MS);
    expect(voters(cluster)).toEqual([1, 2, 3]);
    await succeeds(cluster, 3, 'a');
  });
});

describe('a member that is removed', () => {
  it('learns of it when a majority of the members refuse its links', async () => {
    const cluster = await Cluster.start();
    expect(await change(cluster, remove(3))).toBe('done');
    await cluster.run(ELECTION_MS);
    expect(cluster.node(3).removed).toBe(true);
    expect(cluster.network.isUp(1, 3)).toBe(false);
    expect(voters(cluster)).toEqual([1, 2]);
  });
});

describe('the leader', () => {
  it('that is removed hands over first, so that no write fails, and is told', async () => {
    const cluster = await Cluster.start();
    const removal = change(cluster, remove(1), 2 * ELECTION_MS);
    const writes = [cluster.set(1, 'a', 'v'), cluster.set(2, 'b', 'v'), cluster.set(3, 'c', 'v')];
    await removal;
    await cluster.run(ELECTION_MS);
    expect(cluster.node(1).removed).toBe(true);
    expect(cluster.leader()).not.toBe(1);
    expect(writes.map(({ outcomes }) => outcomes)).toEqual([['stored'], ['stored'], ['stored']]);
    expect(voters(cluster)).toEqual([2, 3]);
    expect(fatal(cluster)).toEqual([]);
  });
});

describe('a question about members', () => {
  it('is answered by the leader alone; every other node names it and its address', async () => {
    const cluster = await Cluster.start();
    cluster.isolate(3);
    await cluster.waitUntilIdle();
    expect(cluster.replica(1).members()).toMatchObject({
      leader: 1,
      changing: false,
      members: [
        { id: 1, role: 'voter', state: 'leader', hasRights: true, address: addressOf(1) },
        { id: 2, role: 'voter', state: 'replicate', hasRights: true },
        { id: 3, role: 'voter', state: 'unreachable' },
      ],
    });
    const elsewhere = expect.objectContaining({ code: 'NOT_LEADER', leader: { id: 1, address: addressOf(1) } });
    expect(() => cluster.replica(2).members()).toThrow(elsewhere);
    expect(await outcomeOf(cluster, cluster.replica(2).changeMembers(remove(3)), 0)).toEqual(elsewhere);
    expect(voters(cluster)).toEqual([1, 2, 3]);
  });

  it('is refused with a reason, and what to do', async () => {
    const cluster = await Cluster.start();
    expect(await change(cluster, remove(9))).toMatchObject(refusedFor('MEMBER_UNKNOWN'));
    expect(await change(cluster, add(2))).toMatchObject(refusedFor('MEMBER_EXISTS'));
    cluster.isolate(3);
    expect(await change(cluster, remove(2))).toMatchObject(refusedFor('WOULD_LOSE_QUORUM'));
    expect(voters(cluster)).toEqual([1, 2, 3]);
  });

  it('is refused while no leader is known', async () => {
    const cluster = await Cluster.start();
    cluster.isolate(2);
    await cluster.run(ELECTION_MS);
    const leaderless = expect.objectContaining({ code: 'NOT_LEADER', leader: null });
    expect(() => cluster.replica(2).members()).toThrow(leaderless);
    expect(await outcomeOf(cluster, cluster.replica(2).changeMembers(remove(3)), 0)).toEqual(leaderless);
  });

  it('is given up in time if the change does not get through', async () => {
    const cluster = await Cluster.start();
    await cluster.startEmpty(4);
    await cluster.run(ELECTION_MS);
    for (const id of [2, 3]) cluster.node(id).disk.stall();
    const asked = cluster.replica(1).changeMembers(add(4, { joins: false }));
    expect(await outcomeOf(cluster, asked, TIMING.requestTimeoutMs - 10)).toBe('open');
    expect(await outcomeOf(cluster, asked, 20)).toMatchObject(refusedFor('TIMEOUT'));
    expect(cluster.leader()).toBe(1);
    for (const id of [2, 3]) cluster.node(id).disk.resume();
    await cluster.run(ELECTION_MS);
    expect(cluster.replica(1).status().learners).toEqual([4]);
  });

  it('has an unknown outcome where leadership moves in between', async () => {
    const cluster = await Cluster.start();
    await cluster.startEmpty(4);
    await cluster.run(ELECTION_MS);
    // Its appends are lost, its word that it leads is not wanted any more.
    for (const to of [2, 3]) cluster.network.held.add(`1>${to}`);
    const asked = cluster.replica(1).changeMembers(add(4, { joins: false }));
    await cluster.waitUntilIdle();
    cluster.isolate(1);
    cluster.network.held.clear();
    expect(await outcomeOf(cluster, asked, ELECTION_MS)).toMatchObject(refusedFor('NOT_LEADER'));
    cluster.rejoin(1);
    await cluster.run(ELECTION_MS);
    expect(cluster.replica(1).status().learners).toEqual([]);
    expect(cluster.leader()).not.toBe(1);
  });

  it('is answered by a node that stops', async () => {
    const cluster = await Cluster.start();
    for (const id of [2, 3]) cluster.node(id).disk.stall();
    const asked = cluster.replica(1).changeMembers(add(4, { joins: false }));
    await cluster.waitUntilIdle();
    await cluster.stop(1);
    expect(await outcomeOf(cluster, asked, 0)).toMatchObject(refusedFor('STOPPING'));
    for (const id of [2, 3]) cluster.node(id).disk.resume();
  });
});
