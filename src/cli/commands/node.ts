import { RaftkvError } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import { findNode, loadConfig } from '../../config/load.ts';
import type { Config } from '../../config/schema.ts';
import { processLimits, resourceWarnings } from '../node/resources.ts';
import type { NodeEvent, NodeMessage, RunNode, RunningNode } from '../node/types.ts';
import { watchTerminal } from '../terminal/hang-up.ts';
import { createLogger, createPrettyLogger, wantsColours } from '../terminal/log.ts';
import type { CommonOptions } from '../terminal/options.ts';
import { EXIT_FAILURE, EXIT_OK, UsageError } from '../terminal/output.ts';

/**
 * `raftkv node`: one node in the foreground.
 *
 *   SIGTERM, SIGINT, spawner or terminal gone → graceful stop, bounded → exit 0
 *   SIGHUP → passwords and certificates are read again
 *   removed from the cluster → says so, graceful stop → exit 0
 *   fatal error, uncaught exception → logged with its code → exit 1, without a stop: what is in doubt must not be said
 */

/**
 * A graceful stop that takes longer has lost its quorum, or hangs. Below the spawner's patience, which is below the
 * 10 s that container runtimes grant.
 */
const STOP_MS_MAX = 5_000;

export interface NodeOptions extends CommonOptions {
  readonly id: number;
  /** Absent: this node may form a new cluster with the others of the configuration. */
  readonly join?: boolean;
}

/** Returns once the node runs; the process then lives until a signal. Throws UsageError and what `runNode` throws. */
export async function nodeCommand(options: NodeOptions, runNode: RunNode): Promise<void> {
  const spawner = connectToSpawner();
  try {
    const { config, warnings } = loadConfig({ file: options.config, environment: process.env, flags: options });
    if (findNode(config, options.id) === undefined) throw unknownNode(config, options.id);
    const logger = await createNodeLogger(config, options.id);
    // The spawner has shown the same warnings already.
    const shown = spawner === undefined ? warnings : [];
    for (const warning of [...shown, ...resourceWarnings(config, processLimits())]) logger.warn({}, warning);
    await supervise(config, options, logger, spawner, runNode);
  } catch (error) {
    spawner?.tell(fatalMessage(error));
    throw error;
  }
}

async function supervise(
  config: Config,
  { id, join = false }: NodeOptions,
  logger: Logger,
  spawner: Spawner | undefined,
  runNode: RunNode,
): Promise<void> {
  const die = (error: unknown) => {
    const { code, message, remedy } = fatalMessage(error);
    logger.error(error instanceof RaftkvError ? { code, remedy } : { code, err: error }, message);
    spawner?.tell({ kind: 'fatal', code, message, remedy });
    process.exit(EXIT_FAILURE);
  };
  process.on('uncaughtException', die);
  process.on('unhandledRejection', die);

  const leave = async (node: RunningNode) => {
    await node.stop();
    logger.info({}, 'stopped');
    process.exit(EXIT_OK);
  };
  let running: RunningNode | undefined;
  let stopReason = '';
  const stop = async (reason: string) => {
    if (stopReason !== '') {
      // A second Ctrl-C means now. A spawner has its own way to insist.
      if (spawner !== undefined) return;
      logger.warn({}, `${reason} again: exiting at once`);
      process.exit(EXIT_FAILURE);
    }
    stopReason = reason;
    logger.info({ reason }, 'stopping');
    setTimeout(() => {
      logger.error({ stopMsMax: STOP_MS_MAX }, 'shutdown took too long; exiting with unfinished work');
      process.exit(EXIT_FAILURE);
    }, STOP_MS_MAX).unref();
    // A signal during the start is honoured when the start is over.
    if (running !== undefined) await leave(running);
  };
  process.on('SIGTERM', () => void stop('SIGTERM'));
  // A terminal sends Ctrl-C to the whole group: under a spawner it is the spawner's to answer.
  process.on('SIGINT', () => {
    if (spawner === undefined) void stop('SIGINT');
  });
  const terminalGone = watchTerminal();
  process.on('SIGHUP', () => {
    // A terminal that goes tells the whole group: under a spawner that, too, is the spawner's to answer.
    if (spawner === undefined && terminalGone()) void stop('terminal closed');
    else running?.reload();
  });
  spawner?.onceGone(() => void stop('spawner exited'));

  const onEvent = (event: NodeEvent) => {
    if (event.kind === 'fatal') return die(event.error);
    logEvent(logger, config, id, event);
    spawner?.tell(event);
    if (event.kind === 'removed' && stopReason === '') void stop('removed from the cluster');
  };
  try {
    running = await runNode(config, id, { join, logger, onEvent });
  } catch (error) {
    return die(error);
  }
  if (stopReason !== '') await leave(running);
}

async function createNodeLogger(config: Config, id: number): Promise<Logger> {
  const options = { level: config.logLevel, fields: { node: id } };
  if (process.stdout.isTTY) return createPrettyLogger(options, wantsColours(process.stdout));
  return createLogger(options);
}

function logEvent(logger: Logger, config: Config, id: number, event: Exclude<NodeEvent, { kind: 'fatal' }>): void {
  switch (event.kind) {
    case 'listening': {
      const { host, clientPort, peerPort, adminPort } = findNode(config, id) ?? {};
      logger.info({ host, clientPort, peerPort, adminPort }, 'listening');
      return;
    }
    case 'leaderChanged': {
      const { leader, term } = event;
      const message =
        leader === 0 ? 'no leader' : leader === id ? 'this node is the leader' : `node ${leader} is the leader`;
      logger.info({ leader, term }, message);
      return;
    }
    case 'serving':
      logger.info({}, 'serving');
      return;
    case 'removed':
      logger.warn(
        { remedy: 'Remove it from cluster.json and delete its data directory, or add it again with an empty one.' },
        `node ${id} was removed from cluster ${config.cluster}; stopping`,
      );
  }
}

function unknownNode(config: Config, id: number): UsageError {
  const ids = config.nodes.map((node) => node.id).join(', ');
  return new UsageError(`cluster ${config.cluster} has no node ${id}; it has ${ids}`);
}

function fatalMessage(error: unknown): Extract<NodeMessage, { kind: 'fatal' }> {
  if (error instanceof RaftkvError) {
    return { kind: 'fatal', code: error.code, message: error.message, remedy: error.remedy };
  }
  return {
    kind: 'fatal',
    code: 'UNEXPECTED',
    message: error instanceof Error ? error.message : String(error),
    remedy: '',
  };
}

interface Spawner {
  tell(message: NodeMessage): void;
  /** Calls back when the spawner's process has ended, however it ended. */
  onceGone(callback: () => void): void;
}

/** Undefined where no spawner started this process. */
function connectToSpawner(): Spawner | undefined {
  if (process.send === undefined) return undefined;
  return {
    tell(message) {
      // Told to a spawner that is going: `onceGone` answers that, so a failure here is nothing more.
      if (process.connected) process.send?.(message, undefined, undefined, () => {});
    },
    onceGone(callback) {
      process.once('disconnect', callback);
      // The parent process may have ended before this listener was added.
      if (!process.connected) callback();
    },
  };
}
