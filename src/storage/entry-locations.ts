/**
 * Where on disk each entry of the log is: 16 bytes per entry, in typed arrays that grow by chunks, so that a long log
 * neither costs an object per entry nor copies itself to grow.
 */
const ENTRIES_PER_CHUNK = 4096;
const FIELDS = 4;

export interface EntryLocation {
  readonly index: number;
  readonly segment: number;
  /** Of the record's header in the segment's file. */
  readonly offset: number;
  /** Of the record, header included. */
  readonly length: number;
  /** CRC of the record before, which seeds this one's. */
  readonly chainBefore: number;
}

export class EntryLocations {
  readonly #chunks: Uint32Array[] = [];
  #count = 0;
  /** Index of the first entry; meaningless while there is none. */
  #first = 1;

  get firstIndex(): number {
    return this.#count === 0 ? 0 : this.#first;
  }

  /** Index of the last entry; 0 where there is none. */
  get lastIndex(): number {
    return this.#count === 0 ? 0 : this.#first + this.#count - 1;
  }

  /** Notes the next entry. One at or below the last cuts the log there first, as it does on disk. */
  put(index: number, segment: number, offset: number, length: number, chainBefore: number): void {
    this.truncate(index - 1);
    if (this.#count === 0) this.#first = index;
    const chunkNumber = Math.floor(this.#count / ENTRIES_PER_CHUNK);
    let chunk = this.#chunks[chunkNumber];
    if (chunk === undefined) {
      chunk = new Uint32Array(ENTRIES_PER_CHUNK * FIELDS);
      this.#chunks.push(chunk);
    }
    const at = (this.#count % ENTRIES_PER_CHUNK) * FIELDS;
    chunk[at] = segment;
    chunk[at + 1] = offset;
    chunk[at + 2] = length;
    chunk[at + 3] = chainBefore;
    this.#count++;
  }

  /** Forgets all entries after `lastIndex`. */
  truncate(lastIndex: number): void {
    const count = Math.max(0, lastIndex - this.#first + 1);
    if (count >= this.#count) return;
    this.#count = count;
    this.#chunks.length = Math.ceil(count / ENTRIES_PER_CHUNK);
  }

  /** Null where the index is not in the log. */
  get(index: number): EntryLocation | null {
    const place = index - this.#first;
    if (place < 0 || place >= this.#count) return null;
    const chunk = this.#chunks[Math.floor(place / ENTRIES_PER_CHUNK)] ?? new Uint32Array();
    const at = (place % ENTRIES_PER_CHUNK) * FIELDS;
    return {
      index,
      segment: chunk[at] ?? 0,
      offset: chunk[at + 1] ?? 0,
      length: chunk[at + 2] ?? 0,
      chainBefore: chunk[at + 3] ?? 0,
    };
  }
}
