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
  /** Places of the first chunk whose entries were forgotten; below `ENTRIES_PER_CHUNK`. */
  #skipped = 0;
  /** Index of the first entry; where there is none, of the one that comes next. */
  #first = 1;

  get isEmpty(): boolean {
    return this.#count === 0;
  }

  /** Index of the first entry; `lastIndex + 1` where there is none. */
  get firstIndex(): number {
    return this.#first;
  }

  /** Index of the last entry; where there is none, of the one before the log's first. */
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
