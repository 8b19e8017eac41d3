import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, openSync, rmdirSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster, until } from '../support/cluster.ts';
import { startLoad } from '../support/load.ts';
import { differencesAt } from '../support/stored-data.ts';

/**
 * Disks without room: each node has a small one of its own, in memory. Reads go on, writes are refused in so many
 * words, and everything resumes when there is room.
 *
 *   tmpfs of one node: [ log │ zeros ahead of it │ ballast, up to the last byte ]   ◀─ removed to make room
 */
const MIB = 1024 * 1024;
const DISK_BYTES = 112 * MIB;
const SEGMENT_BYTES = 32 * MIB;
const NODES = [1, 2, 3];
const VALUE = 'd'.repeat(100_000);
const REFUSAL = 'SERVER_ERROR disk full: nothing was changed';

/** Disks of this test; undone when the process ends, however that happens. */
const mounted = new Set<string>();
process.on('exit', unmountAll);

function runQuietly(command: string, ...args: string[]): void {
  execFileSync(command, args, { stdio: 'ignore' });
}

function mount(folder: string): void {
  mkdirSync(folder, { recursive: true });
  runQuietly('mount', '-t', 'tmpfs', '-o', `size=${DISK_BYTES}`, 'raftkv-test', folder);
  mounted.add(folder);
}

function unmountAll(): void {
  for (const folder of mounted) {
    runQuietly('umount', '--lazy', folder);
    mounted.delete(folder);
  }
}

/** Why there can be no disk of a test's own; empty where there can. */
function whyNoDisks(): string {
  if (process.platform !== 'linux') return 'needs tmpfs';
  const folder = mkdtempSync(join(tmpdir(), 'raftkv-mount-'));
  try {
    mount(folder);
    unmountAll();
    return '';
  } catch {
    return 'only root may mount';
  } finally {
    rmdirSync(folder);
  }
}

const obstacle = whyNoDisks();
if (obstacle !== '') console.warn(`skipped: full disks (${obstacle})`);

let cluster: Cluster;
let disks: string;
const diskOf = (id: number) => join(disks, `disk-${id}`);
const ballastOf = (id: number) => join(diskOf(id), 'ballast');
showLogOfFailure(() => cluster);
beforeAll(async () => {
  if (obstacle !== '') return;
  disks = mkdtempSync(join(tmpdir(), 'raftkv-disks-'));
  for (const id of NODES) mount(diskOf(id));
  cluster = await startCluster({
    settings: (id) => ({ dataDir: diskOf(id), walSegmentBytes: SEGMENT_BYTES }),
  });
});
afterAll(async () => {
  await cluster?.stop();
  unmountAll();
  if (disks !== undefined) rmSync(disks, { recursive: true, force: true });
});

/** Leaves no room at all. */
function fillDisk(id: number): void {
  const file = openSync(ballastOf(id), 'w');
  try {
    for (let size = MIB; size >= 4096; ) {
      try {
        writeSync(file, Buffer.alloc(size));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
        size /= 2;
      }
    }
  } finally {
    closeSync(file);
  }
}

function makeRoom(id: number): void {
  rmSync(ballastOf(id));
}

/** Large values, each under its own key. Refusals are counted; other errors are not expected. */
function startLargeWrites(prefix: string, clients: number) {
  const stored = new Map<string, string>();
  let refused = 0;
  const load = startLoad(cluster, {
    clients,
    pauseBetweenRequestsMs: 2,
    async request(client, number, round) {
      const key = `${prefix}.${number}.${round}`;
      const reply = await client.set(key, `${key} ${VALUE}`);
      if (reply === 'STORED') stored.set(key, `${key} ${VALUE}`);
      else if (reply === REFUSAL) refused++;
      else throw new Error(`${key}: ${reply}`);
    },
  });
  onTestFinished(() => load.stop());
  return { load, stored, refused: () => refused };
}

const healthProblemOf = async (id: number) => (await cluster.status(id))?.healthProblem ?? '';

describe.skipIf(obstacle !== '')('the full disk of one node', () => {
  it('of the leader: another leads, no request fails, and it catches up when there is room', async () => {
    const leader = await cluster.leader();
    const { load, stored, refused } = startLargeWrites('one', 4);
    fillDisk(leader);
    await until('the leader to notice', async () => (await healthProblemOf(leader)).includes('full') || undefined);
    expect(await cluster.leader(leader)).not.toBe(leader);
    await load.progress(20);
    expect(await healthProblemOf(leader)).toBe(
      'the disk of this node is full: its log cannot grow until space is freed',
    );
    makeRoom(leader);
    await until('the node to take log again', async () => (await healthProblemOf(leader)) === '' || undefined);
    await load.progress(20);
    await load.stop();
    expect(load.errors).toEqual([]);
    expect(load.unknown()).toBe(0);
    expect(refused()).toBe(0);
    await cluster.caughtUp();
    for (const id of NODES) expect(await differencesAt(cluster, id, stored)).toEqual([]);
  });
});

describe.skipIf(obstacle !== '')('full disks of all nodes', () => {
  it('refuse writes and serve reads until there is room; nothing acknowledged is lost', async () => {
    const { load, stored, refused } = startLargeWrites('all', 4);
    await load.progress(20);
    for (const id of NODES) fillDisk(id);
    await until('writes to be refused', async () => refused() > 20 || undefined);
    await load.stop();
    expect(load.errors).toEqual([]);
    expect(load.unknown()).toBe(0);
    for (const id of NODES) {
      const client = await cluster.connect(id);
      await until(`node ${id} to refuse`, async () => (await client.set('small', 'no')) === REFUSAL || undefined);
      expect(await client.request('delete all.0.0\r\n')).toBe(REFUSAL);
      expect(await client.request('ms small 2\r\nno\r\n')).toBe(REFUSAL);
    }
    for (const id of NODES) expect(await differencesAt(cluster, id, stored)).toEqual([]);
    expect((await cluster.command('status')).stdout).toContain('full');
    const [restarted = 0] = await cluster.followers();
    await cluster.kill(restarted);
    await expect(cluster.start(restarted)).rejects.toThrow('ended (1)');
    expect(cluster.lines().join('\n')).toContain(`node ${restarted} cannot start: the disk of`);
    for (const id of NODES) makeRoom(id);
    await cluster.start(restarted);
    await cluster.serving(restarted);
    for (const id of NODES) {
      const client = await cluster.connect(id);
      await until(
        `node ${id} to take writes`,
        async () => (await client.set(`room${id}`, 'yes')) === 'STORED' || undefined,
      );
      stored.set(`room${id}`, 'yes');
    }
    await Promise.all(NODES.map((id) => cluster.kill(id)));
    await Promise.all(NODES.map((id) => cluster.start(id)));
    await Promise.all(NODES.map((id) => cluster.serving(id)));
    for (const id of NODES) expect(await differencesAt(cluster, id, stored)).toEqual([]);
  });
});
