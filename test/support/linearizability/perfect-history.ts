import { NaiveModel } from '../naive-model.ts';
import { Random } from '../random.ts';
import { type MemcachedInput, type MemcachedOperation, type MemcachedOutput, requestText } from './memcached-model.ts';

export interface HistoryPlan {
  readonly count: number;
  readonly clients: number;
  readonly outcomesPerLostOne: number;
  readonly seed: number;
}

const KEY = 'k';
const ITEM_BYTES_MAX = 1000;
const VALUE = /^VALUE \S+ \d+ \d+(?: (?<unique>\d+))?\r\n(?<value>.*)\r\nEND\r\n$/;

/**
 * What clients see of a perfect store of one key: each operation takes effect at some moment between its call and its
 * return, some outcomes are lost. The naive model answers, so a history that the checker rejects also shows where the
 * two models differ. The same seed gives the same history.
 */
export function perfectHistory(plan: HistoryPlan): MemcachedOperation[] {
  const { count, clients, outcomesPerLostOne, seed } = plan;
  const random = new Random(seed);
  const store = perfectStore(random);
  const lastSeen = new Map<number, number>();
  const freeAt = new Array<number>(clients).fill(0);
  const moments = Array.from({ length: count }, (_, i) => {
    const client = i % clients;
    const call = (freeAt[client] ?? 0) + 1 + random.below(5);
    const effect = call + 1 + random.below(100);
    const end = effect + 1 + random.below(100);
    freeAt[client] = end;
    return { client, call, effect, end };
  }).sort((a, b) => a.effect - b.effect);
  return moments.map(({ client, call, end }, i) => {
    const input = chooseInput(random.below(12), `${i}`, lastSeen.get(client) ?? 0);
    const output = store(input);
    if (output.kind === 'value' && output.unique !== null) lastSeen.set(client, output.unique);
    const lost = i % outcomesPerLostOne === outcomesPerLostOne - 1;
    return { client, input, output: lost ? undefined : output, call, return: end };
  });
}

function chooseInput(choice: number, value: string, unique: number): MemcachedInput {
  if (choice < 3) return { kind: 'get', key: KEY };
  if (choice < 5) return { kind: 'gets', key: KEY };
  if (choice < 7) return { kind: 'set', key: KEY, value };
  if (choice < 8) return { kind: 'add', key: KEY, value };
  if (choice < 9) return { kind: 'delete', key: KEY };
  if (choice < 10) return { kind: 'incr', key: KEY, delta: 7 };
  return { kind: 'cas', key: KEY, value, unique };
}

function perfectStore(random: Random): (input: MemcachedInput) => MemcachedOutput {
  const model = new NaiveModel(0, ITEM_BYTES_MAX);
  return (input) => {
    // Writes of another key, so that the uniques of this one have gaps.
    for (let i = random.below(3); i > 0; i--) model.converse(requestText({ kind: 'set', key: 'other', value: '' }));
    const reply = model.converse(requestText(input));
    const item = VALUE.exec(reply)?.groups;
    if (item !== undefined) {
      const { value = '', unique } = item;
      return { kind: 'value', value, unique: unique === undefined ? null : Number(unique) };
    }
    const text = reply.trimEnd();
    return text === 'END' ? { kind: 'miss' } : { kind: 'reply', text };
  };
}
