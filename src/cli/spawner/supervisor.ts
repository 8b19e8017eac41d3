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
 * Every end but that of a node that the cluster has removed is answered by a restart, also that of a node which
 * reported damage or a bad configuration: the operator may be repairing it, and the wait keeps the attempts rare.
 */

/** Soon enough that a crash is hardly noticed, late enough that a port and a lock are free again. */
const RESTART_DELAY_MS_MIN = 250;
/** The longest pause between two starts: it bounds the cost of a node that can't start, and how long an operator waits after a repair. */
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

export class Supervisor {
  readonly #options: SupervisorOptions;
  #child: ChildProcess | undefined;
  #startedAtMs = 0;
  #failures = 0;
  /** The code of the fatal error that the running process has reported; empty if there was none. */
  #fatalCode = '';
  #removed = false;
  #stopping = false;
  #cancelRestart = () => {};
  /** Set by stop(), called when the process has ended. */
  #onStopped = (_clean: boolean) => {};

  constructor(options: SupervisorOptions) {
    this.#options = options;
  }

  start(): void {
    const { nodeId, clock, logger, fork, onStarted } = this.#options;
    this.#startedAtMs = clock.monotonicMs();
    this.#fatalCode = '';
    const child = fork();
    onStarted();
    this.#child = child;
    child.on('message', (message) => this.#heard(message));
    child.on('error', (err) => {
      if (child.pid === undefined) this.#ended(child, false, { err }, 'could not be started');
      else logger.error({ node: nodeId, err }, `communication with node ${nodeId} failed`);
    });
    child.once('exit', (code, signal) => {
      const fatal = this.#fatalCode && { code: this.#fatalCode };
      const how = { ...(signal === null ? { exitCode: code } : { signal }), ...fatal };
      afterLastWords(child, () => this.#ended(child, code === 0, how, 'ended'));
    });
    logger.info({ node: nodeId, nodePid: child.pid }, `node ${nodeId} started`);
  }

  /** Has the node read its passwords and certificates again. One that is down will when it starts. */
  reload(): void {
    this.#child?.kill('SIGHUP');
  }

  /** SIGTERM, then SIGKILL after a while. Resolves when the process has ended: true where it ended by itself, with 0. */
  async stop(): Promise<boolean> {
    const { nodeId, clock, logger } = this.#options;
    this.#stopping = true;
    this.#cancelRestart();
    const leaving = this.#child;
    if (leaving === undefined) return true;
    const ended = new Promise<boolean>((resolve) => {
      this.#onStopped = resolve;
    });
    leaving.kill('SIGTERM');
    const cancelKill = clock.after(STOP_MS_MAX, () => {
      logger.error({ node: nodeId, stopMsMax: STOP_MS_MAX }, `node ${nodeId} did not stop in time; killing it`);
      leaving.kill('SIGKILL');
    });
    const clean = await ended;
    cancelKill();
    return clean;
  }

  /** SIGKILL at once. */
  kill(): void {
    this.#stopping = true;
    this.#cancelRestart();
    this.#child?.kill('SIGKILL');
  }

  #heard(message: unknown): void {
    if (!isNodeMessage(message)) return;
    if (message.kind === 'fatal') this.#fatalCode = message.code;
    if (message.kind === 'removed') this.#removed = true;
    this.#options.onMessage(message);
  }

  /** A process may report its end twice, as an error and as an exit: the first counts. */
  #ended(child: ChildProcess, clean: boolean, how: object, what: string): void {
    if (child !== this.#child) return;
    const { nodeId, logger, onEnded } = this.#options;
    this.#child = undefined;
    onEnded();
    if (this.#stopping) this.#onStopped(clean);
    else if (this.#removed && clean)
      logger.info({ node: nodeId }, `node ${nodeId} was removed from the cluster; not restarting it`);
    else this.#restartLater(how, what);
  }

  #restartLater(how: object, what: string): void {
    const { nodeId, clock, logger } = this.#options;
    if (clock.monotonicMs() - this.#startedAtMs >= STABLE_MS) this.#failures = 0;
    this.#failures++;
    const delayMs = restartDelayMs(this.#failures);
    logger.warn({ node: nodeId, ...how, delayMs }, `node ${nodeId} ${what}; restarting in ${delayMs} ms`);
    this.#cancelRestart = clock.after(delayMs, () => this.start());
  }
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
