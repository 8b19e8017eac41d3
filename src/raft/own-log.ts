import { RaftkvError } from '../base/errors.ts';
import { configurationsChanged } from './followers.ts';
import { decodeConfiguration } from './state/configuration.ts';
import type { Core } from './state/core.ts';
import { ENTRY_HEADER_BYTES } from './state/entry.ts';
import type { Configuration, Entry, SnapshotMark } from './state/types.ts';

/**
 * Changes of this node's own log. Every change goes through one of these functions, because the configuration in force is
 * a function of the log: an entry that changes members takes effect when it is appended, and is undone when the log is
 * truncated below it (§4.1).
 */

/**
 * Appends to the log in memory and emits the entry for the disk. `configuration` is what a configuration entry holds, if
 * the caller knows it; otherwise it is decoded.
 */
export function appendToLog(core: Core, entry: Entry, configuration: Configuration | null = null): void {
  core.log.append(entry);
  core.effects.append.push(entry);
  if (entry.kind !== 'configuration') return;
  core.configurations.append(entry.index, configuration ?? decodeConfiguration(entry.bytes, ENTRY_HEADER_BYTES));
  configurationsChanged(core);
}

/** Removes the entry at `index` and everything behind it. The disk learns of it by the entry that is appended there next. */
export function truncateLog(core: Core, index: number): void {
  core.log.truncateFrom(index);
  if (core.configurations.truncate(index)) configurationsChanged(core);
}

/** Raises the commit index to `index`; does nothing if it is there already. */
export function commitTo(core: Core, index: number): void {
  const { log } = core;
  if (index > log.lastIndex) {
    throw new RaftkvError('INVARIANT_BROKEN', `commit at ${index} of a log that ends at ${log.lastIndex}`);
  }
  if (index <= log.commitIndex) return;
  log.commitIndex = index;
  if (core.configurations.commit(index)) configurationsChanged(core);
}

/** The log starts behind `index` from now on. */
export function compactLog(core: Core, index: number): void {
  core.log.compactTo(index);
  core.configurations.compact(core.log.snapshotIndex);
}

/**
 * Puts a received snapshot in the place of the log up to it. With `resetLog` the rest of the log goes too, because it
 * disagrees with the snapshot.
 */
export function installSnapshot(
  core: Core,
  { index, term }: SnapshotMark,
  configuration: Configuration,
  resetLog: boolean,
): void {
  const { log } = core;
  if (resetLog) log.restore(index, term);
  else commitTo(core, index);
  log.appliedIndex = index;
  core.configurations.install(index, configuration, log.lastIndex);
  configurationsChanged(core);
}
