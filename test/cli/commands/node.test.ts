import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createQueue, fakeConfig, type Queue } from '../fake-cluster.ts';

let folder: string;
let config: string;
const processes: ChildProcess[] = [];

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'raftkv-node-'));
  config = join(folder, 'cluster.json');
  const { cluster, nodes } = fakeConfig(3);
  writeFileSync(config, JSON.stringify({ cluster, nodes }));
});
afterAll(() => {
  for (const child of processes) child.kill('SIGKILL');
  rmSync(folder, { recursive: true });
});

interface LogLine {
  readonly level: string;
  readonly node: number;
  readonly msg: string;
  readonly code?: string;
}

interface Run {
  readonly child: ChildProcess;
  readonly log: Queue<LogLine>;
  readonly messages: Queue<unknown>;
  readonly ended: Promise<{ code: number | null; stderr: string }>;
  /** Reads the log up to this line. */
  until(msg: string): Promise<LogLine>;
}

function run(behaviour: string, { spawner = false, id = 2 } = {}): Run {
  const script = fileURLToPath(new URL('./node-process.mjs', import.meta.url));
  const child = spawn(process.execPath, [script, config, String(id), behaviour], {
    stdio: ['pipe', 'pipe', 'pipe', ...(spawner ? (['ipc'] as const) : [])],
  });
  processes.push(child);
  const log = createQueue<LogLine>();
  const messages = createQueue<unknown>();
  child.on('message', (message) => messages.push(message));
  if (child.stdout === null || child.stderr === null) throw new Error('no output to read');
  createInterface({ input: child.stdout }).on('line', (line) => log.push(JSON.parse(line)));
  const stderr = text(child.stderr);
  const ended = new Promise<{ code: number | null; stderr: string }>((resolveEnd) => {
    child.once('exit', async (code) => resolveEnd({ code, stderr: await stderr }));
  });
  return {
    child,
    log,
    messages,
    ended,
    async until(msg) {
      for (;;) {
        const line = await log.next();
        if (line.msg === msg) return line;
      }
    },
  };
}

describe.concurrent('raftkv node', () => {
  it.each(['SIGTERM', 'SIGINT'] as const)('stops on %s and ends with 0', async (signal) => {
    const node = run('behaves');
    expect(await node.until('listening')).toMatchObject({ level: 'info', node: 2, clientPort: 11_002 });
    expect(await node.until('this node is the leader')).toMatchObject({ leader: 2, term: 4 });
    await node.until('serving');
    node.child.kill(signal);
    await node.until('stopped');
    expect(await node.ended).toEqual({ code: 0, stderr: '' });
  });

  it('reads its files again on SIGHUP, alone and under a spawner', async () => {
    for (const spawner of [false, true]) {
      const { child, until, ended } = run('well', { spawner });
      await until('serving');
      child.kill('SIGHUP');
      await until('no leader');
      child.kill('SIGTERM');
      expect((await ended).code).toBe(0);
    }
  });

  it('ends at once on a second Ctrl-C', async () => {
    const node = run('never stops');
    await node.until('serving');
    node.child.kill('SIGINT');
    await node.until('stopping');
    node.child.kill('SIGINT');
    await node.until('SIGINT again: exiting at once');
    expect((await node.ended).code).toBe(1);
  });

  it.each([
    ['refuses', 'segment 3 is damaged', 'WAL_DAMAGED'],
    ['breaks', 'segment 3 is damaged', 'WAL_DAMAGED'],
    ['throws', 'a bug', 'UNEXPECTED'],
    ['rejects', 'a bug', 'UNEXPECTED'],
  ])('that %s logs %s with its code and ends with 1', async (behaviour, msg, code) => {
    const node = run(behaviour);
    expect(await node.until(msg)).toMatchObject({ level: 'error', code });
    expect((await node.ended).code).toBe(1);
  });

  it('stops by itself, says so, and ends with 0 when the cluster has removed it', async () => {
    const node = run('is removed', { spawner: true });
    await node.until('node 2 was removed from cluster fake; stopping');
    await node.until('stopped');
    expect((await node.ended).code).toBe(0);
    const said = [];
    for (let i = 0; i < 4; i++) said.push(await node.messages.next());
    expect(said.at(-1)).toEqual({ kind: 'removed' });
  });

  it('ends with 1 where its stop fails', async () => {
    const node = run('fails to stop');
    await node.until('serving');
    node.child.kill('SIGTERM');
    expect(await node.until('segment 3 is damaged')).toMatchObject({ code: 'WAL_DAMAGED' });
    expect((await node.ended).code).toBe(1);
  });

  it('refuses an id that the cluster does not have, as wrong usage', async () => {
    const { code, stderr } = await run('behaves', { id: 9 }).ended;
    expect(code).toBe(2);
    expect(stderr).toBe('raftkv: cluster fake has no node 9; it has 1, 2, 3\n');
  });
});

describe.concurrent('raftkv node under a spawner', () => {
  it('tells the spawner how it fares', async () => {
    const node = run('behaves', { spawner: true });
    expect(await node.messages.next()).toEqual({ kind: 'listening' });
    expect(await node.messages.next()).toEqual({ kind: 'leaderChanged', leader: 2, term: 4 });
    expect(await node.messages.next()).toEqual({ kind: 'serving' });
  });

  it('tells the spawner why it ends', async () => {
    const node = run('refuses', { spawner: true });
    const fatal = { kind: 'fatal', code: 'WAL_DAMAGED', message: 'segment 3 is damaged', remedy: 'Restore it.' };
    expect(await node.messages.next()).toEqual(fatal);
    expect((await node.ended).code).toBe(1);
  });

  it('stops gracefully when the spawner is gone', async () => {
    const node = run('behaves', { spawner: true });
    await node.until('serving');
    node.child.disconnect();
    await node.until('stopped');
    expect((await node.ended).code).toBe(0);
  });

  it('stops gracefully when the spawner goes while it is being told something', async () => {
    const node = run('is busy', { spawner: true });
    await node.until('serving');
    const disconnected = once(node.child, 'disconnect');
    node.child.disconnect();
    await disconnected;
    node.child.stdin?.write('x');
    await node.until('no leader');
    await node.until('stopped');
    expect((await node.ended).code).toBe(0);
  });

  it('stops gracefully when the spawner is gone and its log pipe is closed', async () => {
    const node = run('behaves', { spawner: true });
    expect(await node.messages.next()).toEqual({ kind: 'listening' });
    node.child.stdout?.destroy();
    node.child.disconnect();
    expect((await node.ended).code).toBe(0);
  });

  it('leaves the Ctrl-C of the terminal to the spawner, and obeys its SIGTERM', async () => {
    const node = run('behaves', { spawner: true });
    await node.until('serving');
    node.child.kill('SIGINT');
    node.child.kill('SIGTERM');
    expect(await node.until('stopping')).toMatchObject({ reason: 'SIGTERM' });
    expect((await node.ended).code).toBe(0);
  });
});
