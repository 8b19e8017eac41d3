import type { Model, Operation } from '../support/linearizability/checker.ts';

/**
 * One key of memcached with every command that the simulator's clients send. A reply is the text of the wire without
 * its last line end; a value that was read is its data, with its cas unique where that was asked for.
 *
 * The server chooses the uniques, so the model learns them: a write makes the item's unknown until a read shows it.
 * Each is larger than every one seen on the key before.
 */
export type Input =
  | { readonly kind: 'get' | 'gets'; readonly key: string }
  | { readonly kind: 'gat' | 'gats'; readonly key: string }
  | { readonly kind: 'delete' | 'touch' | 'flush'; readonly key: string }
  | { readonly kind: 'set' | 'add' | 'replace' | 'append' | 'prepend'; readonly key: string; readonly value: string }
  | { readonly kind: 'cas'; readonly key: string; readonly value: string; readonly unique: number }
  | { readonly kind: 'incr' | 'decr'; readonly key: string; readonly delta: number }
  /** No client sends it: the item that holds `value` may vanish at any time, because it was given an expiry. */
  | { readonly kind: 'expire'; readonly key: string; readonly value: string };

export type Output =
  | { readonly kind: 'reply'; readonly text: string }
  | { readonly kind: 'value'; readonly value: string; readonly unique: number | null }
  | { readonly kind: 'miss' };

export type ClientOperation = Operation<Input, Output>;

interface State {
  /** Null where there is no item. */
  readonly value: string | null;
  /** Null where no reply has shown it yet. */
  readonly unique: number | null;
  /** The largest unique seen: any later write's is above. */
  readonly floor: number;
}

const ABSENT = '\0absent';
const REFUSALS = ['NOT_STORED', 'EXISTS', 'NOT_FOUND', 'TOUCHED'];

export const keyModel: Model<State, Input, Output> = {
  init: () => ({ value: null, unique: null, floor: 0 }),
  inputKey: (input) => Object.values(input).join(' '),
  key: (state) => `${state.unique ?? ''} ${state.floor} ${state.value === null ? '' : `=${state.value}`}`,
  isReadOnly: (input, output) =>
    output.kind !== 'reply' || REFUSALS.includes(output.text) || (isRefusal(output.text) && input.kind !== 'set'),
  values: { of: (state) => state.value ?? ABSENT, demanded, supplied },
  step(state, input, output) {
    switch (input.kind) {
      case 'get':
      case 'gets':
      case 'gat':
      case 'gats':
        return stepRead(state, output);
      default: {
        const [reply, after] = apply(state, input);
        if (output === undefined) return after;
        if (output.kind !== 'reply') return undefined;
        if (isRefusal(output.text)) return input.kind === 'set' ? without(state) : state;
        if (input.kind === 'cas' && output.text !== reply && mayHoldUnique(state, input.unique)) {
          return output.text === 'STORED' ? written(state, input.value) : undefined;
        }
        return output.text === reply ? after : undefined;
      }
    }
  },
};

/** The store was full, or the item would be too large: nothing has happened, but that a `set` takes the old item away. */
function isRefusal(text: string): boolean {
  return text === 'SERVER_ERROR out of memory storing object' || text === 'SERVER_ERROR object too large for cache';
}

function without(state: State): State {
  return state.value === null ? state : { value: null, unique: null, floor: state.floor };
}

function stepRead(state: State, output: Output | undefined): State | undefined {
  if (output === undefined) return state;
  if (output.kind === 'miss') return state.value === null ? state : undefined;
  if (output.kind === 'reply' || output.value !== state.value) return undefined;
  if (output.unique === null || output.unique === state.unique) return state;
  if (!mayHoldUnique(state, output.unique)) return undefined;
  return { value: state.value, unique: output.unique, floor: output.unique };
}

/** Whether the item's unique, not yet seen, may turn out to be this one. */
function mayHoldUnique(state: State, unique: number): boolean {
  return state.value !== null && state.unique === null && unique > state.floor;
}

type Write = Exclude<Input, { readonly kind: 'get' | 'gets' | 'gat' | 'gats' }>;

function apply(state: State, input: Write): [string, State] {
  const { value } = state;
  switch (input.kind) {
    case 'set':
      return ['STORED', written(state, input.value)];
    case 'add':
      return value === null ? ['STORED', written(state, input.value)] : ['NOT_STORED', state];
    case 'replace':
      return value === null ? ['NOT_STORED', state] : ['STORED', written(state, input.value)];
    case 'append':
      return value === null ? ['NOT_STORED', state] : ['STORED', written(state, value + input.value)];
    case 'prepend':
      return value === null ? ['NOT_STORED', state] : ['STORED', written(state, input.value + value)];
    case 'delete':
      return value === null ? ['NOT_FOUND', state] : ['DELETED', without(state)];
    case 'touch':
      return [value === null ? 'NOT_FOUND' : 'TOUCHED', state];
    case 'flush':
      return ['OK', without(state)];
    case 'expire':
      return ['', value === input.value ? without(state) : state];
    case 'incr':
    case 'decr': {
      if (value === null) return ['NOT_FOUND', state];
      if (!/^\d+ *$/.test(value)) return [NON_NUMERIC, state];
      const number = Number(value);
      const text = String(input.kind === 'incr' ? number + input.delta : Math.max(0, number - input.delta));
      return [text, written(state, text.padEnd(value.length, ' '))];
    }
    case 'cas':
      if (value === null) return ['NOT_FOUND', state];
      return state.unique === input.unique ? ['STORED', written(state, input.value)] : ['EXISTS', state];
  }
}

const NON_NUMERIC = 'CLIENT_ERROR cannot increment or decrement non-numeric value';

function written(state: State, value: string): State {
  return { value, unique: null, floor: state.floor };
}

function demanded(input: Input, output: Output): string | undefined {
  if (output.kind === 'value') return output.value;
  if (output.kind === 'miss' || output.text === 'NOT_FOUND') return ABSENT;
  if (input.kind === 'add') return output.text === 'STORED' ? ABSENT : undefined;
  return output.text === 'NOT_STORED' ? ABSENT : undefined;
}

function supplied(input: Input, output: Output | undefined): string | ((value: string) => boolean) | undefined {
  if (output !== undefined && keyModel.isReadOnly(input, output)) return undefined;
  if (output?.kind === 'reply' && isRefusal(output.text)) return ABSENT;
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
      return (value) => /^\d+ *$/.test(value);
    case 'set':
    case 'add':
    case 'replace':
    case 'cas':
      return input.value;
  }
}
