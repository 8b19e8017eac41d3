import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished } from 'vitest';
import { type Cluster, startCluster, until } from '../support/cluster.ts';
import { record } from '../support/history.ts';
import { checkPartitioned } from '../support/linearizability/checker.ts';
import { memcachedModel } from '../support/linearizability/memcached-model.ts';
import { startKeyedLoad } from '../support/load.ts';
import { seededRandom } from '../support/random.ts';
import { differencesAt, filesBelow, fill, itemsHeldBy } from '../support/stored-data.ts';

/** A cluster with snapshots and a log, whose nodes' files the tests of healing remove and damage under load. */
export interface HealingCluster {
  readonly cluster: Cluster;
  /** Everything acknowledged that is not part of a recorded history. */
  readonly stored: Map<string, string>;
}

const CHECK_MS_MAX = 120_000;
export const SEED = Number(process.env['RAFTKV_SEED'] ?? Math.floor(Math.random() * 1e6));
const MIB = 1024 * 1024;
export const VICTIM = 3;
export const NODES = [1, 2, 3];
const BASE_ITEMS = 1_500;
const BASE_VALUE = 'v'.repeat(1_000);

/** Starts the cluster and stores what gives every node a snapshot. */
export async function startHealingCluster(): Promise<HealingCluster> {
  const settings = { walSegmentBytes: 32 * MIB, snapshotLogBytes: MIB };
  const cluster = await startCluster({ settings, quickElections: true });
  const stored = new Map<string, string>();
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
  return { cluster, stored };
}

/** The node is a voter, its copy is the one that the cluster counts on, and it has applied what is committed now. */
export async function healed(cluster: Cluster, id: number): Promise<void> {
  await cluster.serving(id);
  await until(`node ${id} to heal`, async () => {
    const status = await cluster.status(id);
    const isVoter = status?.voters.includes(id) === true && !status.learners.includes(id);
    return (status?.lifecycle === 'normal' && isVoter) || undefined;
  });
}

export async function expectNothingLost({ cluster, stored }: HealingCluster): Promise<void> {
  await cluster.caughtUp();
  for (const id of NODES) expect(await differencesAt(cluster, id, stored), `missing at node ${id}`).toEqual([]);
  const held = await itemsHeldBy(cluster, 1);
  for (const id of [2, 3]) expect(await itemsHeldBy(cluster, id)).toEqual(held);
}

/** Clients whose requests are judged as a whole, and others whose writes must all be there afterwards. */
export function startClients({ cluster, stored }: HealingCluster, prefix: string) {
  const recording = record(cluster, {
    ...{ clients: 6, textKeys: 6, counterKeys: 2, seed: SEED, keyPrefix: `${prefix}.` },
    pauseBetweenRequestsMs: 10,
  });
  const keyed = startKeyedLoad(cluster, `${prefix}.kept`, { clients: 3, pauseMs: 10 });
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
function writtenParts(cluster: Cluster, id: number): { path: string; length: number }[] {
  const files = ['wal', 'snapshots'].flatMap((folder) => filesBelow(join(cluster.directory(id), folder)));
  // What a node had not finished when it was killed is thrown away unread.
  return files
    .filter((path) => /\.(wal|snapshot)$/.test(path))
    .map((path) => ({ path, length: writtenLength(readFileSync(path)) }));
}

/** The place at this share of a kind of files: the WAL's and the snapshots' turn. */
export function placeAt(cluster: Cluster, id: number, share: number, kind: 'wal' | 'snapshots'): Place {
  const parts = writtenParts(cluster, id).filter(({ path }) => path.includes(join(`node-${id}`, kind)));
  let offset = Math.floor(share * parts.reduce((sum, { length }) => sum + length, 0));
  for (const { path, length } of parts) {
    if (offset < length) return { path, offset };
    offset -= length;
  }
  throw new Error(`node ${id} has no ${kind}`);
}

export function flip({ path, offset }: Place, random: () => number): void {
  const bytes = readFileSync(path);
  bytes.writeUInt8(bytes.readUInt8(offset) ^ (1 << Math.floor(random() * 8)), offset);
  writeFileSync(path, bytes);
}

/** Flips one bit at each of so many places, one after the other, and waits each time until the node has healed. */
export async function expectFlipsToHeal(on: HealingCluster, flips: number, flipsPerHistory: number): Promise<void> {
  const { cluster } = on;
  const random = seededRandom(SEED);
  const healMs: number[] = [];
  let operations = 0;
  let noticed = 0;
  for (let done = 0; done < flips; ) {
    const clients = startClients(on, `flip${done}`);
    for (const end = Math.min(flips, done + flipsPerHistory); done < end; done++) {
      const before = cluster.lines().length;
      await cluster.kill(VICTIM);
      const share = (Math.floor(done / 2) + random()) / Math.ceil(flips / 2);
      const place = placeAt(cluster, VICTIM, share, done % 2 === 0 ? 'wal' : 'snapshots');
      flip(place, random);
      const startMs = performance.now();
      await cluster.start(VICTIM);
      await healed(cluster, VICTIM).catch((error: Error) => {
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
    `${flips} flips, ${noticed} noticed as damage (RAFTKV_SEED=${SEED}); a voter again after ` +
      `p50 ${healMs[flips >> 1]?.toFixed(0)} max ${healMs.at(-1)?.toFixed(0)} ms; ${operations} operations linearizable`,
  );
  expect(noticed).toBeGreaterThan(flips / 2);
  await expectNothingLost(on);
}
