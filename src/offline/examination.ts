import { join } from 'node:path';
import { RaftkvError } from '../base/errors.ts';
import { silentLogger } from '../base/logger.ts';
import { validateBatch } from '../kv/batch.ts';
import { SnapshotLoader } from '../kv/snapshot.ts';
import { decodeConfiguration } from '../raft/state/configuration.ts';
import { ENTRY_HEADER_BYTES, readEntry } from '../raft/state/entry.ts';
import type { Entry, HardState } from '../raft/state/types.ts';
import { decodeHardState } from '../replica/log/persister.ts';
import type { Disk } from '../storage/disk/disk.ts';
import { META_NAME, type MetaContent, readMeta, SNAPSHOTS_FOLDER, WAL_FOLDER } from '../storage/meta.ts';
import { closeSegment, segmentName, segmentNumbers } from '../storage/segments/files.ts';
import { readSegmentHeader, SECTOR_BYTES } from '../storage/segments/format.ts';
import { isSnapshotName } from '../storage/snapshots/files.ts';
import { readSnapshotFile, readSnapshotHead, type SnapshotFileHead } from '../storage/snapshots/reader.ts';
import { recoverLog } from '../storage/wal/recover-log.ts';
import type { LogBase, RecoveryReport } from '../storage/wal/types.ts';

/**
 * Walks a node's data directory while no node runs, and believes nothing in it before it verifies:
 *
 *   meta ─▶ whose it is ─▶ each snapshot, chunk by chunk ─▶ the log behind the newest good one, entry by entry
 */

interface StoredSnapshot extends SnapshotFileHead {
  readonly path: string;
  /** Null where only its head was read. */
  readonly items: number | null;
}

interface Finding {
  readonly path: string;
  /** Null where it is whole. */
  readonly fault: RaftkvError | null;
}

export interface Examination {
  readonly findings: readonly Finding[];
  /** Null where it is missing or damaged. */
  readonly meta: MetaContent | null;
  /** The snapshots that verify, by index. */
  readonly snapshots: readonly StoredSnapshot[];
  /** Null where it is missing or damaged. */
  readonly log: OfflineLog | null;
}

export interface ExamineOptions {
  /** A disk that allows no change. */
  readonly disk: Disk;
  readonly directory: string;
  /** Reads only the head and the end of each snapshot, which is enough to read the log. */
  readonly headsOnly?: boolean;
  /** Every entry of the log, ascending. Its bytes are good only until the call returns. */
  readonly onEntry?: (entry: Entry) => void;
}

/** @throws RaftkvError DATA_DIR_FOREIGN where the folder is no data directory; FORMAT_UNSUPPORTED; the disk's own errors. */
export async function examineNode({
  disk,
  directory,
  headsOnly = false,
  onEntry,
}: ExamineOptions): Promise<Examination> {
  const findings: Finding[] = [];
  const judge = async <T>(path: string, look: () => Promise<T>): Promise<T | null> => {
    try {
      const seen = await look();
      findings.push({ path, fault: null });
      return seen;
    } catch (error) {
      if (!(error instanceof RaftkvError)) throw error;
      findings.push({ path, fault: error });
      return null;
    }
  };
  const names = await disk.list(directory);
  const found = await findClusterName(disk, directory);
  if (found === null && !names.includes(META_NAME)) throw noDataDirectory(directory, names);
  // Only a damaged meta file is left: it is reported as such below.
  const clusterName = found ?? '';
  const meta = await judge(join(directory, META_NAME), () => readMetaFacts(disk, directory));

  const snapshots: StoredSnapshot[] = [];
  for (const path of await snapshotPaths(disk, directory)) {
    const snapshot = await judge(path, () => readSnapshot(disk, path, clusterName, headsOnly));
    if (snapshot !== null) snapshots.push(snapshot);
  }
  const newest = snapshots.at(-1);
  const checks = createEntryChecks();
  const log = await judge(join(directory, WAL_FOLDER), async () => {
    const read = await readOfflineLog({
      ...{ disk, directory, clusterName },
      begin: { index: newest?.index ?? 0, term: newest?.term ?? 0 },
      mustExist: meta?.logCreated ?? true,
      onDamage: null,
      random: () => 0,
      segmentBytes: SECTOR_BYTES,
      onEntry(entry) {
        checks.take(entry);
        onEntry?.(entry);
      },
    });
    checks.end(read);
    return read;
  });
  return { findings, meta, snapshots, log };
}

/** The snapshot files of a node, oldest first. */
export async function snapshotPaths(disk: Disk, directory: string): Promise<string[]> {
  const folder = join(directory, SNAPSHOTS_FOLDER);
  return (await disk.list(folder)).filter(isSnapshotName).map((name) => join(folder, name));
}

async function readSnapshot(
  disk: Disk,
  path: string,
  clusterName: string,
  headsOnly: boolean,
): Promise<StoredSnapshot> {
  const loader = headsOnly ? null : new SnapshotLoader();
  const head =
    loader === null
      ? await readSnapshotHead(disk, path)
      : await readSnapshotFile(disk, path, (chunk) => loader.push(chunk));
  decodeConfiguration(head.configuration, 0);
  if (head.clusterName !== clusterName) {
    throw new RaftkvError(
      'DATA_DIR_FOREIGN',
      `${path} belongs to cluster "${head.clusterName}", not to "${clusterName}"`,
    );
  }
  return { ...head, path, items: loader === null ? null : loader.finish().items };
}

/** Checks of each entry beside its checksum. */
function createEntryChecks() {
  let lastTerm = 0;
  return {
    take({ index, term, kind, bytes }: Entry): void {
      if (term < lastTerm)
        throw inconsistent(`entry ${index} has term ${term}, but the entry before it has term ${lastTerm}`);
      lastTerm = term;
      if (kind === 'data') validateBatch(bytes, ENTRY_HEADER_BYTES);
      if (kind === 'configuration') decodeConfiguration(bytes, ENTRY_HEADER_BYTES);
    },
    end(log: OfflineLog | null): void {
      const committed = log?.hardState?.commitIndex ?? 0;
      if (log === null || committed <= log.lastIndex) return;
      throw inconsistent(`entry ${committed} was committed, but the log ends with entry ${log.lastIndex}`);
    },
  };
}

function inconsistent(what: string): RaftkvError {
  return new RaftkvError('WAL_DAMAGED', `the log is inconsistent: ${what}`, 'Keep a copy of the folder.');
}

/** @throws RaftkvError META_DAMAGED, also if the file is missing; FORMAT_UNSUPPORTED. */
export async function readMetaFacts(disk: Disk, directory: string): Promise<MetaContent> {
  const meta = await readMeta(disk, directory);
  if (meta === null) throw new RaftkvError('META_DAMAGED', `${join(directory, META_NAME)} is missing`);
  return meta;
}

/** The cluster name, from the log, else a snapshot, else `meta`: each of them may be damaged. Null if none of them tells it. */
async function findClusterName(disk: Disk, directory: string): Promise<string | null> {
  const wal = join(directory, WAL_FOLDER);
  for (const number of segmentNumbers(await disk.list(wal))) {
    const header = readSegmentHeader(await readStart(disk, join(wal, segmentName(number)), SECTOR_BYTES));
    if (header !== null) return header.clusterName;
  }
  for (const path of await snapshotPaths(disk, directory)) {
    const head = await readSnapshotHead(disk, path).catch(() => null);
    if (head !== null) return head.clusterName;
  }
  return (await readMeta(disk, directory).catch(() => null))?.clusterName ?? null;
}

async function readStart(disk: Disk, path: string, bytesMax: number): Promise<Buffer> {
  const file = await disk.open(path, { create: false, dataSync: false });
  const buffer = Buffer.alloc(bytesMax);
  const bytes = await file.read(buffer, 0, bytesMax, 0).finally(() => file.close());
  return buffer.subarray(0, bytes);
}

function noDataDirectory(directory: string, names: readonly string[]): RaftkvError {
  const nodes = names.filter((name) => /^node-\d+$/.test(name)).map((name) => join(directory, name));
  const remedy =
    nodes.length > 0 ? `Pass the folder of one node: ${nodes.join(', ')}.` : 'Pass the data directory of a node.';
  return new RaftkvError('DATA_DIR_FOREIGN', `${directory} is not the data directory of a node`, remedy);
}

/** A node's log, read while no node runs. */

export interface OfflineLogOptions {
  /** A disk that allows no change, unless `onDamage` is to repair the log. */
  readonly disk: Disk;
  /** The node's data directory. */
  readonly directory: string;
  readonly clusterName: string;
  /** The last entry in the newest good snapshot; index 0 without one. */
  readonly begin: LogBase;
  readonly mustExist: boolean;
  /** See `WalOptions.onDamage`. */
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
  /** The term of the last entry, or of the base of an empty log. Of two logs, the one with the higher term, then index, has more. */
  readonly lastTerm: number;
  /** The newest; null where none was written. */
  readonly hardState: HardState | null;
  readonly report: RecoveryReport;
}

/** Returns null if there is no log. @throws RaftkvError WAL_DAMAGED, FORMAT_UNSUPPORTED, DATA_DIR_FOREIGN, and what `onEntry` throws. */
export async function readOfflineLog(options: OfflineLogOptions): Promise<OfflineLog | null> {
  const { disk, directory, clusterName, begin, mustExist, onDamage, random, segmentBytes } = options;
  let hardState: HardState | null = null;
  let lastTerm = 0;
  const { log } = await recoverLog({
    ...{ disk, clusterName, begin, mustExist, onDamage, random, segmentBytes },
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
