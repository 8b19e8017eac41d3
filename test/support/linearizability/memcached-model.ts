import { applyCommand, isNumber } from '../reference-model.ts';
import type { Model, Operation } from './checker.ts';

/**
 * One key of memcached as its clients see it, for the linearizability checker: the reference model together with what a
 * client cannot know. A reply is the text of the wire without its last line end; a value that was read is its data,
 * with its cas unique where that was asked for. Flags are left out.
 *
 * The server chooses the uniques, so the model learns them: a write makes the item's unknown until a read shows it.
 * Each is larger than every one seen on the key before, deletes included.
 */
type Read = { readonly kind: 'get' | 'gets' | 'gat' | 'gats'; readonly key: string };
type Write =
  | { readonly kind: 'delete' | 'touch' | 'flush'; readonly key: string }
  | { readonly kind: 'set' | 'add' | 'replace' | 'append' | 'prepend'; readonly key: string; readonly value: string }
  | { readonly kind: 'cas'; readonly key: string; readonly value: string; readonly unique: number }
  | { readonly kind: 'incr' | 'decr'; readonly key: string; readonly delta: number };
/** No client sends it: the item that holds `value` may vanish at any time, because it was given an expiry. */
type Expiry = { readonly kind: 'expire'; readonly key: string; readonly value: string };
export type MemcachedInput = Read | Write | Expiry;

export type MemcachedOutput =
  | { readonly kind: 'reply'; readonly text: string }
  | { readonly kind: 'value'; readonly value: string; readonly unique: number | null }
  | { readonly kind: 'miss' };

export type MemcachedOperation = Operation<MemcachedInput, MemcachedOutput>;

interface State {
  /** Null where there is no item. */
  readonly value: string | null;
  /** Null where no reply has shown it yet. */
  readonly unique: number | null;
  /** The largest unique seen: any later write's is above. */
  readonly floor: number;
}

/** Stands for no item among values; no value of a test contains it. */
const ABSENT = '\0absent';
const UNCHANGING_REPLIES = ['NOT_STORED', 'EXISTS', 'NOT_FOUND', 'TOUCHED'];
/** The store was full, or the item would be too large: nothing has changed, except that a `set` removes the old item. */
const REFUSALS = ['SERVER_ERROR out of memory storing object', 'SERVER_ERROR object too large for cache'];

export const memcachedModel: Model<State, MemcachedInput, MemcachedOutput> = {
  init: () => ({ value: null, unique: null, floor: 0 }),
  key: (state) => `${state.unique ?? ''} ${state.floor} ${state.value === null ? '' : `=${state.value}`}`,
  inputKey: (input) => Object.values(input).join(' '),
  isReadOnly: (input, output) =>
    output.kind !== 'reply' ||
    UNCHANGING_REPLIES.includes(output.text) ||
    (REFUSALS.includes(output.text) && input.kind !== 'set'),
  values: { of: (state) => state.value ?? ABSENT, demanded, supplied },
  step(state, input, output) {
    switch (input.kind) {
      case 'get':
      case 'gets':
      case 'gat':
      case 'gats':
        return stepRead(state, output);
      case 'expire':
        return state.value === input.value ? without(state) : state;
      default:
        return stepWrite(state, input, output);
    }
  },
};

function stepRead(state: State, output: MemcachedOutput | undefined): State | undefined {
  if (output === undefined) return state;
  if (output.kind === 'miss') return state.value === null ? state : undefined;
  if (output.kind === 'reply' || output.value !== state.value) return undefined;
  if (output.unique === null || output.unique === state.unique) return state;
  if (!mayHoldUnique(state, output.unique)) return undefined;
  return { value: state.value, unique: output.unique, floor: output.unique };
}

function stepWrite(state: State, input: Write, output: MemcachedOutput | undefined): State | undefined {
  const { reply, after } = applyCommand(state.value, state.unique, input);
  if (output !== undefined) {
    if (output.kind !== 'reply') return undefined;
    if (REFUSALS.includes(output.text)) return input.kind === 'set' ? without(state) : state;
    if (output.text !== reply) {
      if (input.kind !== 'cas' || !mayHoldUnique(state, input.unique)) return undefined;
      return output.text === 'STORED' ? written(state, input.value) : undefined;
    }
  }
  if (after === undefined) return state;
  return after === null ? without(state) : written(state, after);
}

/** Whether the item's unique, not yet seen, may turn out to be this one. */
function mayHoldUnique(state: State, unique: number): boolean {
  return state.value !== null && state.unique === null && unique > state.floor;
}

function written(state: State, value: string): State {
  return { value, unique: null, floor: state.floor };
}

function without(state: State): State {
  return state.value === null ? state : { value: null, unique: null, floor: state.floor };
}

function demanded(input: MemcachedInput, output: MemcachedOutput): string | undefined {
  if (output.kind === 'value') return output.value;
  if (output.kind === 'miss' || output.text === 'NOT_FOUND') return ABSENT;
  if (input.kind === 'add') return output.text === 'STORED' ? ABSENT : undefined;
  return output.text === 'NOT_STORED' ? ABSENT : undefined;
}

function supplied(
  input: MemcachedInput,
  output: MemcachedOutput | undefined,
): string | ((value: string) => boolean) | undefined {
  if (output !== undefined && memcachedModel.isReadOnly(input, output)) return undefined;
  if (output?.kind === 'reply' && REFUSALS.includes(output.text)) return ABSENT;
  switch (input.kind) {
    case 'get':
    case 'gets':
    case 'gat':
    case 'gats':
    case 'touch':
      return undefined;
    case 'delete':
    case 'flush':
    case 'expire':
      return ABSENT;
    case 'append':
      return (value) => value.endsWith(input.value);
    case 'prepend':
      return (value) => value.startsWith(input.value);
    case 'incr':
    case 'decr':
      return output?.kind === 'reply' ? (value) => value.trimEnd() === output.text : isNumber;
    case 'set':
    case 'add':
    case 'replace':
    case 'cas':
      return input.value;
  }
}

/** The request as a client sends it. @param exptime for the commands that have one. */
export function requestText(input: MemcachedInput, exptime = 0): string {
  const { kind, key } = input;
  switch (kind) {
    case 'get':
    case 'gets':
      return `${kind} ${key}\r\n`;
    case 'gat':
    case 'gats':
      return `${kind} ${exptime} ${key}\r\n`;
    case 'delete':
      return `delete ${key}\r\n`;
    case 'touch':
      return `touch ${key} ${exptime}\r\n`;
    case 'flush':
      return 'flush_all\r\n';
    case 'set':
    case 'add':
    case 'replace':
    case 'append':
    case 'prepend':
      return `${kind} ${key} 0 ${exptime} ${input.value.length}\r\n${input.value}\r\n`;
    case 'cas':
      return `cas ${key} 0 0 ${input.value.length} ${input.unique}\r\n${input.value}\r\n`;
    case 'incr':
    case 'decr':
      return `${kind} ${key} ${input.delta}\r\n`;
    case 'expire':
      throw new RangeError('no client sends this');
  }
}
