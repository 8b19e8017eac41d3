import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster, until } from '../support/cluster.ts';
import { record } from '../support/history.ts';
import { checkPartitioned } from '../support/linearizability/checker.ts';
import { memcachedModel } from '../support/linearizability/memcached-model.ts';
import { startKeyedLoad } from '../support/load.ts';
import { seededRandom } from '../support/random.ts';
import { differencesAt, filesBelow, fill, itemsHeldBy, logged } from '../support/stored-data.ts';

interface Scale {
  /** How many bits are flipped, one at a time. */
  readonly flips: number;
  /** Flips that one history is recorded over. */
  readonly flipsPerHistory: number;
}

/**
 * Disks forget, and change what they hold. A minority of that heals without a command, under load and without a loss;
 * a majority stops the cluster, which says why, and `raftkv recover` goes on with what is left.
 *
 *   load ──▶ node 1, node 2, node 3        kill 3 ─▶ flip a byte of its files, or remove them ─▶ start 3 ─▶ voter again
 */
export function healsFromDamage(scale: Scale): void {
  const { flips: FLIPS, flipsPerHistory: FLIPS_PER_HISTORY } = scale;
  const CHECK_MS_MAX = 60_000;
  const SEED = Number(process.env['RAFTKV_SEED'] ?? Math.floor(Math.random() * 1e6));
  const MIB = 1024 * 1024;
  const VICTIM = 3;
  const NODES = [1, 2, 3];
  const BASE_ITEMS = 1_500;
  const BASE_VALUE = 'v'.repeat(1_000);

  let cluster: Cluster;
  /** Everything acknowledged that is not part of a recorded history. */
  const stored = new Map<string, string>();
  showLogOfFailure(() => cluster);
  beforeAll(async () => {
    cluster = await startCluster({
      quickElections: true,
      settings: { walSegmentBytes: 32 * MIB, snapshotLogBytes: MIB },
    });
    const ports = NODES.map((id) => cluster.node(id).clientPort);
    for (const round of [1, 2, 3]) {
      const itemOf = (i: number) => ({ key: `base${i}`, value: `${round} ${i} ${BASE_VALUE}` });
      await fill(ports, BASE_ITEMS, itemOf);
      for (let i = 0; i < BASE_ITEMS; i++) stored.set(itemOf(i).key, itemOf(i).value);
    }
    await until('a snapshot on every node', async () => {
      const statuses = await Promise.all(NODES.map((id) => cluster.status(id)));
      return statuses.every((status) => (status?.snapshotIndex ?? 0) > 0) || undefined;
    });
  });
  afterAll(() => cluster?.stop());

  /** The node is a voter, its copy is the one that the cluster counts on, and it has applied what is committed now. */
  async function healed(id: number): Promise<void> {
    await cluster.serving(id);
    await until(`node ${id} to heal`, async () => {
      const status = await cluster.status(id);
      return (
        (status?.lifecycle === 'normal' && status.voters.includes(id) && !status.learners.includes(id)) || undefined
      );
    });
  }

  async function expectNothingLost(): Promise<void> {
    await cluster.caughtUp();
    for (const id of NODES) expect(await differencesAt(cluster, id, stored), `missing at node ${id}`).toEqual([]);
    const held = await itemsHeldBy(cluster, 1);
    for (const id of [2, 3]) expect(await itemsHeldBy(cluster, id)).toEqual(held);
  }

  /** Clients whose requests are judged as a whole, and others whose writes must all be there afterwards. */
  function startClients(prefix: string) {
    const recording = record(cluster, {
      ...{ clients: 6, textKeys: 6, counterKeys: 2, seed: SEED, keyPrefix: `${prefix}.` },
      pauseBetweenRequestsMs: 4,
    });
    const keyed = startKeyedLoad(cluster, `${prefix}.kept`, { clients: 3, pauseMs: 4 });
    const stop = () => Promise.all([recording.load.stop(), keyed.load.stop()]);
    onTestFinished(async () => void (await stop()));
    return {
      progress: (count: number) => Promise.all([recording.load.progress(count), keyed.load.progress(count / 3)]),
      async finish() {
        await stop();
        for (const [key, value] of keyed.stored) stored.set(key, value);
        expect([...recording.load.errors, ...keyed.load.errors]).toEqual([]);
        const history = await recording.finish();
        const result = checkPartitioned(memcachedModel, history, ({ key }) => key, { timeLimitMs: CHECK_MS_MAX });
        if (result.verdict !== 'linearizable') {
          console.log(`key ${result.key}: after`, result.longest.slice(-10), 'none of these can follow:', result.stuck);
        }
        expect(result.verdict).toBe('linearizable');
        return history.length;
      },
    };
  }

  describe('a data directory that is gone', () => {
    it.each([
      ['while the node is stopped', false],
      ['while the node runs, which is then killed', true],
    ])('%s comes back from the others', async (_when, isRunning) => {
      const victim = isRunning ? await cluster.leader() : VICTIM;
      const clients = startClients(`wiped${isRunning}`);
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
      await healed(victim);
      console.log(`node ${victim} votes again ${Math.round(performance.now() - startMs)} ms after its start`);
      await clients.progress(60);
      await clients.finish();
      await expectNothingLost();
    });
  });

  interface Place {
    readonly path: string;
    readonly offset: number;
  }

  /** A loop, since `findLastIndex` takes ten times as long for the zeros of a segment. */
  function writtenLength(bytes: Buffer): number {
    let length = bytes.length;
    while (length > 0 && bytes[length - 1] === 0) length--;
    return length;
  }

  /** The parts of a node's log and snapshot files that say something: up to the last byte that is not zero. */
  function writtenParts(id: number): { path: string; length: number }[] {
    const files = ['wal', 'snapshots'].flatMap((folder) => filesBelow(join(cluster.directory(id), folder)));
    // What a node had not finished when it was killed is thrown away unread.
    return files
      .filter((path) => /\.(wal|snapshot)$/.test(path))
      .map((path) => ({ path, length: writtenLength(readFileSync(path)) }));
  }

  /** The place at this share of a kind of files: the WAL's and the snapshots' turn. */
  function placeAt(id: number, share: number, kind: 'wal' | 'snapshots'): Place {
    const parts = writtenParts(id).filter(({ path }) => path.includes(join(`node-${id}`, kind)));
    let offset = Math.floor(share * parts.reduce((sum, { length }) => sum + length, 0));
    for (const { path, length } of parts) {
      if (offset < length) return { path, offset };
      offset -= length;
    }
    throw new Error(`node ${id} has no ${kind}`);
  }

  function flip({ path, offset }: Place, random: () => number): void {
    const bytes = readFileSync(path);
    bytes.writeUInt8(bytes.readUInt8(offset) ^ (1 << Math.floor(random() * 8)), offset);
    writeFileSync(path, bytes);
  }

  describe(`one flipped bit at each of ${FLIPS} places in the log and the snapshots of one node`, () => {
    it('heals by itself, and nothing is lost', async () => {
      const random = seededRandom(SEED);
      const healMs: number[] = [];
      let operations = 0;
      let noticed = 0;
      for (let done = 0; done < FLIPS; ) {
        const clients = startClients(`flip${done}`);
        for (const end = Math.min(FLIPS, done + FLIPS_PER_HISTORY); done < end; done++) {
          const before = cluster.lines().length;
          await cluster.kill(VICTIM);
          const share = (Math.floor(done / 2) + random()) / Math.ceil(FLIPS / 2);
          const place = placeAt(VICTIM, share, done % 2 === 0 ? 'wal' : 'snapshots');
          flip(place, random);
          const startMs = performance.now();
          await cluster.start(VICTIM);
          await healed(VICTIM).catch((error: Error) => {
            throw new Error(`flip ${done} (RAFTKV_SEED=${SEED}) at ${place.path}:${place.offset}`, { cause: error });
          });
          healMs.push(performance.now() - startMs);
          const said = cluster.lines().slice(before);
          if (said.some((line) => line.includes('"node":3') && /damage|DAMAGE|moved aside/.test(line))) noticed++;
          else console.log(`harmless: byte ${place.offset} of ${place.path}`);
          await clients.progress(15);
        }
        operations += await clients.finish();
      }
      healMs.sort((a, b) => a - b);
      console.log(
        `${FLIPS} flips, ${noticed} noticed as damage (RAFTKV_SEED=${SEED}); a voter again after ` +
          `p50 ${healMs[FLIPS >> 1]?.toFixed(0)} max ${healMs.at(-1)?.toFixed(0)} ms; ${operations} operations linearizable`,
      );
      expect(noticed).toBeGreaterThan(FLIPS / 2);
      await expectNothingLost();
    });
  });

  describe('damage on a majority', () => {
    it('stops the cluster, which names the nodes; recover goes on with the intact one', async () => {
      await cluster.caughtUp();
      const intact = 1;
      await Promise.all(NODES.map((id) => cluster.kill(id)));
      rmSync(cluster.directory(2), { recursive: true });
      flip(placeAt(3, 0.3, 'wal'), seededRandom(SEED));
      const before = cluster.lines().length;
      await Promise.all(NODES.map((id) => cluster.start(id)));
      const healthProblem = await until('the cluster to say what is wrong', async () => {
        const text = (await cluster.status(intact))?.healthProblem ?? '';
        return text.includes('lost data') ? text : undefined;
      });
      expect(healthProblem).toContain('nodes 2 and 3 lost data');
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
        await healed(id);
      }
      expect((await cluster.status(intact))?.voters).toEqual(NODES);
      await expectNothingLost();
    });
  });
}
