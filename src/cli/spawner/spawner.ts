import { fork } from 'node:child_process';
import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/logger.ts';
import type { Config } from '../../config/schema.ts';
import { heapMibNeeded, processLimits } from '../node/resources.ts';
import { ClusterView } from './cluster-view.ts';
import { eachLine, type LineSource } from './node-output.ts';
import { Supervisor } from './supervisor.ts';

/**
 * All nodes of a cluster as processes of this machine.
 *
 *   spawner ⇄ IPC channel ⇄ node 1 … n     readiness is told, not asked for
 *           ← their output ←
 *
 * A node ends when its channel closes, so none outlives the spawner, not even after kill -9.
 */
export interface SpawnerOptions {
  readonly config: Config;
  /** The script that runs one node, and its arguments. */
  readonly script: string;
  readonly argumentsFor: (nodeId: number) => readonly string[];
  readonly clock: Clock;
  readonly logger: Logger;
  onLine(line: string, source: LineSource): void;
  /** Once, when the cluster serves. */
  onServing(view: ClusterView): void;
}

export interface Spawner {
  /** Has every node read its passwords and certificates again. */
  reload(): void;
  /** Stops all nodes gracefully. Resolves when all have ended: true where each ended by itself, with 0. */
  stop(): Promise<boolean>;
  /** Kills all nodes. */
  kill(): void;
}

export function startSpawner(options: SpawnerOptions): Spawner {
  const { config, clock, logger } = options;
  const view: ClusterView = new ClusterView(config, clock, () => options.onServing(view));
  const supervisors = config.nodes.map(
    ({ id: nodeId }) =>
      new Supervisor({
        nodeId,
        clock,
        logger,
        fork: () => forkNode(options, nodeId),
        onMessage: (message) => view.heard(nodeId, message),
        onStarted: () => view.started(nodeId),
        onEnded: () => view.ended(nodeId),
      }),
  );
  for (const supervisor of supervisors) supervisor.start();
  return {
    reload() {
      for (const supervisor of supervisors) supervisor.reload();
    },
    async stop() {
      view.close();
      // All nodes are stopped at once: while all run there is a quorum to answer pending requests.
      const clean = await Promise.all(supervisors.map((supervisor) => supervisor.stop()));
      return clean.every(Boolean);
    },
    kill() {
      for (const supervisor of supervisors) supervisor.kill();
    },
  };
}

function forkNode({ config, script, argumentsFor, onLine }: SpawnerOptions, nodeId: number) {
  const child = fork(script, [...argumentsFor(nodeId)], {
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    execArgv: [...process.execArgv, ...heapArguments(config)],
  });
  for (const stream of ['stdout', 'stderr'] as const) {
    const readable = child[stream];
    if (readable !== null) eachLine(readable, (line) => onLine(line, { nodeId, stream }));
  }
  return child;
}

/** Gives a node the heap for a full store, where Node's own choice for this machine is smaller. */
function heapArguments(config: Config): string[] {
  const neededMib = heapMibNeeded(config);
  const enough = neededMib * 1024 * 1024 <= processLimits().heapBytesMax;
  return enough ? [] : [`--max-old-space-size=${neededMib}`];
}
