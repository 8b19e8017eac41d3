import { rmSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { showLogOfFailure, until } from '../support/cluster.ts';
import { seededRandom } from '../support/random.ts';
import { differencesAt, logged } from '../support/stored-data.ts';
import {
  expectFlipsToHeal,
  expectNothingLost,
  flip,
  type HealingCluster,
  healed,
  NODES,
  placeAt,
  SEED,
  startClients,
  startHealingCluster,
  VICTIM,
} from './healing.ts';

/**
 * Disks forget, and change what they hold. A minority of that heals without a command, under load and without a loss;
 * a majority stops the cluster, which says why, and `raftkv recover` goes on with what is left.
 *
 *   load ──▶ node 1, node 2, node 3        kill 3 ─▶ flip a byte of its files, or remove them ─▶ start 3 ─▶ voter again
 */
const FLIPS = 2;

let on: HealingCluster;
showLogOfFailure(() => on?.cluster);
beforeAll(async () => {
  on = await startHealingCluster();
});
afterAll(() => on?.cluster.stop());

describe('a data directory that is gone', () => {
  it.each([
    ['while the node is stopped', false],
    ['while the node runs, which is then killed', true],
  ])('%s comes back from the others', async (_when, isRunning) => {
    const { cluster } = on;
    const victim = isRunning ? await cluster.leader() : VICTIM;
    const clients = startClients(on, `wiped${isRunning}`);
    await clients.progress(60);
    if (!isRunning) await cluster.kill(victim);
    rmSync(cluster.directory(victim), { recursive: true, force: true });
    if (isRunning) {
      await clients.progress(60);
      await cluster.kill(victim);
      rmSync(cluster.directory(victim), { recursive: true, force: true });
    }
    await clients.progress(30);
    const startMs = performance.now();
    await cluster.start(victim);
    await healed(cluster, victim);
    console.log(`node ${victim} votes again ${Math.round(performance.now() - startMs)} ms after its start`);
    await clients.progress(60);
    await clients.finish();
    await expectNothingLost(on);
  });
});

describe(`one flipped bit at each of ${FLIPS} places in the log and the snapshots of one node`, () => {
  it(`heals by itself, and nothing is lost (RAFTKV_SEED=${SEED})`, () => expectFlipsToHeal(on, FLIPS, FLIPS));
});

describe('damage on a majority', () => {
  it('stops the cluster, which names the nodes; recover goes on with the intact one', async () => {
    const { cluster, stored } = on;
    await cluster.caughtUp();
    const intact = 1;
    await Promise.all(NODES.map((id) => cluster.kill(id)));
    rmSync(cluster.directory(2), { recursive: true });
    flip(placeAt(cluster, VICTIM, 0.3, 'wal'), seededRandom(SEED));
    const before = cluster.lines().length;
    await Promise.all(NODES.map((id) => cluster.start(id)));
    const healthProblem = await until('the cluster to say what is wrong', async () => {
      const text = (await cluster.status(intact))?.healthProblem ?? '';
      return text.includes('nodes 2 and 3 lost data') ? text : undefined;
    });
    const report = await cluster.command('status');
    expect(report.code).toBe(1);
    expect(report.stdout).toContain('nodes 2 and 3 lost data');
    expect(logged(cluster, healthProblem, before).map(({ code }) => code)).toContain('QUORUM_LOST');
    expect((await Promise.all(NODES.map((id) => cluster.status(id)))).map((status) => status?.leader)).toEqual([
      0, 0, 0,
    ]);

    await Promise.all(NODES.map((id) => cluster.kill(id)));
    const recovered = await cluster.command('recover', '--force-new-cluster', '--id', `${intact}`, '--yes');
    expect(recovered).toMatchObject({ code: 0 });
    await cluster.start(intact);
    await cluster.serving(intact);
    expect(await differencesAt(cluster, intact, stored)).toEqual([]);
    for (const id of [2, 3]) {
      rmSync(cluster.directory(id), { recursive: true });
      const [added] = await Promise.all([cluster.command('member', 'add', `${id}`), cluster.start(id, true)]);
      expect(added).toMatchObject({ code: 0 });
      await healed(cluster, id);
    }
    expect((await cluster.status(intact))?.voters).toEqual(NODES);
    await expectNothingLost(on);
  });
});
