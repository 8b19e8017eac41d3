import { describe, expect, it, onTestFinished } from 'vitest';
import { type Cluster, until } from '../support/cluster.ts';
import { startKeyedLoad, startLoad } from '../support/load.ts';
import { connect, type MemcachedClient } from '../support/memcached-client.ts';
import { differencesAt, itemsHeldBy } from '../support/stored-data.ts';

/**
 * Processes die and stop; nothing acknowledged is lost, nothing is applied twice, nothing stale is read. The short and
 * the long tests differ in how often each thing happens. The cluster must be partitionable.
 */

const NODES = [1, 2, 3];
const CLIENTS = 12;

export interface CrashRounds {
  /** Leaders killed under load. */
  readonly leaders: number;
  /** Leaders that are told to stop under load. */
  readonly stops: number;
  /** Times that all nodes are killed at once under load. */
  readonly blackouts: number;
  readonly pauses: number;
  readonly isolations: number;
  /** Leaders killed while increments go through followers. */
  readonly increments: number;
  /** Between two requests of a client. */
  readonly pauseMs: number;
}

/** Kills the nodes, asks a survivor to write and read, and starts one of them again. */
export async function killAndBringBack(on: Cluster, ids: readonly number[]): Promise<void> {
  const survivor = on.running().find((id) => !ids.includes(id)) ?? 0;
  const before = await on.connect(survivor);
  expect(await before.set('waits', 'before')).toBe('STORED');
  await Promise.all(ids.map((id) => on.kill(id)));
  const writer = await on.connect(survivor);
  const reader = await on.connect(survivor);
  const answers: string[] = [];
  const write = writer.set('waits', 'after').then((reply) => answers.push(reply));
  const read = reader.get('waits').then((value) => answers.push(`read ${value}`));
  await until('the survivor to have no leader', async () => (await on.status(survivor))?.leader === 0 || undefined);
  expect(answers).toEqual([]);
  await on.start(ids[0] ?? 0);
  await Promise.all([write, read]);
  expect(answers).toContain('STORED');
  expect(['read before', 'read after'].filter((answer) => answers.includes(answer))).toHaveLength(1);
  expect(await reader.get('waits')).toBe('after');
}

export function itSurvivesCrashes(cluster: () => Cluster, rounds: CrashRounds): void {
  const restart = async (...ids: number[]) => {
    await Promise.all(ids.map((id) => cluster().start(id)));
    await Promise.all(ids.map((id) => cluster().serving(id)));
  };

  describe('a killed follower', () => {
    it('catches up when it comes back, with what was deleted meanwhile', async () => {
      const leader = await cluster().leader();
      const [follower = 0] = NODES.filter((id) => id !== leader);
      const client = await cluster().connect(leader);
      const keys = Array.from({ length: 200 }, (_, i) => `catch${i}`);
      await Promise.all(keys.map((key) => client.set(key, 'old')));
      await cluster().kill(follower);
      await Promise.all(keys.slice(0, 100).map((key) => client.request(`delete ${key}\r\n`)));
      await Promise.all(keys.slice(100).map((key) => client.set(key, 'new')));
      await Promise.all(keys.map((key) => client.set(`${key}.late`, 'late')));
      await restart(follower);
      await cluster().caughtUp();
      const held = await itemsHeldBy(cluster(), follower);
      expect(held).toEqual(await itemsHeldBy(cluster(), leader));
      expect(held.filter((line) => line.startsWith('catch'))).toHaveLength(300);
      const reader = await cluster().connect(follower);
      expect(await reader.get('catch0')).toBeNull();
      expect(await reader.get('catch199')).toBe('new');
      expect(await reader.get('catch0.late')).toBe('late');
    });
  });

  describe(`leaders killed ${rounds.leaders} times in a row under load`, () => {
    it('cost no acknowledged write, and the replicas stay alike', async () => {
      const { load, stored } = startKeyedLoad(cluster(), 'rolling', { clients: CLIENTS, pauseMs: rounds.pauseMs });
      onTestFinished(() => load.stop());
      await load.progress(200);
      for (let round = 0; round < rounds.leaders; round++) {
        const leader = await cluster().leader();
        await cluster().kill(leader);
        await load.progress(200);
        await restart(leader);
        await load.progress(200);
      }
      await load.stop();
      expect(load.errors).toEqual([]);
      expect(stored.size).toBe(load.acknowledged.length);
      for (const id of NODES) expect(await differencesAt(cluster(), id, stored)).toEqual([]);
      await cluster().caughtUp();
      expect(await itemsHeldBy(cluster(), 2)).toEqual(await itemsHeldBy(cluster(), 1));
      expect(await itemsHeldBy(cluster(), 3)).toEqual(await itemsHeldBy(cluster(), 1));
    });
  });

  describe(`leaders told to stop ${rounds.stops} times under load`, () => {
    it('fail no request, and exit with 0', async () => {
      const { load, stored } = startKeyedLoad(cluster(), 'stopping', { clients: CLIENTS, pauseMs: rounds.pauseMs });
      onTestFinished(() => load.stop());
      for (let round = 0; round < rounds.stops; round++) {
        await load.progress(200);
        const leader = await cluster().leader();
        expect(await cluster().kill(leader, 'SIGTERM')).toBe(0);
        await cluster().leader(leader);
        await load.progress(200);
        await restart(leader);
      }
      await load.stop();
      expect(load.errors).toEqual([]);
      for (const id of NODES) expect(await differencesAt(cluster(), id, stored)).toEqual([]);
    });
  });

  describe('without a quorum', () => {
    it('no write is acknowledged, and what waits is answered once a quorum is back: two of three killed', async () => {
      const leader = await cluster().leader();
      const [follower = 0] = NODES.filter((id) => id !== leader);
      await killAndBringBack(cluster(), [follower, leader]);
      await restart(...NODES.filter((id) => !cluster().isRunning(id)));
    });

    it('the same with the followers killed under a living leader', async () => {
      await killAndBringBack(cluster(), await cluster().followers());
      await restart(...NODES.filter((id) => !cluster().isRunning(id)));
    });
  });

  describe('all nodes killed at once under load', () => {
    it('hold every acknowledged write when they come back', async () => {
      for (let round = 0; round < rounds.blackouts; round++) {
        const { load, stored } = startKeyedLoad(cluster(), `blackout${round}`, {
          clients: CLIENTS,
          pauseMs: rounds.pauseMs,
        });
        onTestFinished(() => load.stop());
        await load.progress(500);
        await Promise.all(NODES.map((id) => cluster().kill(id)));
        await load.stop();
        await restart(...NODES);
        expect(load.errors).toEqual([]);
        expect(stored.size).toBeGreaterThanOrEqual(500);
        for (const id of NODES) expect(await differencesAt(cluster(), id, stored)).toEqual([]);
      }
    });
  });

  describe('a leader stopped and continued', () => {
    it('neither serves a stale read nor loses a write', async () => {
      for (let round = 0; round < rounds.pauses; round++) {
        const leader = await cluster().leader();
        const [follower = 0] = NODES.filter((id) => id !== leader);
        const [atLeader, other] = [await cluster().connect(leader), await cluster().connect(follower)];
        expect(await atLeader.set('paused', `old ${round}`)).toBe('STORED');
        expect(await atLeader.get('paused')).toBe(`old ${round}`);
        cluster().pause(leader);
        // These wait in the stopped process's socket, and are the first that it sees when it goes on.
        const staleRead = atLeader.get('paused');
        const lateWrite = (await connect(cluster().node(leader).clientPort)).set(`late${round}`, 'late');
        expect(await other.set('paused', `new ${round}`)).toBe('STORED');
        expect(await cluster().leader(leader)).not.toBe(leader);
        cluster().resume(leader);
        expect(await staleRead).toBe(`new ${round}`);
        expect(await lateWrite).toBe('STORED');
        for (const id of NODES) {
          const client = await cluster().connect(id);
          expect(await client.get('paused')).toBe(`new ${round}`);
          expect(await client.get(`late${round}`)).toBe('late');
        }
      }
    });
  });

  describe('a leader partitioned from the others', () => {
    it('serves no stale read and acknowledges no write until it is back', async () => {
      for (let round = 0; round < rounds.isolations; round++) {
        const leader = await cluster().leader();
        const [follower = 0] = NODES.filter((id) => id !== leader);
        const [atLeader, atLeaderToo, other] = await Promise.all(
          [leader, leader, follower].map((id) => cluster().connect(id)),
        );
        if (atLeader === undefined || atLeaderToo === undefined || other === undefined)
          throw new Error('no connections');
        expect(await atLeader.set('partitioned', `old ${round}`)).toBe('STORED');
        cluster().isolate(leader);
        const answers: string[] = [];
        const lateWrite = atLeaderToo.set(`lost${round}`, 'late').then((reply) => answers.push(reply));
        expect(await other.set('partitioned', `new ${round}`)).toBe('STORED');
        const read = atLeader.get('partitioned').then((value) => answers.push(`read ${value}`));
        expect(await other.get('partitioned')).toBe(`new ${round}`);
        expect(answers).toEqual([]);
        cluster().reunite();
        await Promise.all([read, lateWrite]);
        expect(answers.sort()).toEqual(['STORED', `read new ${round}`]);
        expect(await other.get(`lost${round}`)).toBe('late');
      }
    });
  });

  describe('increments through followers while leaders are killed', () => {
    it('count exactly once each', async () => {
      const starter = (await cluster().connect(1)) as MemcachedClient;
      expect(await starter.set('exactly', '0')).toBe('STORED');
      const load = startLoad(cluster(), {
        clients: CLIENTS,
        pauseBetweenRequestsMs: rounds.pauseMs,
        async request(client) {
          const reply = await client.request('incr exactly 1\r\n');
          if (!/^\d+$/.test(reply)) throw new Error(reply);
        },
      });
      onTestFinished(() => load.stop());
      for (let round = 0; round < rounds.increments; round++) {
        const leader = await cluster().leader();
        // From here on no client is connected to the leader, so that no client's own node dies.
        await load.avoid(leader);
        await load.progress(100);
        await cluster().kill(leader);
        await load.progress(100);
        await restart(leader);
        await load.avoid();
      }
      await load.stop();
      expect(load.errors).toEqual([]);
      expect(load.unknown()).toBe(0);
      const reader = await cluster().connect(await cluster().leader());
      expect(await reader.get('exactly')).toBe(`${load.acknowledged.length}`);
    });
  });
}
