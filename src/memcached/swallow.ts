const NEWLINE = 0x0a;

/**
 * The data block of a refused request: taken off the stream without being kept. One request gets one reply, however
 * large its block and however it is split.
 */
export class SwallowedBlock {
  /** Of the value, without its line end. */
  #bytes: number;
  /** The line end still to come: two bytes, or for a command line with a bare `\n` perhaps one. -1: not known yet. */
  #endBytes: number;

  constructor(bytes: number, bareNewline: boolean) {
    this.#bytes = bytes;
    this.#endBytes = bareNewline ? -1 : 2;
  }

  get done(): boolean {
    return this.#bytes === 0 && this.#endBytes === 0;
  }

  /** Returns how many bytes of the range belong to the block. */
  take(buffer: Buffer, start: number, end: number): number {
    let position = start + Math.min(this.#bytes, end - start);
    this.#bytes -= position - start;
    if (this.#bytes > 0 || position === end) return position - start;
    if (this.#endBytes === -1) this.#endBytes = buffer[position] === NEWLINE ? 1 : 2;
    const taken = Math.min(this.#endBytes, end - position);
    this.#endBytes -= taken;
    position += taken;
    return position - start;
  }
}
