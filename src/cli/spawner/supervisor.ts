import type { ChildProcess } from 'node:child_process';
import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/logger.ts';
import { isNodeMessage, type NodeMessage } from '../node/types.ts';

/**
 * Keeps one node's process running until told to stop.
 *
 *   fork → running → ended → wait, twice as long each time → fork …
 *                  ↘ stop: SIGTERM → ended, or SIGKILL after a while
 *
 * Every end but that of a node that the cluster has removed is answered by a restart, also that of a node which reported damage or a bad configuration: the operator
 * may be repairing it, and the wait keeps the attempts rare.
 */

/** Soon enough that a crash is hardly noticed, late enough that a port and a lock are free again. */
const RESTART_DELAY_MS_MIN = 250;
/** What a node that can't start may cost, and what an operator who repaired it must wait at most. */
const RESTART_DELAY_MS_MAX = 15_000;
/** A node that ran this long was well: its next crash is a first one. */
const STABLE_MS = 30_000;
/** Above a node's own bound for its stop, below the 10 s that container runtimes grant the spawner. */
const STOP_MS_MAX = 8_000;

/** `failures` counts the ends in a row, from 1. */
export function restartDelayMs(failures: number): number {
  return Math.min(RESTART_DELAY_MS_MAX, RESTART_DELAY_MS_MIN * 2 ** (failures - 1));
}

export interface SupervisorOptions {
  readonly nodeId: number;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly fork: () => ChildProcess;
  onMessage(message: NodeMessage): void;
  onStarted(): void;
  /** The process has ended, or could not be started. */
  onEnded(): void;
}

export interface Supervisor {
  /** Has the node read its passwords and certificates again. One that is down will when it starts. */
  reload(): void;
  /** SIGTERM, then SIGKILL after a while. Resolves when the process has ended: true where it ended by itself, with 0. */
  stop(): Promise<boolean>;
  /** SIGKILL at once. */
  kill(): void;
}

export function superviseNode(options: SupervisorOptions): Supervisor {
  const { nodeId, clock, logger } = options;
  let child: ChildProcess | undefined;
  let startedAtMs = 0;
  let failures = 0;
  let fatalCode = '';
  let removed = false;
  let cancelRestart = () => {};
  let stopping = false;
  /** Set by stop(), called when the process has ended. */
  let onStopped = (_clean: boolean) => {};

  const start = () => {
    startedAtMs = clock.monotonicMs();
    fatalCode = '';
    const started = options.fork();
    options.onStarted();
    child = started;
    started.on('message', (message) => {
      if (!isNodeMessage(message)) return;
      if (message.kind === 'fatal') fatalCode = message.code;
      if (message.kind === 'removed') removed = true;
      options.onMessage(message);
    });
    let over = false;
    const ended = (clean: boolean, how: object, what: string) => {
      if (over) return;
      over = true;
      child = undefined;
      options.onEnded();
      if (stopping) onStopped(clean);
      else if (removed && clean)
        logger.info({ node: nodeId }, `node ${nodeId} was removed from the cluster; not restarting it`);
      else restartLater(how, what);
    };
    started.on('error', (err) => {
      if (started.pid === undefined) ended(false, { err }, 'could not be started');
      else logger.error({ node: nodeId, err }, `communication with node ${nodeId} failed`);
    });
    started.once('exit', (code, signal) => {
      const how = { ...(signal === null ? { exitCode: code } : { signal }), ...(fatalCode && { code: fatalCode }) };
      afterLastWords(started, () => ended(code === 0, how, 'ended'));
    });
    logger.info({ node: nodeId, nodePid: started.pid }, `node ${nodeId} started`);
  };

  const restartLater = (how: object, what: string) => {
    if (clock.monotonicMs() - startedAtMs >= STABLE_MS) failures = 0;
    failures++;
    const delayMs = restartDelayMs(failures);
    logger.warn({ node: nodeId, ...how, delayMs }, `node ${nodeId} ${what}; restarting in ${delayMs} ms`);
    cancelRestart = clock.after(delayMs, start);
  };

  start();
  return {
    reload() {
      child?.kill('SIGHUP');
    },
    async stop() {
      stopping = true;
      cancelRestart();
      const leaving = child;
      if (leaving === undefined) return true;
      const ended = new Promise<boolean>((resolve) => {
        onStopped = resolve;
      });
      leaving.kill('SIGTERM');
      const cancelKill = clock.after(STOP_MS_MAX, () => {
        logger.error({ node: nodeId, stopMsMax: STOP_MS_MAX }, `node ${nodeId} did not stop in time; killing it`);
        leaving.kill('SIGKILL');
      });
      const clean = await ended;
      cancelKill();
      return clean;
    },
    kill() {
      stopping = true;
      cancelRestart();
      child?.kill('SIGKILL');
    },
  };
}

/** Calls back when all that an ended process printed has been read. (`close` of the process itself also waits for IPC.) */
function afterLastWords({ stdout, stderr }: ChildProcess, callback: () => void): void {
  const open = [stdout, stderr].filter((stream) => stream !== null && !stream.closed);
  let waiting = open.length;
  if (waiting === 0) callback();
  for (const stream of open) {
    stream?.once('close', () => {
      waiting--;
      if (waiting === 0) callback();
    });
  }
}
