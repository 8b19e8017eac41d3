import { join } from 'node:path';
import type { Clock } from '../base/clock.ts';
import { silentLogger } from '../base/logger.ts';
import { encodeConfiguration } from '../raft/state/configuration.ts';
import { type Configuration, NO_NODE } from '../raft/state/types.ts';
import { encodeHardState } from '../replica/log/persister.ts';
import type { Disk } from '../storage/disk/disk.ts';
import { openMeta, SNAPSHOTS_FOLDER, WAL_FOLDER } from '../storage/meta.ts';
import { snapshotName } from '../storage/snapshots/files.ts';
import { writeSnapshotFile } from '../storage/snapshots/writer.ts';
import { openWal } from '../storage/wal/wal.ts';

/**
 * Makes the data directory of a member out of a state:
 *
 *   snapshot with the state and who the members are ─▶ a log begun behind it, with the term ─▶ meta: a member
 */
export interface BuildNodeOptions {
  readonly disk: Disk;
  readonly clock: Clock;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  /** The directory to fill; it must be empty. Its content is valid only once the call has returned. */
  readonly directory: string;
  readonly clusterName: string;
  readonly nodeId: number;
  /** The last entry that the state holds. */
  readonly index: number;
  readonly term: number;
  /** The term to begin with; a vote in it has not been given. At least `term`. */
  readonly currentTerm: number;
  readonly configuration: Configuration;
  /** The directory id that the configuration has for this node. */
  readonly directoryId: number;
  /** Above every session that the state has seen of this node. */
  readonly incarnation: number;
  readonly walSegmentBytes: number;
  /** Gives the chunks of the state, each once the one before was taken. */
  readonly produce: (write: (chunk: Buffer) => Promise<void>) => Promise<unknown>;
}

export async function buildNode(options: BuildNodeOptions): Promise<void> {
  const { disk, directory, clusterName, nodeId, index, term, configuration, directoryId, incarnation } = options;
  await disk.makeDirectory(directory);
  const newDirectoryId = () => directoryId;
  const meta = await openMeta({ disk, directory, clusterName, nodeId, incarnationMin: incarnation, newDirectoryId });
  const snapshots = join(directory, SNAPSHOTS_FOLDER);
  await disk.makeDirectory(snapshots);
  const head = { index, term, clusterName, configuration: encodeConfiguration(configuration, 0) };
  await writeSnapshotFile(disk, join(snapshots, snapshotName(index, term)), head, options.produce);
  await beginLog(options);
  const { clusterId, voters } = configuration;
  await meta.persist({ logCreated: true, lifecycle: 'normal', clusterId, onlyVoter: voters.length === 1 });
}

async function beginLog(options: BuildNodeOptions): Promise<void> {
  const { disk, clock, random, directory, clusterName, index, term, currentTerm, walSegmentBytes } = options;
  let fail = (_error: unknown) => {};
  const failed = new Promise<never>((_resolve, reject) => {
    fail = reject;
  });
  // Heard below; a failure after that has been reported there already.
  failed.catch(() => {});
  const { wal } = await openWal({
    ...{ disk, clock, random, clusterName },
    directory: join(directory, WAL_FOLDER),
    mustExist: false,
    begin: { index, term },
    onDamage: null,
    onFatal: fail,
    onFull() {},
    logger: silentLogger,
    sink: { onLogReset() {}, onEntry() {}, onHardState() {} },
    limits: { walSegmentBytes },
  });
  const hardState = encodeHardState({ term: currentTerm, vote: NO_NODE, commitIndex: index });
  const written = new Promise<void>((done) => {
    wal.append({ reset: null, hardState, firstIndex: 0, entries: [], done });
  });
  await Promise.race([written, failed]);
  await wal.close();
}
