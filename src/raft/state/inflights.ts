export interface FlowLimits {
  /** Appends in flight to one follower. Bounds what has to be sent again after a lost link. */
  readonly inflightMessagesMax: number;
  /** Bytes of entries in flight to one follower. Bounds what the link must buffer. */
  readonly inflightBytesMax: number;
}

/**
 * Flow control: the appends that were sent to one follower and are not acknowledged yet (§10.2.2, pipelining). Etcd's raft
 * has the same object under the same name.
 */
export class Inflights {
  readonly #limits: FlowLimits;
  /** The last index of each append, and the bytes of its entries; oldest first. */
  readonly #indexes: number[] = [];
  readonly #sizes: number[] = [];
  #bytes = 0;

  constructor(limits: FlowLimits) {
    this.#limits = limits;
  }

  /** Whether no further append may be sent before one is acknowledged. */
  get isFull(): boolean {
    return this.#indexes.length >= this.#limits.inflightMessagesMax || this.#bytes >= this.#limits.inflightBytesMax;
  }

  add(lastIndex: number, bytes: number): void {
    this.#indexes.push(lastIndex);
    this.#sizes.push(bytes);
    this.#bytes += bytes;
  }

  /** The follower acknowledged everything up to `index`. */
  freeUpTo(index: number): void {
    let freed = 0;
    while (freed < this.#indexes.length && (this.#indexes[freed] as number) <= index) {
      this.#bytes -= this.#sizes[freed] as number;
      freed++;
    }
    if (freed === 0) return;
    this.#indexes.splice(0, freed);
    this.#sizes.splice(0, freed);
  }

  /** What was in flight is lost, or no longer matters. */
  clear(): void {
    this.#indexes.length = 0;
    this.#sizes.length = 0;
    this.#bytes = 0;
  }
}
