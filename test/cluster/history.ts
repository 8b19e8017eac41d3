import { cpSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { type Cluster, createCluster, startCluster, until } from '../support/cluster.ts';

/**
 * Data directories of two histories that meet under one name, one configuration file and the same node ids (ADR 0014): after a
 * restore, after a start on volumes that were not mounted, and when two nodes were restored. `use` is given each cluster, to
 * stop it.
 */

const ALL = [1, 2, 3];

const idOf = async (of: Cluster, id: number) => (await of.status(id))?.clusterId ?? '';

async function setAt(of: Cluster, id: number, key: string, value: string): Promise<void> {
  const client = await of.connect(id);
  expect(await client.set(key, value)).toBe('STORED');
  client.destroy();
}

async function valuesAt(of: Cluster, id: number, ...keys: string[]): Promise<(string | undefined)[]> {
  const client = await of.connect(id);
  const values = [];
  for (const key of keys) values.push((await client.get(key)) ?? undefined);
  client.destroy();
  return values;
}

async function stopAll(of: Cluster): Promise<void> {
  await Promise.all(of.running().map((id) => of.kill(id, 'SIGTERM')));
}

function wipe(of: Cluster, id: number): void {
  rmSync(of.directory(id), { recursive: true, force: true });
}

/** Node `id` says that it belongs to another history than the others, and names both; it serves no client. */
async function isRefused(of: Cluster, id: number, own: string, other: string): Promise<void> {
  const problem = await until(`node ${id} to say why it is apart`, async () => {
    const status = await of.status(id);
    return status?.healthProblem.includes(other) ? status : undefined;
  });
  expect(problem).toMatchObject({ leader: 0, clusterId: own });
  expect(problem.healthProblem).toContain(own);
  const ready = await fetch(`http://127.0.0.1:${of.node(id).adminPort}/readyz`);
  expect([ready.status, await ready.text()]).toEqual([503, expect.stringContaining(other)]);
  expect(of.lines().some((line) => line.includes('PEER_REFUSED') && line.includes(own) && line.includes(other))).toBe(
    true,
  );
}

/** A write through each of these nodes, read through each of them. */
async function serves(of: Cluster, ids: readonly number[], value: string): Promise<void> {
  for (const id of ids) await setAt(of, id, `by${id}`, value);
  for (const id of ids) {
    const keys = ids.map((each) => `by${each}`);
    expect(await valuesAt(of, id, ...keys)).toEqual(ids.map(() => value));
  }
}

/** A node that missed a restore is refused with both cluster ids, serves nothing, and is filled again once it is empty. */
export async function missedRestore(use: (cluster: Cluster) => void): Promise<void> {
  const cluster = await startCluster();
  use(cluster);
  const before = await idOf(cluster, 1);
  await setAt(cluster, 1, 'kept', 'in the backup');
  const backup = join(cluster.folder, 'backup.snapshot');
  expect(await cluster.command('snapshot', 'save', backup)).toMatchObject({ code: 0 });
  await setAt(cluster, 2, 'kept', 'after the backup');
  // Elections, so that the old directory knows a higher term than the backup.
  await cluster.kill(await cluster.leader());
  await cluster.heal();
  await setAt(cluster, 3, 'late', 'x');
  await stopAll(cluster);
  const old = `${cluster.directory(3)}.old`;
  renameSync(cluster.directory(3), old);
  for (const id of [1, 2]) wipe(cluster, id);
  expect(await cluster.command('snapshot', 'restore', backup)).toMatchObject({ code: 0 });
  renameSync(old, cluster.directory(3));
  await Promise.all([1, 2].map((id) => cluster.start(id)));
  await Promise.all([1, 2].map((id) => cluster.serving(id)));
  expect(await valuesAt(cluster, 2, 'kept', 'late')).toEqual(['in the backup', undefined]);
  await serves(cluster, [1, 2], 'restored');

  const after = await idOf(cluster, 1);
  expect(after).not.toBe(before);
  await cluster.start(3);
  await isRefused(cluster, 3, before, after);
  await serves(cluster, [1, 2], 'still');
  await cluster.kill(3);
  wipe(cluster, 3);
  await cluster.start(3);
  await cluster.serving(3);
  await serves(cluster, ALL, 'whole');
  expect(await idOf(cluster, 3)).toBe(after);
  await until('three voters', async () => ((await cluster.status(1))?.voters.length === 3 ? true : undefined));
}

/** A cluster that started on empty volumes refuses an old volume that is back, and that refuses the others. */
export async function volumesNotMounted(use: (cluster: Cluster) => void): Promise<void> {
  const cluster = await startCluster();
  use(cluster);
  const before = await idOf(cluster, 1);
  await setAt(cluster, 1, 'a', 'of the first history');
  await stopAll(cluster);
  for (const id of ALL) renameSync(cluster.directory(id), `${cluster.directory(id)}.unmounted`);
  await cluster.heal();
  const after = await idOf(cluster, 1);
  expect([after, await valuesAt(cluster, 1, 'a')]).toEqual([expect.not.stringMatching(before), [undefined]]);
  await cluster.kill(2, 'SIGTERM');
  wipe(cluster, 2);
  renameSync(`${cluster.directory(2)}.unmounted`, cluster.directory(2));
  await cluster.start(2);
  await isRefused(cluster, 2, before, after);
  await serves(cluster, [1, 3], 'of the second history');
}

/** Nodes that were restored from two backups are two histories. An empty node joins one of them only. */
export async function mixedBackups(use: (cluster: Cluster) => void): Promise<void> {
  const source = await startCluster({ nodes: 1, inProcess: true });
  const backups = ['first', 'second'].map((name) => join(source.folder, `${name}.snapshot`));
  await setAt(source, 1, 'which', 'first');
  expect(await source.command('snapshot', 'save', backups[0] ?? '')).toMatchObject({ code: 0 });
  await setAt(source, 1, 'which', 'second');
  expect(await source.command('snapshot', 'save', backups[1] ?? '')).toMatchObject({ code: 0 });
  const cluster = await createCluster({});
  use(cluster);
  mkdirSync(join(cluster.folder, 'data'), { recursive: true });
  for (const [position, backup] of backups.entries()) {
    const id = position + 1;
    expect(await cluster.command('snapshot', 'restore', backup, '--id', `${id}`)).toMatchObject({ code: 0 });
    renameSync(cluster.directory(id), `${cluster.directory(id)}.restored`);
  }
  await source.stop();
  for (const id of [1, 2]) cpSync(`${cluster.directory(id)}.restored`, cluster.directory(id), { recursive: true });
  await Promise.all([1, 2].map((id) => cluster.start(id)));
  const ids = await Promise.all([1, 2].map((id) => idOf(cluster, id)));
  expect(ids[0]).not.toBe(ids[1]);
  const refusals = () =>
    cluster.lines().filter((line) => line.includes('PEER_REFUSED') && ids.every((id) => line.includes(id)));
  await until('a refusal', async () => (refusals().length > 0 ? true : undefined));
  expect(await valuesAt(cluster, 1, 'which')).toEqual(['first']);
  expect(await valuesAt(cluster, 2, 'which')).toEqual(['second']);
  await cluster.start(3);
  await cluster.serving(3);
  const joined = await idOf(cluster, 3);
  expect(ids).toContain(joined);
  expect(await valuesAt(cluster, 3, 'which')).toEqual([joined === ids[0] ? 'first' : 'second']);
}
