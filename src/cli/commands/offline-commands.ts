import { type Command, InvalidArgumentError, Option } from 'commander';
import { parseId, withConfigOption } from '../terminal/options.ts';
import type { LogDumpOptions, LogVerifyOptions } from './log.ts';
import type { RecoverOptions } from './recover.ts';
import type { SnapshotInspectOptions, SnapshotRestoreOptions, SnapshotSaveOptions } from './snapshot.ts';

/** `raftkv log …`, `raftkv snapshot …` and `raftkv recover` on the command line: what works on files. */

export function addOfflineCommands(program: Command): void {
  addLogCommands(program);
  addSnapshotCommands(program);
  addRecoverCommand(program);
}

function addLogCommands(program: Command): void {
  const log = program
    .command('log')
    .helpCommand(false)
    .summary("inspect a stopped node's data")
    .description("Inspects a node's data directory while the node is stopped. Nothing in it is changed.");

  log
    .command('dump')
    .summary('print the log')
    .description('Prints the entries of the log, one per line.')
    .argument('<directory>', 'data directory of one node, as data/node-1')
    .addOption(new Option('--from <index>', 'the first entry to print').argParser(parseIndex))
    .addOption(new Option('--to <index>', 'the last entry to print').argParser(parseIndex))
    .option('--json', 'print one JSON object per entry', false)
    .addHelpText(
      'after',
      `
Examples:
  $ raftkv log dump data/node-1 --from 1000 --to 1010
  $ raftkv log dump data/node-1 --json | jq 'select(.kind == "configuration")'`,
    )
    .action(async (directory: string, options: LogDumpOptions) => {
      const { logDumpCommand } = await import('./log.ts');
      await logDumpCommand(directory, options);
    });

  log
    .command('verify')
    .summary('check all files of a node')
    .description('Reads meta, snapshots and log of a node, and reports what is damaged and where.')
    .argument('<directory>', 'data directory of one node, as data/node-1')
    .option('--json', 'print JSON for a program', false)
    .addHelpText(
      'after',
      `
Examples:
  $ raftkv log verify data/node-1

Ends with exit code 0 if all of it verifies, else 1.`,
    )
    .action(async (directory: string, options: LogVerifyOptions) => {
      const { logVerifyCommand } = await import('./log.ts');
      process.exitCode = await logVerifyCommand(directory, options);
    });
}

function addSnapshotCommands(program: Command): void {
  const snapshot = program
    .command('snapshot')
    .helpCommand(false)
    .summary('back up and restore')
    .description('Backs up a running cluster into one file, and creates new clusters from it.');

  withConfigOption(snapshot.command('save'))
    .summary('back up a running cluster')
    .description('Saves all that the cluster has acknowledged up to now into one file, and verifies it.')
    .argument('<file>', 'output file; it must not exist')
    .addOption(
      new Option('--node <id>', 'node to ask (default: the nodes of the configuration file in turn)').argParser(
        parseId,
      ),
    )
    .addHelpText(
      'after',
      `
Examples:
  $ raftkv snapshot save backup-$(date +%F).snapshot`,
    )
    .action(async (file: string, options: SnapshotSaveOptions) => {
      const { snapshotSaveCommand } = await import('./snapshot.ts');
      await snapshotSaveCommand(file, options);
    });

  withConfigOption(snapshot.command('restore'))
    .summary('create a new cluster from a backup')
    .description(
      'Fills the empty data directory of one node from a backup. Start all nodes then: this one fills the others and makes ' +
        'them voters. The new cluster may have other nodes than the one that was backed up, and more or fewer.',
    )
    .argument('<file>', 'a file written by `raftkv snapshot save`')
    .addOption(
      new Option('--id <number>', 'the node to fill; by default the one with the lowest id').argParser(parseId),
    )
    .option('--data-dir <folder>', 'data directory of the nodes; overrides the file')
    .addHelpText(
      'after',
      `
Examples:
  $ raftkv snapshot restore backup.snapshot --config examples/five-nodes.json
  $ raftkv snapshot restore backup.snapshot --id 2             on the machine of node 2 only`,
    )
    .action(async (file: string, options: SnapshotRestoreOptions) => {
      const { snapshotRestoreCommand } = await import('./snapshot.ts');
      await snapshotRestoreCommand(file, options);
    });

  snapshot
    .command('inspect')
    .summary('check a backup')
    .description('Verifies a backup and describes its content.')
    .argument('<file>', 'a file written by `raftkv snapshot save`')
    .option('--json', 'print JSON for a program', false)
    .action(async (file: string, options: SnapshotInspectOptions) => {
      const { snapshotInspectCommand } = await import('./snapshot.ts');
      await snapshotInspectCommand(file, options);
    });
}

function addRecoverCommand(program: Command): void {
  withConfigOption(program.command('recover'))
    .summary('continue with one node after a permanent loss of the majority')
    .description(
      'Makes a new cluster of one node from the data of that node, which may lose acknowledged writes. Use it if a majority of ' +
        'the nodes is lost for good and there is no better backup. The node must be stopped; its old files are kept.',
    )
    .addOption(new Option('--id <number>', 'the node').argParser(parseId).makeOptionMandatory())
    .option('--force-new-cluster', 'required: confirms what the command does', false)
    .option('--yes', 'do not ask', false)
    .option('--data-dir <folder>', 'data directory of the nodes; overrides the file')
    .addHelpText(
      'after',
      `
Examples:
  $ raftkv log verify data/node-1                              on each node that is left: which has most?
  $ raftkv recover --force-new-cluster --id 1

docs/operations.md has it step by step.`,
    )
    .action(async (options: RecoverOptions) => {
      const { recoverCommand } = await import('./recover.ts');
      await recoverCommand(options);
    });
}

function parseIndex(text: string): number {
  if (!/^[1-9]\d{0,15}$/.test(text)) throw new InvalidArgumentError('It must be a whole number from 1.');
  return Number(text);
}
