import type { Cluster } from './cluster.ts';
import { connect, type MemcachedClient, OutcomeUnknown } from './memcached-client.ts';

/**
 * Many clients at once, each in a loop of one request after the other, kept up through kills: a client whose connection
 * breaks records that the outcome is unknown, and goes on at a node that it may use.
 */
export interface Load {
  /** What went wrong in the eyes of a client: replies that are no success. Lost connections are no errors. */
  readonly errors: readonly string[];
  readonly acknowledged: readonly Acknowledgement[];
  /** Requests whose outcome a client does not know. */
  readonly unknown: () => number;
  /** Resolves when no client has a connection to these nodes any more; each finishes its request first. */
  avoid(...ids: number[]): Promise<void>;
  /** Resolves when that many more requests have been acknowledged. */
  progress(count: number): Promise<void>;
  /** Lets each client finish its request, and ends them. */
  stop(): Promise<void>;
}

export interface Acknowledgement {
  readonly client: number;
  readonly node: number;
  readonly sentMs: number;
  readonly doneMs: number;
}

export interface LoadOptions {
  readonly clients: number;
  /** One request; throws an Error where the reply is wrong, and lets OutcomeUnknown pass. */
  request(client: MemcachedClient, clientNumber: number, round: number): Promise<void>;
  readonly pauseBetweenRequestsMs?: number;
  /** After so many a client moves on to another node. */
  readonly requestsPerConnection?: number;
}

const RECONNECT_MS = 10;
/** A hundred errors tell as much as a million. */
const ERRORS_MAX = 100;

export function startLoad(cluster: Cluster, options: LoadOptions): Load {
  const { clients, request, pauseBetweenRequestsMs = 0, requestsPerConnection = Infinity } = options;
  const errors: string[] = [];
  const acknowledged: Acknowledgement[] = [];
  let unknown = 0;
  let stopping = false;
  let avoided: readonly number[] = [];
  const nodeOf = new Map<number, number>();
  const waiters = new Set<() => void>();
  const changed = () => {
    for (const waiter of waiters) waiter();
  };
  const when = (holds: () => boolean) =>
    new Promise<void>((resolve) => {
      const look = () => {
        if (!holds()) return;
        waiters.delete(look);
        resolve();
      };
      waiters.add(look);
      look();
    });

  const chooseNode = (clientNumber: number, attempt: number): number | undefined => {
    const usable = cluster.running().filter((id) => !avoided.includes(id));
    return usable[(clientNumber + attempt) % usable.length];
  };
  const openAt = async (id: number): Promise<MemcachedClient | null> => {
    try {
      return await connect(cluster.node(id).clientPort);
    } catch {
      return null;
    }
  };
  const runOn = async (
    client: MemcachedClient,
    node: number,
    clientNumber: number,
    round: number,
  ): Promise<boolean> => {
    const sentMs = performance.now();
    try {
      await request(client, clientNumber, round);
      acknowledged.push({ client: clientNumber, node, sentMs, doneMs: performance.now() });
      return true;
    } catch (error) {
      if (error instanceof OutcomeUnknown) unknown++;
      else if (errors.length < ERRORS_MAX) errors.push(`client ${clientNumber} at node ${node}: ${error}`);
      return !(error instanceof OutcomeUnknown);
    } finally {
      changed();
    }
  };
  const runClient = async (clientNumber: number) => {
    for (let round = 0, attempt = 0; !stopping; attempt++) {
      const node = chooseNode(clientNumber, attempt);
      const client = node === undefined ? null : await openAt(node);
      if (client === null || node === undefined) {
        await sleep(RECONNECT_MS);
        continue;
      }
      nodeOf.set(clientNumber, node);
      const staysUntil = round + requestsPerConnection;
      while (!stopping && round < staysUntil && !avoided.includes(node)) {
        if (!(await runOn(client, node, clientNumber, round++))) break;
        if (pauseBetweenRequestsMs > 0) await sleep(pauseBetweenRequestsMs);
      }
      client.destroy();
      nodeOf.delete(clientNumber);
      changed();
    }
  };
  const loops = Array.from({ length: clients }, (_, clientNumber) => runClient(clientNumber));
  return {
    errors,
    acknowledged,
    unknown: () => unknown,
    avoid(...ids) {
      avoided = ids;
      return when(() => [...nodeOf.values()].every((node) => !ids.includes(node)));
    },
    progress(count) {
      const target = acknowledged.length + count;
      return when(() => acknowledged.length >= target);
    },
    async stop() {
      stopping = true;
      await Promise.all(loops);
    },
  };
}

/** Every write of its own key, remembered once acknowledged. */
export function startKeyedLoad(cluster: Cluster, prefix: string, options: { clients: number; pauseMs?: number }) {
  const stored = new Map<string, string>();
  const load = startLoad(cluster, {
    clients: options.clients,
    pauseBetweenRequestsMs: options.pauseMs ?? 0,
    async request(client, number, round) {
      const key = `${prefix}.${number}.${round}`;
      const reply = await client.set(key, `value of ${key}`);
      if (reply !== 'STORED') throw new Error(`${key}: ${reply}`);
      stored.set(key, `value of ${key}`);
    },
  });
  return { load, stored };
}

/** The longest time between two acknowledgements that one of these clients saw between the moments. */
export function longestPauseMs(
  acknowledged: readonly Acknowledgement[],
  from: number,
  to: number,
  counts: (acknowledgement: Acknowledgement) => boolean,
): number {
  const lastMs = new Map<number, number>();
  let longest = 0;
  for (const one of acknowledged) {
    if (one.doneMs < from || one.doneMs > to || !counts(one)) continue;
    longest = Math.max(longest, one.doneMs - (lastMs.get(one.client) ?? one.doneMs));
    lastMs.set(one.client, one.doneMs);
  }
  return longest;
}

function sleep(delayMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, delayMs));
}
