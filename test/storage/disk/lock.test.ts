import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { lockDataDir } from '../../../src/storage/disk/lock.ts';

const LOCK_MODULE = join(import.meta.dirname, '../../../src/storage/disk/lock.ts');
const TSX = import.meta.resolve('tsx');

let directory: string;
const children: ChildProcess[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'raftkv-lock-'));
});

afterEach(async () => {
  for (const child of children.splice(0)) await end(child);
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
    import { lockDataDir } from ${JSON.stringify(LOCK_MODULE)};
    try { lockDataDir(${JSON.stringify(directory)}, Math.random); process.stdout.write('held'); }
    catch (error) { process.stdout.write(String(error.code)); }
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['--import', TSX, '--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  const [data] = (await once(child.stdout as NodeJS.ReadableStream, 'data')) as [Buffer];
  return { child, said: data.toString() };
}

const codeOf = (work: () => unknown): unknown => {
  try {
    work();
  } catch (error) {
    return error;
  }
  return null;
};

describe('the lock of a data directory', () => {
  it('keeps a second process off, names the first, and gives way when that is killed', async () => {
    const { child, said } = await contender();
    expect(said).toBe('held');
    expect(codeOf(() => lockDataDir(directory, Math.random))).toMatchObject({
      code: 'DATA_DIR_LOCKED',
      message: expect.stringContaining(`process ${child.pid}`),
      remedy: expect.stringContaining(`${child.pid}`),
    });
    await end(child);
    const lock = lockDataDir(directory, Math.random);
    expect((await contender()).said).toBe('DATA_DIR_LOCKED');
    lock.release();
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

  it('holds against this very process too, until it is released', () => {
    const lock = lockDataDir(directory, Math.random);
    expect(codeOf(() => lockDataDir(directory, Math.random))).toMatchObject({ code: 'DATA_DIR_LOCKED' });
    lock.release();
    lockDataDir(directory, Math.random).release();
  });

  it.runIf(process.platform === 'linux')('does not take a later process with the same pid for its holder', () => {
    lockDataDir(directory, Math.random);
    const folder = join(directory, 'LOCK');
    const path = join(folder, readdirSync(folder)[0] ?? '');
    writeFileSync(path, readFileSync(path, 'utf8').replace(/\d+\n$/, '1\n'));
    lockDataDir(directory, Math.random).release();
  });

  it('is not held by one that was overtaken between looking and taking', () => {
    lockDataDir(directory, Math.random);
    const folder = join(directory, 'LOCK');
    const alive = readFileSync(join(folder, '0000000001'), 'utf8');
    writeFileSync(join(folder, '0000000001'), '');
    // Called between the two: others take numbers 2 and 3 meanwhile, and clean up below 3.
    const overtaken = () => {
      writeFileSync(join(folder, '0000000003'), alive);
      rmSync(join(folder, '0000000001'), { force: true });
      return 0.5;
    };
    expect(codeOf(() => lockDataDir(directory, overtaken))).toMatchObject({ code: 'DATA_DIR_LOCKED' });
    expect(readdirSync(folder)).toEqual(['0000000003']);
  });

  it('is free again where power failed before its file had content', () => {
    const folder = join(directory, 'LOCK');
    mkdirSync(folder);
    writeFileSync(join(folder, '0000000007'), '');
    writeFileSync(join(folder, '4711-abc.tmp'), 'left behind');
    const lock = lockDataDir(directory, Math.random);
    expect(readdirSync(folder)).toEqual(['0000000008']);
    lock.release();
  });
});
