import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PATIENCE_MS } from '../../src/storage/lock/protocol.ts';
import { type PortBlock, reservePorts } from '../support/ports.ts';

/**
 * One data directory and several processes, each of which is process 1 of a pid namespace of its own, as in containers that
 * share a volume.
 */
const BIN = resolve(import.meta.dirname, '../../bin/raftkv.js');
const NAMESPACE = ['--pid', '--fork', '--kill-child', '--mount-proc'];
/** Root may make namespaces, and often other users may too. */
const UNSHARE = [NAMESPACE, ['--user', '--map-root-user', ...NAMESPACE]].find(
  (options) => spawnSync('unshare', [...options, 'true']).status === 0,
);
if (UNSHARE === undefined) console.warn('skipped: processes in pid namespaces (unshare is not permitted)');

const PORTS_PER_NODE = 3;
const STARTS = 4;

let folder: string;
let block: PortBlock;
let started = 0;
const children: ChildProcess[] = [];

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'raftkv-namespaces-'));
  block = await reservePorts(PORTS_PER_NODE * STARTS);
});
afterAll(async () => {
  for (const child of children) await kill(child);
  block.release();
  rmSync(folder, { recursive: true });
});

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
}

interface LogLine {
  readonly msg: string;
  readonly code?: string;
}

interface Started {
  readonly child: ChildProcess;
  /** Serving, or why not. */
  readonly first: LogLine;
  readonly log: readonly LogLine[];
  /** The next error. */
  failure(): Promise<LogLine>;
}

/** Node 1 of a cluster of one, on ports of its own: the data directory is all that these processes share. */
async function start(): Promise<Started> {
  const [clientPort, peerPort, adminPort] = block.ports.slice(started * PORTS_PER_NODE);
  const config = join(folder, `cluster-${++started}.json`);
  const node = { id: 1, host: '127.0.0.1', clientPort, peerPort, adminPort };
  writeFileSync(config, JSON.stringify({ cluster: 'namespaces', nodes: [node], dataDir: join(folder, 'data') }));
  const child = spawn('unshare', [...(UNSHARE ?? []), process.execPath, BIN, 'node', '--id', '1', '--config', config], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  const log: LogLine[] = [];
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const until = async (condition: (line: LogLine) => boolean): Promise<LogLine> => {
    for (let next = await lines.next(); !next.done; next = await lines.next()) {
      const line: LogLine = JSON.parse(next.value);
      log.push(line);
      if (condition(line)) return line;
    }
    throw new Error(`the process ended without a word; its log: ${JSON.stringify(log)}`);
  };
  const isFailure = ({ code }: LogLine) => code !== undefined;
  const first = await until((line) => line.msg === 'serving' || isFailure(line));
  return { child, first, log, failure: () => until(isFailure) };
}

/** The process in the namespace: the only child of `unshare`. */
function nodeOf({ pid }: ChildProcess): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8'));
}

describe.skipIf(UNSHARE === undefined)('processes in pid namespaces of their own', () => {
  it('serve one at a time, and one that was stopped finds out that another has taken over', async () => {
    const both = await Promise.all([start(), start()]);
    const [serving] = both.filter(({ first }) => first.msg === 'serving');
    const refused = both.filter(({ first }) => first.code === 'DATA_DIR_LOCKED');
    expect(refused).toHaveLength(1);
    if (serving === undefined) throw new Error('no process serves');
    expect(refused[0]?.first.msg).toContain(`the data directory is in use by process 1 on host ${hostname()}, since 2`);

    const late = await start();
    expect(late.first.code).toBe('DATA_DIR_LOCKED');
    expect(late.log.map(({ msg }) => msg).join()).toContain(`waiting up to ${PATIENCE_MS / 1000} s to see whether`);

    const node = nodeOf(serving.child);
    process.kill(node, 'SIGSTOP');
    const stoppedMs = performance.now();
    const next = await start();
    expect(next.first.msg).toBe('serving');
    expect(performance.now() - stoppedMs).toBeGreaterThan(PATIENCE_MS);

    process.kill(node, 'SIGCONT');
    const lost = await serving.failure();
    expect(lost.code).toBe('DATA_DIR_LOST');
    expect(lost.msg).toContain(`it was taken by process 1 on host ${hostname()}, since 2`);
    if (serving.child.exitCode === null) await once(serving.child, 'exit');
    expect(serving.child.exitCode).toBe(1);
    expect(next.child.exitCode).toBe(null);
  });
});
