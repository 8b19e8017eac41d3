import { type Command, InvalidArgumentError, Option } from 'commander';
import { idArgument, parseId, withConfigOption } from '../terminal/options.ts';
import type { AddOptions, AddressOptions, ChangeOptions, MemberOptions } from './member.ts';

/** `raftkv member …` on the command line. */

export function addMemberCommands(program: Command): void {
  const member = program
    .command('member')
    .helpCommand(false)
    .summary('list and change the members of a running cluster')
    .description('Lists the members of a running cluster and changes them. Any node can be asked.')
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
    .summary('list the members')
    .description(
      'Lists the members as the leader sees them: voters, learners, and how far each has replicated the log.',
    )
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
    .option('--learner', 'replicate to it without a vote until `raftkv member promote`', false)
    .action(async (id: number, options: AddOptions) => {
      const { memberAddCommand } = await import('./member.ts');
      await memberAddCommand(id, options);
    });

  withChangeOptions(member.command('remove'))
    .summary('remove a node')
    .description('Removes a node. Its process, if it runs, reports the removal and exits.')
    .addArgument(idArgument('id', 'of the node'))
    .action(async (id: number, options: ChangeOptions) => {
      const { memberRemoveCommand } = await import('./member.ts');
      await memberRemoveCommand(id, options);
    });

  withAddressOptions(withChangeOptions(member.command('replace')))
    .summary('replace a node by a new one')
    .description(
      'Adds a node, waits until it has all data, and then makes it a voter and removes the old one in one step.',
    )
    .addArgument(idArgument('old', 'of the node to remove, which may be down'))
    .addArgument(idArgument('new', 'of the new node'))
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
}

function withMemberOptions(command: Command): Command {
  return withConfigOption(command)
    .addOption(
      new Option('--node <id>', 'node to ask (default: the nodes of the configuration file in turn)').argParser(
        parseId,
      ),
    )
    .option('--json', 'print JSON for a program', false);
}

function withChangeOptions(command: Command): Command {
  return withMemberOptions(command).option(
    '--no-wait',
    'return once the change is in the log, without waiting until it is complete',
  );
}

function withAddressOptions(command: Command): Command {
  return command
    .option('--host <name>', 'host of the new node; overrides the configuration file')
    .addOption(new Option('--client-port <port>').argParser(parsePort))
    .addOption(new Option('--peer-port <port>').argParser(parsePort))
    .addOption(new Option('--admin-port <port>').argParser(parsePort));
}

function parsePort(text: string): number {
  if (!/^[1-9]\d{0,4}$/.test(text) || Number(text) > 65_535)
    throw new InvalidArgumentError('It must be a port, from 1 to 65535.');
  return Number(text);
}
