import { basename, join } from 'node:path';
import { RaftkvError } from '../../base/errors.ts';
import { type Disk, type DiskFile, writeFully } from '../disk/disk.ts';
import {
  encodeSegmentHeader,
  readSegmentHeader,
  SECTOR_BYTES,
  type SegmentHeader,
  WAL_FORMAT_VERSION,
} from './format.ts';

/** Names, creates, opens and removes the files of the log. */

/** The bytes of one write of zeros: large enough to be cheap, small enough not to delay a log write for long. */
const FILL_CHUNK_BYTES = 256 * 1024;
const FILL_CHUNK = Buffer.alloc(FILL_CHUNK_BYTES);

const SEGMENT_NAME = /^(\d{16})\.wal$/;
const REPAIR_NAME = /^(\d{16})\.wal\.repair$/;
const TEMPORARY_SUFFIX = '.tmp';

export interface Segment {
  readonly number: number;
  readonly path: string;
  /** The length at which the file is full. */
  readonly segmentBytes: number;
  readonly saltCrc: number;
  /**
   * The length up to which the file is allocated durably: blocks, then zeros. While the segment may still receive a
   * block, at least one sector of zeros follows the last block. Otherwise a truncated file would look like the end of
   * the log.
   */
  filledTo: number;
  /** The descriptor for reading and for writing zeros. */
  readonly plain: DiskFile;
  /** The descriptor for blocks: a write is durable when it calls back. */
  readonly durable: DiskFile;
}

export function segmentName(number: number): string {
  return `${String(number).padStart(16, '0')}.wal`;
}

/** Returns the name of a segment that will replace a damaged one, until the repair is complete (`wal/salvage.ts`). */
export function repairName(number: number): string {
  return `${segmentName(number)}.repair`;
}

/** Returns the number of the segment whose repair was interrupted; null if there is none. */
export function repairNumber(names: readonly string[]): number | null {
  const digits = names.map((name) => REPAIR_NAME.exec(name)?.[1]).find((found) => found !== undefined);
  return digits === undefined ? null : Number(digits);
}

/** Returns the numbers of the segments among the names of a folder, ascending. */
export function segmentNumbers(names: readonly string[]): number[] {
  const numbers: number[] = [];
  for (const name of names) {
    const digits = SEGMENT_NAME.exec(name)?.[1];
    if (digits !== undefined) numbers.push(Number(digits));
  }
  return numbers.sort((a, b) => a - b);
}

/** Returns the path of a file until it is complete. */
function temporaryOf(path: string): string {
  return path + TEMPORARY_SUFFIX;
}

export function isDiskFull(error: unknown): boolean {
  return error instanceof Error && (error as NodeJS.ErrnoException).code === 'ENOSPC';
}

/** Whether this is the name of a file whose creation was interrupted. */
export function isTemporary(name: string): boolean {
  const whole = name.slice(0, -TEMPORARY_SUFFIX.length);
  return name.endsWith(TEMPORARY_SUFFIX) && (SEGMENT_NAME.test(whole) || REPAIR_NAME.test(whole));
}

export function walDamaged(path: string, offset: number, what: string, cause?: unknown): RaftkvError {
  return new RaftkvError(
    'WAL_DAMAGED',
    `the log file ${path} is damaged at byte ${offset}: ${what}`,
    'Nothing was changed on the disk. Check the disk and keep a copy of the folder. `raftkv recover` makes a cluster from ' +
      'the intact data, `raftkv snapshot restore` from a backup. Do not put an older copy of the folder back: it lacks ' +
      'what the node has acknowledged since.',
    cause,
  );
}

interface SegmentOptions {
  readonly segmentBytes: number;
  /** The number of bytes that are filled at creation, header included. */
  readonly fillBytes: number;
  readonly clusterName: string;
  readonly random: () => number;
}

/**
 * Creates a segment under a temporary name, fills and syncs it, and then renames it. So it is complete when it has its
 * name. If the disk is full, the temporary file is removed and the call may be repeated.
 */
export async function createSegment(
  disk: Disk,
  directory: string,
  number: number,
  options: SegmentOptions,
): Promise<Segment> {
  const path = join(directory, segmentName(number));
  const temporary = temporaryOf(path);
  const plain = await disk.open(temporary, { create: true, dataSync: false });
  try {
    return await fillAndName(disk, directory, number, plain, options);
  } catch (error) {
    if (isDiskFull(error)) await dropTemporary(disk, directory, temporary, plain);
    throw error;
  }
}

async function fillAndName(
  disk: Disk,
  directory: string,
  number: number,
  plain: DiskFile,
  options: SegmentOptions,
): Promise<Segment> {
  const path = join(directory, segmentName(number));
  const temporary = temporaryOf(path);
  const header = encodeSegmentHeader(number, options.segmentBytes, options.clusterName, options.random);
  await writeFully(plain, header, SECTOR_BYTES, 0);
  await writeZeros(plain, SECTOR_BYTES, Math.min(options.fillBytes, options.segmentBytes));
  await plain.sync();
  await disk.rename(temporary, path);
  await disk.syncDirectory(directory);
  const durable = await disk.open(path, { create: false, dataSync: true });
  const { saltCrc } = readSegmentHeader(header) as SegmentHeader;
  const filledTo = Math.min(options.fillBytes, options.segmentBytes);
  return { number, path, segmentBytes: options.segmentBytes, saltCrc, filledTo, plain, durable };
}

/** Creates a file of the log with the content that `fill` writes, in the same way as `createSegment`. */
export async function createSegmentFile(
  disk: Disk,
  directory: string,
  path: string,
  fill: (file: DiskFile) => Promise<void>,
): Promise<void> {
  const temporary = temporaryOf(path);
  const file = await disk.open(temporary, { create: true, dataSync: false });
  try {
    await fill(file);
    await file.sync();
    await disk.rename(temporary, path);
    await disk.syncDirectory(directory);
  } catch (error) {
    if (isDiskFull(error)) await dropTemporary(disk, directory, temporary, file);
    throw error;
  }
  await file.close();
}

async function dropTemporary(disk: Disk, directory: string, temporary: string, file: DiskFile): Promise<void> {
  await file.close();
  const names = await disk.list(directory);
  if (names.includes(basename(temporary))) await disk.remove(temporary);
}

/** @throws RaftkvError WAL_DAMAGED if the header does not verify, FORMAT_UNSUPPORTED, DATA_DIR_FOREIGN */
export async function openSegment(
  disk: Disk,
  directory: string,
  number: number,
  clusterName: string,
): Promise<Segment> {
  const path = join(directory, segmentName(number));
  const plain = await disk.open(path, { create: false, dataSync: false });
  const sector = Buffer.alloc(SECTOR_BYTES);
  const bytes = await readOfDisk(path, plain, sector, SECTOR_BYTES, 0).catch(async (error) => {
    await plain.close();
    throw error;
  });
  const header = readSegmentHeader(sector.subarray(0, bytes));
  if (header === null) {
    await plain.close();
    throw walDamaged(path, 0, 'the segment header is corrupt');
  }
  const refusal = refusalOf(header, path, number, clusterName);
  if (refusal !== null) {
    await plain.close();
    throw refusal;
  }
  const durable = await disk.open(path, { create: false, dataSync: true });
  const filledTo = Math.min(header.segmentBytes, Math.floor((await plain.size()) / SECTOR_BYTES) * SECTOR_BYTES);
  return { number, path, segmentBytes: header.segmentBytes, saltCrc: header.saltCrc, filledTo, plain, durable };
}

/**
 * Reads from a file of the log. If the disk can't read the bytes, they are lost, so that is damage too.
 * @throws RaftkvError WAL_DAMAGED
 */
export async function readOfDisk(
  path: string,
  file: DiskFile,
  buffer: Buffer,
  length: number,
  position: number,
): Promise<number> {
  try {
    return await file.read(buffer, 0, length, position);
  } catch (error) {
    if (!(error instanceof Error) || (error as NodeJS.ErrnoException).code !== 'EIO') throw error;
    throw walDamaged(path, position, `the disk cannot read it (${error.message})`, error);
  }
}

function refusalOf(header: SegmentHeader, path: string, number: number, clusterName: string): RaftkvError | null {
  if (header.version !== WAL_FORMAT_VERSION) {
    return new RaftkvError(
      'FORMAT_UNSUPPORTED',
      `${path} has log format ${header.version}; this raftkv reads format ${WAL_FORMAT_VERSION}`,
      'Start the version of raftkv that wrote it.',
    );
  }
  if (header.clusterName !== clusterName) {
    return new RaftkvError(
      'DATA_DIR_FOREIGN',
      `${path} belongs to cluster "${header.clusterName}", not "${clusterName}"`,
      'Point dataDir to the data of this cluster, or to an empty folder.',
    );
  }
  if (header.number !== number)
    return walDamaged(path, 16, `the file is segment ${header.number}, but has another name`);
  return null;
}

/** Fills the segment with zeros from `filledTo` up to `to`, durably. */
export async function extendSegment(segment: Segment, to: number): Promise<void> {
  await writeZeros(segment.plain, segment.filledTo, to);
  await segment.plain.sync();
  segment.filledTo = to;
}

export async function writeZeros(file: DiskFile, from: number, to: number): Promise<void> {
  for (let position = from; position < to; position += FILL_CHUNK_BYTES) {
    await writeFully(file, FILL_CHUNK, Math.min(FILL_CHUNK_BYTES, to - position), position);
  }
}

export async function closeSegment(segment: Segment): Promise<void> {
  await segment.durable.close();
  await segment.plain.close();
}

/** A segment before the active one. */
export interface SealedSegment {
  readonly number: number;
  /** The length of the file. */
  readonly bytes: number;
}

/** Keeps the list of the segments before the active one, and removes the oldest ones. */
export class SegmentRetention {
  readonly #disk: Disk;
  readonly #directory: string;
  /** Oldest first, without a gap. */
  readonly #sealed: SealedSegment[];
  #byteLength = 0;

  constructor(disk: Disk, directory: string, sealed: readonly SealedSegment[]) {
    this.#disk = disk;
    this.#directory = directory;
    this.#sealed = [];
    for (const each of sealed) this.add(each);
  }

  get byteLength(): number {
    return this.#byteLength;
  }

  add(segment: SealedSegment): void {
    this.#sealed.push(segment);
    this.#byteLength += segment.bytes;
  }

  hasBelow(number: number): boolean {
    const oldest = this.#sealed[0];
    return oldest !== undefined && oldest.number < number;
  }

  /**
   * Removes the segments below `number`, oldest first, each one durably before the next. So a power loss leaves no gap
   * in the numbers, which recovery would take for damage.
   */
  async removeBelow(number: number): Promise<void> {
    for (let oldest = this.#sealed[0]; oldest !== undefined && oldest.number < number; oldest = this.#sealed[0]) {
      await this.#disk.remove(join(this.#directory, segmentName(oldest.number)));
      await this.#disk.syncDirectory(this.#directory);
      this.#sealed.shift();
      this.#byteLength -= oldest.bytes;
    }
  }
}
