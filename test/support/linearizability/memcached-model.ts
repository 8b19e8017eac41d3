import type { Model, Operation } from './checker.ts';

/**
 * One key of memcached as its clients see it, without flags and expiry. A reply is the exact text of the wire without
 * the last newline; a value that was read is `VALUE <text>` or, with its cas unique, `VALUE <text> <unique>`.
 *
 * The server chooses the uniques, so the model learns them: a write makes the item's unique unknown, and the next
 * `gets` fixes it. Each is larger than every one seen on the key before, deletes included.
 */
type Read = { readonly kind: 'get'; readonly key: string } | { readonly kind: 'gets'; readonly key: string };
type Write =
  | { readonly kind: 'delete'; readonly key: string }
  | { readonly kind: 'set' | 'add' | 'append'; readonly key: string; readonly value: string }
  | { readonly kind: 'cas'; readonly key: string; readonly value: string; readonly unique: bigint }
  | { readonly kind: 'incr'; readonly key: string; readonly delta: bigint };
export type MemcachedInput = Read | Write;

export type MemcachedOutput =
  | { readonly kind: 'reply'; readonly text: string }
  | { readonly kind: 'value'; readonly value: string; readonly unique: bigint | null }
  | { readonly kind: 'miss' };

export type MemcachedOperation = Operation<MemcachedInput, MemcachedOutput>;

interface State {
  /** Null where there is no item. */
  readonly value: string | null;
  /** Null where no reply has shown it yet. */
  readonly unique: bigint | null;
  /** The largest unique seen on this key: any later write's is above. */
  readonly floor: bigint;
}

/** Stands for no item among values; no value of a test contains it. */
const ABSENT = '\0absent';
const REFUSALS = ['NOT_STORED', 'EXISTS', 'NOT_FOUND'];
const UINT64_RANGE = 1n << 64n;

export const memcachedModel: Model<State, MemcachedInput, MemcachedOutput> = {
  init: () => ({ value: null, unique: null, floor: 0n }),
  key: (state) => `${state.unique ?? ''} ${state.floor} ${state.value === null ? '' : `=${state.value}`}`,
  inputKey: (input) => Object.values(input).join(' '),
  isReadOnly: (_input, output) => output.kind !== 'reply' || REFUSALS.includes(output.text),
  values: { of: (state) => state.value ?? ABSENT, demanded, supplied },
  step(state, input, output) {
    if (input.kind === 'get' || input.kind === 'gets') return stepRead(state, output);
    const [reply, after] = apply(state, input);
    if (output === undefined) return after;
    if (output.kind !== 'reply') return undefined;
    if (input.kind === 'cas' && output.text !== reply && mayHoldUnique(state, input.unique)) {
      return output.text === 'STORED' ? written(state, input.value) : undefined;
    }
    return output.text === reply ? after : undefined;
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

/** Whether the item's unique, not yet seen, may turn out to be this one. */
function mayHoldUnique(state: State, unique: bigint): boolean {
  return state.value !== null && state.unique === null && unique > state.floor;
}

function apply(state: State, input: Write): [string, State] {
  const { value } = state;
  switch (input.kind) {
    case 'set':
      return ['STORED', written(state, input.value)];
    case 'add':
      return value === null ? ['STORED', written(state, input.value)] : ['NOT_STORED', state];
    case 'append':
      return value === null ? ['NOT_STORED', state] : ['STORED', written(state, value + input.value)];
    case 'delete':
      return value === null ? ['NOT_FOUND', state] : ['DELETED', { value: null, unique: null, floor: state.floor }];
    case 'incr': {
      if (value === null) return ['NOT_FOUND', state];
      const sum = ((BigInt(value) + input.delta) % UINT64_RANGE).toString();
      return [sum, written(state, sum)];
    }
    case 'cas':
      if (value === null) return ['NOT_FOUND', state];
      return state.unique === input.unique ? ['STORED', written(state, input.value)] : ['EXISTS', state];
  }
}

function written(state: State, value: string): State {
  return { value, unique: null, floor: state.floor };
}

function demanded(input: MemcachedInput, output: MemcachedOutput): string | undefined {
  if (output.kind === 'value') return output.value;
  if (output.kind === 'miss' || output.text === 'NOT_FOUND') return ABSENT;
  if (input.kind === 'add' && output.text === 'STORED') return ABSENT;
  return input.kind === 'append' && output.text === 'NOT_STORED' ? ABSENT : undefined;
}

function supplied(
  input: MemcachedInput,
  output: MemcachedOutput | undefined,
): string | ((value: string) => boolean) | undefined {
  if (output !== undefined && memcachedModel.isReadOnly(input, output)) return undefined;
  switch (input.kind) {
    case 'get':
    case 'gets':
      return undefined;
    case 'delete':
      return ABSENT;
    case 'append':
      return (value) => value.endsWith(input.value);
    case 'incr':
      return output?.kind === 'reply' ? output.text : (value) => /^\d+$/.test(value);
    case 'set':
    case 'add':
    case 'cas':
      return input.value;
  }
}
