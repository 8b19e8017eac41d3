import { fileURLToPath } from 'node:url';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import type { CertsOptions } from './commands/certs.ts';
import { addMemberCommands } from './commands/member-commands.ts';
import type { NodeOptions } from './commands/node.ts';
import { addOfflineCommands } from './commands/offline-commands.ts';
import type { SpawnOptions } from './commands/spawn.ts';
import type { StatusOptions } from './commands/status.ts';
import { parseId, withCommonOptions, withConfigOption } from './terminal/options.ts';
import { describeError, EXIT_OK, EXIT_USAGE, exitCodeOf, printError, readVersion } from './terminal/output.ts';

/**
 * The command line. Each command's work is in its own file and is loaded only when it runs: a node must listen within
 * 300 ms of its process's start, and `--help` should not wait for a log library.
 */

/** Long enough to be forgotten, short enough that a lost one does not matter for ever. */
const DAYS_DEFAULT = 365;

const program = new Command('raftkv')
  .description("A replicated, durable, linearizable key-value store that speaks memcached's text protocol.")
  .version(readVersion(), '-V, --version')
  .helpCommand(false)
  .showHelpAfterError('(raftkv --help lists the commands)')
  .exitOverride()
  .addHelpText(
    'after',
    `
Examples:
  $ raftkv spawn                                   start the cluster of ./cluster.json
  $ raftkv status                                  show how it fares
  $ printf 'set a 0 0 5\\r\\nhello\\r\\n' | nc 127.0.0.1 11211

Exit codes: 0 done, 1 failure, 2 wrong usage`,
  );

withCommonOptions(program.command('spawn'))
  .summary('start every node of a cluster on this machine')
  .description(
    'Starts one process per node of the cluster, shows their logs, restarts a node that crashes, and stops them all ' +
      'on Ctrl-C. A second Ctrl-C kills them.',
  )
  .addHelpText(
    'after',
    `
Examples:
  $ raftkv spawn
  $ raftkv spawn --config examples/five-nodes.json
  $ raftkv spawn --data-dir /tmp/scratch --log-level debug
  $ RAFTKV_ELECTION_TIMEOUT_MS=1000 raftkv spawn > cluster.log     one JSON object per line`,
  )
  .action(async (options: SpawnOptions) => {
    const { spawnCommand } = await import('./commands/spawn.ts');
    await spawnCommand(options, fileURLToPath(import.meta.url));
  });

withCommonOptions(program.command('node'))
  .summary('run one node in the foreground')
  .description('Runs one node of the cluster in this process: for one node per machine, under your service manager.')
  .addOption(
    new Option('--id <number>', 'which node of the configuration this is')
      .env('RAFTKV_ID')
      .argParser(parseId)
      .makeOptionMandatory(),
  )
  .option('--join', 'join an existing cluster: wait to be added to it, and never bootstrap a new one', false)
  .addHelpText(
    'after',
    `
Examples:
  $ raftkv node --id 1
  $ raftkv node --id 2 --config /etc/raftkv/cluster.json --data-dir /var/lib/raftkv
  $ raftkv node --id 4 --join                      then, anywhere: raftkv member add 4

SIGTERM and Ctrl-C hand over leadership, finish what is in flight, and end with exit code 0.`,
  )
  .action(async (options: NodeOptions) => {
    const [{ nodeCommand }, { runNode }] = await Promise.all([
      import('./commands/node.ts'),
      import('./node/run-node.ts'),
    ]);
    await nodeCommand(options, runNode);
  });

withConfigOption(program.command('status'))
  .summary('show the state of every node')
  .description('Asks every node for its role, term, leader, and how far its log is committed and applied.')
  .option('--json', 'print JSON for a program', false)
  .addHelpText(
    'after',
    `
Examples:
  $ raftkv status
  $ raftkv status --json | jq .leader

Ends with exit code 0 if a majority of the nodes agrees on a leader, else 1.`,
  )
  .action(async (options: StatusOptions) => {
    const { statusCommand } = await import('./commands/status.ts');
    process.exitCode = await statusCommand(options);
  });

withConfigOption(program.command('certs'))
  .summary('make certificates for development')
  .description('Makes a certificate authority, a certificate for each node of the configuration, and one for clients.')
  .option('-o, --out <folder>', 'output folder; existing files are not overwritten', 'certs')
  .option('--missing', 'issue only missing certificates, signed by the existing authority, for added nodes', false)
  .addOption(new Option('--days <number>', 'validity in days').argParser(parseDays).default(DAYS_DEFAULT))
  .addHelpText(
    'after',
    `
Examples:
  $ raftkv certs
  $ raftkv certs --config examples/secure.json --out examples/certs
  $ raftkv certs --missing                         after another node was listed in cluster.json

The output says what to put into the configuration. docs/security.md tells what certificates of your own must hold.`,
  )
  .action(async (options: CertsOptions) => {
    const { certsCommand } = await import('./commands/certs.ts');
    await certsCommand(options);
  });

function parseDays(text: string): number {
  if (!/^[1-9]\d{0,3}$/.test(text)) throw new InvalidArgumentError('It must be a whole number from 1 to 9999.');
  return Number(text);
}

addMemberCommands(program);
addOfflineCommands(program);

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    // Commander has printed the error.
    process.exit(error.exitCode === 0 ? EXIT_OK : EXIT_USAGE);
  }
  printError(describeError(error));
  process.exit(exitCodeOf(error));
}
