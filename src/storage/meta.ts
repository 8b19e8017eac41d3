import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { RaftkvError } from '../base/errors.ts';
import { type ClusterId, type Configuration, type LifecycleStatus, NO_CLUSTER } from '../raft/state/types.ts';
import { type Disk, readFile, replaceFile } from './disk/disk.ts';
import { segmentNumbers } from './segments/files.ts';
import { isSnapshotName } from './snapshots/files.ts';

/**
 * The file `meta` contains the identity of a data directory (its node, cluster and cluster id), the number of the
 * node's incarnation, and the lifecycle status of the directory. Three lines of text:
 *
 * ```
 * raftkv meta 2                                                      the format's version
 * {"clusterName":"demo","nodeId":1,"incarnation":7,"logCreated":true,"lifecycle":"normal","directoryId":42, …}
 * 8a5c1d20                                                           CRC-32 of the two lines before, in hex
 * ```
 *
 * The first and the last line have the same form in every version. The file is replaced as a whole: written under
 * another name, synced and renamed, and the folder is synced.
 */
const META_FORMAT_VERSION = 2;
/** The names of what a data directory contains. */
export const META_NAME = 'meta';
export const WAL_FOLDER = 'wal';
export const SNAPSHOTS_FOLDER = 'snapshots';
/**
 * The number of bytes that are read at most: far more than the file ever has, so that a foreign file isn't read whole.
 */
const META_BYTES_MAX = 64 * 1024;

export interface MetaOptions {
  readonly disk: Disk;
  /** The node's data directory. It is created if it doesn't exist. */
  readonly directory: string;
  readonly clusterName: string;
  readonly nodeId: number;
  /**
   * The lowest number for this incarnation; 1 by default. With the Unix time in seconds, a node whose disk was wiped or
   * restored doesn't use a session id again (ADR 0010).
   */
  readonly incarnationMin?: number;
  /**
   * Called if `meta` is damaged, before anything is changed on the disk. Returns a folder on the same file system, to
   * which the whole content of the directory is moved: without `meta`, it is unknown to which node the rest belongs. If
   * it is null or absent, `openMeta` throws.
   */
  readonly onDamage?: ((error: RaftkvError) => Promise<string>) | null;
  /** Draws an id for a directory that is new, or that starts empty after damage. */
  readonly newDirectoryId: () => number;
}

/** The fields that `Meta.persist` can change. */
export interface MetaState {
  /** Whether the node has had a log. If so, a missing log is damage. */
  readonly logCreated: boolean;
  /** A new directory is `uninitialized`; one that starts empty after damage is `recovering`. */
  readonly lifecycle: LifecycleStatus;
  /** The id of this directory. It changes when the directory loses data (ADR 0008) or joins a cluster (ADR 0014). */
  readonly directoryId: number;
  /** The cluster id of the history that this directory belongs to; empty until it belongs to one (ADR 0014). */
  readonly clusterId: ClusterId;
  /** The first configuration of the cluster, if this directory became a member by it. */
  readonly first: Configuration | null;
  /** Whether this node is the only voter, so that no other node could restore its data; null if that is unknown. */
  readonly onlyVoter: boolean | null;
}

export interface Meta extends MetaState {
  /** The number of this incarnation. It is higher at each start, and durable before `openMeta` returns. */
  readonly incarnation: number;
  /** Resolves when the changes are durable. After a failure all later calls fail, except after ENOSPC. */
  persist(changes: Partial<MetaState>): Promise<void>;
  /** Makes the next start use a number above `incarnation`. Resolves when that is durable. */
  raiseIncarnation(incarnation: number): Promise<void>;
}

/** The content of the file. */
export interface MetaContent extends MetaState {
  readonly clusterName: string;
  readonly nodeId: number;
  readonly incarnation: number;
}

/**
 * Opens or creates the data directory of a node, and increases its incarnation.
 * @throws RaftkvError DATA_DIR_FOREIGN, FORMAT_UNSUPPORTED, META_DAMAGED if there is no `onDamage`; errors of the disk
 */
export async function openMeta(options: MetaOptions): Promise<Meta> {
  const { disk, directory } = options;
  await disk.makeDirectory(directory);
  const before = await contentBefore(options);
  const incarnation = Math.max(before.incarnation + 1, options.incarnationMin ?? 1);
  let content: MetaContent = { ...before, incarnation };
  await writeContent(disk, directory, content);
  /** The last change. Changes run one after the other, because they share the name of the temporary file. */
  let writing = Promise.resolve();
  const change = (changes: Partial<MetaContent>): Promise<void> => {
    const changing = writing.then(async () => {
      const changed = { ...content, ...changes };
      await writeContent(disk, directory, changed);
      content = changed;
    });
    writing = changing.catch((error: NodeJS.ErrnoException) => {
      // The file hasn't changed, so the next change may be tried.
      if (error.code !== 'ENOSPC') throw error;
    });
    // `changing` reports the failure to the caller, so it must not be reported as unhandled here.
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

const FOREIGN_REMEDY = 'Point dataDir to the data of this cluster, or to an empty folder.';

/** Returns the content of the file before this start, or the initial content of an empty directory. */
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
    refuseForeign(found, path, clusterName, nodeId, FOREIGN_REMEDY);
    return found;
  } catch (error) {
    if (!(error instanceof RaftkvError && error.code === 'META_DAMAGED') || onDamage === null) throw error;
    await moveAllAside(disk, directory, await onDamage(error));
    // The directory may have belonged to a cluster, so its node must not bootstrap a new one.
    return { ...fresh, lifecycle: 'recovering' };
  }
}

/** @throws RaftkvError META_DAMAGED if the directory has a log or a snapshot, so that `meta` must have been lost */
async function refuseOrphans(disk: Disk, directory: string): Promise<void> {
  const wal = join(directory, WAL_FOLDER);
  const snapshots = join(directory, SNAPSHOTS_FOLDER);
  const path = join(directory, META_NAME);
  if (segmentNumbers(await disk.list(wal)).length > 0) throw damaged(path, `is missing, but ${wal} contains a log`);
  if ((await disk.list(snapshots)).some(isSnapshotName))
    throw damaged(path, `is missing, but ${snapshots} contains a snapshot`);
}

/**
 * Moves the log and the snapshots to `folder`, and copies `meta` there. The damaged `meta` stays until a new one
 * replaces it in one step. So if this function is interrupted, the next start finds the damage again and continues. For
 * the same reason, a missing `meta` is replaced by an empty file: otherwise the next start could find an empty
 * directory.
 */
async function moveAllAside(disk: Disk, directory: string, folder: string): Promise<void> {
  const path = join(directory, META_NAME);
  if ((await disk.list(directory)).includes(META_NAME)) {
    await disk.makeDirectory(folder);
    await replaceFile(disk, folder, META_NAME, await readFile(disk, path, META_BYTES_MAX));
  } else {
    await replaceFile(disk, directory, META_NAME, Buffer.alloc(0));
  }
  for (const part of [SNAPSHOTS_FOLDER, WAL_FOLDER]) {
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

/** @throws RaftkvError DATA_DIR_FOREIGN if `found`, the content of the file in `path`, is another node's */
export function refuseForeign(
  found: MetaContent,
  path: string,
  clusterName: string,
  nodeId: number,
  remedy: string,
): void {
  if (found.clusterName === clusterName && found.nodeId === nodeId) return;
  throw new RaftkvError(
    'DATA_DIR_FOREIGN',
    `${path} belongs to node ${found.nodeId} of cluster "${found.clusterName}", not to node ${nodeId} of "${clusterName}"`,
    remedy,
  );
}

/**
 * Reads the file without increasing the incarnation. Returns null if there is no file.
 * @throws RaftkvError META_DAMAGED, FORMAT_UNSUPPORTED
 */
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
