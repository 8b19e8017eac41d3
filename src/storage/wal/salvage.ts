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
 * Repairs a damaged log: keeps what is good in front of the damage, and moves aside the damaged segment and all behind it.
 *
 * ```
 *  1 ok │ 2 damaged │ 3        prepare:  2.wal.repair, durable: the good blocks of 2, byte for byte, then zeros
 *  1 ok │           │          complete: 3 and 2 go to another folder, durably
 *  1 ok │ 2 ok                           2.wal.repair becomes 2.wal
 * ```
 *
 * From when `2.wal.repair` has its name it is decided what the log will be: a start that finds it completes the repair
 * and judges nothing before. An interruption earlier leaves the damage as it was, to be found again.
 *
 * Where the good part does not reach back to the newest snapshot, none of its entries can be used: then the repaired
 * segment is the first of all, and holds a log reset where the snapshot ends, and the newest hard state.
 *
 * What is given up may have been acknowledged. The caller knows, before anything is changed here, that this copy of
 * the log must not vote.
 */
export interface RepairPlace {
  readonly disk: Disk;
  readonly directory: string;
  readonly clusterName: string;
  readonly segmentBytes: number;
  readonly random: () => number;
}

/** The size of the pieces in which a file is copied. */
const COPY_BYTES = 1024 * 1024;

/** Writes the segment that will take the place of the damaged one and of all behind it, under its temporary name. */
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

/** The front of the damaged segment, and behind it the one sector of zeros that a segment needs to be whole. */
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

/** A segment without entries; with `base`, one that resets the log to it. */
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

/** Puts the prepared segment in place. To be done again from the beginning where it was interrupted. */
export async function completeRepair(place: RepairPlace, number: number, folder: string): Promise<void> {
  const { disk, directory } = place;
  const moved = segmentNumbers(await disk.list(directory)).filter((each) => each >= number);
  if (moved.length > 0) {
    await disk.makeDirectory(folder);
    const taken = new Set(await disk.list(folder));
    for (const each of moved.reverse()) {
      await disk.rename(join(directory, segmentName(each)), join(folder, freeName(segmentName(each), taken)));
    }
    // The target folder is synced first: otherwise power loss could take both names of a file.
    await disk.syncDirectory(folder);
    await disk.syncDirectory(directory);
  }
  await disk.rename(join(directory, repairName(number)), join(directory, segmentName(number)));
  await disk.syncDirectory(directory);
}

/** A name that is free in the folder: files of an earlier repair are kept. */
function freeName(name: string, taken: Set<string>): string {
  let free = name;
  for (let copy = 2; taken.has(free); copy++) free = `${name}.${copy}`;
  taken.add(free);
  return free;
}
