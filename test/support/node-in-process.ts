import { EventEmitter, once } from 'node:events';
import { runNode } from '../../src/cli/node/run-node.ts';
import type { NodeEvent, NodeMessage, RunningNode } from '../../src/cli/node/types.ts';
import { createLogger } from '../../src/cli/terminal/log.ts';
import { loadConfig } from '../../src/config/load.ts';
import type { NodeProcess } from './node-process.ts';

/**
 * One node within the process of the test: with its own files and ports, and everything that `raftkv node` puts
 * together. It costs a fraction of a process's start, for tests that only talk to nodes. It can be stopped, but neither
 * killed nor paused.
 */
const START_MS_MAX = 60_000;
const EXIT_OK = 0;

export function startNodeInProcess(id: number, configFile: string, log: (line: string) => void): NodeProcess {
  const events = new EventEmitter().setMaxListeners(0);
  const seen = new Set<NodeMessage['kind']>();
  let node: RunningNode | null = null;
  let failure: unknown = null;
  let stopped: Promise<number> | null = null;
  const onEvent = (event: NodeEvent) => {
    if (event.kind === 'fatal') {
      failure = event.error;
      log(`test harness: node ${id} failed: ${event.error}`);
      return void events.emit('failed');
    }
    seen.add(event.kind);
    events.emit('message', event);
    events.emit(event.kind);
  };
  const start = async () => {
    const { config } = loadConfig({ file: configFile, environment: {} });
    const logger = createLogger({ level: config.logLevel, fields: { node: id }, to: { write: log } });
    node = await runNode(config, id, { join: false, logger, onEvent });
  };
  const starting = start().catch((error: unknown) => onEvent({ kind: 'fatal', error }));
  const stop = async () => {
    await starting;
    await node?.stop();
    log(`test harness: node ${id} stopped`);
    return EXIT_OK;
  };
  return {
    id,
    pid: process.pid,
    isRunning: () => stopped === null && failure === null,
    async event(kind) {
      if (failure !== null) throw failure;
      if (seen.has(kind)) return;
      const both = new AbortController();
      const options = { signal: AbortSignal.any([AbortSignal.timeout(START_MS_MAX), both.signal]) };
      await Promise.race([once(events, kind, options), once(events, 'failed', options)]).finally(() => both.abort());
      if (failure !== null) throw failure;
    },
    onEvent: (callback) => void events.on('message', callback),
    signal(signal) {
      if (signal !== 'SIGTERM') throw new Error(`node ${id} runs within the test: it can't be sent ${signal}`);
      stopped ??= stop();
    },
    async exited() {
      if (stopped === null) await once(events, 'failed');
      return stopped ?? 1;
    },
  };
}
