/** With so much of a request there, room for all of it is made at once; before, its length is only a claim. */
const CLAIM_TRUSTED_FROM_BYTES = 16 * 1024;

/** The bytes that the inputs of all connections of a port hold. */
export interface InputMemory {
  bytes: number;
}

/**
 * The bytes of one connection that came and are not yet taken, from `start` to `end` of `buffer`. A chunk is worked on
 * where it came in; only the unfinished request at its end is copied, into a buffer that is sized for it.
 */
export class Input {
  /** Null while nothing is left over, which is most of the time and always in a silent connection. */
  buffer: Buffer | null = null;
  start = 0;
  end = 0;
  /** The length of the unfinished request, where known; else 0. */
  needBytes = 0;
  /** The number of bytes of the unfinished line that were searched for its end. */
  scanned = 0;
  /** The buffer is ours, and may hold room behind `end`; otherwise it is a chunk as it came. */
  #owned = false;
  readonly #memory: InputMemory;

  constructor(memory: InputMemory) {
    this.#memory = memory;
  }

  get length(): number {
    return this.end - this.start;
  }

  /** The memory that it uses. */
  get heldBytes(): number {
    return this.buffer === null ? 0 : this.buffer.length;
  }

  append(chunk: Buffer): void {
    const { buffer } = this;
    if (buffer === null) {
      this.#set(chunk, chunk.length, false);
      return;
    }
    const wanted = this.length + chunk.length;
    if (this.#owned && wanted <= buffer.length) {
      if (this.end + chunk.length > buffer.length) this.#compact(buffer);
    } else {
      this.#move(buffer, this.#capacityFor(wanted));
    }
    chunk.copy(this.buffer ?? buffer, this.end);
    this.end += chunk.length;
  }

  /** Takes bytes off the front. */
  consume(bytes: number): void {
    this.start += bytes;
    this.scanned = 0;
    this.needBytes = 0;
    if (this.start === this.end) this.clear();
  }

  clear(): void {
    this.#memory.bytes -= this.heldBytes;
    this.buffer = null;
    this.start = 0;
    this.end = 0;
    this.needBytes = 0;
    this.scanned = 0;
  }

  /** Keeps an unfinished request without the rest of the chunk it came in, and in no more memory than it needs. */
  shrink(): void {
    const { buffer } = this;
    if (buffer === null) return;
    const capacity = this.#capacityFor(this.length);
    if (!this.#owned || buffer.length > 2 * capacity) this.#move(buffer, capacity);
  }

  #capacityFor(bytes: number): number {
    if (this.needBytes === 0) return 2 * bytes;
    const trusted = bytes >= CLAIM_TRUSTED_FROM_BYTES ? this.needBytes : 2 * CLAIM_TRUSTED_FROM_BYTES;
    return Math.max(bytes, Math.min(this.needBytes, trusted));
  }

  #compact(buffer: Buffer): void {
    buffer.copy(buffer, 0, this.start, this.end);
    this.end -= this.start;
    this.start = 0;
  }

  #move(from: Buffer, capacity: number): void {
    const to = Buffer.allocUnsafe(capacity);
    from.copy(to, 0, this.start, this.end);
    this.#set(to, this.length, true);
  }

  #set(buffer: Buffer, length: number, owned: boolean): void {
    this.#memory.bytes += buffer.length - this.heldBytes;
    this.buffer = buffer;
    this.start = 0;
    this.end = length;
    this.#owned = owned;
  }
}
