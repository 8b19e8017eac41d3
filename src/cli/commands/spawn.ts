import { styleText } from 'node:util';
import { systemClock } from '../../base/clock.ts';
import { loadConfig } from '../../config/load.ts';
import type { Config } from '../../config/schema.ts';
import { type ClusterView, describeCluster } from '../spawner/cluster-view.ts';
import { jsonFormat, type LineFormat, prettyFormat } from '../spawner/node-output.ts';
import { startSpawner } from '../spawner/spawner.ts';
import { watchTerminal } from '../terminal/hang-up.ts';
import { createLogger, PRETTY_OPTIONS, wantsColours } from '../terminal/log.ts';
import { type CommonOptions, commonArguments } from '../terminal/options.ts';
import { EXIT_FAILURE, EXIT_OK } from '../terminal/output.ts';

/** `raftkv spawn`: a whole cluster on this machine, until Ctrl-C or SIGTERM. */

export type SpawnOptions = CommonOptions;

const NODE_COLOURS = ['cyan', 'magenta', 'yellow', 'green', 'blue', 'red'] as const;
const SPAWNER_NAME = 'raftkv';

/** `script` is the program's own entry, which is forked again for each node. Returns once the nodes are started. */
export async function spawnCommand(options: SpawnOptions, script: string): Promise<void> {
  const { config, file, warnings } = loadConfig({ file: options.config, environment: process.env, flags: options });
  const onTerminal = process.stdout.isTTY === true;
  const format = onTerminal ? await terminalFormat(config) : jsonFormat;
  const write = (text: string) => process.stdout.write(text);
  const logger = createLogger({
    level: config.logLevel,
    fields: {},
    to: { write: (line) => write(format(line.trimEnd(), { nodeId: 0, stream: 'stdout' })) },
  });
  for (const warning of warnings) logger.warn({}, warning);

  const nodeArguments = commonArguments({ ...options, config: file });
  const spawner = startSpawner({
    config,
    script,
    argumentsFor: (nodeId) => ['node', '--id', String(nodeId), ...nodeArguments],
    clock: systemClock,
    logger,
    onLine: (line, source) => write(format(line, source)),
    onServing(view) {
      if (onTerminal) write(describeCluster(config, view));
      else logger.info(servingFields(config, view), 'the cluster is serving');
    },
  });

  let stopping = false;
  const stop = async (reason: string) => {
    if (stopping) {
      logger.warn({}, `${reason} again: killing all nodes`);
      spawner.kill();
      return;
    }
    stopping = true;
    logger.info({ reason }, 'stopping all nodes; repeat the signal to kill them');
    const clean = await spawner.stop();
    logger.info({}, clean ? 'all nodes stopped' : 'all nodes stopped, but not all of them cleanly');
    process.exit(clean ? EXIT_OK : EXIT_FAILURE);
  };
  const terminalGone = watchTerminal();
  process.on('SIGHUP', () => {
    if (terminalGone()) void stop('terminal closed');
    else spawner.reload();
  });
  process.on('SIGINT', () => void stop('SIGINT'));
  process.on('SIGTERM', () => void stop('SIGTERM'));
  // The reader has closed the pipe, as in `raftkv spawn | head`.
  process.stdout.once('error', () => void stop('closed output'));
}

function servingFields(config: Config, view: ClusterView): object {
  const nodes = config.nodes.map(({ id, host, clientPort, peerPort, adminPort }) => ({
    id,
    host,
    clientPort,
    peerPort,
    adminPort,
    state: view.stateOf(id),
  }));
  return { cluster: config.cluster, leader: view.leader, nodes };
}

async function terminalFormat(config: Config): Promise<LineFormat> {
  const { prettyFactory } = await import('pino-pretty');
  const colours = wantsColours(process.stdout);
  const pretty = prettyFactory({ ...PRETTY_OPTIONS, colorize: colours });
  const names = new Map(config.nodes.map(({ id }) => [id, `node ${id}`]));
  const width = Math.max(SPAWNER_NAME.length, ...[...names.values()].map((name) => name.length));
  const prefixes = new Map<number, string>();
  config.nodes.forEach(({ id }, i) => {
    const prefix = `${`node ${id}`.padEnd(width)} | `;
    const colour = NODE_COLOURS[i % NODE_COLOURS.length] ?? 'cyan';
    prefixes.set(id, colours ? styleText(colour, prefix) : prefix);
  });
  const own = `${SPAWNER_NAME.padEnd(width)} | `;
  return prettyFormat(
    (line) => String(pretty(line) ?? ''),
    (nodeId) => prefixes.get(nodeId) ?? own,
  );
}
