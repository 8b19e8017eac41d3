import type { Model, Operation } from './checker.ts';

/**
 * Prunes orders that overwrite a value for good while somebody still has to read it. Without this, a write that fits
 * anywhere is found to be misplaced only at the end of the read that it robbed, after every order of all in between.
 *
 * For each value that some operation demands it counts the operations left that demand it, and those left that could
 * bring it back. Leaving a value with demand and no supply leads nowhere.
 */
export interface Demands<State> {
  /** Whether going from `before` to `after` by `op` leaves a value that is still needed and cannot come back. */
  robs(before: State, after: State, isKnown: boolean, op: number): boolean;
  /** `op` is taken (`by` = -1) or put back (`by` = 1). */
  count(isKnown: boolean, op: number, by: 1 | -1): void;
}

const NO_DEMANDS: Demands<unknown> = { robs: () => false, count: () => undefined };

export function trackDemands<State, Input, Output>(
  model: Model<State, Input, Output>,
  known: readonly Operation<Input, Output>[],
  unknown: readonly Operation<Input, Output>[],
): Demands<State> {
  const { values } = model;
  if (values === undefined) return NO_DEMANDS;
  const numbers = new Map<string, number>();
  const demandOf = known.map(({ input, output }) => {
    const value = output === undefined ? undefined : values.demanded(input, output);
    if (value === undefined) return undefined;
    const number = numbers.get(value) ?? numbers.size;
    numbers.set(value, number);
    return number;
  });
  const suppliesOf = ({ input, output }: Operation<Input, Output>): number[] => {
    const supply = values.supplied(input, output);
    if (supply === undefined) return [];
    if (typeof supply !== 'string') return [...numbers].filter(([value]) => supply(value)).map(([, number]) => number);
    const number = numbers.get(supply);
    return number === undefined ? [] : [number];
  };
  const supplies = [known.map(suppliesOf), unknown.map(suppliesOf)] as const;
  const demandLeft = new Int32Array(numbers.size);
  const supplyLeft = new Int32Array(numbers.size);
  const add = (counts: Int32Array, number: number, by: number) => {
    counts[number] = (counts[number] ?? 0) + by;
  };
  const suppliedBy = (isKnown: boolean, op: number) => supplies[isKnown ? 0 : 1][op] ?? [];
  const count = (isKnown: boolean, op: number, by: 1 | -1) => {
    const demand = isKnown ? demandOf[op] : undefined;
    if (demand !== undefined) add(demandLeft, demand, by);
    for (const number of suppliedBy(isKnown, op)) add(supplyLeft, number, by);
  };
  for (const op of known.keys()) count(true, op, 1);
  for (const op of unknown.keys()) count(false, op, 1);
  return {
    count,
    robs(before, after, isKnown, op) {
      const value = values.of(before);
      const number = numbers.get(value);
      if (number === undefined || values.of(after) === value) return false;
      const own = isKnown && demandOf[op] === number ? 1 : 0;
      if ((demandLeft[number] ?? 0) - own <= 0) return false;
      const ownSupply = suppliedBy(isKnown, op).includes(number) ? 1 : 0;
      return (supplyLeft[number] ?? 0) - ownSupply === 0;
    },
  };
}
