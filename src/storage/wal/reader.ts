import { join } from 'node:path';
import { readUint64 } from '../../base/uint64.ts';
import type { Disk, DiskFile } from '../disk/disk.ts';
import { segmentName, walDamaged } from '../segments/files.ts';
import { RECORD_HEADER_BYTES, SECTOR_BYTES, verifyRecord } from '../segments/format.ts';
import type { EntryLocation, EntryLocations } from './entry-locations.ts';

/** Reads entries back by their locations: neighbours in one read, each verified by its CRC. */

/** Two records further apart than this are read apart: what lies between was replaced, or is another segment's. */
const GAP_BYTES_MAX = 8 * SECTOR_BYTES;

/**
 * Each run of neighbours opens its file again: reading back is rare, and a file that is not shared cannot be closed
 * under it when the log moves on to its next segment.
 */
export async function readEntries(
  disk: Disk,
  directory: string,
  locations: EntryLocations,
  fromIndex: number,
  toIndex: number,
  bytesMax: number,
): Promise<Buffer[]> {
  const entries: Buffer[] = [];
  // All places first: the log may be truncated while the reads run, but bytes once written stay where they are.
  for (const run of runsOf(locations, fromIndex, toIndex, bytesMax)) {
    const path = join(directory, segmentName(run[0]?.segment ?? 0));
    const file = await disk.open(path, { create: false, dataSync: false });
    try {
      await readRun(file, path, run, entries);
    } finally {
      await file.close();
    }
  }
  return entries;
}

/** The locations wanted, split where the next is not near behind in the same file. */
function runsOf(locations: EntryLocations, fromIndex: number, toIndex: number, bytesMax: number): EntryLocation[][] {
  const runs: EntryLocation[][] = [];
  let bytes = 0;
  let last: EntryLocation | null = null;
  for (let index = fromIndex; index <= toIndex; index++) {
    const location = locations.get(index);
    if (location === null) break;
    bytes += location.length - RECORD_HEADER_BYTES;
    if (bytes > bytesMax && last !== null) break;
    const lastEnd = last === null ? 0 : last.offset + last.length;
    const gap = location.offset - lastEnd;
    const near = last !== null && location.segment === last.segment && gap >= 0 && gap <= GAP_BYTES_MAX;
    if (near) runs.at(-1)?.push(location);
    else runs.push([location]);
    last = location;
  }
  return runs;
}

async function readRun(file: DiskFile, path: string, run: readonly EntryLocation[], entries: Buffer[]): Promise<void> {
  const start = run[0]?.offset ?? 0;
  const end = run.reduce((_, { offset, length }) => offset + length, 0);
  const bytes = Buffer.allocUnsafe(end - start);
  const count = await file.read(bytes, 0, bytes.length, start);
  for (const { index, offset, length, chainBefore } of run) {
    const at = offset - start;
    if (verifyRecord(bytes, at, Math.min(count, at + length), chainBefore) !== length) {
      throw walDamaged(path, offset, `entry ${index} is corrupt on disk`);
    }
    if (readUint64(bytes, at + 12) !== index)
      throw walDamaged(path, offset, `another entry is in the place of entry ${index}`);
    entries.push(bytes.subarray(at + RECORD_HEADER_BYTES, at + length));
  }
}
