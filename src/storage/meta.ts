import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { RaftkvError } from '../base/errors.ts';
import { type ClusterId, type Configuration, type LifecycleStatus, NO_CLUSTER } from '../raft/state/types.ts';
import { type Disk, readFile, replaceFile } from './disk/disk.ts';
import { segmentNumbers } from './segments/files.ts';
import { isSnapshotName } from './snapshots/files.ts';

/**
 * The file `meta` says whose data directory this is, which history it belongs to, the number of the node's incarnation, and
 * the lifecycle status of the directory. Three lines of text:
 *
 * ```
 * raftkv meta 2                                                      the format's version
 * {"clusterName":"demo","nodeId":1,"incarnation":7,"logCreated":true,"lifecycle":"normal","directoryId":42, …}
 * 8a5c1d20                                                           CRC-32 of the two lines before, in hex
 * ```
 *
 * The first and the last line keep their form in every version. The file is replaced as a whole: written under another
 * name, synced, renamed, folder synced.
 */
const META_FORMAT_VERSION = 2;
const META_NAME = 'meta';
const WAL_FOLDER = 'wal';
const SNAPSHOT_FOLDER = 'snapshots';
/** Far above any real one; stops a foreign file from being read whole. */
const META_BYTES_MAX = 64 * 1024;

export interface MetaOptions {
  readonly disk: Disk;
  /** The node's data directory; made if there is none. */
  readonly directory: string;
  readonly clusterName: string;
  readonly nodeId: number;
  /**
   * The lowest number for this incarnation; 1 by default. The Unix time is a good value: it keeps a node whose disk was
   * wiped or restored from using a session id of its past (ADR 0010).
   */
  readonly incarnationMin?: number;
  /**
   * Called with what is damaged before anything is changed on the disk; gives a folder on the same file system, to move
   * everything into: without its meta, the owner of the rest is unknown. Null or left out: damage is refused.
   */
  readonly onDamage?: ((error: RaftkvError) => Promise<string>) | null;
  /** Draws an id for a directory that is made now or starts empty after damage. */
  readonly newDirectoryId: () => number;
}

/** The fields that can change after the start. A change is durable once its `persist` has resolved. */
export interface MetaState {
  /** The node has had a log, so a missing log is damage. */
  readonly logCreated: boolean;
  /** `uninitialized` in a fresh directory; `recovering` in one that starts empty after damage. */
  readonly lifecycle: LifecycleStatus;
  /** The id of this directory. It changes when the directory loses something (ADR 0008). */
  readonly directoryId: number;
  /** The history that this directory belongs to; empty until it has become part of one (ADR 0014). */
  readonly clusterId: ClusterId;
  /** The first configuration of the cluster, if this directory came in by it. */
  readonly first: Configuration | null;
  /** Whether no other node could restore what this one loses; null while that is not known. */
  readonly onlyVoter: boolean | null;
}

export interface Meta extends MetaState {
  /** The number of this incarnation: higher at each start, and durable before `openMeta` returns, so no two starts share one. */
  readonly incarnation: number;
  /** Durable when it resolves. After a failure, all later calls fail; after ENOSPC, the next may find room. */
  persist(changes: Partial<MetaState>): Promise<void>;
  /** Makes the next start use a number above `incarnation`. Durable when it resolves. */
  raiseIncarnation(incarnation: number): Promise<void>;
}

/** All that the file says. */
export interface MetaContent extends MetaState {
  readonly clusterName: string;
  readonly nodeId: number;
  readonly incarnation: number;
}

/**
 * Opens the data directory of a node, or makes it, and counts the start.
 * @throws RaftkvError DATA_DIR_FOREIGN, FORMAT_UNSUPPORTED, META_DAMAGED where there is no `onDamage`; the disk's own errors.
 */
export async function openMeta(options: MetaOptions): Promise<Meta> {
  const { disk, directory } = options;
  await disk.makeDirectory(directory);
  const before = await contentBefore(options);
  const incarnation = Math.max(before.incarnation + 1, options.incarnationMin ?? 1);
  let content: MetaContent = { ...before, incarnation };
  await writeContent(disk, directory, content);
  /** One after the other: they share the temporary name. After a failure, all fail. */
  let writing = Promise.resolve();
  const change = (changes: Partial<MetaContent>): Promise<void> => {
    const changing = writing.then(async () => {
      const changed = { ...content, ...changes };
      await writeContent(disk, directory, changed);
      content = changed;
    });
    writing = changing.catch((error: NodeJS.ErrnoException) => {
      // The file is as it was, so another change may find room.
      if (error.code !== 'ENOSPC') throw error;
    });
    // The caller hears of the failure through the promise that it got.
    writing.catch(() => {});
    return changing;
  };
  return {
    incarnation,
    get logCreated() {
      return content.logCreated;
    },
    get lifecycle() {
      return content.lifecycle;
    },
    get directoryId() {
      return content.directoryId;
    },
    get clusterId() {
      return content.clusterId;
    },
    get first() {
      return content.first;
    },
    get onlyVoter() {
      return content.onlyVoter;
    },
    persist: change,
    raiseIncarnation: (next) => change({ incarnation: Math.max(next, content.incarnation) }),
  };
}

/** The content of the file before this start, or the initial content of an empty directory. */
async function contentBefore(options: MetaOptions): Promise<MetaContent> {
  const { disk, directory, clusterName, nodeId, onDamage = null, newDirectoryId } = options;
  const path = join(directory, META_NAME);
  const fresh: MetaContent = {
    clusterName,
    nodeId,
    incarnation: 0,
    logCreated: false,
    lifecycle: 'uninitialized',
    directoryId: newDirectoryId(),
    clusterId: NO_CLUSTER,
    first: null,
    onlyVoter: null,
  };
  try {
    const found = await readMeta(disk, directory);
    if (found === null) {
      await refuseOrphans(disk, directory);
      return fresh;
    }
    refuseForeign(found, path, clusterName, nodeId);
    return found;
  } catch (error) {
    if (!(error instanceof RaftkvError && error.code === 'META_DAMAGED') || onDamage === null) throw error;
    await moveAllAside(disk, directory, await onDamage(error));
    // It has belonged to a cluster, so it must not help to form a new one.
    return { ...fresh, lifecycle: 'recovering' };
  }
}

async function refuseOrphans(disk: Disk, directory: string): Promise<void> {
  const wal = join(directory, WAL_FOLDER);
  const snapshots = join(directory, SNAPSHOT_FOLDER);
  const path = join(directory, META_NAME);
  if (segmentNumbers(await disk.list(wal)).length > 0) throw damaged(path, `is missing, but ${wal} contains a log`);
  if ((await disk.list(snapshots)).some(isSnapshotName))
    throw damaged(path, `is missing, but ${snapshots} contains a snapshot`);
}

/**
 * Moves log and snapshots, and copies meta, which stays damaged until the new one replaces it at once: whenever this is
 * interrupted, the next start finds damage again and goes on. A meta that is missing gets an empty one in its place, or
 * the next start would find a fresh directory.
 */
async function moveAllAside(disk: Disk, directory: string, folder: string): Promise<void> {
  const path = join(directory, META_NAME);
  if ((await disk.list(directory)).includes(META_NAME)) {
    await disk.makeDirectory(folder);
    await replaceFile(disk, folder, META_NAME, await readFile(disk, path, META_BYTES_MAX));
  } else {
    await replaceFile(disk, directory, META_NAME, Buffer.alloc(0));
  }
  for (const part of [SNAPSHOT_FOLDER, WAL_FOLDER]) {
    await moveAside(disk, join(directory, part), await disk.list(join(directory, part)), join(folder, part));
  }
}

async function moveAside(disk: Disk, from: string, names: readonly string[], to: string): Promise<void> {
  if (names.length === 0) return;
  await disk.makeDirectory(to);
  for (const name of names) await disk.rename(join(from, name), join(to, name));
  await disk.syncDirectory(to);
  await disk.syncDirectory(from);
}

function refuseForeign(found: MetaContent, path: string, clusterName: string, nodeId: number): void {
  if (found.clusterName === clusterName && found.nodeId === nodeId) return;
  throw new RaftkvError(
    'DATA_DIR_FOREIGN',
    `${path} belongs to node ${found.nodeId} of cluster "${found.clusterName}", not to node ${nodeId} of "${clusterName}"`,
    'Point dataDir to the data of this cluster, or to an empty folder.',
  );
}

/** Reads the file without counting a start. Null if it is missing. @throws RaftkvError META_DAMAGED, FORMAT_UNSUPPORTED */
export async function readMeta(disk: Disk, directory: string): Promise<MetaContent | null> {
  if (!(await disk.list(directory)).includes(META_NAME)) return null;
  const path = join(directory, META_NAME);
  return parse((await readFile(disk, path, META_BYTES_MAX)).toString('utf8'), path);
}

function parse(text: string, path: string): MetaContent {
  const lines = text.split('\n');
  const [head = '', body = '', checksum, end] = lines;
  const version = /^raftkv meta (\d+)$/.exec(head)?.[1];
  if (lines.length !== 4 || end !== '' || version === undefined || checksum !== checksumOf(head, body)) {
    throw damaged(path, 'is corrupt');
  }
  if (Number(version) !== META_FORMAT_VERSION) {
    throw new RaftkvError(
      'FORMAT_UNSUPPORTED',
      `${path} has format ${version}; this raftkv reads format ${META_FORMAT_VERSION}`,
      'Start the version of raftkv that wrote it.',
    );
  }
  return JSON.parse(body) as MetaContent;
}

async function writeContent(disk: Disk, directory: string, content: MetaContent): Promise<void> {
  const head = `raftkv meta ${META_FORMAT_VERSION}`;
  const body = JSON.stringify(content);
  await replaceFile(disk, directory, META_NAME, Buffer.from(`${head}\n${body}\n${checksumOf(head, body)}\n`));
}

function checksumOf(head: string, body: string): string {
  return crc32(Buffer.from(`${head}\n${body}\n`))
    .toString(16)
    .padStart(8, '0');
}

function damaged(path: string, what: string): RaftkvError {
  return new RaftkvError(
    'META_DAMAGED',
    `${path} ${what}`,
    'Check the disk and keep a copy of the folder. `raftkv recover` makes a cluster from the intact data, `raftkv snapshot ' +
      'restore` from a backup. Do not put an older copy of the folder back.',
  );
}
