import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { type Cluster, until } from '../support/cluster.ts';
import { differencesAt, diskBytes, filesBelow, fill, itemsHeldBy, logged } from '../support/stored-data.ts';

/** What the short and the long tests of compaction share: they differ in how much they write. */

const MIB = 1024 * 1024;
export const NODES = [1, 2, 3];
export const mib = (bytes: number) => Math.round(bytes / MIB);

/** The most that each node's folder took, looked at all the time. */
export function watchDisks(cluster: Cluster, intervalMs: number) {
  const most = NODES.map(() => 0);
  const look = () => {
    for (const [i, id] of NODES.entries()) most[i] = Math.max(most[i] ?? 0, diskBytes(cluster.directory(id)));
  };
  const timer = setInterval(look, intervalMs);
  return {
    stop() {
      clearInterval(timer);
      look();
      return most;
    },
  };
}

export async function restartAll(cluster: Cluster): Promise<number> {
  await Promise.all(NODES.map((id) => cluster.kill(id)));
  const startMs = performance.now();
  await Promise.all(NODES.map((id) => cluster.start(id)));
  await Promise.all(NODES.map((id) => cluster.serving(id)));
  return Math.round(performance.now() - startMs);
}

const KEYS = 300;
const VALUE_BYTES = 8 * 1024;
const SEGMENT_BYTES = 32 * MIB;
/** The tail that is kept, in segments that it may only touch, and the next one, made ahead. */
const SEGMENTS_MAX = 3;

/** For a cluster whose nodes soon take a snapshot. */
export const COMPACTING = { walSegmentBytes: SEGMENT_BYTES, snapshotLogBytes: 2 * MIB };

/** A node keeps 16 MiB of log behind its snapshot, so `sets` must come to more. */
export function itCompactsItsLog(cluster: () => Cluster, sets: number): void {
  it('is compacted while it is written, and a restart reads the rest', async () => {
    const disks = watchDisks(cluster(), 200);
    const values = Array.from({ length: 10 }, (_, i) => String(i).repeat(VALUE_BYTES));
    const expected = new Map<string, string>();
    const itemOf = (i: number) => ({ key: `compact.${i % KEYS}`, value: values[i % 7] ?? '' });
    const ports = NODES.map((id) => cluster().node(id).clientPort);
    await fill(ports, sets, itemOf);
    // Pipelines of several clients overtake each other, so the last round goes through one after the other.
    for (let i = 0; i < KEYS; i++) expected.set(`compact.${i}`, `${i} ${values[i % 10]}`);
    await fill(ports, KEYS, (i) => ({ key: `compact.${i}`, value: expected.get(`compact.${i}`) ?? '' }));
    const most = disks.stop();
    await cluster().caughtUp();
    const snapshotsOf = (id: number) => logged(cluster(), 'took a snapshot').filter(({ node }) => node === id).length;
    for (const id of NODES) {
      // The last snapshot may still be under way.
      await until(`node ${id} to compact its log`, async () => {
        const segments = filesBelow(join(cluster().directory(id), 'wal')).length;
        const firstLogIndex = (await cluster().status(id))?.firstLogIndex ?? 0;
        return (snapshotsOf(id) > 1 && segments <= SEGMENTS_MAX && firstLogIndex > 1) || undefined;
      });
    }
    console.log(
      `${mib(sets * VALUE_BYTES)} MiB of log: at most ${most.map(mib)} MiB on the nodes' disks; ` +
        `${NODES.map(snapshotsOf)} snapshots`,
    );
    const held = await itemsHeldBy(cluster(), 1);
    expect(held).toHaveLength(KEYS);
    const tookMs = await restartAll(cluster());
    console.log(`all nodes serve ${tookMs} ms after their restart`);
    for (const id of NODES) {
      expect(await differencesAt(cluster(), id, expected)).toEqual([]);
      expect(await itemsHeldBy(cluster(), id)).toEqual(held);
    }
  });

  it('is replaced by a snapshot for a node that was away for longer than the log goes back', async () => {
    const [away = 0] = await cluster().followers();
    const before = cluster().lines().length;
    await cluster().kill(away);
    const stays = NODES.filter((id) => id !== away);
    const ports = stays.map((id) => cluster().node(id).clientPort);
    const value = 'w'.repeat(VALUE_BYTES);
    const appliedBefore = Math.max(
      ...(await Promise.all(stays.map((id) => cluster().status(id)))).map((s) => s?.lastLogIndex ?? 0),
    );
    for (let round = 0; ; round++) {
      await fill(ports, 3_000, (i) => ({ key: `compact.${i % KEYS}`, value: `${round} ${value}` }));
      const statuses = await Promise.all(stays.map((id) => cluster().status(id)));
      if (statuses.every((status) => (status?.firstLogIndex ?? 0) > appliedBefore + 1)) break;
    }
    await cluster().start(away);
    await cluster().serving(away);
    await cluster().caughtUp();
    expect(await itemsHeldBy(cluster(), away)).toEqual(await itemsHeldBy(cluster(), stays[0] ?? 0));
    expect(logged(cluster(), 'fetching a snapshot from the leader', before).map(({ node }) => node)).toContain(away);
    expect((await cluster().status(away))?.firstLogIndex).toBeGreaterThan(appliedBefore);
  });

  it('heals a node whose disk was wiped, by a snapshot, too', async () => {
    const [wiped = 0, other = 0] = await cluster().followers();
    const before = cluster().lines().length;
    await cluster().kill(wiped);
    rmSync(cluster().directory(wiped), { recursive: true });
    await cluster().start(wiped);
    await cluster().serving(wiped);
    await until('the wiped node to vote again', async () => {
      const status = await cluster().status(wiped);
      return (status?.lifecycle === 'normal' && status.voters.includes(wiped)) || undefined;
    });
    await cluster().caughtUp();
    expect(logged(cluster(), 'fetching a snapshot from the leader', before).map(({ node }) => node)).toContain(wiped);
    expect(await itemsHeldBy(cluster(), wiped)).toEqual(await itemsHeldBy(cluster(), other));
  });
}
