/**
 * The language of the state machine: operations in, results out.
 */

/** What a command does, as one byte in a batch. Numbers are part of the log format and never change their meaning. */
export const Op = {
  set: 1,
  add: 2,
  replace: 3,
  append: 4,
  prepend: 5,
  cas: 6,
  delete: 7,
  incr: 8,
  decr: 9,
  touch: 10,
  getAndTouch: 11,
  flushAll: 12,
} as const;
export type Op = (typeof Op)[keyof typeof Op];

export type ResultCode =
  | 'stored'
  | 'notStored'
  | 'exists'
  | 'notFound'
  | 'deleted'
  | 'touched'
  | 'ok'
  /** incr and decr: `text` is the new number. */
  | 'number'
  | 'nonNumeric'
  /** getAndTouch: `item` is the item. */
  | 'value'
  | 'tooLarge'
  | 'outOfMemory';

/** One stored item. Bytes are held as one-byte (latin1) strings: cheap to keep, to copy out and for the collector. */
export interface Item {
  readonly value: string;
  /** Unsigned 32 bits, opaque. */
  readonly flags: number;
  /** Cluster time in milliseconds; `Infinity` for never. */
  readonly expiresAtMs: number;
  /** memcached's "cas unique": rises with every write of any item, the same on every node. */
  readonly cas: number;
}

/**
 * Receives the results of a batch, in the order of its commands, while it is applied. `item` may change with the next
 * command: use it at once.
 */
export interface ResultSink {
  result(position: number, code: ResultCode, item: Item | null, text: string): void;
}

/** What applying a batch came to (DESIGN: exactly once). `clock` advances time only and belongs to no origin. */
export type ApplyOutcome = 'applied' | 'duplicate' | 'gap' | 'staleSession' | 'clock';
