import { seededRandom } from '../random.ts';
import type { MemcachedInput, MemcachedOperation, MemcachedOutput } from './memcached-model.ts';

export interface HistoryPlan {
  readonly count: number;
  readonly clients: number;
  readonly outcomesPerLostOne: number;
  readonly seed: number;
}

const KEY = 'k';
const reply = (text: string): MemcachedOutput => ({ kind: 'reply', text });

/**
 * What clients see of a perfect store of one key: each operation takes effect at some moment between its call and its
 * return, some outcomes are lost. The same seed gives the same history.
 */
export function perfectHistory(plan: HistoryPlan): MemcachedOperation[] {
  const { count, clients, outcomesPerLostOne, seed } = plan;
  const random = seededRandom(seed);
  const below = (limit: number) => Math.floor(random() * limit);
  const store = perfectStore(() => BigInt(1 + below(3)));
  const lastSeen = new Map<number, bigint>();
  const freeAt = new Array<number>(clients).fill(0);
  const moments = Array.from({ length: count }, (_, i) => {
    const client = i % clients;
    const call = (freeAt[client] ?? 0) + 1 + below(5);
    const effect = call + 1 + below(100);
    const end = effect + 1 + below(100);
    freeAt[client] = end;
    return { client, call, effect, end };
  }).sort((a, b) => a.effect - b.effect);
  return moments.map(({ client, call, end }, i) => {
    const input = chooseInput(below(12), `${i}`, lastSeen.get(client) ?? 0n);
    const output = store(input);
    if (output.kind === 'value' && output.unique !== null) lastSeen.set(client, output.unique);
    const lost = i % outcomesPerLostOne === outcomesPerLostOne - 1;
    return { client, input, output: lost ? undefined : output, call, return: end };
  });
}

function chooseInput(choice: number, value: string, unique: bigint): MemcachedInput {
  if (choice < 3) return { kind: 'get', key: KEY };
  if (choice < 5) return { kind: 'gets', key: KEY };
  if (choice < 7) return { kind: 'set', key: KEY, value };
  if (choice < 8) return { kind: 'add', key: KEY, value };
  if (choice < 9) return { kind: 'delete', key: KEY };
  if (choice < 10) return { kind: 'incr', key: KEY, delta: 7n };
  return { kind: 'cas', key: KEY, value, unique };
}

function perfectStore(uniqueStep: () => bigint): (input: MemcachedInput) => MemcachedOutput {
  let value: string | null = null;
  let unique = 0n;
  const write = (next: string, answer: string): MemcachedOutput => {
    value = next;
    unique += uniqueStep();
    return reply(answer);
  };
  return (input) => {
    switch (input.kind) {
      case 'get':
        return value === null ? { kind: 'miss' } : { kind: 'value', value, unique: null };
      case 'gets':
        return value === null ? { kind: 'miss' } : { kind: 'value', value, unique };
      case 'set':
        return write(input.value, 'STORED');
      case 'add':
        return value === null ? write(input.value, 'STORED') : reply('NOT_STORED');
      case 'append':
        return value === null ? reply('NOT_STORED') : write(value + input.value, 'STORED');
      case 'delete': {
        const found = value !== null;
        value = null;
        return reply(found ? 'DELETED' : 'NOT_FOUND');
      }
      case 'incr': {
        if (value === null) return reply('NOT_FOUND');
        const sum = (BigInt(value) + input.delta).toString();
        return write(sum, sum);
      }
      case 'cas':
        if (value === null) return reply('NOT_FOUND');
        return unique === input.unique ? write(input.value, 'STORED') : reply('EXISTS');
    }
  };
}
