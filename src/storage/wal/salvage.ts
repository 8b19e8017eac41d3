import { join } from 'node:path';
import { type Disk, type DiskFile, writeFully } from '../disk/disk.ts';
import { createSegmentFile, repairName, segmentName, segmentNumbers, walDamaged } from '../segments/files.ts';
import {
  BLOCK_HEADER_BYTES,
  countBlankSectors,
  encodeBlockHeader,
  encodeLogReset,
  encodeRecord,
  encodeSegmentHeader,
  paddedToSector,
  RECORD_HARD_STATE,
  RECORD_HEADER_BYTES,
  RECORD_LOG_RESET,
  readSegmentHeader,
  SECTOR_BYTES,
} from '../segments/format.ts';
import type { GoodPart, LogBase } from './types.ts';

/**
 * Repairs a damaged log: keeps the intact part before the damage, and moves aside the damaged segment and all later
 * ones.
 *
 * ```
 *  1 ok │ 2 damaged │ 3        prepare:  write 2.wal.repair durably: the intact blocks of 2, byte for byte, then zeros
 *  1 ok │           │          complete: move 3 and 2 to another folder, durably
 *  1 ok │ 2 ok                           rename 2.wal.repair to 2.wal
 * ```
 *
 * Once `2.wal.repair` exists, the content of the repaired log is decided: a start that finds it completes the repair
 * before it examines the log. If the repair is interrupted earlier, the next start finds the same damage.
 *
 * If the intact part begins after the end of the newest snapshot, its entries can't be used. Then the repaired segment
 * becomes the first one, and contains a log reset at the index of the snapshot and the newest hard state.
 *
 * The entries that a repair drops may have been acknowledged. So before it changes anything, the caller must have
 * recorded that this node must not vote (`WalOptions.onDamage`).
 */
export interface RepairPlace {
  readonly disk: Disk;
  readonly directory: string;
  readonly clusterName: string;
  readonly segmentBytes: number;
  readonly random: () => number;
}

/** The bytes that are copied at once. Bounds the memory of a repair. */
const COPY_BYTES = 1024 * 1024;

/**
 * Writes the segment that will replace the damaged one and all later ones, under the name of `repairName`.
 * @param numbers the numbers of all segments, ascending
 */
export async function prepareRepair(
  place: RepairPlace,
  numbers: readonly number[],
  good: GoodPart,
  begin: LogBase,
): Promise<void> {
  const { disk, directory } = place;
  const number = good.reachesBack ? good.number : (numbers[0] ?? 1);
  const path = join(directory, repairName(number));
  await createSegmentFile(disk, directory, path, async (file) => {
    if (good.reachesBack && good.bytes > 0) await copyGoodBlocks(disk, directory, good, file);
    else await writeNewSegment(place, number, good.reachesBack ? null : begin, good.hardState, file);
  });
}

/** Copies the intact beginning of the damaged segment, and adds the sector of zeros that must follow the last block. */
async function copyGoodBlocks(disk: Disk, directory: string, good: GoodPart, to: DiskFile): Promise<void> {
  const path = join(directory, segmentName(good.number));
  const from = await disk.open(path, { create: false, dataSync: false });
  try {
    const buffer = Buffer.allocUnsafe(Math.min(COPY_BYTES, good.bytes));
    for (let position = 0; position < good.bytes; position += buffer.length) {
      const length = Math.min(buffer.length, good.bytes - position);
      const bytes = await from.read(buffer, 0, length, position);
      if (bytes < length) throw walDamaged(path, position + bytes, 'the file was truncated while it was copied');
      await writeFully(to, buffer, length, position);
    }
  } finally {
    await from.close();
  }
  await writeFully(to, Buffer.alloc(SECTOR_BYTES), SECTOR_BYTES, good.bytes);
}

/** Writes a segment without entries. If `base` is not null, it contains a log reset and the hard state. */
async function writeNewSegment(
  { segmentBytes, clusterName, random }: RepairPlace,
  number: number,
  base: LogBase | null,
  hardState: Buffer | null,
  to: DiskFile,
): Promise<void> {
  const header = encodeSegmentHeader(number, segmentBytes, clusterName, random);
  const saltCrc = readSegmentHeader(header)?.saltCrc ?? 0;
  const block = base === null ? Buffer.alloc(0) : firstBlock(number, saltCrc, base, hardState);
  const bytes = Buffer.concat([header, block, Buffer.alloc(SECTOR_BYTES)]);
  await writeFully(to, bytes, bytes.length, 0);
}

function firstBlock(number: number, saltCrc: number, base: LogBase, hardState: Buffer | null): Buffer {
  const block = Buffer.alloc(2 * SECTOR_BYTES);
  let end = BLOCK_HEADER_BYTES;
  let chain = saltCrc;
  let records = 0;
  const put = (type: number, index: number, body: Buffer) => {
    chain = encodeRecord(block, end, type, index, body, chain);
    end += RECORD_HEADER_BYTES + body.length;
    records++;
  };
  put(RECORD_LOG_RESET, base.index, encodeLogReset(base.term));
  if (hardState !== null) put(RECORD_HARD_STATE, 0, hardState);
  const padded = block.subarray(0, paddedToSector(end));
  encodeBlockHeader(padded, saltCrc, number, SECTOR_BYTES, {
    sequence: 1,
    byteLength: end,
    records,
    blankSectors: countBlankSectors(padded, SECTOR_BYTES, padded.length),
    chainBefore: saltCrc,
    seal: false,
  });
  return padded;
}

/** Moves the damaged segments to `folder` and renames the prepared one. If it is interrupted, it must be repeated. */
export async function completeRepair(place: RepairPlace, number: number, folder: string): Promise<void> {
  const { disk, directory } = place;
  const moved = segmentNumbers(await disk.list(directory)).filter((each) => each >= number);
  if (moved.length > 0) {
    await disk.makeDirectory(folder);
    const taken = new Set(await disk.list(folder));
    for (const each of moved.reverse()) {
      await disk.rename(join(directory, segmentName(each)), join(folder, freeName(segmentName(each), taken)));
    }
    // The target folder is synced first. Otherwise a power loss could remove both names of a file.
    await disk.syncDirectory(folder);
    await disk.syncDirectory(directory);
  }
  await disk.rename(join(directory, repairName(number)), join(directory, segmentName(number)));
  await disk.syncDirectory(directory);
}

/** Returns a name that is free in the folder, so that files of an earlier repair are kept. */
function freeName(name: string, taken: Set<string>): string {
  let free = name;
  for (let copy = 2; taken.has(free); copy++) free = `${name}.${copy}`;
  taken.add(free);
  return free;
}
