import { join } from 'node:path';
import { RaftkvError } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import { closeSegment, isTemporary, repairName, repairNumber, segmentNumbers, walDamaged } from '../segments/files.ts';
import { LogScan } from './recovery.ts';
import { type RecoverySink, replayLog } from './replay.ts';
import { completeRepair, prepareRepair, type RepairPlace } from './salvage.ts';
import type { LogBase, RecoveredLog } from './types.ts';

/**
 * From the files of a log to one that can be appended to: judge all of it, repair it where it is damaged and the caller
 * wants that, and only then hand over what it holds.
 */
export interface RecoverLogOptions extends RepairPlace {
  readonly mustExist: boolean;
  readonly begin: LogBase;
  readonly onDamage: ((error: RaftkvError) => Promise<string>) | null;
  readonly sink: RecoverySink;
  readonly logger: Logger;
}

/** One repair is enough for any damage; a log that is damaged again at once lies on a disk that cannot be trusted. */
const REPAIRS_MAX = 3;

/** `log` is null where the folder holds none, or none any more: `damage` tells, and that `onDamage` has been called. */
export async function recoverLog(
  options: RecoverLogOptions,
): Promise<{ readonly log: RecoveredLog | null; readonly damage: string | null }> {
  const { disk, directory, clusterId, begin } = options;
  let damage: string | null = null;
  for (let repairs = 0; ; repairs++) {
    const names = await disk.list(directory);
    const numbers = segmentNumbers(names);
    const scan = new LogScan(disk, directory, clusterId, numbers, begin);
    const found = await judge(options, scan, names, numbers);
    if (found.error === null) {
      // Only now: where there is damage and no repair, everything stays as it was found.
      await removeTemporaries(options, names);
      if (found.log === null) return { log: null, damage };
      await replayOrClose(options, found.log, scan);
      return { log: { ...found.log, report: { ...found.log.report, damage } }, damage };
    }
    if (options.onDamage === null || repairs === REPAIRS_MAX) throw found.error;
    damage ??= found.error.message;
    options.logger.error({ directory, error: found.error.message }, 'the log is damaged; keeping its intact part');
    const folder = await options.onDamage(found.error);
    await removeTemporaries(options, names);
    const interrupted = repairNumber(names);
    if (interrupted === null && numbers.length === 0) return { log: null, damage };
    if (interrupted === null) await prepareRepair(options, numbers, scan.goodPart, begin);
    const number = interrupted ?? repairNumber(await disk.list(directory));
    if (number !== null) await completeRepair(options, number, folder);
  }
}

type Judged = { readonly error: null; readonly log: RecoveredLog | null } | { readonly error: RaftkvError };

/** Changes nothing where it finds damage. @throws all but WAL_DAMAGED. */
async function judge(
  { directory, mustExist }: RecoverLogOptions,
  scan: LogScan,
  names: readonly string[],
  numbers: readonly number[],
): Promise<Judged> {
  const interrupted = repairNumber(names);
  if (interrupted !== null) {
    const path = join(directory, repairName(interrupted));
    return { error: walDamaged(path, 0, 'a repair of the log was interrupted and must be completed') };
  }
  if (numbers.length === 0) {
    if (!mustExist) return { error: null, log: null };
    return { error: walDamaged(directory, 0, 'the log is missing: this node had one before') };
  }
  try {
    return { error: null, log: await scan.run() };
  } catch (error) {
    if (error instanceof RaftkvError && error.code === 'WAL_DAMAGED') return { error };
    throw error;
  }
}

async function replayOrClose({ disk, directory, sink }: RecoverLogOptions, log: RecoveredLog, scan: LogScan) {
  try {
    await replayLog(disk, directory, log, scan.reset, sink);
  } catch (error) {
    for (const segment of [log.active, ...log.spares]) await closeSegment(segment);
    throw error;
  }
}

async function removeTemporaries({ disk, directory }: RecoverLogOptions, names: readonly string[]): Promise<void> {
  for (const name of names.filter(isTemporary)) await disk.remove(join(directory, name));
}
