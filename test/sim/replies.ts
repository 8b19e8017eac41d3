/** Takes replies of memcached's text protocol off a stream of bytes, one for each request that waits. */

export interface Reply {
  /** The last line, without its end: `STORED`, `END`, a number, an error. */
  readonly line: string;
  readonly items: readonly { readonly key: string; readonly value: string; readonly unique: number | null }[];
}

/** The server says that it does not know what will come of the request, or has come. */
export function isWithoutOutcome({ line }: Reply): boolean {
  return WITHOUT_OUTCOME.some((start) => line.startsWith(start));
}

const WITHOUT_OUTCOME = ['SERVER_ERROR no quorum', 'SERVER_ERROR node is stopping', 'SERVER_ERROR node was behind'];

/** The server says that it did nothing at all, because no disk has room. */
export function isRefused({ line }: Reply): boolean {
  return line === 'SERVER_ERROR disk full: nothing was changed';
}

export class ReplyReader {
  #bytes = '';
  #items: Reply['items'][number][] = [];

  append(bytes: Buffer): void {
    this.#bytes += bytes.toString('latin1');
  }

  get isEmpty(): boolean {
    return this.#bytes === '';
  }

  /** The next whole reply, or null where it has not all come. @throws Error for what no server may say. */
  next(): Reply | null {
    for (;;) {
      const end = this.#bytes.indexOf('\r\n');
      if (end === -1) return null;
      const line = this.#bytes.slice(0, end);
      if (!line.startsWith('VALUE ')) {
        this.#bytes = this.#bytes.slice(end + 2);
        const items = this.#items;
        this.#items = [];
        return { line, items };
      }
      const [, key = '', , length = '', unique] = line.split(' ');
      const start = end + 2;
      const after = start + Number(length);
      if (this.#bytes.length < after + 2) return null;
      if (this.#bytes.slice(after, after + 2) !== '\r\n') throw new Error(`a value of key ${key} does not end`);
      const value = this.#bytes.slice(start, after);
      this.#items.push({ key, value, unique: unique === undefined ? null : Number(unique) });
      this.#bytes = this.#bytes.slice(after + 2);
    }
  }
}
