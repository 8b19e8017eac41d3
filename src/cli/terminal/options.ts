import type { Flags } from '../../config/load.ts';

export const CONFIG_FILE_DEFAULT = 'cluster.json';

/** What every command takes. */
export interface CommonOptions extends Flags {
  /** Path of cluster.json. */
  readonly config: string;
}

/** The same options as arguments, for a child process. */
export function commonArguments({ config, dataDir, logLevel }: CommonOptions): string[] {
  const argv = ['--config', config];
  if (dataDir !== undefined) argv.push('--data-dir', dataDir);
  if (logLevel !== undefined) argv.push('--log-level', logLevel);
  return argv;
}
