import { fileURLToPath } from 'node:url';
import { Argument, Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { LOG_LEVELS } from '../config/log-levels.ts';
import type { CertsOptions } from './certs.ts';
import type { AddOptions, AddressOptions, ChangeOptions, MemberOptions } from './member.ts';
import type { NodeOptions } from './node.ts';
import { CONFIG_FILE_DEFAULT } from './options.ts';
import { describeError, EXIT_OK, EXIT_USAGE, exitCodeOf, printError } from './report.ts';
import type { SpawnOptions } from './spawn.ts';
import type { StatusOptions } from './status.ts';
import { readVersion } from './version.ts';

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
  .showHelpAfterError('(raftkv --help shows what there is)')
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
    const { spawnCommand } = await import('./spawn.ts');
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
  .option(
    '--join',
    'this is a newcomer: wait to be added to the cluster of the other nodes, never form a new one',
    false,
  )
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
    const [{ nodeCommand }, { runNode }] = await Promise.all([import('./node.ts'), import('./run-node.ts')]);
    await nodeCommand(options, runNode);
  });

withConfigOption(program.command('status'))
  .summary('show how every node fares')
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
    const { statusCommand } = await import('./status.ts');
    process.exitCode = await statusCommand(options);
  });

const member = program
  .command('member')
  .helpCommand(false)
  .summary('show who belongs to the cluster, and change it while it serves')
  .description('Shows the members of a cluster and changes them while it serves. Any node can be asked.')
  .addHelpText(
    'after',
    `
Examples:
  $ raftkv member list
  $ raftkv member add 4                            as cluster.json lists it
  $ raftkv member replace 2 5 --host 10.0.0.5 --client-port 11211 --peer-port 12211 --admin-port 13211
  $ raftkv member remove 3

docs/operations.md has it step by step.`,
  );

withMemberOptions(member.command('list'))
  .summary('show the members')
  .description('Shows the members as the leader sees them: who votes, who learns, how far each has come.')
  .action(async (options: MemberOptions) => {
    const { memberListCommand } = await import('./member.ts');
    await memberListCommand(options);
  });

withAddressOptions(withChangeOptions(member.command('add')))
  .summary('add a node')
  .description(
    'Adds a node: it gets a copy of all data and then becomes a voter by itself. Start it with `raftkv node --id N --join`, ' +
      'before or after this command.',
  )
  .addArgument(idArgument('id', 'of the new node'))
  .option('--learner', 'it gets the data and no vote, until `raftkv member promote`', false)
  .action(async (id: number, options: AddOptions) => {
    const { memberAddCommand } = await import('./member.ts');
    await memberAddCommand(id, options);
  });

withChangeOptions(member.command('remove'))
  .summary('remove a node')
  .description('Removes a node. Its process, where it runs, says so and ends.')
  .addArgument(idArgument('id', 'of the node'))
  .action(async (id: number, options: ChangeOptions) => {
    const { memberRemoveCommand } = await import('./member.ts');
    await memberRemoveCommand(id, options);
  });

withAddressOptions(withChangeOptions(member.command('replace')))
  .summary('put a new node in the place of another')
  .description(
    'Adds a node, waits until it has all data, and then makes it a voter and removes the old one in one step.',
  )
  .addArgument(idArgument('old', 'of the node that leaves, which may be dead'))
  .addArgument(idArgument('new', 'of the node that comes'))
  .action(async (oldId: number, newId: number, options: ChangeOptions & AddressOptions) => {
    const { memberReplaceCommand } = await import('./member.ts');
    await memberReplaceCommand(oldId, newId, options);
  });

withChangeOptions(member.command('promote'))
  .summary('make a learner a voter')
  .description('Makes a learner, which was added with --learner, a voter. It must have caught up.')
  .addArgument(idArgument('id', 'of the learner'))
  .action(async (id: number, options: ChangeOptions) => {
    const { memberPromoteCommand } = await import('./member.ts');
    await memberPromoteCommand(id, options);
  });

withConfigOption(program.command('certs'))
  .summary('make certificates for development')
  .description('Makes a certificate authority, a certificate for each node of the configuration, and one for clients.')
  .option('-o, --out <folder>', 'where to; nothing in it is overwritten', 'certs')
  .addOption(new Option('--days <number>', 'how long they are good').argParser(parseDays).default(DAYS_DEFAULT))
  .addHelpText(
    'after',
    `
Examples:
  $ raftkv certs
  $ raftkv certs --config examples/secure.json --out examples/certs

The output says what to put into the configuration. docs/security.md tells what certificates of your own must hold.`,
  )
  .action(async (options: CertsOptions) => {
    const { certsCommand } = await import('./certs.ts');
    await certsCommand(options);
  });

function withConfigOption(command: Command): Command {
  return command.addOption(
    new Option('-c, --config <file>', 'the cluster file').env('RAFTKV_CONFIG').default(CONFIG_FILE_DEFAULT),
  );
}

function withMemberOptions(command: Command): Command {
  return withConfigOption(command)
    .addOption(
      new Option('--node <id>', 'whom to ask; without, the nodes of the cluster file in turn').argParser(parseId),
    )
    .option('--json', 'print JSON for a program', false);
}

function withChangeOptions(command: Command): Command {
  return withMemberOptions(command).option(
    '--no-wait',
    'end as soon as the change is in the log, with the rest to follow',
  );
}

function withAddressOptions(command: Command): Command {
  return command
    .option('--host <name>', 'where the new node listens, over the cluster file')
    .addOption(new Option('--client-port <port>').argParser(parsePort))
    .addOption(new Option('--peer-port <port>').argParser(parsePort))
    .addOption(new Option('--admin-port <port>').argParser(parsePort));
}

function idArgument(name: string, what: string): Argument {
  return new Argument(`<${name}>`, what).argParser(parseId);
}

function withCommonOptions(command: Command): Command {
  return withConfigOption(command)
    .option('--data-dir <folder>', 'where the nodes keep their data, over the file')
    .addOption(new Option('--log-level <level>', 'what to log at least, over the file').choices(LOG_LEVELS));
}

function parseDays(text: string): number {
  if (!/^[1-9]\d{0,3}$/.test(text)) throw new InvalidArgumentError('It is a whole number from 1 to 9999.');
  return Number(text);
}

function parsePort(text: string): number {
  if (!/^[1-9]\d{0,4}$/.test(text) || Number(text) > 65_535)
    throw new InvalidArgumentError('It is a port, from 1 to 65535.');
  return Number(text);
}

function parseId(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new InvalidArgumentError('It is a whole number from 1.');
  return Number(text);
}

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    // Commander has said what is wrong.
    process.exit(error.exitCode === 0 ? EXIT_OK : EXIT_USAGE);
  }
  printError(describeError(error));
  process.exit(exitCodeOf(error));
}
