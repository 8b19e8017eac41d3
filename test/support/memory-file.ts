/** The bytes of one file, twice: as readers see them (the page cache) and as they will be after power loss (the platter). */

const SECTOR = 512;

export class MemoryFile {
  #cache: Buffer = Buffer.alloc(0);
  #platter: Buffer = Buffer.alloc(0);
  /** The file's length in the cache; both buffers may have room to spare, always zero. */
  length = 0;
  #platterLength = 0;
  /** Sectors that the system will write back. Others may differ from the platter too: those that a failed sync forgot. */
  readonly #dirty = new Set<number>();

  write(bytes: Buffer, position: number): void {
    const end = position + bytes.length;
    this.#cache = grown(this.#cache, end);
    bytes.copy(this.#cache, position);
    this.length = Math.max(this.length, end);
    for (const sector of sectorsOf(position, bytes.length)) this.#dirty.add(sector);
  }

  read(buffer: Buffer, offset: number, length: number, position: number): number {
    const end = Math.min(this.length, position + length);
    return end <= position ? 0 : this.#cache.copy(buffer, offset, position, end);
  }

  content(): Buffer {
    return this.#cache.subarray(0, this.length);
  }

  sync(): void {
    for (const sector of this.#dirty) this.#writeBack(sector);
    this.#dirty.clear();
    this.#platterLength = this.length;
  }

  /** What an O_DSYNC write does: its own sectors, and as much of the length as is needed to find them again. */
  syncRange(position: number, length: number): void {
    for (const sector of sectorsOf(position, length)) {
      this.#writeBack(sector);
      this.#dirty.delete(sector);
    }
    this.#platterLength = Math.max(this.#platterLength, Math.min(this.length, position + length));
  }

  /** A sync has failed: what was dirty passes for clean from now on, and will never be written. */
  forgetDirty(): void {
    this.#dirty.clear();
  }

  crash(random: () => number): void {
    for (const sector of [...this.#dirty].sort((a, b) => a - b)) if (random() < 0.5) this.#writeBack(sector);
    this.#dirty.clear();
    // A length that was not synced may still have got there; never a shorter one than was.
    if (this.length > this.#platterLength && random() < 0.5) this.#platterLength = this.length;
    this.length = this.#platterLength;
    this.#platter = grown(this.#platter, this.length);
    this.#platter.fill(0, this.length);
    this.#cache = Buffer.from(this.#platter);
  }

  /** Power fails while this is being written straight through: some sectors are there, some not. */
  tearDurable(bytes: Buffer, position: number, random: () => number): void {
    this.write(bytes, position);
    // By chance none, all, or any of them.
    const share = random() < 0.2 ? 0 : random() < 0.2 ? 1 : random();
    for (const sector of sectorsOf(position, bytes.length)) {
      this.#dirty.delete(sector);
      if (random() < share) this.#writeBack(sector);
    }
  }

  flipBit(bit: number): void {
    for (const buffer of [this.#cache, this.#platter]) {
      const byte = bit >> 3;
      if (byte < buffer.length) buffer.writeUInt8(buffer.readUInt8(byte) ^ (1 << (bit & 7)), byte);
    }
  }

  clone(): MemoryFile {
    const copy = new MemoryFile();
    copy.#cache = Buffer.from(this.#cache);
    copy.#platter = Buffer.from(this.#platter);
    copy.length = this.length;
    copy.#platterLength = this.#platterLength;
    for (const sector of this.#dirty) copy.#dirty.add(sector);
    return copy;
  }

  #writeBack(sector: number): void {
    const start = sector * SECTOR;
    const end = Math.min(this.length, start + SECTOR);
    if (end <= start) return;
    this.#platter = grown(this.#platter, end);
    this.#cache.copy(this.#platter, start, start, end);
  }
}

function* sectorsOf(position: number, length: number): Generator<number> {
  for (let sector = Math.floor(position / SECTOR); sector * SECTOR < position + length; sector++) yield sector;
}

function grown(buffer: Buffer, length: number): Buffer {
  if (length <= buffer.length) return buffer;
  const larger = Buffer.alloc(Math.max(length, Math.min(buffer.length * 2, buffer.length + (1 << 20))));
  buffer.copy(larger);
  return larger;
}
