import { RaftkvError } from '../base/errors.ts';
import { SnapshotLoader } from '../kv/snapshot.ts';
import { StateMachine } from '../kv/state-machine.ts';
import { ENTRY_HEADER_BYTES } from '../raft/state/entry.ts';
import type { Entry } from '../raft/state/types.ts';
import type { Disk } from '../storage/disk/disk.ts';
import { refuseForeign } from '../storage/meta.ts';
import { readSnapshotFile } from '../storage/snapshots/reader.ts';
import type { LogBase } from '../storage/wal/types.ts';
import { type BeginningNode, beginHistory } from './beginning.ts';
import { readMetaFacts, readOfflineLog, snapshotPaths } from './examination.ts';

/**
 * Makes a cluster of one node out of all that one node has, taking every entry of its log for committed. It breaks what
 * Raft promises, and is for when a majority is gone for good.
 */

export interface Remains {
  readonly state: StateMachine;
  /** The last entry in it. */
  readonly index: number;
  readonly term: number;
  /** The highest that the node has heard of. */
  readonly currentTerm: number;
  /** The number of the node's last start; 0 if it is unknown. */
  readonly incarnation: number;
}

export interface ReadAllOptions {
  readonly disk: Disk;
  /** The same disk, but it allows no change. */
  readonly view: Disk;
  readonly directory: string;
  readonly clusterName: string;
  readonly nodeId: number;
  /** The folder to which damaged files of the log are moved. */
  readonly damagedFolder: string;
  readonly walSegmentBytes: number;
  /** Uniform in [0, 1). */
  readonly random: () => number;
}

/**
 * The newest good snapshot and the good part of the log behind it. Damage in the log is repaired first, as a start of
 * the node would; nothing else is changed.
 * @throws RaftkvError BACKUP_INVALID where there is nothing; DATA_DIR_FOREIGN, FORMAT_UNSUPPORTED.
 */
export async function readAllOf(options: ReadAllOptions): Promise<Remains> {
  const { disk, view, directory, clusterName, nodeId, damagedFolder, walSegmentBytes, random } = options;
  const meta = await readMetaFacts(view, directory).catch(asUnknown);
  if (meta !== null) refuseForeign(meta, directory, clusterName, nodeId, 'Check --config and --id.');
  const { state, begin } = await loadNewest(view, directory, clusterName);
  const follower = createFollower(state, begin);
  const log = await readOfflineLog({
    ...{ disk, directory, clusterName, random, begin },
    mustExist: false,
    onDamage: async () => damagedFolder,
    segmentBytes: walSegmentBytes,
    onEntry: (entry) => follower.take(entry),
  });
  const { index, term } = follower.last();
  if (index === 0)
    throw new RaftkvError('BACKUP_INVALID', `${directory} has neither an intact snapshot nor an intact log`);
  const currentTerm = Math.max(term, log?.hardState?.term ?? 0);
  return { state, index, term, currentTerm, incarnation: meta?.incarnation ?? 0 };
}

/** A damaged meta tells nothing, but the log and the snapshots may be enough. */
function asUnknown(error: unknown): null {
  if (error instanceof RaftkvError && error.code === 'META_DAMAGED') return null;
  throw error;
}

async function loadNewest(
  disk: Disk,
  directory: string,
  clusterName: string,
): Promise<{ readonly state: StateMachine; readonly begin: LogBase }> {
  for (const path of (await snapshotPaths(disk, directory)).reverse()) {
    const loader = new SnapshotLoader();
    try {
      const head = await readSnapshotFile(disk, path, (chunk) => loader.push(chunk));
      if (head.clusterName === clusterName)
        return { state: loader.finish(), begin: { index: head.index, term: head.term } };
    } catch (error) {
      if (!(error instanceof RaftkvError && error.code === 'SNAPSHOT_DAMAGED')) throw error;
    }
  }
  return { state: new StateMachine(), begin: { index: 0, term: 0 } };
}

/** Applies the entries behind a snapshot, if they are of the history that it stands for. */
function createFollower(state: StateMachine, begin: LogBase) {
  let last = begin;
  let isOther = false;
  return {
    take({ index, term, kind, bytes }: Entry): void {
      if (index === begin.index && term !== begin.term) isOther = true;
      if (isOther || index !== last.index + 1) return;
      if (kind === 'data') state.apply(bytes, ENTRY_HEADER_BYTES, null);
      last = { index, term };
    },
    last: () => last,
  };
}

/** The size of one slice of the state. It bounds the memory; nothing else waits for a slice. */
const SLICE_BYTES = 256 * 1024;

/** Begins a new history with the state of the node. */
export async function rebuildAlone({ currentTerm, ...remains }: Remains, node: BeginningNode): Promise<void> {
  const beginning = {
    ...remains,
    // A vote may have been given in the current term.
    currentTerm: currentTerm + 1,
    async produce(write: (chunk: Buffer) => Promise<void>) {
      const iterator = remains.state.beginSnapshot();
      for (let chunk = iterator.next(SLICE_BYTES); chunk !== null; chunk = iterator.next(SLICE_BYTES))
        await write(chunk);
    },
  };
  await beginHistory(beginning, node);
}
