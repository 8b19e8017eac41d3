/** The types of what the state machine takes and returns: operations, items and results. */

/**
 * The operation of a command, as one byte in a batch. The numbers are part of the log format and never change their
 * meaning.
 */
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

/**
 * The traits of an operation. A new operation needs a number in `Op`, a row in `TRAITS`, and a handler in the state
 * machine.
 */
export interface OpTraits {
  readonly hasKey: boolean;
  /** The value of the command is (part of) the item's new value, so the command has flags and an expiration time. */
  readonly stores: boolean;
  readonly hasExptime: boolean;
  /** The value of the command begins with a block of further arguments (meta.ts). */
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

/** The traits by operation number. Undefined for an unknown number, which a peer or a file may contain. */
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
  /** incr, decr: `text` is the new number. metaArithmetic: `text` is a `metaText` and `item` is the item. */
  | 'number'
  | 'nonNumeric'
  /** getAndTouch, metaGet: `item` is the item. */
  | 'value'
  | 'tooLarge'
  | 'outOfMemory';

/**
 * A cas unique: 64 bits. It is a number below 2^53 and a bigint from there on, so that `===` compares correctly. The
 * counter of the state machine stays below 2^53; only a client can choose a larger one (flag E of the meta commands).
 */
export type Cas = number | bigint;

/**
 * One stored item. Bytes are kept as latin1 strings, one character per byte: compared with buffers, they need less
 * memory per item and less work of the garbage collector.
 */
export interface Item {
  readonly value: string;
  /** Unsigned 32 bits, opaque. */
  readonly flags: number;
  /** Cluster time in milliseconds; `Infinity` for never. */
  readonly expiresAtMs: number;
  /**
   * memcached's cas unique. Unless a client chose it, it is taken from a counter that rises with every write of any
   * item.
   */
  readonly cas: Cas;
  /** The bits STALE and WON of meta.ts. */
  readonly tokens: number;
  /**
   * The Unix time in seconds of the last fetch at this node. If this node has not fetched the item since its last
   * write, the negated time of that write. Not replicated: it differs between nodes and is not part of the hash of the
   * state.
   */
  accessedAtSeconds: number;
}

/**
 * The `text` of the results of metaGet and metaArithmetic.
 * @param number the new number; empty for metaGet
 * @param won whether this command won the token, or made the item
 * @param beforeMs when the item would have expired, before the command changed that
 * @param betweenMs when the item would have expired after the first of the flags N and T, if the command has both
 */
export function metaText(number: string, won: boolean, beforeMs: number, betweenMs: number): string {
  return `${number},${won ? 'W' : ''},${beforeMs},${betweenMs}`;
}

/**
 * Receives the results of a batch, in the order of its commands, while the batch is applied. The next command may
 * change `item`, so use it before `result` returns.
 */
export interface ResultSink {
  result(position: number, code: ResultCode, item: Item | null, text: string): void;
}

/**
 * The outcome of applying a batch. `clock`: it only advanced the time. `duplicate`, `gap` and `staleSession`: it was
 * skipped, because it is not the next batch of its proposer (sessions.ts).
 */
export type ApplyOutcome = 'applied' | 'duplicate' | 'gap' | 'staleSession' | 'clock';
