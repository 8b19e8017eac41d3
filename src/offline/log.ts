import { join } from 'node:path';
import type { RaftkvError } from '../base/errors.ts';
import { silentLogger } from '../base/logger.ts';
import { readEntry } from '../raft/state/entry.ts';
import type { Entry, HardState } from '../raft/state/types.ts';
import { decodeHardState } from '../replica/log/persister.ts';
import type { Disk } from '../storage/disk/disk.ts';
import { closeSegment } from '../storage/segments/files.ts';
import { recoverLog } from '../storage/wal/recover-log.ts';
import type { LogBase, RecoveryReport } from '../storage/wal/types.ts';

/** A node's log, read while no node runs. */

export const WAL_FOLDER = 'wal';

export interface OfflineLogOptions {
  /** One that lets nothing be changed, unless `onDamage` is to repair. */
  readonly disk: Disk;
  /** The node's data directory. */
  readonly directory: string;
  readonly clusterId: string;
  /** What the newest good snapshot stands for; index 0 without one. */
  readonly begin: LogBase;
  readonly mustExist: boolean;
  /** As `WalOptions.onDamage`. */
  readonly onDamage: ((error: RaftkvError) => Promise<string>) | null;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  readonly segmentBytes: number;
  /** Every entry as the log has it now, ascending. Its bytes are good only until the call returns. */
  onEntry(entry: Entry): void;
}

export interface OfflineLog {
  /** `lastIndex + 1` where it is empty. */
  readonly firstIndex: number;
  readonly lastIndex: number;
  /** Of the last entry, or of what the log begins behind: which of two logs has more is told by this, then by the index. */
  readonly lastTerm: number;
  /** The newest; null where none was written. */
  readonly hardState: HardState | null;
  readonly report: RecoveryReport;
}

/** Null where there is none. @throws RaftkvError WAL_DAMAGED, FORMAT_UNSUPPORTED, DATA_DIR_FOREIGN, and what `onEntry` throws. */
export async function readOfflineLog(options: OfflineLogOptions): Promise<OfflineLog | null> {
  const { disk, directory, clusterId, begin, mustExist, onDamage, random, segmentBytes } = options;
  let hardState: HardState | null = null;
  let lastTerm = 0;
  const { log } = await recoverLog({
    ...{ disk, clusterId, begin, mustExist, onDamage, random, segmentBytes },
    directory: join(directory, WAL_FOLDER),
    logger: silentLogger,
    sink: {
      onLogReset(_index, term) {
        lastTerm = term;
      },
      onEntry(_index, bytes) {
        const entry = readEntry(bytes, 0);
        lastTerm = entry.term;
        options.onEntry(entry);
      },
      onHardState(bytes) {
        hardState = decodeHardState(bytes);
      },
    },
  });
  if (log === null) return null;
  for (const segment of [log.active, ...log.spares]) await closeSegment(segment);
  const { locations, report } = log;
  const isBare = locations.isEmpty && locations.lastIndex < begin.index;
  const lastIndex = isBare ? begin.index : locations.lastIndex;
  if (isBare) lastTerm = begin.term;
  return { firstIndex: isBare ? lastIndex + 1 : locations.firstIndex, lastIndex, lastTerm, hardState, report };
}
