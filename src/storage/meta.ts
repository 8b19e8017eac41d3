import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { RaftkvError } from '../base/errors.ts';
import type { LifecycleStatus } from '../raft/state/types.ts';
import { type Disk, readFile, replaceFile } from './disk/disk.ts';
import { segmentNumbers } from './segments/files.ts';
import { isSnapshotName } from './snapshots/files.ts';

/**
 * The file `meta` says whose data directory this is, the number of the node's incarnation, and the lifecycle status
 * of the directory. Three lines of text:
 *
 * ```
 * raftkv meta 1                                                      the format's version
 * {"clusterName":"demo","nodeId":1,"incarnation":7,"logCreated":true,"lifecycle":"normal","directoryId":0,"initialMembers":[1,2,3]}
 * 8a5c1d20                                                           CRC-32 of the two lines before, in hex
 * ```
 *
 * - `incarnation`: increased by every start.
 * - `logCreated`: the node has had a log, so that a missing log is damage.
 * - `lifecycle`, `directoryId`: the lifecycle status and the id of the directory. If they are missing, a node that has had
 *   a log is a member with directory id 0.
 * - `initialMembers`: the node ids with which the cluster was bootstrapped, so that a changed `cluster.json` changes no
 *   majority; null in a directory that joined later.
 *
 * The first and the last line keep their form in every version. The file is replaced as a whole: written under another
 * name, synced, renamed, folder synced.
 */
const META_FORMAT_VERSION = 1;
const META_NAME = 'meta';
const WAL_FOLDER = 'wal';
const SNAPSHOT_FOLDER = 'snapshots';
/** Far above any real one; stops a foreign file from being read whole. */
const META_BYTES_MAX = 64 * 1024;

export interface MetaOptions {
  readonly disk: Disk;
  /** The node's data directory; made where there is none. */
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
  /**
   * The id of this directory if damage makes the directory start empty: it is `recovering` then, durably, and so cannot
   * pass for uninitialized and help to form a new cluster. Left out: it is uninitialized.
   */
  readonly directoryIdAfterDamage?: number;
}

export interface Meta {
  /** The number of this incarnation: higher at each start, and durable before `openMeta` returns, so no two starts share one. */
  readonly incarnation: number;
  /** True once this node has had a log: what `openWal` needs to know to tell a new node from one that lost its log. */
  readonly logCreated: boolean;
  /** To be called when the log has been opened; durable when it returns. */
  persistLogCreated(): Promise<void>;
  /** `uninitialized` in a fresh directory. */
  readonly lifecycle: LifecycleStatus;
  /** The id of this directory: 0 for one that a cluster began with, and while it is uninitialized. */
  readonly directoryId: number;
  /** The nodes with which the cluster was bootstrapped; null in a directory that joined later. */
  readonly initialMembers: readonly number[] | null;
  /** This node is one of the initial members of a new cluster: lifecycle `normal`, directory id 0. Durable when it returns. */
  persistBootstrapped(initialMembers: readonly number[]): Promise<void>;
  /** Durable when it returns, and `lifecycle` and `directoryId` say so. */
  persistLifecycle(lifecycle: LifecycleStatus, directoryId: number): Promise<void>;
  /** Makes the next start use a number above `incarnation`. Durable when it returns. */
  raiseIncarnation(incarnation: number): Promise<void>;
}

interface Content {
  readonly clusterName: string;
  readonly nodeId: number;
  readonly incarnation: number;
  readonly logCreated: boolean;
  readonly lifecycle: LifecycleStatus;
  readonly directoryId: number;
  readonly initialMembers: readonly number[] | null;
}

/** As earlier versions wrote it. */
type FoundContent = Omit<Content, 'lifecycle' | 'directoryId' | 'initialMembers'> & Partial<Content>;

/**
 * Opens the data directory of a node, or makes it, and counts the start.
 * @throws RaftkvError DATA_DIR_FOREIGN, FORMAT_UNSUPPORTED, META_DAMAGED where there is no `onDamage`; the disk's own errors.
 */
export async function openMeta(options: MetaOptions): Promise<Meta> {
  const { disk, directory } = options;
  await disk.makeDirectory(directory);
  const before = await contentBefore(options, (await disk.list(directory)).includes(META_NAME));
  const incarnation = Math.max(before.incarnation + 1, options.incarnationMin ?? 1);
  let content: Content = { ...before, incarnation };
  await writeContent(disk, directory, content);
  /** One after the other: they share the temporary name. After a failure, all fail. */
  let writing = Promise.resolve();
  const change = (changes: Partial<Content>): Promise<void> => {
    writing = writing.then(async () => {
      const changed = { ...content, ...changes };
      await writeContent(disk, directory, changed);
      content = changed;
    });
    return writing;
  };
  return {
    incarnation: content.incarnation,
    get logCreated() {
      return content.logCreated;
    },
    get lifecycle() {
      return content.lifecycle;
    },
    get directoryId() {
      return content.directoryId;
    },
    get initialMembers() {
      return content.initialMembers;
    },
    persistBootstrapped: (initialMembers) => change({ lifecycle: 'normal', directoryId: 0, initialMembers }),
    async persistLogCreated() {
      if (!content.logCreated) await change({ logCreated: true });
    },
    persistLifecycle: (lifecycle, directoryId) => change({ lifecycle, directoryId }),
    raiseIncarnation: (incarnation) => change({ incarnation: Math.max(incarnation, content.incarnation) }),
  };
}

/** What was there before this start; of a directory that starts empty, its initial content. */
async function contentBefore(options: MetaOptions, exists: boolean): Promise<Content> {
  const { disk, directory, clusterName, nodeId, onDamage = null, directoryIdAfterDamage = 0 } = options;
  const path = join(directory, META_NAME);
  const fresh: Content = {
    clusterName,
    nodeId,
    incarnation: 0,
    logCreated: false,
    lifecycle: 'uninitialized',
    directoryId: 0,
    initialMembers: null,
  };
  try {
    const found = exists ? await readContent(disk, path) : null;
    if (found === null) {
      await refuseOrphans(disk, directory);
      return fresh;
    }
    refuseForeign(found, path, clusterName, nodeId);
    return { lifecycle: found.logCreated ? 'normal' : 'uninitialized', directoryId: 0, initialMembers: null, ...found };
  } catch (error) {
    if (!(error instanceof RaftkvError && error.code === 'META_DAMAGED') || onDamage === null) throw error;
    await moveAllAside(disk, directory, await onDamage(error));
    return directoryIdAfterDamage === 0
      ? fresh
      : { ...fresh, lifecycle: 'recovering', directoryId: directoryIdAfterDamage };
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

function refuseForeign(found: FoundContent, path: string, clusterName: string, nodeId: number): void {
  if (found.clusterName === clusterName && found.nodeId === nodeId) return;
  throw new RaftkvError(
    'DATA_DIR_FOREIGN',
    `${path} belongs to node ${found.nodeId} of cluster "${found.clusterName}", not to node ${nodeId} of "${clusterName}"`,
    'Point dataDir to the data of this cluster, or to an empty folder.',
  );
}

async function readContent(disk: Disk, path: string): Promise<FoundContent> {
  return parse((await readFile(disk, path, META_BYTES_MAX)).toString('utf8'), path);
}

function parse(text: string, path: string): FoundContent {
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
  return JSON.parse(body) as FoundContent;
}

async function writeContent(disk: Disk, directory: string, content: Content): Promise<void> {
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

/**
 * The file `alone` of a data directory says whether its node is the only voter of its cluster, so that no other node could
 * restore what it loses: `yes` or `no`, and a line feed. Who the members are is in the log and in snapshots; but this has to
 * be known where those, or `meta`, turn out to be damaged.
 */
const ALONE_NAME = 'alone';
const ALONE_BYTES_MAX = 16;

/** Null where the file is missing, or says neither. */
export async function readAlone(disk: Disk, directory: string): Promise<boolean | null> {
  if (!(await disk.list(directory)).includes(ALONE_NAME)) return null;
  const text = (await readFile(disk, join(directory, ALONE_NAME), ALONE_BYTES_MAX)).toString('latin1');
  if (text === 'yes\n') return true;
  return text === 'no\n' ? false : null;
}

/** Durable when it returns. One call at a time. */
export async function writeAlone(disk: Disk, directory: string, alone: boolean): Promise<void> {
  if ((await readAlone(disk, directory)) === alone) return;
  await replaceFile(disk, directory, ALONE_NAME, Buffer.from(alone ? 'yes\n' : 'no\n'));
}
