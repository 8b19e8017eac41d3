/**
 * A 64-bit digest of a set, for comparing replicas: the sum of the digests of its members, so their order does not
 * matter. It detects accidental differences; it is not cryptographic.
 */
export class SetDigest {
  #sumA = 0;
  #sumB = 0;
  #a = 0;
  #b = 0;

  /** Begins a member of the set. Members of different `kind` have different digests, even if all else is equal. */
  begin(kind: number): this {
    this.#a = 0x811c9dc5 ^ kind;
    this.#b = 0x9e3779b9 ^ Math.imul(kind, 0x85ebca6b);
    return this;
  }

  text(text: string): this {
    this.#mix(text.length);
    let a = this.#a;
    let b = this.#b;
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i);
      a = Math.imul(a ^ code, 0x01000193);
      b = Math.imul((b << 5) ^ (b >>> 27) ^ code, 0xc2b2ae35);
    }
    this.#a = a;
    this.#b = b;
    return this;
  }

  number(value: number): this {
    doubles[0] = value;
    this.#mix(words[0] ?? 0);
    this.#mix(words[1] ?? 0);
    return this;
  }

  end(): void {
    this.#sumA = (this.#sumA + scramble(this.#a ^ Math.imul(this.#b, 0x27d4eb2f))) | 0;
    this.#sumB = (this.#sumB + scramble(this.#b)) | 0;
  }

  /** 16 hexadecimal digits. */
  toString(): string {
    return hex(this.#sumA) + hex(this.#sumB);
  }

  #mix(word: number): void {
    this.#a = scramble(Math.imul(this.#a ^ word, 0x01000193));
    this.#b = scramble(Math.imul((this.#b << 5) ^ (this.#b >>> 27) ^ word, 0xc2b2ae35));
  }
}

const doubles = new Float64Array(1);
const words = new Uint32Array(doubles.buffer);

/** The finalizer of MurmurHash3: a change of any input bit changes about half of the output bits. */
function scramble(word: number): number {
  let mixed = Math.imul(word ^ (word >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return mixed ^ (mixed >>> 16);
}

function hex(word: number): string {
  return (word >>> 0).toString(16).padStart(8, '0');
}
