import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Logger } from '../../../src/base/logger.ts';
import type { ClusterView } from '../../../src/cli/spawner/cluster-view.ts';
import type { LineSource } from '../../../src/cli/spawner/node-output.ts';
import { type Spawner, startSpawner } from '../../../src/cli/spawner/spawner.ts';
import { restartDelayMs } from '../../../src/cli/spawner/supervisor.ts';
import {
  createFakeCluster,
  createManualClock,
  createQueue,
  FAKE_NODE_SCRIPT,
  type FakeCluster,
  type FakeNode,
  fakeConfig,
  type ManualClock,
} from '../fake-cluster.ts';

let cluster: FakeCluster;
let clock: ManualClock;
let spawner: Spawner | undefined;
const lines = createQueue<LineSource & { line: string }>();
const served = createQueue<ClusterView>();
let logged: { fields: object; message: string }[];

beforeEach(async () => {
  cluster = await createFakeCluster();
  clock = createManualClock();
  logged = [];
});
afterEach(async () => {
  spawner?.kill();
  spawner = undefined;
  await cluster.close();
});

async function start(nodeCount: number): Promise<FakeNode[]> {
  const record = (fields: object, message: string) => void logged.push({ fields, message });
  const logger: Logger = { debug: record, info: record, warn: record, error: record };
  spawner = startSpawner({
    config: fakeConfig(nodeCount),
    script: FAKE_NODE_SCRIPT,
    argumentsFor: (nodeId) => [String(cluster.port), String(nodeId)],
    clock,
    logger,
    onLine: (line, source) => lines.push({ line, ...source }),
    onServing: (view) => served.push(view),
  });
  const nodes: FakeNode[] = [];
  while (nodes.length < nodeCount) nodes.push(await cluster.started.next());
  return nodes.sort((a, b) => a.id - b.id);
}

const started = () => cluster.started.next();

async function startOne(): Promise<FakeNode> {
  const [node] = await start(1);
  if (node === undefined) throw new Error('no node started');
  return node;
}

describe('a node that ends', () => {
  it('is started again, after a longer wait each time', async () => {
    let node = await startOne();
    const delays: number[] = [];
    for (let crash = 0; crash < 4; crash++) {
      node.do('exit', 3);
      const timer = await clock.timerSet.next();
      delays.push(timer.delayMs);
      timer.fire();
      node = await started();
    }
    expect(delays).toEqual([250, 500, 1000, 2000]);
    expect(node.id).toBe(1);
  });

  it('is not started again where the cluster has removed it, and the rest stops cleanly', async () => {
    const [one, two] = await start(2);
    two?.do('send', { kind: 'removed' });
    two?.do('exit', 0);
    await two?.gone;
    one?.do('exit', 3);
    const timer = await clock.timerSet.next();
    timer.fire();
    expect((await started()).id).toBe(1);
    expect(logged.map(({ message }) => message)).toContain('node 2 was removed from the cluster; not restarting it');
    expect(clock.timers).toEqual([]);
    expect(await spawner?.stop()).toBe(true);
  });

  it('waits no longer than the cap', () => {
    expect([6, 7, 8, 100].map(restartDelayMs)).toEqual([8_000, 15_000, 15_000, 15_000]);
  });

  it('counts as well, and waits little again, after it has run for a while', async () => {
    let node = await startOne();
    for (const expected of [250, 500]) {
      node.do('exit', 3);
      const timer = await clock.timerSet.next();
      expect(timer.delayMs).toBe(expected);
      timer.fire();
      node = await started();
    }
    clock.nowMs += 30_000;
    node.do('exit', 3);
    expect((await clock.timerSet.next()).delayMs).toBe(250);
  });

  it('is started again after a kill, and after an exit with 0 that was not requested', async () => {
    let node = await startOne();
    process.kill(node.pid, 'SIGKILL');
    (await clock.timerSet.next()).fire();
    node = await started();
    node.do('exit', 0);
    (await clock.timerSet.next()).fire();
    expect((await started()).id).toBe(1);
  });

  it('leaves the code of the fatal error that it reported in the log', async () => {
    const node = await startOne();
    node.do('send', { kind: 'fatal', code: 'WAL_DAMAGED', message: 'segment 3', remedy: 'restore it' });
    node.do('exit', 1);
    await clock.timerSet.next();
    expect(logged.at(-1)).toEqual({
      fields: { node: 1, exitCode: 1, code: 'WAL_DAMAGED', delayMs: 250 },
      message: 'node 1 ended; restarting in 250 ms',
    });
  });

  it('has its last words read before the restart is announced', async () => {
    const node = await startOne();
    node.do('writeToStderr', 'out of');
    node.do('writeToStderr', ' luck');
    node.do('exit', 1);
    await clock.timerSet.next();
    expect(await lines.next()).toEqual({ line: 'out of luck', nodeId: 1, stream: 'stderr' });
  });
});

describe('the spawner, asked to reload', () => {
  it('sends SIGHUP to every node that runs', async () => {
    const nodes = await start(2);
    nodes[0]?.do('exit', 3);
    (await clock.timerSet.next()).fire();
    const again = await started();
    spawner?.reload();
    expect([await again.said.next(), await nodes[1]?.said.next()]).toEqual(['SIGHUP', 'SIGHUP']);
  });
});

describe('stopping', () => {
  it('sends SIGTERM to every node and waits until each has ended', async () => {
    const nodes = await start(3);
    const stopped = spawner?.stop();
    expect(await Promise.all(nodes.map((node) => node.said.next()))).toEqual(['SIGTERM', 'SIGTERM', 'SIGTERM']);
    expect(await stopped).toBe(true);
    await Promise.all(nodes.map((node) => node.gone));
    expect(clock.timers).toEqual([]);
  });

  it('kills a node that does not end in time, and says that it was not clean', async () => {
    const node = await startOne();
    node.do('deafen');
    expect(await node.said.next()).toBe('deaf');
    const stopped = spawner?.stop();
    expect(await node.said.next()).toBe('SIGTERM');
    const patience = await clock.timerSet.next();
    expect(patience.delayMs).toBe(8_000);
    patience.fire();
    expect(await stopped).toBe(false);
    await node.gone;
  });

  it('starts no node that was waiting for its restart', async () => {
    const node = await startOne();
    node.do('exit', 3);
    await clock.timerSet.next();
    expect(await spawner?.stop()).toBe(true);
    expect(clock.timers).toEqual([]);
  });

  it('can be interrupted by a kill', async () => {
    const node = await startOne();
    node.do('deafen');
    expect(await node.said.next()).toBe('deaf');
    const stopped = spawner?.stop();
    spawner?.kill();
    expect(await stopped).toBe(false);
    await node.gone;
  });
});

describe('the moment when the cluster serves', () => {
  it('is when every node serves', async () => {
    const nodes = await start(3);
    for (const node of nodes) {
      node.do('send', { kind: 'listening' });
      node.do('send', { kind: 'leaderChanged', leader: 2, term: 1 });
      node.do('send', { kind: 'serving' });
    }
    const view = await served.next();
    expect([1, 2, 3].map((id) => view.stateOf(id))).toEqual(['serving', 'serving', 'serving']);
    expect(view.leader).toBe(2);
    expect(clock.timers).toEqual([]);
  });

  it('is a little after a majority serves, where the others take long', async () => {
    const [first, second] = await start(3);
    for (const node of [first, second]) {
      // In this order where a quorum is found before the last port is open.
      node?.do('send', { kind: 'serving' });
      node?.do('send', { kind: 'listening' });
    }
    const patience = await clock.timerSet.next();
    expect(patience.delayMs).toBe(1_500);
    patience.fire();
    const view = await served.next();
    expect([1, 2, 3].map((id) => view.stateOf(id))).toEqual(['serving', 'serving', 'starting']);
  });
});

describe('a spawner that is killed', () => {
  it('leaves no node behind', async () => {
    const script = fileURLToPath(new URL('./spawner-process.ts', import.meta.url));
    const args = ['--import', 'tsx', script, String(cluster.port)];
    const process_ = spawn(process.execPath, args, { stdio: 'ignore' });
    const nodes = [await started(), await started(), await started()];
    process_.kill('SIGKILL');
    await Promise.all(nodes.map((node) => node.gone));
    expect(nodes.map((node) => node.id).sort()).toEqual([1, 2, 3]);
  });
});
