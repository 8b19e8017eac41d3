import { silentLogger } from '../../../src/base/logger.ts';
import type { Disk } from '../../../src/storage/disk/disk.ts';
import { openSnapshots, type SnapshotsOptions } from '../../../src/storage/snapshots/files.ts';
import type { SnapshotInfo, Snapshots } from '../../../src/storage/snapshots/types.ts';
import { seededRandom } from '../../support/random.ts';

export const DIRECTORY = '/node/snapshots';
export const ASIDE = '/node/damaged-1';

export function openFolder(disk: Disk, options: Partial<SnapshotsOptions> = {}): Promise<Snapshots> {
  const onDamage = async () => ASIDE;
  return openSnapshots({ disk, directory: DIRECTORY, clusterName: 'test', logger: silentLogger, onDamage, ...options });
}

/** Chunks that differ from each other and from those of other indexes. */
export function chunksOf(index: number, count = 4, bytesEach = 700): Buffer[] {
  const random = seededRandom(index);
  return Array.from({ length: count }, (_, place) => {
    const chunk = Buffer.alloc(place === 1 ? 0 : bytesEach);
    for (let i = 0; i < chunk.length; i++) chunk[i] = Math.floor(random() * 256);
    return chunk;
  });
}

export const configurationOf = (index: number) => Buffer.from(`{"voters":[1,2,${index}]}`);

/** A whole snapshot that stands for `index`, of the chunks that `chunksOf` gives. */
export async function writeSnapshot(
  snapshots: Snapshots,
  index: number,
  { term = 3, chunks = chunksOf(index) } = {},
): Promise<SnapshotInfo> {
  const writer = await snapshots.write({ index, term, configuration: configurationOf(index) });
  for (const chunk of chunks) await writer.write(chunk);
  return writer.finish();
}

export async function loadAll(snapshots: Snapshots): Promise<Buffer[]> {
  const chunks: Buffer[] = [];
  await snapshots.load((chunk) => {
    chunks.push(chunk);
  });
  return chunks;
}

/** Loads until one is whole, as a start does; the index and the chunks of that, or null. */
export async function newestGood(snapshots: Snapshots): Promise<{ index: number; chunks: Buffer[] } | null> {
  while (snapshots.newest !== null) {
    const { index } = snapshots.newest;
    try {
      return { index, chunks: await loadAll(snapshots) };
    } catch (error) {
      if ((error as { code?: string }).code !== 'SNAPSHOT_DAMAGED') throw error;
    }
  }
  return null;
}

/** Fetches all of a file from one node into another, `pieceBytes` at a time. */
export async function transfer(from: Snapshots, to: Snapshots, index: number, term: number, pieceBytes = 1000) {
  const receiver = await to.receive(index, term);
  for (;;) {
    const piece = await from.read(index, term, receiver.byteLength, pieceBytes);
    if (piece === null) throw new Error('the file is gone');
    await receiver.append(piece.bytes);
    if (receiver.byteLength === piece.byteLength) return receiver.finish();
  }
}
