import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach } from 'vitest';
import type { ReplicaStatus } from '../../src/replica/types.ts';
import type { StatusBody } from '../../src/server/admin/admin-port.ts';
import { ClusterLog } from './cluster-log.ts';
import { connect, type MemcachedClient } from './memcached-client.ts';
import { startNodeInProcess } from './node-in-process.ts';
import { type CommandResult, type NodeProcess, runCommand, startNodeProcess } from './node-process.ts';
import { openPartitionableLink, type PartitionableLink } from './partitionable-link.ts';
import { reservePorts } from './ports.ts';
import { secureCluster } from './secure-cluster.ts';

/**
 * A cluster of real processes on this machine, in a folder of its own. Tests kill, pause and restart its nodes; `stop`
 * leaves no process, port or folder behind, and so does the end of the test process, however it ends.
 *
 * ```
 *  test ──┬─ node 1 (process) ── <folder>/data/node-1
 *         ├─ node 2 (process) ── <folder>/data/node-2
 *         └─ node 3 (process) ── <folder>/data/node-3
 * ```
 */
export interface ClusterOptions {
  readonly nodes?: number;
  /** Nodes beyond these that do not belong to the cluster: they are started by a test, and wait to be added. */
  readonly spares?: number;
  /** Merged into cluster.json, over the timing below. */
  readonly settings?: Settings | ((id: number) => Settings);
  /** The links between the nodes lead through this process, so that they can be partitioned. */
  readonly partitionable?: boolean;
  /** TLS at every port, and a password. */
  readonly secure?: boolean;
  /** The nodes run within the process of the test. For tests that only talk to nodes: they can be stopped, not killed. */
  readonly inProcess?: boolean;
  /** The election timeout of real clusters, for tests that partition or stop a leader, and so wait for it. */
  readonly quickElections?: boolean;
}

type Settings = Readonly<Record<string, unknown>>;

interface NodeAddress {
  readonly id: number;
  readonly host: string;
  readonly clientPort: number;
  readonly peerPort: number;
  readonly adminPort: number;
}

export interface Cluster {
  readonly folder: string;
  /** The configuration, as node 1 has it. */
  readonly file: string;
  /** The configuration of an operator, who lists all nodes, spares too. */
  readonly operatorFile: string;
  /** Those that the cluster begins with. */
  readonly nodes: readonly NodeAddress[];
  node(id: number): NodeAddress;
  /** Where the node keeps its data, unless the test's settings say otherwise. */
  directory(id: number): string;
  pid(id: number): number;
  isRunning(id: number): boolean;
  running(): number[];
  /** Starts the node's process; resolves when its ports are open. Spares start with `--join`, as others do where `join` says so. */
  start(id: number, join?: boolean): Promise<void>;
  /** Resolves when the node has said that it serves, since its last start. */
  serving(id: number): Promise<void>;
  /** Resolves when the process is gone, with its exit code or the signal that ended it. */
  kill(id: number, signal?: NodeJS.Signals): Promise<number | string>;
  /** Resolves when the process has ended by itself, with its exit code. */
  ended(id: number): Promise<number | string>;
  /** `raftkv` with these arguments and the operator's configuration. */
  command(...args: string[]): Promise<CommandResult>;
  /** Partitions the node from the others; its clients still reach it. Only where the cluster is partitionable. */
  isolate(id: number): void;
  /** Ends every isolation. */
  reunite(): void;
  pause(id: number): void;
  resume(id: number): void;
  /** What the node's admin port says; null where it does not answer in time. */
  status(id: number): Promise<ReplicaStatus | null>;
  /** The node that leads in the newest term, once a running node says that it does. `other` is not accepted. */
  leader(other?: number): Promise<number>;
  followers(): Promise<number[]>;
  /** Resolves when all running nodes have applied as much as the most advanced one had committed at the call. */
  caughtUp(): Promise<void>;
  /** Continues, restarts and awaits whatever a failed test left stopped or dead. */
  heal(): Promise<void>;
  connect(id: number): Promise<MemcachedClient>;
  /** The end of each node's log. */
  log(): string;
  /** All that the nodes have logged, oldest first. */
  lines(): readonly string[];
  stop(): Promise<void>;
}

const HOST = '127.0.0.1';
const PORTS_PER_NODE = 3;
const STATUS_MS_MAX = 10_000;
const ASK_AGAIN_MS = 25;
const PAUSE_CHECK_MS = 20;
/** Only what never comes takes so long. */
const UNTIL_MS_MAX = 60_000;
const CLUSTER_NAME = 'test';
/** The smallest that is allowed: a larger one is only more zeros to write at each start. */
const WAL_SEGMENT_BYTES = 32 * 1024 * 1024;
const REQUEST_TIMEOUT = { requestTimeoutMs: 60_000 };
/**
 * Long enough that a busy machine elects no leader for nothing. A leader that is killed is replaced soon all the same,
 * because its links close.
 */
const CALM_TIMING = { ...REQUEST_TIMEOUT, electionTimeoutMs: 1_000, heartbeatIntervalMs: 100 };
/** A single node waits for no other, and needs three election timeouts to begin. */
const LONE_TIMING = { ...REQUEST_TIMEOUT, electionTimeoutMs: 100, heartbeatIntervalMs: 20 };

const folders = new Set<string>();
process.on('exit', () => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** Starts a cluster and waits until every node serves. */
export async function startCluster(options: ClusterOptions = {}): Promise<Cluster> {
  const cluster = await createCluster(options);
  try {
    await Promise.all(cluster.nodes.map(({ id }) => cluster.start(id)));
    await Promise.all(cluster.nodes.map(({ id }) => cluster.serving(id)));
    return cluster;
  } catch (error) {
    const log = cluster.log();
    await cluster.stop();
    throw new Error(`the cluster did not start\n${log}`, { cause: error });
  }
}

/** As `startCluster`, with no process started yet. */
export async function createCluster(options: ClusterOptions): Promise<Cluster> {
  const { nodes: count = 3, spares = 0, settings = {}, partitionable = false, secure = false } = options;
  const inProcess = options.inProcess === true;
  const timing = options.quickElections === true ? REQUEST_TIMEOUT : count === 1 ? LONE_TIMING : CALM_TIMING;
  const linkPorts = partitionable ? count * (count - 1) : 0;
  const block = await reservePorts((count + spares) * PORTS_PER_NODE + linkPorts);
  const folder = mkdtempSync(join(tmpdir(), 'raftkv-test-'));
  folders.add(folder);
  const allNodes = Array.from({ length: count + spares }, (_, i): NodeAddress => {
    const [clientPort = 0, peerPort = 0, adminPort = 0] = block.ports.slice(i * PORTS_PER_NODE);
    return { id: i + 1, host: HOST, clientPort, peerPort, adminPort };
  });
  const nodes = allNodes.slice(0, count);
  const security = secure ? await secureCluster(folder, CLUSTER_NAME, nodes) : null;
  const links = partitionable ? await openLinks(nodes, block.ports.slice((count + spares) * PORTS_PER_NODE)) : [];
  /** Each node has a file of its own: a partitionable link's port stands where a peer's own port would. */
  const fileOf = (id: number) => join(folder, `cluster-${id}.json`);
  const writeConfig = (file: string, id: number, listed: readonly NodeAddress[]) => {
    const seen = listed.map((other) => {
      const link = links.find(({ from, to }) => from === id && to === other.id);
      return { ...other, peerPort: link?.port ?? other.peerPort };
    });
    const own = typeof settings === 'function' ? settings(id) : settings;
    const config = {
      cluster: CLUSTER_NAME,
      dataDir: './data',
      nodes: seen,
      walSegmentBytes: WAL_SEGMENT_BYTES,
      ...timing,
      ...security?.settings,
      ...own,
    };
    writeFileSync(file, JSON.stringify(config));
  };
  for (const { id } of nodes) writeConfig(fileOf(id), id, nodes);
  const operatorFile = join(folder, 'cluster.json');
  writeConfig(operatorFile, 0, allNodes);
  const processes = new Map<number, NodeProcess>();
  const paused = new Map<number, NodeJS.Timeout>();
  const clients = new Set<MemcachedClient>();
  const log = new ClusterLog();

  const node = (id: number): NodeAddress => {
    const found = allNodes[id - 1];
    if (found === undefined) throw new Error(`no node ${id}`);
    return found;
  };
  const processOf = (id: number): NodeProcess => {
    const found = processes.get(id);
    if (found === undefined) throw new Error(`node ${id} was never started`);
    return found;
  };
  const endPause = (id: number) => {
    clearInterval(paused.get(id));
    paused.delete(id);
  };
  const isRunning = (id: number) => processes.get(id)?.isRunning() === true;
  const running = () => allNodes.map(({ id }) => id).filter(isRunning);
  const status = (id: number) => (security ? security.status(node(id)) : askStatus(node(id)));
  const statuses = async () => {
    const asked = await Promise.all(
      running()
        .filter((id) => !paused.has(id))
        .map(status),
    );
    return asked.filter((answer) => answer !== null);
  };
  const leader = async (other?: number) => {
    const found = await until(`a leader${other === undefined ? '' : ` other than ${other}`}`, async () => {
      const leaders = (await statuses()).filter(({ role }) => role === 'leader').sort((a, b) => b.term - a.term);
      return leaders[0]?.nodeId === other ? undefined : leaders[0]?.nodeId;
    });
    return found;
  };

  const start = async (id: number, joins = id > count) => {
    if (isRunning(id)) throw new Error(`node ${id} runs already`);
    const args = joins ? ['--config', operatorFile, '--join'] : ['--config', fileOf(id)];
    const addLine = (line: string) => log.add(id, line);
    const started = inProcess ? startNodeInProcess(id, fileOf(id), addLine) : startNodeProcess(id, args, addLine);
    processes.set(id, started);
    await started.event('listening');
  };
  const serving = (id: number) => processOf(id).event('serving');
  const resume = (id: number) => {
    log.add(id, `test harness: SIGCONT`);
    endPause(id);
    processOf(id).signal('SIGCONT');
  };

  const reunite = () => {
    log.add(null, 'test harness: no node is partitioned');
    for (const { link } of links) link.heal();
  };

  return {
    folder,
    file: fileOf(1),
    operatorFile,
    nodes,
    node,
    directory: (id) => join(folder, 'data', `node-${id}`),
    ended: (id) => processOf(id).exited(),
    command: (...args) => runCommand([...args, '--config', operatorFile]),
    running,
    isRunning,
    status,
    leader,
    start,
    serving,
    resume,
    pid: (id) => processOf(id).pid,
    isolate(id) {
      log.add(id, 'test harness: partitioned');
      for (const { from, to, link } of links) if (from === id || to === id) link.partition();
    },
    reunite,
    async heal() {
      reunite();
      for (const id of paused.keys()) resume(id);
      await Promise.all(nodes.filter(({ id }) => !isRunning(id)).map(({ id }) => start(id)));
      await Promise.all(nodes.map(({ id }) => serving(id)));
    },
    async kill(id, signal = 'SIGKILL') {
      log.add(id, `test harness: ${signal}`);
      endPause(id);
      processOf(id).signal(signal);
      return processOf(id).exited();
    },
    pause(id) {
      log.add(id, `test harness: SIGSTOP`);
      const stopped = processOf(id);
      stopped.signal('SIGSTOP');
      const keepStopped = () => {
        if (isAwake(stopped.pid)) stopped.signal('SIGSTOP');
      };
      paused.set(id, setInterval(keepStopped, PAUSE_CHECK_MS));
    },
    async followers() {
      const leading = await leader();
      return running().filter((id) => id !== leading);
    },
    async caughtUp() {
      const target = Math.max(...(await statuses()).map(({ commitIndex }) => commitIndex));
      await until(`all nodes to apply ${target}`, async () => {
        const all = await statuses();
        return (
          (all.length === running().length && all.every(({ appliedIndex }) => appliedIndex >= target)) || undefined
        );
      });
    },
    async connect(id) {
      const client = await (security ? security.connect(node(id).clientPort) : connect(node(id).clientPort));
      clients.add(client);
      return client;
    },
    log: () => log.tails([...processes.keys()]),
    lines: () => log.lines(),
    async stop() {
      for (const id of paused.keys()) endPause(id);
      for (const client of clients) client.destroy();
      const alive = [...processes.values()].filter((one) => one.isRunning());
      for (const one of alive) one.signal(inProcess ? 'SIGTERM' : 'SIGKILL');
      await Promise.all(alive.map((one) => one.exited()));
      for (const { link } of links) link.close();
      rmSync(folder, { recursive: true, force: true });
      folders.delete(folder);
      block.release();
    },
  };
}

interface DirectedLink {
  readonly from: number;
  readonly to: number;
  readonly port: number;
  readonly link: PartitionableLink;
}

function openLinks(nodes: readonly NodeAddress[], ports: readonly number[]): Promise<DirectedLink[]> {
  const pairs = nodes.flatMap((from) => nodes.filter((to) => to !== from).map((to) => ({ from, to })));
  return Promise.all(
    pairs.map(async ({ from, to }, i) => {
      const port = ports[i] ?? 0;
      return { from: from.id, to: to.id, port, link: await openPartitionableLink(port, to.peerPort) };
    }),
  );
}

/** Prints the end of each node's log when a test of the file fails. */
export function showLogOfFailure(cluster: () => Cluster | undefined): void {
  afterEach(({ task }) => {
    if (task.result?.state === 'fail') console.log(`logs of the nodes in "${task.name}":\n${cluster()?.log() ?? ''}`);
  });
}

/** For what a cluster comes to without telling: asks again until there is an answer. */
export async function until<T>(what: string, ask: () => Promise<T | undefined>, limitMs = UNTIL_MS_MAX): Promise<T> {
  const deadlineMs = performance.now() + limitMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (performance.now() > deadlineMs) throw new Error(`waited ${limitMs} ms for ${what} in vain`);
    await new Promise((resolve) => setTimeout(resolve, ASK_AGAIN_MS));
  }
}

/** A host that was suspended wakes every process when it goes on, the stopped ones too. */
function isAwake(pid: number): boolean {
  const file = `/proc/${pid}/stat`;
  return existsSync(file) && !/^\d+ \(.*\) [TZ] /.test(readFileSync(file, 'latin1'));
}

async function askStatus({ host, adminPort }: NodeAddress): Promise<ReplicaStatus | null> {
  try {
    const signal = AbortSignal.timeout(STATUS_MS_MAX);
    const response = await fetch(`http://${host}:${adminPort}/status`, { signal });
    return ((await response.json()) as StatusBody).replica;
  } catch {
    return null;
  }
}
