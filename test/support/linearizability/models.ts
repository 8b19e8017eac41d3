import type { Model } from './checker.ts';

/** A register that holds nil (null) at first. */
export type RegisterInput =
  | { readonly kind: 'read' }
  | { readonly kind: 'write'; readonly value: number }
  | { readonly kind: 'cas'; readonly from: number; readonly to: number };
/** What a read saw; whether a cas matched; a write answers true. */
export type RegisterOutput = number | null | boolean;

export const registerModel: Model<number | null, RegisterInput, RegisterOutput> = {
  init: () => null,
  key: (state) => state ?? 'nil',
  inputKey: (input) => JSON.stringify(input),
  isReadOnly: (input, output) => input.kind === 'read' || output === false,
  values: {
    of: (state) => `${state}`,
    demanded(input, output) {
      if (input.kind === 'read') return `${output}`;
      return input.kind === 'cas' && output === true ? `${input.from}` : undefined;
    },
    supplied(input, output) {
      if (input.kind === 'read' || output === false) return undefined;
      return `${input.kind === 'write' ? input.value : input.to}`;
    },
  },
  step(state, input, output) {
    switch (input.kind) {
      case 'read':
        return output === undefined || output === state ? state : undefined;
      case 'write':
        return input.value;
      case 'cas': {
        const matches = state === input.from;
        if (output !== undefined && output !== matches) return undefined;
        return matches ? input.to : state;
      }
    }
  },
};

/** A string that is empty at first; `get` answers it, `put` and `append` answer nothing of interest. */
export interface KvInput {
  readonly kind: 'get' | 'put' | 'append';
  readonly key: string;
  readonly value: string;
}

export const kvModel: Model<string, KvInput, string> = {
  init: () => '',
  key: (state) => state,
  inputKey: ({ kind, value }) => `${kind} ${value}`,
  isReadOnly: (input) => input.kind === 'get',
  values: {
    of: (state) => state,
    demanded: (input, output) => (input.kind === 'get' ? output : undefined),
    supplied(input) {
      if (input.kind === 'get') return undefined;
      return input.kind === 'put' ? input.value : (value) => value.endsWith(input.value);
    },
  },
  step(state, input, output) {
    switch (input.kind) {
      case 'get':
        return output === undefined || output === state ? state : undefined;
      case 'put':
        return input.value;
      case 'append':
        return state + input.value;
    }
  },
};
