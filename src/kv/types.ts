/**
 * The language of the state machine: operations in, results out.
 */

/** The operation of a command, as one byte in a batch. Numbers are part of the log format and never change their meaning. */
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
  metaGet: 13,
  metaSet: 14,
  metaDelete: 15,
  metaArithmetic: 16,
} as const;
export type Op = (typeof Op)[keyof typeof Op];

/** Traits of an operation, for the code around its handler. A new operation is a number above, a row below, and its handler. */
export interface OpTraits {
  readonly hasKey: boolean;
  /** Its value is an item's, so flags and an expiration time come with it. */
  readonly stores: boolean;
  readonly hasExptime: boolean;
  /** Its value begins with a block of further arguments (meta.ts). */
  readonly hasBlock: boolean;
}

const STORES: OpTraits = { hasKey: true, stores: true, hasExptime: true, hasBlock: false };
const KEY_ONLY: OpTraits = { hasKey: true, stores: false, hasExptime: false, hasBlock: false };
const SETS_TIME: OpTraits = { hasKey: true, stores: false, hasExptime: true, hasBlock: false };
const NO_KEY: OpTraits = { hasKey: false, stores: false, hasExptime: false, hasBlock: false };
const META: OpTraits = { hasKey: true, stores: false, hasExptime: true, hasBlock: true };

const TRAITS: Readonly<Record<Op, OpTraits>> = {
  [Op.set]: STORES,
  [Op.add]: STORES,
  [Op.replace]: STORES,
  [Op.append]: STORES,
  [Op.prepend]: STORES,
  [Op.cas]: STORES,
  [Op.delete]: KEY_ONLY,
  [Op.incr]: KEY_ONLY,
  [Op.decr]: KEY_ONLY,
  [Op.touch]: SETS_TIME,
  [Op.getAndTouch]: SETS_TIME,
  [Op.flushAll]: NO_KEY,
  [Op.metaGet]: META,
  [Op.metaSet]: META,
  [Op.metaDelete]: META,
  [Op.metaArithmetic]: META,
};

export function opTraits(op: Op): OpTraits {
  return TRAITS[op];
}

/** By the number of an operation, which may come from a peer or a file; undefined for a number that is none. */
export const OP_TRAITS: readonly (OpTraits | undefined)[] = Object.entries(TRAITS).reduce<(OpTraits | undefined)[]>(
  (traits, [op, row]) => {
    traits[Number(op)] = row;
    return traits;
  },
  new Array(Object.keys(TRAITS).length + 1).fill(undefined),
);

export type ResultCode =
  | 'stored'
  | 'notStored'
  | 'exists'
  | 'notFound'
  | 'deleted'
  | 'touched'
  | 'ok'
  /** incr and decr: `text` is the new number. metaArithmetic: `item`, too. */
  | 'number'
  | 'nonNumeric'
  /** getAndTouch, metaGet: `item` is the item. */
  | 'value'
  | 'tooLarge'
  | 'outOfMemory';

/**
 * A cas unique: 64 bits. Those that the counter gives stay below 2^53 and are numbers; only one that a client has chosen
 * (E) and that is larger is a bigint. So there is one form for each, and `===` compares.
 */
export type Cas = number | bigint;

/** One stored item. Bytes are held as one-byte (latin1) strings: cheap to keep, to copy out and for the collector. */
export interface Item {
  readonly value: string;
  /** Unsigned 32 bits, opaque. */
  readonly flags: number;
  /** Cluster time in milliseconds; `Infinity` for never. */
  readonly expiresAtMs: number;
  /** memcached's "cas unique": rises with every write of any item, the same on every node, unless a client chose it. */
  readonly cas: Cas;
  /** STALE and WON of meta.ts. */
  readonly tokens: number;
  /**
   * This node's own record, not part of the replicated state: the Unix time in seconds of the last fetch here; negated,
   * that of the write if it was not fetched since.
   */
  accessedAtSeconds: number;
}

/**
 * What the results of metaGet and metaArithmetic tell in `text`: the new number where there is one; whether this command
 * won the token or made the counter (`W`); and when the item would have expired, in ms: before the command, and between
 * N and T where both are there.
 */
export function metaText(number: string, won: boolean, beforeMs: number, betweenMs: number): string {
  return `${number},${won ? 'W' : ''},${beforeMs},${betweenMs}`;
}

/**
 * Receives the results of a batch, in the order of its commands, while it is applied. `item` may change with the next
 * command: use it at once.
 */
export interface ResultSink {
  result(position: number, code: ResultCode, item: Item | null, text: string): void;
}

/** The outcome of applying a batch. `clock` advances time only and belongs to no proposer. */
export type ApplyOutcome = 'applied' | 'duplicate' | 'gap' | 'staleSession' | 'clock';
