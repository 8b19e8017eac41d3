const KIB = 1024;

/** The buffer is written to the socket when it contains this many bytes, about 250 small values. */
const REGION_BYTES = 64 * KIB;
/** Up to this length a loop is faster than a call into native code. */
const LOOP_BYTES_MAX = 48;
const ZERO = 0x30;
const SPACE = 0x20;
const TWO_TO_32 = 0x1_0000_0000;

/** A buffer that collects replies, so that they are written to a socket together. It grows for a large reply. */
export class Output {
  length = 0;
  #buffer: Buffer = Buffer.allocUnsafeSlow(REGION_BYTES);

  /** Whether the collected replies should be written to the socket now. */
  get isFull(): boolean {
    return this.length >= REGION_BYTES;
  }

  /**
   * Returns the collected bytes without copying them. Valid until the next write, or for ever if `giveAway` is called.
   */
  gathered(): Buffer {
    return this.#buffer.subarray(0, this.length);
  }

  /** Begins again in the same memory. A buffer that has grown is replaced. */
  clear(): void {
    this.length = 0;
    if (this.#buffer.length > 2 * REGION_BYTES) this.#buffer = Buffer.allocUnsafeSlow(REGION_BYTES);
  }

  /** Begins again in new memory, because the receiver of the collected bytes keeps them. */
  giveAway(): void {
    this.length = 0;
    this.#buffer = Buffer.allocUnsafeSlow(REGION_BYTES);
  }

  bytes(source: Buffer): void {
    this.#reserve(source.length);
    if (source.length > LOOP_BYTES_MAX) source.copy(this.#buffer, this.length);
    else for (let i = 0; i < source.length; i++) this.#buffer[this.length + i] = source[i] ?? 0;
    this.length += source.length;
  }

  /** Writes one byte per character. The text must not contain characters above 0xff. */
  latin1(text: string): void {
    this.#reserve(text.length);
    if (text.length > LOOP_BYTES_MAX) this.#buffer.write(text, this.length, text.length, 'latin1');
    else for (let i = 0; i < text.length; i++) this.#buffer[this.length + i] = text.charCodeAt(i);
    this.length += text.length;
  }

  /** Writes a space and the number in decimal. The number must be a non-negative integer, and a bigint from 2^53 on. */
  spaceAndNumber(value: number | bigint): void {
    this.#reserve(1);
    this.#buffer[this.length++] = SPACE;
    this.#number(value);
  }

  /** Writes a space, the letter and the number; see `spaceAndNumber`. */
  flagAndNumber(letter: string, value: number | bigint): void {
    this.#reserve(2);
    this.#buffer[this.length++] = SPACE;
    this.#buffer[this.length++] = letter.charCodeAt(0);
    this.#number(value);
  }

  #number(value: number | bigint): void {
    if (typeof value === 'bigint' || value >= TWO_TO_32) {
      this.latin1(String(value));
      return;
    }
    this.#reserve(10);
    let digits = 1;
    for (let rest = value; rest >= 10; digits++) rest = Math.floor(rest / 10);
    let rest = value;
    for (let i = this.length + digits - 1; i >= this.length; i--) {
      const shorter = Math.floor(rest / 10);
      this.#buffer[i] = ZERO + rest - shorter * 10;
      rest = shorter;
    }
    this.length += digits;
  }

  #reserve(bytes: number): void {
    const wanted = this.length + bytes;
    if (wanted <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(wanted, 2 * this.#buffer.length));
    this.#buffer.copy(larger, 0, 0, this.length);
    this.#buffer = larger;
  }
}
