import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { RaftkvError } from '../base/errors.ts';
import { type Disk, writeFully } from './disk.ts';
import { segmentNumbers } from './segment-files.ts';

/**
 * The file `meta` says whose data directory this is and how often its node has started. Three lines of text:
 *
 * ```
 * raftkv meta 1                                                      the format's version
 * {"clusterId":"demo","nodeId":1,"bootCount":7,"logCreated":true}
 * 8a5c1d20                                                           CRC-32 of the two lines before, in hex
 * ```
 *
 * The first and the last line keep their form in every version. The file is replaced as a whole: written under another
 * name, synced, renamed, folder synced.
 */
const META_FORMAT_VERSION = 1;
const META_NAME = 'meta';
const TEMPORARY_NAME = 'meta.tmp';
const WAL_FOLDER = 'wal';
/** Far above any real one; stops a foreign file from being read whole. */
const META_BYTES_MAX = 64 * 1024;

export interface MetaOptions {
  readonly disk: Disk;
  /** The node's data directory; made where there is none. */
  readonly directory: string;
  readonly clusterId: string;
  readonly nodeId: number;
}

export interface Meta {
  /** 1 at the first start, one more at each. Durable before anyone hears of it, so no two starts share one. */
  readonly bootCount: number;
  /** True once this node has had a log: what `openWal` needs to know to tell a new node from one that lost its log. */
  readonly logCreated: boolean;
  /** To be called when the log has been opened; durable when it returns. */
  noteLogCreated(): Promise<void>;
}

interface Content {
  readonly clusterId: string;
  readonly nodeId: number;
  readonly bootCount: number;
  readonly logCreated: boolean;
}

/**
 * Opens the data directory of a node, or makes it, and counts the start.
 * @throws RaftkvError DATA_DIR_FOREIGN, META_DAMAGED, FORMAT_UNSUPPORTED; the disk's own errors.
 */
export async function openMeta(options: MetaOptions): Promise<Meta> {
  const { disk, directory, clusterId, nodeId } = options;
  await disk.makeDirectory(directory);
  const path = join(directory, META_NAME);
  const names = await disk.list(directory);
  // Left by a start that was interrupted; the file under the right name is the one that counts.
  if (names.includes(TEMPORARY_NAME)) await disk.remove(join(directory, TEMPORARY_NAME));
  const found = names.includes(META_NAME) ? await readContent(disk, path) : null;
  if (found === null) await refuseOrphanedLog(disk, directory);
  else refuseForeign(found, path, clusterId, nodeId);

  const bootCount = (found?.bootCount ?? 0) + 1;
  const logCreated = found?.logCreated ?? false;
  await writeContent(disk, directory, { clusterId, nodeId, bootCount, logCreated });
  return {
    bootCount,
    logCreated,
    async noteLogCreated() {
      if (!logCreated) await writeContent(disk, directory, { clusterId, nodeId, bootCount, logCreated: true });
    },
  };
}

async function refuseOrphanedLog(disk: Disk, directory: string): Promise<void> {
  const folder = join(directory, WAL_FOLDER);
  if (segmentNumbers(await disk.list(folder)).length === 0) return;
  throw damaged(join(directory, META_NAME), `is missing, while ${folder} holds a log`);
}

function refuseForeign(found: Content, path: string, clusterId: string, nodeId: number): void {
  if (found.clusterId === clusterId && found.nodeId === nodeId) return;
  throw new RaftkvError(
    'DATA_DIR_FOREIGN',
    `${path} belongs to node ${found.nodeId} of cluster "${found.clusterId}", not to node ${nodeId} of "${clusterId}"`,
    'Point dataDir to the folder of this cluster, or to an empty one.',
  );
}

async function readContent(disk: Disk, path: string): Promise<Content> {
  const file = await disk.open(path, { create: false, dataSync: false });
  const buffer = Buffer.alloc(Math.min(await file.size(), META_BYTES_MAX));
  const bytes = await file.read(buffer, 0, buffer.length, 0);
  await file.close();
  return parse(buffer.toString('utf8', 0, bytes), path);
}

function parse(text: string, path: string): Content {
  const lines = text.split('\n');
  const [head = '', body = '', checksum, end] = lines;
  const version = /^raftkv meta (\d+)$/.exec(head)?.[1];
  if (lines.length !== 4 || end !== '' || version === undefined || checksum !== checksumOf(head, body)) {
    throw damaged(path, 'does not verify');
  }
  if (Number(version) !== META_FORMAT_VERSION) {
    throw new RaftkvError(
      'FORMAT_UNSUPPORTED',
      `${path} has format ${version}; this raftkv reads format ${META_FORMAT_VERSION}`,
      'Start the version of raftkv that wrote it.',
    );
  }
  return JSON.parse(body) as Content;
}

async function writeContent(disk: Disk, directory: string, content: Content): Promise<void> {
  const head = `raftkv meta ${META_FORMAT_VERSION}`;
  const body = JSON.stringify(content);
  const bytes = Buffer.from(`${head}\n${body}\n${checksumOf(head, body)}\n`);
  const temporary = join(directory, TEMPORARY_NAME);
  const file = await disk.open(temporary, { create: true, dataSync: false });
  await writeFully(file, bytes, bytes.length, 0);
  await file.sync();
  await file.close();
  await disk.rename(temporary, join(directory, META_NAME));
  await disk.syncDirectory(directory);
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
    'Put back a copy of the data directory that was taken while the node was stopped.',
  );
}
