import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { check, checkPartitioned, type Model, type Operation } from './checker.ts';
import {
  type MemcachedInput,
  type MemcachedOperation,
  type MemcachedOutput,
  memcachedModel,
} from './memcached-model.ts';
import { type RegisterInput, type RegisterOutput, registerModel } from './models.ts';
import { perfectHistory } from './perfect-history.ts';

const LIMITS = { timeLimitMs: 5_000 };
type RegisterOperation = Operation<RegisterInput, RegisterOutput>;

const write = (value: number): RegisterInput => ({ kind: 'write', value });
const read: RegisterInput = { kind: 'read' };
let clients = 0;
const op = (
  input: RegisterInput,
  output: RegisterOutput | undefined,
  call: number,
  back: number,
): RegisterOperation => ({
  client: clients++,
  input,
  output,
  call,
  return: back,
});
const verdictOf = (...history: RegisterOperation[]) => check(registerModel, history, LIMITS).verdict;

describe('linearizability checker', () => {
  it('accepts the empty history', () => expect(verdictOf()).toBe('linearizable'));

  it('accepts a read that overlaps a write and sees either value', () => {
    for (const seen of [1, 2]) {
      expect(verdictOf(op(write(1), true, 0, 1), op(write(2), true, 2, 6), op(read, seen, 3, 4))).toBe('linearizable');
    }
  });

  it('refuses a stale read after the write has returned', () => {
    expect(verdictOf(op(write(1), true, 0, 1), op(write(2), true, 2, 3), op(read, 1, 4, 5))).toBe('not-linearizable');
  });

  it('refuses two reads that see a write come and go', () => {
    const history = [op(write(1), true, 0, 1), op(write(2), true, 2, 9), op(read, 2, 3, 4), op(read, 1, 5, 6)];
    expect(verdictOf(...history)).toBe('not-linearizable');
  });

  it('lets a write of unknown outcome take effect late, or never, but not before its call', () => {
    const unknown = op(write(2), undefined, 2, Number.POSITIVE_INFINITY);
    expect(verdictOf(op(write(1), true, 0, 1), unknown, op(read, 1, 3, 4), op(read, 2, 5, 6))).toBe('linearizable');
    expect(verdictOf(op(write(1), true, 0, 1), unknown, op(read, 1, 3, 4))).toBe('linearizable');
    expect(verdictOf(op(read, 2, 0, 1), unknown)).toBe('not-linearizable');
    const twice = [op(read, 2, 3, 4), op(write(1), true, 5, 6), op(read, 2, 7, 8)];
    expect(verdictOf(unknown, ...twice)).toBe('not-linearizable');
  });

  it('lets only one cas from the same value win', () => {
    const cas = (to: number): RegisterInput => ({ kind: 'cas', from: 1, to });
    const first = op(write(1), true, 0, 1);
    expect(verdictOf(first, op(cas(2), true, 2, 5), op(cas(3), false, 2, 5))).toBe('linearizable');
    expect(verdictOf(first, op(cas(2), true, 2, 5), op(cas(3), true, 2, 5))).toBe('not-linearizable');
    expect(verdictOf(first, op(cas(2), false, 2, 5))).toBe('not-linearizable');
  });

  it('names what could not be ordered', () => {
    const impossible = op(read, 3, 4, 5);
    const result = check(registerModel, [op(write(1), true, 0, 1), op(write(2), true, 2, 3), impossible], LIMITS);
    expect(result.stuck).toEqual([impossible]);
    expect(result.longest).toHaveLength(2);
  });

  it('gives up, saying so, when its time is over', () => {
    const history = Array.from({ length: 40 }, (_, i) => op(write(i), true, 0, 100));
    history.push(op(read, 99, 101, 102));
    expect(check(registerModel, history, { timeLimitMs: 100 }).verdict).toBe('unknown');
  });

  it('gives up after its steps, over all keys', () => {
    const hard = Array.from({ length: 40 }, (_, i) => op(write(i), true, 0, 100));
    hard.push(op(read, 99, 101, 102));
    const isEasy = (input: RegisterInput) => input.kind === 'write' && input.value >= 40;
    const easy = Array.from({ length: 10 }, (_, i) => op(write(40 + i), true, i, i));
    const limits = { timeLimitMs: Number.POSITIVE_INFINITY, stepsMax: 5000 };
    const result = checkPartitioned(registerModel, [...easy, ...hard], (input) => `${isEasy(input)}`, limits);
    expect(result.verdict).toBe('unknown');
    expect(result.steps).toBe(limits.stepsMax);
  });

  it('agrees with trying every order', () => {
    const valueArbitrary = fc.nat({ max: 1 });
    const inputArbitrary = fc.oneof(
      fc.constant(read),
      valueArbitrary.map(write),
      fc.tuple(valueArbitrary, valueArbitrary).map(([from, to]): RegisterInput => ({ kind: 'cas', from, to })),
    );
    const opArbitrary = fc
      .tuple(inputArbitrary, fc.nat({ max: 9 }), fc.nat({ max: 5 }), fc.nat({ max: 3 }), fc.nat({ max: 2 }))
      .map(([input, call, length, seen, known]) => {
        const output = input.kind === 'read' ? (seen === 3 ? null : seen % 2) : input.kind === 'write' || seen > 1;
        return op(input, known > 0 ? output : undefined, call, call + length);
      });
    const counts = { linearizable: 0, 'not-linearizable': 0, unknown: 0 };
    fc.assert(
      fc.property(fc.array(opArbitrary, { maxLength: 7 }), (history) => {
        const { verdict } = check(registerModel, history, LIMITS);
        counts[verdict]++;
        expect(verdict).toBe(someOrderFits(registerModel, history) ? 'linearizable' : 'not-linearizable');
      }),
      { numRuns: 5000 },
    );
    expect(Math.min(counts.linearizable, counts['not-linearizable'])).toBeGreaterThan(100);
  });
});

/** Tries every order by brute force. */
function someOrderFits<S, I, O>(
  model: Model<S, I, O>,
  history: readonly Operation<I, O>[],
  state = model.init(),
): boolean {
  if (history.every((candidate) => candidate.output === undefined)) return true;
  return history.some((candidate) => {
    const rest = history.filter((other) => other !== candidate);
    if (rest.some((other) => other.output !== undefined && other.return < candidate.call)) return false;
    const after = model.step(state, candidate.input, candidate.output);
    return after !== undefined && someOrderFits(model, rest, after);
  });
}

describe('memcached model', () => {
  it('accepts thousands of operations on one key, a dozen at a time, some with lost outcomes, quickly', () => {
    const history = perfectHistory({ count: 5000, clients: 12, outcomesPerLostOne: 500, seed: 1 });
    const startedMs = performance.now();
    expect(checkPartitioned(memcachedModel, history, (input) => input.key, LIMITS).verdict).toBe('linearizable');
    expect(performance.now() - startedMs).toBeLessThan(4000);
  });

  it('notices one wrong answer among thousands', () => {
    const history = perfectHistory({ count: 1000, clients: 10, outcomesPerLostOne: 200, seed: 2 });
    const at = history.findIndex((o, i) => i > 500 && o.input.kind === 'get' && o.output?.kind === 'value');
    const wrong = history.with(at, {
      ...(history[at] as MemcachedOperation),
      output: { kind: 'value', value: 'never written', unique: null },
    });
    expect(check(memcachedModel, wrong, LIMITS).verdict).toBe('not-linearizable');
  });

  it('notices a lost acknowledged increment', () => {
    const incr = (text: string, call: number): MemcachedOperation => ({
      client: 1,
      input: { kind: 'incr', key: 'k', delta: 1 },
      output: { kind: 'reply', text },
      call,
      return: call + 1,
    });
    const set: MemcachedOperation = {
      client: 1,
      input: { kind: 'set', key: 'k', value: '0' },
      output: { kind: 'reply', text: 'STORED' },
      call: 0,
      return: 1,
    };
    expect(check(memcachedModel, [set, incr('1', 2), incr('2', 4)], LIMITS).verdict).toBe('linearizable');
    expect(check(memcachedModel, [set, incr('1', 2), incr('1', 4)], LIMITS).verdict).toBe('not-linearizable');
    expect(check(memcachedModel, [set, incr('1', 2), incr('3', 4)], LIMITS).verdict).toBe('not-linearizable');
  });

  it('holds a cas to the unique that was read', () => {
    const reply = (text: string): MemcachedOutput => ({ kind: 'reply', text });
    const sequence = (...steps: [MemcachedInput, MemcachedOutput][]) =>
      check(
        memcachedModel,
        steps.map(([input, output], i) => ({ client: 1, input, output, call: i * 2, return: i * 2 + 1 })),
        LIMITS,
      ).verdict;
    const key = 'k';
    const set: [MemcachedInput, MemcachedOutput] = [{ kind: 'set', key, value: 'a' }, reply('STORED')];
    const gets = (value: string, unique: number): [MemcachedInput, MemcachedOutput] => [
      { kind: 'gets', key },
      { kind: 'value', value, unique },
    ];
    const cas = (unique: number, text: string): [MemcachedInput, MemcachedOutput] => [
      { kind: 'cas', key, value: 'b', unique },
      reply(text),
    ];
    expect(sequence(set, gets('a', 5), cas(5, 'STORED'), gets('b', 6))).toBe('linearizable');
    expect(sequence(set, gets('a', 5), set, cas(5, 'EXISTS'))).toBe('linearizable');
    expect(sequence(set, gets('a', 5), set, cas(5, 'STORED'))).toBe('not-linearizable');
    expect(sequence(set, gets('a', 5), cas(5, 'EXISTS'))).toBe('not-linearizable');
    expect(sequence(set, gets('a', 5), set, gets('a', 5))).toBe('not-linearizable');
    expect(sequence(set, gets('a', 5), gets('a', 6))).toBe('not-linearizable');
  });
});
