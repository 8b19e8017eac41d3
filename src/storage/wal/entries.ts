import { join } from 'node:path';
import { readUint64 } from '../../base/uint64.ts';
import type { Disk, DiskFile } from '../disk/disk.ts';
import { segmentName, walDamaged } from '../segments/files.ts';
import { RECORD_HEADER_BYTES, SECTOR_BYTES, verifyRecord } from '../segments/format.ts';

/** The number of entries per chunk: 64 KiB, so that a short log doesn't waste memory and a long one has few chunks. */
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
  /** The CRC of the record before, which seeds the CRC of this one. */
  readonly chainBefore: number;
}

/**
 * The locations of all entries of the log on the disk. They are in typed arrays, 16 bytes per entry, that are allocated
 * in chunks. So a long log needs no object per entry, and it grows without being copied.
 */
export class EntryLocations {
  readonly #chunks: Uint32Array[] = [];
  #count = 0;
  /** The number of entries at the beginning of the first chunk that were forgotten; below `ENTRIES_PER_CHUNK`. */
  #skipped = 0;
  /** The index of the first entry; if there is none, the index of the next entry. */
  #first = 1;

  get isEmpty(): boolean {
    return this.#count === 0;
  }

  /** The index of the first entry; `lastIndex + 1` if there is none. */
  get firstIndex(): number {
    return this.#first;
  }

  /** The index of the last entry; if there is none, the index before the first entry to come. */
  get lastIndex(): number {
    return this.#first + this.#count - 1;
  }

  /**
   * Records the location of an entry. It replaces the entries from `index` on, as it does on the disk. The log begins
   * with it if there was no entry before, or only entries from `index` on.
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

  /** Forgets all entries. The next entry is `lastIndex + 1`. */
  restart(lastIndex: number): void {
    this.truncate(this.#first - 1);
    this.#first = lastIndex + 1;
  }

  /**
   * Forgets the entries in segments below `segment`. They are the first ones, because later entries are in later
   * segments.
   */
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

  /** Returns the smallest index, at least `firstIndex - 1`, such that the records after it take at most `bytes`. */
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

  /** Whether the entry of this index is at this location. False for an entry that was replaced. */
  isAt(index: number, segment: number, offset: number): boolean {
    const place = index - this.#first;
    if (place < 0 || place >= this.#count) return false;
    return this.#field(place, 0) === segment && this.#field(place, 1) === offset;
  }

  /** Returns null if the log has no entry of this index. */
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

/**
 * Two entries are read together if at most this many bytes are between them. Block headers, padding and hard states are
 * shorter; a longer gap consists of entries that were replaced.
 */
const GAP_BYTES_MAX = 8 * SECTOR_BYTES;

/**
 * Reads entries from the disk and verifies the CRC of each. The file is opened for each run of neighbouring entries,
 * not shared with the write path, which closes a segment when it advances to the next one. Such reads are rare.
 * @throws RaftkvError WAL_DAMAGED if an entry doesn't verify
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
  // All locations are looked up first: the log may be truncated during the reads, but the bytes on the disk stay.
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

/** Returns the locations of the entries, split into runs of neighbours in one file. */
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
