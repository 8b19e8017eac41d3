/**
 * The pseudo-random numbers of all tests, from one seed: sfc32 ("Small Fast Counting"), Chris Doty-Humphrey's generator
 * from PractRand (pracrand.sourceforge.net), with 12 rounds before the first draw to mix the seed. Chosen because it
 * needs only 32-bit integer arithmetic and one exact division, so every version of Node on every machine draws the same
 * numbers; because its 128 bits of state keep neighbouring seeds and streams apart; and because it passes PractRand.
 * Not for secrets.
 *
 * Seeds are quoted in docs and in reports of failures. A change of this stream makes all of them name other runs.
 */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  /** @param seed a whole number from 0 to 2^53 - 1. @param stream draws of another stream of the same seed differ. */
  constructor(seed: number, stream = 0) {
    this.#a = seed | 0;
    this.#b = Math.floor(seed / 0x1_0000_0000) ^ 0x9e3779b9;
    this.#c = Math.imul(stream + 1, 0x85ebca6b);
    for (let i = 0; i < 12; i++) this.next();
  }

  /** Uniform in [0, 1). */
  next(): number {
    const sum = (((this.#a + this.#b) | 0) + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (this.#c << 21) | (this.#c >>> 11);
    this.#c = (this.#c + sum) | 0;
    return (sum >>> 0) / 0x1_0000_0000;
  }

  /** A whole number in [0, limit). */
  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }

  between(min: number, max: number): number {
    return min + this.next() * (max - min);
  }

  /** Mostly near `min`, now and then near `max`: the cube of a draw, for delays. */
  skewed(min: number, max: number): number {
    const draw = this.next();
    return min + draw * draw * draw * (max - min);
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  /** @throws RangeError if the list is empty. */
  pick<T>(list: readonly T[]): T {
    if (list.length === 0) throw new RangeError('nothing to pick from');
    return list[this.below(list.length)] as T;
  }

  /** A generator of its own, so that one part of a simulated world does not shift the draws of another. */
  fork(stream: number): Random {
    return new Random(this.below(0x1_0000_0000), stream);
  }
}

/** `Random.next` as a plain function, for code that takes one in place of `Math.random`. */
export function seededRandom(seed: number): () => number {
  const random = new Random(seed);
  return () => random.next();
}
