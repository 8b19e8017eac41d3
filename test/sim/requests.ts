import { type MemcachedInput, requestText } from '../support/linearizability/memcached-model.ts';
import type { Random } from '../support/random.ts';
import type { KeyKind } from './history.ts';

/** What clients ask, and how it reads on the wire. */

export interface Request {
  readonly input: MemcachedInput;
  readonly text: string;
  /** The server answers nothing. */
  readonly silent: boolean;
  /** The item that this stores may vanish by itself. */
  readonly expires: boolean;
}

export interface Habits {
  readonly keys: number;
  readonly flushes: boolean;
  /** The present name of a key by its place. */
  readonly keyNamed: (place: string) => string;
}

/** Draws a request; `name` is used for no other. `unique` is the last that this client saw of the key. */
export function drawRequest(
  random: Random,
  habits: Habits,
  name: string,
  uniqueOf: (key: string) => number | undefined,
): Request {
  if (habits.flushes && random.chance(0.01)) return request({ kind: 'flush', key: '' });
  const kind: KeyKind = random.pick(['n', 'n', 's', 's', 's', 's', 't', 'x', 'x']);
  return drawFor(random, habits.keyNamed(`${kind}${random.below(habits.keys)}`), name, uniqueOf);
}

export function drawFor(
  random: Random,
  key: string,
  name: string,
  uniqueOf: (key: string) => number | undefined,
): Request {
  switch (key.charAt(0)) {
    case 'x':
      if (random.chance(0.15)) return request({ kind: 'add', key, value: '0' });
      return request(random.chance(0.8) ? { kind: 'incr', key, delta: 1 } : { kind: 'get', key });
    case 'n':
      return drawForNumber(random, key);
    case 't':
      return drawForExpiring(random, key, name);
    default:
      return drawForString(random, key, name, uniqueOf);
  }
}

function drawForNumber(random: Random, key: string): Request {
  const draw = random.below(10);
  if (draw < 4) return request({ kind: 'incr', key, delta: 1 + random.below(9) });
  if (draw < 6) return request({ kind: 'decr', key, delta: 1 + random.below(9) });
  if (draw < 9) return request({ kind: random.pick(['get', 'gets', 'gat']), key });
  return request({ kind: 'set', key, value: String(random.below(1000)) });
}

function drawForExpiring(random: Random, key: string, name: string): Request {
  const draw = random.below(10);
  const seconds = random.pick([1, 1, 2, 5, 60]);
  if (draw < 4) return { ...request({ kind: 'set', key, value: name }, seconds), expires: true };
  if (draw < 8) return request({ kind: 'get', key });
  // Whatever time it gets, all that is stored here may vanish at any time.
  if (draw < 9) return request({ kind: random.pick(['touch', 'gat', 'gats']), key }, random.pick([0, seconds]));
  return request({ kind: 'delete', key });
}

function drawForString(
  random: Random,
  key: string,
  name: string,
  uniqueOf: (key: string) => number | undefined,
): Request {
  const value = random.chance(0.25) ? `${name}${'-'.repeat(random.below(1500))}` : name;
  const draw = random.below(20);
  if (draw < 5) return request({ kind: 'get', key });
  if (draw < 8) return request({ kind: 'gets', key });
  if (draw < 11) return request({ kind: 'set', key, value });
  const unique = uniqueOf(key);
  if (draw < 14 && unique !== undefined) return request({ kind: 'cas', key, value, unique });
  if (draw < 15) return { ...request({ kind: 'set', key, value }), silent: true };
  const kind = random.pick(['add', 'replace', 'append', 'prepend', 'delete', 'touch', 'gat', 'gats'] as const);
  switch (kind) {
    case 'add':
    case 'replace':
      return request({ kind, key, value });
    case 'append':
    case 'prepend':
      return request({ kind, key, value: `,${name},` });
    default:
      return request({ kind, key });
  }
}

export function request(input: MemcachedInput, exptime = 0): Request {
  return { input, text: requestText(input, exptime), silent: false, expires: false };
}

/** As the wire has it, `noreply` where the request is silent. */
export function bytesOf({ text, silent }: Request): string {
  return silent ? text.replace('\r\n', ' noreply\r\n') : text;
}
