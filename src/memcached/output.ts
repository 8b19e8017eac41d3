const KIB = 1024;

/** The size of the buffer that is filled before it goes to the socket: some 250 small values, a quarter of a socket's own buffer. */
const REGION_BYTES = 64 * KIB;
/** Up to here a loop beats the call into native code. */
const LOOP_BYTES_MAX = 48;
const ZERO = 0x30;
const SPACE = 0x20;
const TWO_TO_32 = 0x1_0000_0000;

/**
 * A region that replies are written into, one after the other, and that is written to a socket as a whole. It grows
 * for a large reply and is used again.
 */
export class Output {
  length = 0;
  #buffer: Buffer = Buffer.allocUnsafeSlow(REGION_BYTES);

  /** Enough is gathered: time to hand it over. */
  get isFull(): boolean {
    return this.length >= REGION_BYTES;
  }

  /** The bytes that were written so far, without a copy. Valid until the next write, unless `giveAway` is called. */
  gathered(): Buffer {
    return this.#buffer.subarray(0, this.length);
  }

  /** Starts over in the same memory. */
  clear(): void {
    this.length = 0;
    if (this.#buffer.length > 2 * REGION_BYTES) this.#buffer = Buffer.allocUnsafeSlow(REGION_BYTES);
  }

  /** Starts over in new memory: the bytes so far belong to their receiver. */
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

  /** One byte per character: the string must hold none above 0xff. */
  latin1(text: string): void {
    this.#reserve(text.length);
    if (text.length > LOOP_BYTES_MAX) this.#buffer.write(text, this.length, text.length, 'latin1');
    else for (let i = 0; i < text.length; i++) this.#buffer[this.length + i] = text.charCodeAt(i);
    this.length += text.length;
  }

  /** A space, then the number in decimal: a whole one, not negative; a bigint from 2^53 on. */
  spaceAndNumber(value: number | bigint): void {
    this.#reserve(1);
    this.#buffer[this.length++] = SPACE;
    this.#number(value);
  }

  /** A space, the letter, and the number in decimal, as above. */
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
