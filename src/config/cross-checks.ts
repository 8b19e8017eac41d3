import { z } from 'zod';
import type { Problem } from './problems.ts';
import { type Config, configSchema, nodeSchema } from './schema.ts';

/**
 * What no single field shows: fields that contradict each other. The checks read the raw configuration and pass over
 * what is itself invalid, so that one start reports every mistake.
 */

/** A lost heartbeat or two must not bring an election. */
const HEARTBEATS_PER_ELECTION_TIMEOUT_MIN = 3;
/** Room for the largest item beside its key, its headers and what else shares the space. */
const ITEMS_MIN = 2;

const PORT_KINDS = ['clientPort', 'peerPort', 'adminPort'] as const;

export function crossProblems(raw: unknown): Problem[] {
  const object = z.looseObject({}).safeParse(raw);
  if (!object.success) return [];
  const nodes = z.array(z.unknown()).safeParse(object.data['nodes']);
  return [...nodeProblems(nodes.success ? nodes.data : []), ...tunableProblems(object.data)];
}

/** Warns of settings that are allowed but most likely a mistake. */
export function crossWarnings(config: Config): string[] {
  const warnings: string[] = [];
  const count = config.nodes.length;
  if (count % 2 === 0) {
    const survived = count / 2 - 1;
    warnings.push(
      `nodes: ${count} nodes survive the loss of ${survived}, no more than ${count - 1} do; ` +
        `an odd number is better: ${count - 1} or ${count + 1}`,
    );
  }
  config.nodes.forEach(({ host }, i) => {
    if (count > 1 && (host === '0.0.0.0' || host === '::')) {
      warnings.push(`nodes[${i}].host: other machines cannot dial ${host}; name an address of this node`);
    }
  });
  const exposed = config.nodes.some(({ host }) => host !== 'localhost' && host !== '::1' && !host.startsWith('127.'));
  if (config.authFile !== undefined && exposed && (config.tls?.clients ?? 'plain') === 'plain') {
    warnings.push('authFile: without tls for clients, passwords and data are sent unencrypted');
  }
  const longestElectionWaitMs = 2 * config.electionTimeoutMs;
  if (config.requestTimeoutMs < longestElectionWaitMs) {
    warnings.push(
      `requestTimeoutMs: ${config.requestTimeoutMs} is less than twice electionTimeoutMs (${longestElectionWaitMs}): ` +
        'requests may time out during an election',
    );
  }
  return warnings;
}

function nodeProblems(nodes: readonly unknown[]): Problem[] {
  const problems: Problem[] = [];
  const fieldOfId = new Map<number, string>();
  const fieldOfAddress = new Map<string, string>();
  nodes.forEach((node, i) => {
    const object = z.looseObject({}).safeParse(node);
    if (!object.success) return;
    const id = nodeSchema.shape.id.safeParse(object.data['id']);
    if (id.success) {
      const other = fieldOfId.get(id.data);
      if (other !== undefined)
        problems.push({ path: ['nodes', i, 'id'], message: `is ${id.data}, the same as ${other}` });
      else fieldOfId.set(id.data, `nodes[${i}].id`);
    }
    const host = nodeSchema.shape.host.safeParse(object.data['host']);
    if (!host.success) return;
    for (const kind of PORT_KINDS) {
      const port = nodeSchema.shape[kind].safeParse(object.data[kind]);
      if (!port.success) continue;
      const address = `${canonicalHost(host.data)}:${port.data}`;
      const other = fieldOfAddress.get(address);
      if (other === undefined) fieldOfAddress.set(address, `nodes[${i}].${kind}`);
      else
        problems.push({ path: ['nodes', i, kind], message: `${host.data}:${port.data} is already used by ${other}` });
    }
  });
  return problems;
}

function canonicalHost(host: string): string {
  const lower = host.toLowerCase();
  return lower === 'localhost' ? '127.0.0.1' : lower;
}

function tunableProblems(raw: Readonly<Record<string, unknown>>): Problem[] {
  const { heartbeatIntervalMs, electionTimeoutMs } = configSchema.shape;
  const problems: Problem[] = [];
  const heartbeat = heartbeatIntervalMs.safeParse(raw['heartbeatIntervalMs']);
  const election = electionTimeoutMs.safeParse(raw['electionTimeoutMs']);
  if (heartbeat.success && election.success) {
    const least = HEARTBEATS_PER_ELECTION_TIMEOUT_MIN * heartbeat.data;
    if (election.data < least) {
      problems.push({
        path: ['electionTimeoutMs'],
        message:
          `must be at least ${HEARTBEATS_PER_ELECTION_TIMEOUT_MIN} times heartbeatIntervalMs (${least}), ` +
          `not ${election.data}: one lost heartbeat must not cause an election`,
      });
    }
  }
  const tls = configSchema.shape.tls.safeParse(raw['tls']);
  if (tls.success && (tls.data?.clientCert === undefined) !== (tls.data?.clientKey === undefined)) {
    problems.push({ path: ['tls'], message: 'must have both clientCert and clientKey, or neither' });
  }
  const limits = configSchema.shape.limits.safeParse(raw['limits']);
  if (!limits.success) return problems;
  const leastRoom = ITEMS_MIN * limits.data.itemBytesMax;
  for (const name of ['storeBytesMax', 'pendingWriteBytesMax'] as const) {
    const bytes = limits.data[name];
    if (bytes >= leastRoom) continue;
    problems.push({
      path: ['limits', name],
      message: `must be at least ${ITEMS_MIN} times limits.itemBytesMax (${leastRoom}), not ${bytes}`,
    });
  }
  return problems;
}
