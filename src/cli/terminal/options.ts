import { Argument, type Command, InvalidArgumentError, Option } from 'commander';
import { LOG_LEVELS } from '../../base/logger.ts';
import type { Flags } from '../../config/load.ts';

const CONFIG_FILE_DEFAULT = 'cluster.json';

/** The options of every command. */
export interface CommonOptions extends Flags {
  /** Path of cluster.json. */
  readonly config: string;
}

/** The options as command line arguments for a child process. */
export function commonArguments({ config, dataDir, logLevel }: CommonOptions): string[] {
  const argv = ['--config', config];
  if (dataDir !== undefined) argv.push('--data-dir', dataDir);
  if (logLevel !== undefined) argv.push('--log-level', logLevel);
  return argv;
}

/** Options that several commands have, and how their values are read. */

export function withConfigOption(command: Command): Command {
  return command.addOption(
    new Option('-c, --config <file>', 'cluster configuration file').env('RAFTKV_CONFIG').default(CONFIG_FILE_DEFAULT),
  );
}

export function idArgument(name: string, what: string): Argument {
  return new Argument(`<${name}>`, what).argParser(parseId);
}

export function withCommonOptions(command: Command): Command {
  return withConfigOption(command)
    .option('--data-dir <folder>', 'data directory of the nodes; overrides the file')
    .addOption(new Option('--log-level <level>', 'minimum log level; overrides the file').choices(LOG_LEVELS));
}

export function parseId(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new InvalidArgumentError('It must be a whole number from 1.');
  return Number(text);
}
