import { join } from 'node:path';
import { readUint64 } from '../../base/uint64.ts';
import type { Disk, DiskFile } from '../disk/disk.ts';
import { segmentName, walDamaged } from '../segments/files.ts';
import { RECORD_HEADER_BYTES, SECTOR_BYTES, verifyRecord } from '../segments/format.ts';

/**
 * Where on disk each entry of the log is: 16 bytes per entry, in typed arrays that grow by chunks, so that a long log
 * neither costs an object per entry nor copies itself to grow. It is truncated at its end and trimmed at its front.
 */
const ENTRIES_PER_CHUNK = 4096;
const FIELDS = 4;
const LENGTH_FIELD = 2;

export interface EntryLocation {
  readonly index: number;
  readonly segment: number;
  /** The position of the record's header in the segment's file. */
  readonly offset: number;
  /** The length of the record, header included. */
  readonly length: number;
  /** CRC of the record before, which seeds this one's. */
  readonly chainBefore: number;
}

export class EntryLocations {
  readonly #chunks: Uint32Array[] = [];
  #count = 0;
  /** Places of the first chunk whose entries were forgotten; below `ENTRIES_PER_CHUNK`. */
  #skipped = 0;
  /** Index of the first entry; if there is none, of the next one to come. */
  #first = 1;

  get isEmpty(): boolean {
    return this.#count === 0;
  }

  /** Index of the first entry; `lastIndex + 1` if there is none. */
  get firstIndex(): number {
    return this.#first;
  }

  /** Index of the last entry; if there is none, of the one before the log's first. */
  get lastIndex(): number {
    return this.#first + this.#count - 1;
  }

  /**
   * Records the next entry. One at or below the last truncates the log there first, as it does on disk; one below the first,
   * or the first of all, is where the log begins.
   */
  put(index: number, segment: number, offset: number, length: number, chainBefore: number): void {
    this.truncate(index - 1);
    if (this.#count === 0) this.#first = index;
    const place = this.#skipped + this.#count;
    const chunkNumber = Math.floor(place / ENTRIES_PER_CHUNK);
    let chunk = this.#chunks[chunkNumber];
    if (chunk === undefined) {
      chunk = new Uint32Array(ENTRIES_PER_CHUNK * FIELDS);
      this.#chunks.push(chunk);
    }
    const at = (place % ENTRIES_PER_CHUNK) * FIELDS;
    chunk[at] = segment;
    chunk[at + 1] = offset;
    chunk[at + LENGTH_FIELD] = length;
    chunk[at + 3] = chainBefore;
    this.#count++;
  }

  /** Forgets all entries after `lastIndex`. */
  truncate(lastIndex: number): void {
    const count = Math.max(0, lastIndex - this.#first + 1);
    if (count >= this.#count) return;
    this.#count = count;
    if (count === 0) this.#skipped = 0;
    this.#chunks.length = Math.ceil((this.#skipped + count) / ENTRIES_PER_CHUNK);
  }

  /** Forgets all entries; the next is the one after `lastIndex`. */
  restart(lastIndex: number): void {
    this.truncate(this.#first - 1);
    this.#first = lastIndex + 1;
  }

  /** Forgets the entries in segments below `segment`: those at the front, since later entries are in later segments. */
  forgetBelow(segment: number): void {
    let low = 0;
    let high = this.#count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#field(middle, 0) < segment) low = middle + 1;
      else high = middle;
    }
    this.#first += low;
    this.#count -= low;
    this.#skipped = this.#count === 0 ? 0 : this.#skipped + low;
    this.#chunks.splice(0, this.#count === 0 ? this.#chunks.length : Math.floor(this.#skipped / ENTRIES_PER_CHUNK));
    this.#skipped %= ENTRIES_PER_CHUNK;
  }

  /** The smallest index such that the records behind it take at most `bytes`; at least that of the one before the first. */
  indexBehind(bytes: number): number {
    let place = this.#count;
    let left = bytes;
    while (place > 0) {
      left -= this.#field(place - 1, LENGTH_FIELD);
      if (left < 0) break;
      place--;
    }
    return this.#first + place - 1;
  }

  /** Whether the entry of this index is the one in this very place, and not one that replaced it or was replaced. */
  isAt(index: number, segment: number, offset: number): boolean {
    const place = index - this.#first;
    if (place < 0 || place >= this.#count) return false;
    return this.#field(place, 0) === segment && this.#field(place, 1) === offset;
  }

  /** Null where the index is not in the log. */
  get(index: number): EntryLocation | null {
    const place = index - this.#first;
    if (place < 0 || place >= this.#count) return null;
    return {
      index,
      segment: this.#field(place, 0),
      offset: this.#field(place, 1),
      length: this.#field(place, LENGTH_FIELD),
      chainBefore: this.#field(place, 3),
    };
  }

  #field(place: number, field: number): number {
    const at = this.#skipped + place;
    const chunk = this.#chunks[Math.floor(at / ENTRIES_PER_CHUNK)];
    return chunk?.[(at % ENTRIES_PER_CHUNK) * FIELDS + field] ?? 0;
  }
}

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
