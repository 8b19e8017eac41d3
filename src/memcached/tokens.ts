const SPACE = 0x20;
const NEWLINE = 0x0a;
const RETURN = 0x0d;

/** Beyond so many fields (a huge multi-get) the arrays are freed rather than kept. */
const FIELDS_KEPT_MAX = 1024;

/** The fields of one command line as ranges of the buffer it stands in; reused from line to line. */
export class Tokens {
  count = 0;
  /** The whole line ended in `\r\n`, not in a bare `\n`. */
  endsInReturn = false;
  #starts: number[] = [];
  #ends: number[] = [];

  start(index: number): number {
    return this.#starts[index] ?? 0;
  }

  end(index: number): number {
    return this.#ends[index] ?? 0;
  }

  length(index: number): number {
    return this.end(index) - this.start(index);
  }

  /** Splits one line. Returns the position behind its newline, or -1 where the range holds no newline. */
  split(buffer: Buffer, start: number, end: number): number {
    if (this.count > FIELDS_KEPT_MAX) {
      this.#starts = [];
      this.#ends = [];
    }
    let count = 0;
    let position = start;
    for (;;) {
      while (position < end && buffer[position] === SPACE) position++;
      if (position === end) return this.#incomplete(count);
      if (buffer[position] === NEWLINE) break;
      const fieldStart = position;
      do position++;
      while (position < end && buffer[position] !== SPACE && buffer[position] !== NEWLINE);
      if (position === end) return this.#incomplete(count);
      this.#starts[count] = fieldStart;
      this.#ends[count] = position;
      count++;
    }
    this.endsInReturn = position > start && buffer[position - 1] === RETURN;
    if (this.endsInReturn) {
      // A \r directly before the \n belongs to the line's end, never to its last field.
      this.#ends[count - 1] = position - 1;
      if (this.#starts[count - 1] === position - 1) count--;
    }
    this.count = count;
    return position + 1;
  }

  is(index: number, buffer: Buffer, text: string): boolean {
    if (this.length(index) !== text.length) return false;
    return startsWith(buffer, this.start(index), this.end(index), text);
  }

  #incomplete(count: number): number {
    this.count = count;
    return -1;
  }
}

export function startsWith(buffer: Buffer, start: number, end: number, text: string): boolean {
  if (end - start < text.length) return false;
  for (let i = 0; i < text.length; i++) {
    if (buffer[start + i] !== text.charCodeAt(i)) return false;
  }
  return true;
}

/** Where the line's first field begins. */
export function skipSpaces(buffer: Buffer, start: number, end: number): number {
  let position = start;
  while (position < end && buffer[position] === SPACE) position++;
  return position;
}

export function hasNewline(buffer: Buffer, start: number, end: number): boolean {
  const found = buffer.indexOf(NEWLINE, start);
  return found !== -1 && found < end;
}
