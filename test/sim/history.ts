import { checkPartitioned } from '../support/linearizability/checker.ts';
import {
  type MemcachedInput,
  type MemcachedOperation,
  type MemcachedOutput,
  memcachedModel,
} from '../support/linearizability/memcached-model.ts';
import type { World } from './world.ts';

/**
 * All that the clients saw, and the keys that they share. A key on which too many outcomes are unknown, or too much has
 * happened, is left for a fresh one of its kind: the time that a verdict takes grows with the first steeply.
 */

/** What is done with a key: `n` numbers up and down, `s` strings, `t` with expiry, `x` counted up only. */
export type KeyKind = 'n' | 's' | 't' | 'x';
const KINDS: readonly KeyKind[] = ['n', 's', 't', 'x'];

const UNKNOWN_PER_KEY_MAX = 5;
const OPERATIONS_PER_KEY_MAX = 120;
/** Of the search for an order, for one history: about two seconds. Nearly all need a few thousand, none was seen to need a tenth. */
const STEPS_MAX = 500_000;

interface KeyUse {
  readonly name: string;
  operations: number;
  unknown: number;
  /** For `x`: what was acknowledged, and what may have been counted besides. */
  counted: number;
  countedPerhaps: number;
}

export class History {
  replies = 0;
  unknown = 0;
  /** Writes that were refused because no disk had room. */
  refused = 0;
  /** The store was emptied: what was counted is gone. */
  flushed = false;
  readonly #world: World;
  readonly #operations: MemcachedOperation[] = [];
  readonly #flushes: MemcachedOperation[] = [];
  readonly #keys = new Map<string, KeyUse>();
  readonly #current = new Map<string, KeyUse>();

  constructor(world: World, keysOfEachKind: number) {
    this.#world = world;
    for (const kind of KINDS) for (let i = 0; i < keysOfEachKind; i++) this.#renew(`${kind}${i}`);
  }

  get length(): number {
    return this.#operations.length;
  }

  /** The name that the key of this place has now. */
  keyNamed(place: string): string {
    return this.#current.get(place)?.name ?? place;
  }

  /** Every name that a shared key has had. */
  allKeys(): string[] {
    return [...this.#keys.keys()];
  }

  /** An operation is over; without an output its outcome is unknown. */
  record(client: number, input: MemcachedInput, output: MemcachedOutput | undefined, call: number): void {
    const operation = { client, input, output, call, return: this.#world.nextMoment() };
    if (output === undefined) this.unknown++;
    if (input.kind === 'flush') {
      this.flushed = true;
      this.#flushes.push(operation);
      return;
    }
    this.#operations.push(operation);
    const use = this.#keys.get(input.key);
    if (use === undefined) return;
    use.operations++;
    if (output === undefined) use.unknown++;
    if (input.kind === 'incr' && output === undefined) use.countedPerhaps += input.delta;
    if (input.kind === 'incr' && output?.kind === 'reply' && /^\d+$/.test(output.text)) use.counted += input.delta;
    if (use.unknown < UNKNOWN_PER_KEY_MAX && use.operations < OPERATIONS_PER_KEY_MAX) return;
    const place = input.key.split('.')[0] ?? '';
    if (this.keyNamed(place) === input.key) this.#renew(place);
  }

  /** The item that holds this value may vanish at any time from `call` on. */
  mayExpire(client: number, key: string, value: string, call: number): void {
    this.#operations.push({ client, input: { kind: 'expire', key, value }, output: undefined, call, return: call });
  }

  /** Each counter must hold what was acknowledged, and no more than what may have been counted. */
  checkCounters(countIn: (key: string) => number): void {
    if (this.flushed) return;
    for (const { name, counted, countedPerhaps } of this.#keys.values()) {
      if (!name.startsWith('x')) continue;
      const value = countIn(name);
      if (value >= counted && value <= counted + countedPerhaps) continue;
      const sum = `${counted} were acknowledged and ${countedPerhaps} may have been`;
      this.#world.fail('exactly once', `counter ${name} stands at ${value}; ${sum}`);
    }
  }

  /** False where no verdict was found in time. */
  judge(): boolean {
    // A flush is one operation on every key; each key is judged by itself.
    const flushes = [...new Set(this.#operations.map(({ input }) => input.key))].flatMap((key) =>
      this.#flushes.map((flush): MemcachedOperation => ({ ...flush, input: { kind: 'flush', key } })),
    );
    const operations = [...this.#operations, ...flushes];
    const limits = { timeLimitMs: Number.POSITIVE_INFINITY, stepsMax: STEPS_MAX };
    const result = checkPartitioned(memcachedModel, operations, (input) => input.key, limits);
    if (result.verdict === 'not-linearizable') {
      const last = result.longest.slice(-6).map((operation) => JSON.stringify(operation));
      const stuck = result.stuck.map((operation) => JSON.stringify(operation));
      const message = `key ${result.key}: after\n  ${last.join('\n  ')}\nnone fits of\n  ${stuck.join('\n  ')}`;
      this.#world.fail('linearizability', message);
    }
    return result.verdict !== 'unknown';
  }

  #renew(place: string): void {
    const generation = this.#keys.size;
    const use = { name: `${place}.${generation}`, operations: 0, unknown: 0, counted: 0, countedPerhaps: 0 };
    this.#keys.set(use.name, use);
    this.#current.set(place, use);
  }
}
