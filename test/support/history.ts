import type { Cluster } from './cluster.ts';
import {
  type MemcachedInput,
  type MemcachedOperation,
  type MemcachedOutput,
  requestText,
} from './linearizability/memcached-model.ts';
import { type Load, startLoad } from './load.ts';
import { type MemcachedClient, OutcomeUnknown } from './memcached-client.ts';
import { seededRandom } from './random.ts';

/**
 * Records what clients see of a cluster, for the linearizability checker: each client draws a key and an operation, and
 * records the moments before it sends and after it has the reply. A reply that says that the outcome is unknown, or a
 * connection that breaks, leaves the outcome open.
 */
export interface Recording {
  readonly load: Load;
  /** Ends the clients and gives the history. */
  finish(): Promise<MemcachedOperation[]>;
}

export interface RecordingOptions {
  readonly clients: number;
  /** Keys whose values are text, and keys that only count. */
  readonly textKeys: number;
  readonly counterKeys: number;
  readonly seed: number;
  /** Keeps the keys of one history apart from those of another on the same cluster. */
  readonly keyPrefix: string;
  readonly pauseBetweenRequestsMs?: number;
}

type Random = () => number;

/** Clients that change nodes see what one node knows and another does not yet; and they never all sit on one node. */
const REQUESTS_PER_CONNECTION = 30;

export function record(cluster: Cluster, options: RecordingOptions): Recording {
  const history: MemcachedOperation[] = [];
  /** One clock for all clients: they share this process, so the order of these numbers is the order of events. */
  let moment = 0;
  const randoms = Array.from({ length: options.clients }, (_, i) => seededRandom(options.seed * 1000 + i));
  /** The unique each client last read of each key. */
  const seen = new Map<string, number>();

  const load = startLoad(cluster, {
    clients: options.clients,
    pauseBetweenRequestsMs: options.pauseBetweenRequestsMs ?? 0,
    requestsPerConnection: REQUESTS_PER_CONNECTION,
    async request(client, clientNumber, round) {
      const random = randoms[clientNumber] ?? Math.random;
      const input = chooseInput(random, options, `${clientNumber}.${round}`, (key) =>
        seen.get(`${clientNumber} ${key}`),
      );
      const call = ++moment;
      try {
        const output = await send(client, input);
        history.push({ client: clientNumber, input, output, call, return: ++moment });
        if (output?.kind === 'value' && output.unique !== null) seen.set(`${clientNumber} ${input.key}`, output.unique);
      } catch (error) {
        if (error instanceof OutcomeUnknown) {
          history.push({ client: clientNumber, input, output: undefined, call, return: Number.POSITIVE_INFINITY });
        }
        throw error;
      }
    },
  });
  return {
    load,
    async finish() {
      await load.stop();
      return history;
    },
  };
}

function chooseInput(
  random: Random,
  { textKeys, counterKeys, keyPrefix }: RecordingOptions,
  token: string,
  uniqueOf: (key: string) => number | undefined,
): MemcachedInput {
  const below = (limit: number) => Math.floor(random() * limit);
  const keyNumber = below(textKeys + counterKeys);
  if (keyNumber >= textKeys) {
    const key = `${keyPrefix}counter${keyNumber - textKeys}`;
    const choice = below(20);
    if (choice < 12) return { kind: 'incr', key, delta: 1 + below(3) };
    return choice < 18 ? { kind: 'get', key } : { kind: 'add', key, value: '0' };
  }
  const key = `${keyPrefix}text${keyNumber}`;
  const choice = below(20);
  if (choice < 7) return { kind: 'get', key };
  if (choice < 10) return { kind: 'gets', key };
  if (choice < 13) return { kind: 'set', key, value: `s${token}` };
  if (choice < 14) return { kind: 'add', key, value: `a${token}` };
  if (choice < 16) return { kind: 'append', key, value: `,${token}` };
  if (choice < 17) return { kind: 'delete', key };
  const unique = uniqueOf(key);
  return unique === undefined ? { kind: 'gets', key } : { kind: 'cas', key, value: `c${token}`, unique };
}

async function send(client: MemcachedClient, input: MemcachedInput): Promise<MemcachedOutput | undefined> {
  const { key } = input;
  switch (input.kind) {
    case 'get': {
      const value = await client.get(key);
      return value === null ? { kind: 'miss' } : { kind: 'value', value, unique: null };
    }
    case 'gets': {
      const [item] = await client.gets(key);
      // Far below 2^53: the uniques of these histories come from the counter of the store.
      return item === undefined ? { kind: 'miss' } : { kind: 'value', value: item.value, unique: Number(item.unique) };
    }
    case 'gat':
    case 'gats':
      throw new RangeError('these histories have no expiry');
    default:
      return replyOf(await client.request(requestText(input)));
  }
}

function replyOf(text: string): MemcachedOutput {
  if (text.endsWith('outcome unknown')) throw new OutcomeUnknown(text);
  if (text.includes('ERROR')) throw new Error(text);
  return { kind: 'reply', text };
}
