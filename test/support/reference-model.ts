/**
 * The reference model of the protocol: what each of memcached's classic commands answers and does to one item, in an
 * order of commands that is known. Written from docs/protocol.md; it imports nothing of the server. It has two users:
 *
 * - linearizability/memcached-model.ts adds what clients cannot know (uniques not yet seen, outcomes not received), for
 *   the histories of the simulator and of real clusters;
 * - ../kv/reference-store.ts adds many items, time and limits, for the property test of the state machine.
 *
 * The other model, naive-model.ts, is independent of this one on purpose: it goes from the bytes of requests to the
 * bytes of replies, for the fuzz tests of the port. The tests of the checker let it make the histories that this one judges.
 */

/** Keys, flags and times are the callers' concern: no reply of a write depends on them. */
export type WriteCommand =
  | { readonly kind: 'set' | 'add' | 'replace' | 'append' | 'prepend'; readonly value: string }
  | { readonly kind: 'cas'; readonly value: string; readonly unique: number }
  | { readonly kind: 'incr' | 'decr'; readonly delta: number | bigint }
  | { readonly kind: 'delete' | 'touch' | 'flush' };

export interface Outcome {
  /** The line of the reply without its end. */
  readonly reply: string;
  /** The value that is written, with a new unique; null if the item is removed; undefined if it stays as it is. */
  readonly after: string | null | undefined;
}

const UINT64_RANGE = 2n ** 64n;
/** What memcached takes for a number: blanks and a sign before it, and blanks or a zero byte after it. */
const NUMBER = /^[ \t-\r]*\+?(\d+)(?:[ \t-\r\0]|$)/;

const NOT_STORED: Outcome = { reply: 'NOT_STORED', after: undefined };
const NOT_FOUND: Outcome = { reply: 'NOT_FOUND', after: undefined };
const EXISTS: Outcome = { reply: 'EXISTS', after: undefined };
const TOUCHED: Outcome = { reply: 'TOUCHED', after: undefined };
const DELETED: Outcome = { reply: 'DELETED', after: null };
const FLUSHED: Outcome = { reply: 'OK', after: null };
const NON_NUMERIC: Outcome = {
  reply: 'CLIENT_ERROR cannot increment or decrement non-numeric value',
  after: undefined,
};

/** @param value the item's, null if there is none. @param unique the item's; no `cas` matches null. */
export function applyCommand(value: string | null, unique: number | null, command: WriteCommand): Outcome {
  switch (command.kind) {
    case 'set':
      return stored(command.value);
    case 'add':
      return value === null ? stored(command.value) : NOT_STORED;
    case 'replace':
      return value === null ? NOT_STORED : stored(command.value);
    case 'append':
      return value === null ? NOT_STORED : stored(value + command.value);
    case 'prepend':
      return value === null ? NOT_STORED : stored(command.value + value);
    case 'cas':
      if (value === null) return NOT_FOUND;
      return unique === command.unique ? stored(command.value) : EXISTS;
    case 'incr':
    case 'decr':
      return value === null ? NOT_FOUND : counted(value, command.kind, BigInt(command.delta));
    case 'delete':
      return value === null ? NOT_FOUND : DELETED;
    case 'touch':
      return value === null ? NOT_FOUND : TOUCHED;
    case 'flush':
      return FLUSHED;
  }
}

export function isNumber(value: string): boolean {
  return numberIn(value) !== null;
}

function stored(after: string): Outcome {
  return { reply: 'STORED', after };
}

/** `incr` wraps round at 2^64, `decr` stops at 0. A value is never made shorter: blanks fill it up. */
function counted(value: string, kind: 'incr' | 'decr', delta: bigint): Outcome {
  const number = numberIn(value);
  if (number === null) return NON_NUMERIC;
  const decreased = delta > number ? 0n : number - delta;
  const reply = String(kind === 'incr' ? (number + delta) % UINT64_RANGE : decreased);
  return { reply, after: reply.padEnd(value.length) };
}

function numberIn(value: string): bigint | null {
  const digits = NUMBER.exec(value)?.[1];
  if (digits === undefined) return null;
  const number = BigInt(digits);
  return number < UINT64_RANGE ? number : null;
}
