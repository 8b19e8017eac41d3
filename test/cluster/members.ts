import { rmSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type Cluster, until } from '../support/cluster.ts';
import { type Recording, record } from '../support/history.ts';
import { checkPartitioned } from '../support/linearizability/checker.ts';
import { memcachedModel } from '../support/linearizability/memcached-model.ts';
import { startKeyedLoad } from '../support/load.ts';
import type { CommandResult } from '../support/node-process.ts';
import { differencesAt, itemsHeldBy, logged } from '../support/stored-data.ts';

/**
 * Every node of a cluster is replaced while it serves, one command each, and what its clients saw is explained by one
 * copy. The tests follow each other on one cluster, which has three spares: nodes 1, 2, 3 become 4, 5, 6.
 */
export interface MemberLoad {
  /** Acknowledged requests between two changes. */
  readonly between: number;
  readonly pauseBetweenRequestsMs: number;
  /** How many nodes are asked for each change that cannot be. */
  readonly nodesAsked: number;
  /**
   * Which of the two followers is killed. The higher id of two nodes dials: one that only higher ones could tell that it was
   * removed waits some seconds before it asks.
   */
  readonly killed: 'lower' | 'higher';
}

const CLIENTS = 12;
const CHECK_MS_MAX = 120_000;
const SEED = Number(process.env['RAFTKV_SEED'] ?? Math.floor(Math.random() * 1e6));

interface MemberList {
  readonly members: readonly { readonly id: number; readonly role: string; readonly hasRights: boolean }[];
}

export function itChangesMembers(cluster: () => Cluster, options: MemberLoad): void {
  const voters = async (): Promise<readonly number[]> => {
    return (await cluster().status(await cluster().leader()))?.voters ?? [];
  };

  const done = async (...args: string[]): Promise<CommandResult> => {
    const result = await cluster().command(...args);
    expect(result, `raftkv ${args.join(' ')}`).toMatchObject({ code: 0 });
    return result;
  };

  /** The command must fail with exit code 1, and say why. */
  const refused = async (...args: string[]): Promise<string> => {
    const result = await cluster().command(...args);
    expect(result, `raftkv ${args.join(' ')}`).toMatchObject({ code: 1 });
    return result.stderr;
  };

  describe('each node replaced in turn by one command under load', () => {
    it('costs no failed request, and the history is linearizable', async () => {
      const recording = record(cluster(), {
        ...{ clients: CLIENTS, textKeys: 8, counterKeys: 3, seed: SEED, keyPrefix: 'replace.' },
        pauseBetweenRequestsMs: options.pauseBetweenRequestsMs,
      });
      const { load } = recording;
      const outsiders = new Set([4, 5, 6]);
      const tookMs: number[] = [];
      for (const old of [1, 2, 3]) {
        const newcomer = old + 3;
        // As an operator does it: who is about to leave gets no clients any more, who comes gets them once it has come.
        await load.avoid(...outsiders, old);
        await load.progress(options.between);
        const startMs = performance.now();
        await Promise.all([done('member', 'replace', `${old}`, `${newcomer}`), cluster().start(newcomer)]);
        tookMs.push(Math.round(performance.now() - startMs));
        expect(await cluster().ended(old)).toBe(0);
        outsiders.delete(newcomer);
        await load.avoid(...outsiders, old);
        await load.progress(options.between);
      }
      console.log(`raftkv member replace took ${tookMs} ms; RAFTKV_SEED=${SEED}`);
      await finishLinearizable(recording);
      expect(load.errors).toEqual([]);
      expect(load.unknown()).toBe(0);
      expect(await voters()).toEqual([4, 5, 6]);
      for (const old of [1, 2, 3]) {
        const told = cluster()
          .lines()
          .filter((line) => line.includes(`node ${old} was removed from cluster`));
        expect(told).toHaveLength(1);
      }
    });
  });

  describe('a node that was removed', () => {
    it('comes back with an empty directory: as a learner, and as a voter once promoted', async () => {
      const { load, stored } = startKeyedLoad(cluster(), 'learner', { clients: 6, pauseMs: 2 });
      await load.avoid(1);
      await load.progress(50);
      rmSync(cluster().directory(1), { recursive: true });
      await Promise.all([done('member', 'add', '1', '--learner'), cluster().start(1, true)]);
      await cluster().serving(1);
      await until('the learner to be known by its directory', async () => {
        const { members } = JSON.parse((await done('member', 'list', '--json')).stdout) as MemberList;
        const learner = members.find(({ id }) => id === 1);
        expect(learner?.role).toBe('learner');
        return learner?.hasRights || undefined;
      });
      await load.avoid();
      await load.progress(50);
      // It may have to keep up for a moment longer.
      await until('the learner to be promoted', async () => {
        const { code, stderr } = await cluster().command('member', 'promote', '1');
        if (code !== 0) expect(stderr).toContain('must keep up');
        return code === 0 || undefined;
      });
      expect(await voters()).toEqual([1, 4, 5, 6]);
      await load.progress(50);
      await load.stop();
      expect(load.errors).toEqual([]);
      expect(load.unknown()).toBe(0);
      await cluster().caughtUp();
      for (const id of [1, 4]) expect(await differencesAt(cluster(), id, stored)).toEqual([]);
      expect(await itemsHeldBy(cluster(), 1)).toEqual(await itemsHeldBy(cluster(), 4));
    });

    it('answers what its clients had asked, hands leadership over, says so, and ends with code 0', async () => {
      const leader = await cluster().leader();
      const { load, stored } = startKeyedLoad(cluster(), 'leaving', { clients: 8 });
      await load.progress(200);
      // Its clients are not told: each may lose the request that it was just sending, and goes on elsewhere.
      const asked =
        cluster()
          .running()
          .find((id) => id !== leader) ?? 0;
      await done('member', 'remove', `${leader}`, '--node', `${asked}`);
      expect(await cluster().ended(leader)).toBe(0);
      await load.progress(200);
      await load.stop();
      expect(load.errors).toEqual([]);
      expect(load.unknown()).toBeLessThanOrEqual(8);
      expect(await voters()).toHaveLength(3);
      for (const id of cluster().running()) expect(await differencesAt(cluster(), id, stored)).toEqual([]);
    });
  });

  describe('a change that cannot be', () => {
    it('is refused with its reason by every node', async () => {
      const members = cluster().running();
      const outsider = [1, 2, 3, 4, 5, 6].find((id) => !members.includes(id)) ?? 0;
      const reasons: readonly (readonly [reason: string, ...command: string[]])[] = [
        ['node 99 is not a member', 'remove', '99'],
        [`node ${outsider} is not a member`, 'promote', `${outsider}`],
        [`node ${members[0]} is a voter already`, 'add', `${members[0]}`, '--learner'],
        ['node 99 is not a member', 'replace', '99', `${outsider}`],
      ];
      const asked = reasons.flatMap(([reason, ...command], i) =>
        Array.from({ length: options.nodesAsked }, (_, at) => members[(at + i) % members.length] ?? 0).map((id) => ({
          id,
          reason,
          command,
        })),
      );
      const replies = await Promise.all(
        asked.map(({ id, command }) => refused('member', ...command, '--node', `${id}`)),
      );
      for (const [i, { id, reason }] of asked.entries()) expect(replies[i], `node ${id}`).toContain(reason);
      expect(await voters()).toEqual(members);
    });
  });

  describe('with one of three voters down', () => {
    it('removing another would lose the quorum and is refused', async () => {
      const leader = await cluster().leader();
      const [dead = 0, alive = 0] = downAndUp(cluster().running(), leader, options.killed);
      await cluster().kill(dead);
      const reason = await refused('member', 'remove', `${alive}`);
      expect(reason).toContain('cannot be reached or has no vote');
      expect(reason).toMatch(new RegExp(`\\b${dead}\\b`));
      expect(await voters()).toContain(dead);
      await cluster().start(dead);
      await cluster().serving(dead);
    });

    it('another takes its place, and it learns at its next start that it was removed', async () => {
      const members = cluster().running();
      const leader = await cluster().leader();
      const [dead = 0, alive = 0] = downAndUp(members, leader, options.killed);
      const newcomer = [1, 2, 3].find((id) => !members.includes(id)) ?? 0;
      const { load, stored } = startKeyedLoad(cluster(), 'dead', { clients: 6, pauseMs: 2 });
      await load.avoid(dead, newcomer);
      await cluster().kill(dead);
      rmSync(cluster().directory(newcomer), { recursive: true });
      await Promise.all([done('member', 'replace', `${dead}`, `${newcomer}`), cluster().start(newcomer, true)]);
      expect(await voters()).toEqual([leader, alive, newcomer].sort((a, b) => a - b));
      await cluster().start(dead);
      expect(await cluster().ended(dead)).toBe(0);
      const told = `node ${dead} was removed from cluster test; stopping`;
      expect(logged(cluster(), told).at(-1)).toMatchObject({ node: dead });
      await load.avoid();
      await load.progress(30);
      await load.stop();
      expect(load.errors).toEqual([]);
      expect(load.unknown()).toBe(0);
      await cluster().caughtUp();
      expect(await differencesAt(cluster(), newcomer, stored)).toEqual([]);
      expect(await itemsHeldBy(cluster(), newcomer)).toEqual(await itemsHeldBy(cluster(), leader));
    });
  });
}

async function finishLinearizable(recording: Recording): Promise<void> {
  const history = await recording.finish();
  const result = checkPartitioned(memcachedModel, history, ({ key }) => key, { timeLimitMs: CHECK_MS_MAX });
  if (result.verdict !== 'linearizable') {
    console.log(`key ${result.key}: after`, result.longest.slice(-10), 'none of these can follow:', result.stuck);
  }
  console.log(`${history.length} operations: ${result.verdict}`);
  expect(result.verdict).toBe('linearizable');
}

function downAndUp(members: readonly number[], leader: number, killed: 'lower' | 'higher'): number[] {
  const followers = members.filter((id) => id !== leader);
  return killed === 'lower' ? followers : followers.toReversed();
}
