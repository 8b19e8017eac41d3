import { trackDemands } from './demands.ts';

/**
 * Decides whether a concurrent history is linearizable: whether every operation can be given one moment between its
 * call and its return so that a single copy, taking them one at a time, gives the same answers.
 *
 * ```
 *  calls and returns in order of time          configurations already tried
 *  ──[c1]──[c2]──[r1]──[c3]──[r3]──[r2]──      {done operations} × state
 *      └ only operations called before the first return that is left may come next
 * ```
 *
 * The search is Wing and Gong's with Lowe's cache of configurations, and three prunings that keep it small: a read that fits
 * now is taken at once and never reconsidered (earlier is never worse for it), and an operation of unknown outcome is
 * tried last, only where it would change something (it may as well never happen), and equal ones in one order only; and
 * see `demands.ts`.
 */

/** What one copy does. States are never modified; `step` returns the same state where nothing changes. */
export interface Model<State, Input, Output> {
  init(): State;
  /** The state after `input` answered `output` (undefined: the answer is not known); undefined where that cannot be. */
  step(state: State, input: Input, output: Output | undefined): State | undefined;
  /** Whether an `input` that answered `output` changes no state at all, whatever the state was. */
  isReadOnly(input: Input, output: Output): boolean;
  /** Equal only for inputs that do the same to every state. */
  inputKey(input: Input): string;
  /** Equal exactly for equal states. */
  key(state: State): string | number;
  /** Optional, for speed: what reads can tell of a state. */
  readonly values?: ModelValues<State, Input, Output>;
}

interface ModelValues<State, Input, Output> {
  of(state: State): string;
  /** The value that a state must have for `input` to answer `output`; undefined where that is not one certain value. */
  demanded(input: Input, output: Output): string | undefined;
  /** The value that the operation leaves where it changes the state, or a test for it; undefined where it changes none. */
  supplied(input: Input, output: Output | undefined): string | ((value: string) => boolean) | undefined;
}

export interface Operation<Input, Output> {
  readonly client: number;
  readonly input: Input;
  /** Undefined where the outcome is unknown: it may take effect at any moment after the call, or never. */
  readonly output: Output | undefined;
  /** Moments of one clock that all clients share. Equal moments count as overlapping. */
  readonly call: number;
  /** Not read where the outcome is unknown. */
  readonly return: number;
}

type Verdict = 'linearizable' | 'not-linearizable' | 'unknown';

export interface CheckResult<Input, Output> {
  readonly verdict: Verdict;
  /** Configurations tried. */
  readonly steps: number;
  /** The longest order that fits, and what could not follow it: where to look when the verdict is bad. */
  readonly longest: readonly Operation<Input, Output>[];
  readonly stuck: readonly Operation<Input, Output>[];
}

export interface CheckLimits {
  /** The verdict is 'unknown' after this. */
  readonly timeLimitMs: number;
  /** The same, counted in `CheckResult.steps`: the verdict then doesn't depend on the speed of the machine. */
  readonly stepsMax?: number;
}

/** Bounds the cache, which holds one short string per configuration: about 2 GB at worst. */
const CONFIGURATIONS_MAX = 8_000_000;
const STEPS_BETWEEN_CLOCK_READINGS = 1024;
const HEAD = 0;
const NONE = -1;

/** Checks one object. See `checkPartitioned` for histories of many keys. */
export function check<State, Input, Output>(
  model: Model<State, Input, Output>,
  operations: readonly Operation<Input, Output>[],
  limits: CheckLimits,
): CheckResult<Input, Output> {
  const known = operations.filter((op) => op.output !== undefined).sort((a, b) => a.call - b.call);
  const unknown = operations.filter((op) => op.output === undefined).sort((a, b) => a.call - b.call);
  const readOnly = known.map((op) => op.output !== undefined && model.isReadOnly(op.input, op.output));
  const twinOf = earlierTwins(unknown.map(({ input }) => model.inputKey(input)));
  const events = linkEvents(known);
  const demands = trackDemands(model, known, unknown);
  const done = trackConfigurations(known.length, unknown.length);
  const stateNumbers = new Map<string | number, number>();
  const numberOf = (state: State): number => {
    const key = model.key(state);
    const number = stateNumbers.get(key) ?? stateNumbers.size;
    stateNumbers.set(key, number);
    return number;
  };

  const deadlineMs = performance.now() + limits.timeLimitMs;
  const stepsMax = limits.stepsMax ?? Number.POSITIVE_INFINITY;
  const path: Frame<State>[] = [];
  let state = model.init();
  let left = known.length;
  let steps = 0;
  let longest: Operation<Input, Output>[] = [];
  let stuck: Operation<Input, Output>[] = [];
  /** The next candidate: an event of the list, or, once that is the first return, an operation of unknown outcome. */
  let event = events.next[HEAD] ?? HEAD;
  let unknownAt = 0;
  const result = (verdict: Verdict): CheckResult<Input, Output> => ({ verdict, steps, longest, stuck });

  /** Not done yet, and no earlier one that would do the same is left: that could stand in for it. */
  const mayHappen = (op: number): boolean => {
    const twin = twinOf[op] ?? NONE;
    return !done.has(false, op) && (twin === NONE || done.has(false, twin));
  };

  const take = (isKnown: boolean, op: number, after: State, forced: boolean): void => {
    path.push({ isKnown, op, before: state, forced, event, unknownAt });
    demands.count(isKnown, op, -1);
    state = after;
    if (isKnown) {
      events.lift(op);
      left--;
    }
    event = events.next[HEAD] ?? HEAD;
    unknownAt = 0;
  };

  /** Takes the last choice back and moves on to the one after it. False where none is left. */
  const backtrack = (): boolean => {
    for (;;) {
      const frame = path.pop();
      if (frame === undefined) return false;
      done.flip(frame.isKnown, frame.op);
      demands.count(frame.isKnown, frame.op, 1);
      state = frame.before;
      if (frame.isKnown) {
        events.unlift(frame.op);
        left++;
      }
      if (frame.forced) continue;
      event = frame.isKnown ? (events.next[frame.event] ?? HEAD) : frame.event;
      unknownAt = frame.isKnown ? 0 : frame.unknownAt + 1;
      return true;
    }
  };

  while (left > 0) {
    if (steps >= stepsMax) return result('unknown');
    if (++steps % STEPS_BETWEEN_CLOCK_READINGS === 0) {
      if (performance.now() > deadlineMs || done.count() > CONFIGURATIONS_MAX) return result('unknown');
    }
    const op = events.opOf[event] ?? 0;
    if (events.isCall(event)) {
      const candidate = at(known, op);
      const after = model.step(state, candidate.input, candidate.output);
      const forced = after === state && readOnly[op] === true;
      const fits = after !== undefined && !demands.robs(state, after, true, op);
      if (fits && done.enter(true, op, numberOf(after))) take(true, op, after, forced);
      else if (!forced) event = events.next[event] ?? HEAD;
      else if (!backtrack()) return result('not-linearizable');
      continue;
    }
    const candidate = unknown[unknownAt];
    if (candidate !== undefined && candidate.call <= at(known, op).return) {
      const after = mayHappen(unknownAt) ? model.step(state, candidate.input, undefined) : undefined;
      const useful = after !== undefined && after !== state && !demands.robs(state, after, false, unknownAt);
      if (useful && done.enter(false, unknownAt, numberOf(after))) {
        take(false, unknownAt, after, false);
      } else unknownAt++;
      continue;
    }
    if (path.length >= longest.length) {
      longest = path.map((frame) => at(frame.isKnown ? known : unknown, frame.op));
      stuck = events.callsBeforeFirstReturn().map((stuckOp) => at(known, stuckOp));
    }
    if (!backtrack()) return result('not-linearizable');
  }
  return { verdict: 'linearizable', steps, longest: [], stuck: [] };
}

/** Checks each key by itself, which is sound for linearizability; stops at the first that is not linearizable. */
export function checkPartitioned<State, Input, Output>(
  model: Model<State, Input, Output>,
  operations: readonly Operation<Input, Output>[],
  keyOf: (input: Input) => string,
  limits: CheckLimits,
): CheckResult<Input, Output> & { readonly key: string } {
  const deadlineMs = performance.now() + limits.timeLimitMs;
  const stepsMax = limits.stepsMax ?? Number.POSITIVE_INFINITY;
  let verdict: Verdict = 'linearizable';
  let steps = 0;
  for (const [key, part] of groupBy(operations, (op) => keyOf(op.input))) {
    const left = { timeLimitMs: deadlineMs - performance.now(), stepsMax: stepsMax - steps };
    const result = check(model, part, left);
    steps += result.steps;
    if (result.verdict === 'not-linearizable') return { ...result, steps, key };
    if (result.verdict === 'unknown') verdict = 'unknown';
  }
  return { verdict, steps, longest: [], stuck: [], key: '' };
}

interface Frame<State> {
  readonly isKnown: boolean;
  readonly op: number;
  readonly before: State;
  /** Taking it was no choice, so there is nothing else to try here. */
  readonly forced: boolean;
  readonly event: number;
  readonly unknownAt: number;
}

/** For each key, the place of the last equal one before it. */
function earlierTwins(keys: readonly string[]): number[] {
  const lastAt = new Map<string, number>();
  return keys.map((key, i) => {
    const twin = lastAt.get(key) ?? NONE;
    lastAt.set(key, i);
    return twin;
  });
}

/** Calls and returns as one doubly linked list in order of time, in which event 0 is the head. */
function linkEvents(known: readonly Operation<unknown, unknown>[]) {
  const count = known.length;
  const order = Array.from({ length: count * 2 }, (_, i) => i);
  const timeOf = (i: number) => (i < count ? at(known, i).call : at(known, i - count).return);
  order.sort((a, b) => timeOf(a) - timeOf(b) || a - b);
  const next = new Int32Array(count * 2 + 1);
  const previous = new Int32Array(count * 2 + 1);
  const opOf = new Int32Array(count * 2 + 1);
  const callOf = new Int32Array(count);
  const returnOf = new Int32Array(count);
  order.forEach((i, position) => {
    const event = position + 1;
    const op = i % count;
    next[position] = event;
    previous[event] = position;
    opOf[event] = op;
    (i < count ? callOf : returnOf)[op] = event;
  });
  const unlink = (event: number) => {
    const before = previous[event] ?? HEAD;
    const after = next[event] ?? HEAD;
    next[before] = after;
    if (after !== HEAD) previous[after] = before;
  };
  const relink = (event: number) => {
    const after = next[event] ?? HEAD;
    next[previous[event] ?? HEAD] = event;
    if (after !== HEAD) previous[after] = event;
  };
  const isCall = (event: number) => callOf[opOf[event] ?? 0] === event;
  return {
    next,
    opOf,
    isCall,
    lift(op: number) {
      unlink(callOf[op] ?? HEAD);
      unlink(returnOf[op] ?? HEAD);
    },
    unlift(op: number) {
      relink(returnOf[op] ?? HEAD);
      relink(callOf[op] ?? HEAD);
    },
    callsBeforeFirstReturn(): number[] {
      const ops: number[] = [];
      for (let event = next[HEAD] ?? HEAD; isCall(event); event = next[event] ?? HEAD) ops.push(opOf[event] ?? 0);
      return ops;
    },
  };
}

/**
 * Which operations are done, and every configuration seen. Known operations are done nearly in order of their calls, so
 * a configuration is told by how many lead the row unbroken, a short window of bits after those, the bits of the
 * unknown ones, and the state.
 */
function trackConfigurations(knownCount: number, unknownCount: number) {
  const known = new Uint16Array(Math.ceil(knownCount / 16) + 1);
  const unknown = new Uint16Array(Math.ceil(unknownCount / 16));
  const seen = new Set<string>();
  let doneKnown = 0;
  /** Words of `known` before this one are full. */
  let fullWords = 0;

  const flip = (isKnown: boolean, op: number) => {
    const words = isKnown ? known : unknown;
    const word = op >> 4;
    words[word] = (words[word] ?? 0) ^ (1 << (op & 15));
    if (!isKnown) return;
    const added = ((words[word] ?? 0) >> (op & 15)) & 1;
    doneKnown += added === 1 ? 1 : -1;
    if (added === 0) fullWords = Math.min(fullWords, word);
    else while (known[fullWords] === 0xffff) fullWords++;
  };
  const keyNow = (stateNumber: number): string => {
    let key = `${fullWords},${stateNumber},`;
    let bits = doneKnown - fullWords * 16;
    for (let word = fullWords; bits > 0; word++) {
      const value = known[word] ?? 0;
      key += String.fromCharCode(value);
      bits -= onesIn(value);
    }
    if (unknown.length > 0) key += `,${String.fromCharCode(...unknown)}`;
    return key;
  };
  return {
    has: (isKnown: boolean, op: number) => (((isKnown ? known : unknown)[op >> 4] ?? 0) & (1 << (op & 15))) !== 0,
    flip,
    /** Marks `op` done; false, and nothing is marked, where that configuration was seen before. */
    enter(isKnown: boolean, op: number, stateNumber: number): boolean {
      flip(isKnown, op);
      const key = keyNow(stateNumber);
      if (seen.has(key)) {
        flip(isKnown, op);
        return false;
      }
      seen.add(key);
      return true;
    },
    count: () => seen.size,
  };
}

function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const key = keyOf(item);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [item]);
    else group.push(item);
  }
  return groups;
}

function onesIn(word: number): number {
  let count = 0;
  for (let rest = word; rest !== 0; rest &= rest - 1) count++;
  return count;
}

function at<T>(list: readonly T[], index: number): T {
  const item = list[index];
  if (item === undefined) throw new RangeError(`no item ${index} among ${list.length}`);
  return item;
}
