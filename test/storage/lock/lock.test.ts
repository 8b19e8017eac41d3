import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { systemClock } from '../../../src/base/clock.ts';
import type { RaftkvError } from '../../../src/base/errors.ts';
import { silentLogger } from '../../../src/base/logger.ts';
import { type DataDirLock, type LockOptions, lockDataDir } from '../../../src/storage/lock/lock.ts';
import { formatRecord } from '../../../src/storage/lock/record.ts';
import { systemFacts } from '../../../src/storage/lock/system.ts';

const SOURCE = join(import.meta.dirname, '../../../src');
const TSX = import.meta.resolve('tsx');

let directory: string;
const children: ChildProcess[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'raftkv-lock-'));
});

afterEach(async () => {
  for (const child of children.splice(0)) await end(child);
  for (const each of held.splice(0)) await each.release();
  expect(lost).toEqual([]);
  rmSync(directory, { recursive: true, force: true });
});

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
}

/** Another process that tries for the lock; what it says is `held` or an error's code. It stays until it is killed. */
async function contender(): Promise<{ child: ChildProcess; said: string }> {
  const program = `
    import { lockDataDir } from ${JSON.stringify(join(SOURCE, 'storage/lock/lock.ts'))};
    import { systemClock } from ${JSON.stringify(join(SOURCE, 'base/clock.ts'))};
    import { silentLogger } from ${JSON.stringify(join(SOURCE, 'base/logger.ts'))};
    const options = { clock: systemClock, logger: silentLogger, onLost() {} };
    try { await lockDataDir(${JSON.stringify(directory)}, options); process.stdout.write('held'); }
    catch (error) { process.stdout.write(String(error.code)); }
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['--import', TSX, '--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  const [data] = (await once(child.stdout as NodeJS.ReadableStream, 'data')) as [Buffer];
  return { child, said: data.toString() };
}

const lost: RaftkvError[] = [];
const held: DataDirLock[] = [];

async function lock(options: Partial<LockOptions> = {}): Promise<DataDirLock> {
  const onLost = (error: RaftkvError) => void lost.push(error);
  const taken = await lockDataDir(directory, { clock: systemClock, logger: silentLogger, onLost, ...options });
  held.push(taken);
  return taken;
}

describe('the lock of a data directory', () => {
  it('keeps a second process off, names the first, and gives way when that is killed', async () => {
    const { child, said } = await contender();
    expect(said).toBe('held');
    await expect(lock()).rejects.toMatchObject({
      code: 'DATA_DIR_LOCKED',
      message: expect.stringContaining(`process ${child.pid} on host ${hostname()}, since 2`),
      remedy: expect.stringContaining(`${child.pid}`),
    });
    await end(child);
    const mine = await lock();
    expect((await contender()).said).toBe('DATA_DIR_LOCKED');
    await mine.release();
    expect((await contender()).said).toBe('held');
  });

  it('is won by exactly one of many that want to take it from a dead process', async () => {
    await end((await contender()).child);
    const said = (await Promise.all(Array.from({ length: 6 }, contender))).map((each) => each.said);
    expect(said.sort()).toEqual([
      'DATA_DIR_LOCKED',
      'DATA_DIR_LOCKED',
      'DATA_DIR_LOCKED',
      'DATA_DIR_LOCKED',
      'DATA_DIR_LOCKED',
      'held',
    ]);
    expect(readdirSync(join(directory, 'LOCK'))).toHaveLength(1);
  });

  it('holds against this very process too, until it is released', async () => {
    const first = await lock();
    await expect(lock()).rejects.toMatchObject({ code: 'DATA_DIR_LOCKED' });
    expect(first.check()).toBe(true);
    await first.release();
    expect(first.check()).toBe(false);
    await lock();
  });

  it.runIf(process.platform === 'linux')('does not take a later process with the same pid for its holder', async () => {
    const { child } = await contender();
    await end(child);
    // The holder is dead, and this process is alive under its pid: what tells them apart is when each started.
    const path = join(directory, 'LOCK', '0000000001');
    const record = readFileSync(path, 'utf8');
    const inherited = record
      .replace(`"pid":${child.pid}`, `"pid":${process.pid}`)
      .replace(/"started":"\d+"/, '"started":"1"');
    expect(inherited).not.toBe(record);
    writeFileSync(path, inherited);
    expect((await lock()).check()).toBe(true);
  });

  it('is watched by a process of another host, which logs that it waits', async () => {
    await lock({ facts: { ...systemFacts(), host: 'db1', place: { boot: 'another', pidNamespace: 'another' } } });
    const log: string[] = [];
    const logger = { ...silentLogger, warn: (_fields: object, message: string) => void log.push(message) };
    await expect(lock({ logger })).rejects.toMatchObject({
      code: 'DATA_DIR_LOCKED',
      message: expect.stringContaining(`process ${process.pid} on host db1, since 2`),
    });
    expect(log).toEqual([
      expect.stringMatching(
        /^the data directory was last used by process \d+ on host db1, since .*; waiting up to 8 s to see/,
      ),
    ]);
  });

  it('removes what other versions left, and continues above every number', async () => {
    const folder = join(directory, 'LOCK');
    mkdirSync(folder);
    writeFileSync(join(folder, '0000000007'), releasedRecord());
    writeFileSync(join(folder, '4711-abc.tmp'), 'left behind');
    await lock();
    expect(readdirSync(folder)).toEqual(['0000000008']);
  });

  it('continues in the directory that replaces the locked one, above its number', async () => {
    const successor = mkdtempSync(join(tmpdir(), 'raftkv-lock-'));
    const first = await lock();
    await first.continueIn(successor);
    expect(readdirSync(join(successor, 'LOCK'))).toEqual(['0000000002']);
    rmSync(directory, { recursive: true });
    renameSync(successor, directory);
    await lock();
    expect(readdirSync(join(directory, 'LOCK'))).toEqual(['0000000003']);
    await expect(first.continueIn(directory)).rejects.toMatchObject({ code: 'DATA_DIR_LOST' });
  });
});

describe.runIf(process.platform === 'linux')('what the system says of processes', () => {
  it('includes where and when this one started', () => {
    const { pid, place, started, stateOf } = systemFacts();
    expect(place).toEqual({
      boot: expect.stringMatching(/^[0-9a-f-]{36}$/),
      pidNamespace: expect.stringContaining('pid:'),
    });
    expect(stateOf(pid)).toEqual({ kind: 'alive', started });
    expect(started).toMatch(/^\d+$/);
  });

  it('tells one that has ended, also before its parent has noticed', async () => {
    // The program that takes the place of the shell does not wait for the child of the shell.
    const parent = spawn('sh', ['-c', 'true & echo $!; exec sleep 60'], { stdio: ['ignore', 'pipe', 'inherit'] });
    children.push(parent);
    const [data] = (await once(parent.stdout, 'data')) as [Buffer];
    const { stateOf } = systemFacts();
    await vi.waitFor(() => expect(stateOf(Number(data))).toEqual({ kind: 'dead' }), { timeout: 60_000 });
    await end(parent);
    expect(stateOf(parent.pid ?? 0)).toEqual({ kind: 'dead' });
  });
});

function releasedRecord(): string {
  const holder = { pid: 1, host: 'h', since: '', id: '', place: null, started: null };
  return formatRecord({ state: 'released', beat: 0, holder });
}
