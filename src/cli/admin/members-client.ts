import { RaftkvError } from '../../base/errors.ts';
import { findNode } from '../../config/load.ts';
import type { Config } from '../../config/schema.ts';
import type { MemberChange } from '../../raft/state/types.ts';
import type { FailureBody } from '../../server/admin/answers.ts';
import type { MembersBody, NotLeaderBody } from '../../server/admin/members.ts';
import { type AdminAddress, type AdminTarget, explainFailure, readText, requestAdmin } from './admin-client.ts';

/**
 * Asks about members, and changes them, at the leader. Any node says who that is.
 *
 *   node 1 ✗ nothing listens there   node 2 → node 3 leads   node 3 ✓   … all ✗ → a moment later again
 *
 * A node that does not lead says which node does. The address of that node comes from the operator's configuration; from
 * the answer only if the configuration does not list the node. Whether there is TLS is for the configuration alone to say.
 * If there is, a change is sent only to a server with the certificate of the node that was named, in this cluster. Without
 * TLS no server proves who it is. Admin ports take no passwords.
 */

const VIEW_MS_MAX = 5_000;
/** On top of the time within which the cluster itself answers a change. */
const CHANGE_MS_EXTRA = 2_000;
/** Far above fifteen members. */
const ANSWER_BYTES_MAX = 256 * 1024;
/** Nodes asked in one pass, those included that only other nodes named: above the most members that a cluster can have. */
const ASKED_MAX = 32;
/** For so long a command repeats its request while no leader is known: several elections. */
const PATIENCE_MS = 10_000;
const RETRY_MS = 250;

export interface MembersClient {
  /** @throws RaftkvError QUORUM_LOST, PEER_UNREACHABLE */
  view(): Promise<MembersBody>;
  /** Resolves once the change is committed. @throws RaftkvError MEMBER_CHANGE_REFUSED, and as `view`. */
  change(change: MemberChange): Promise<void>;
}

export interface MembersClientOptions {
  readonly config: Pick<Config, 'cluster' | 'requestTimeoutMs' | 'nodes'>;
  /** To be asked in this order, until the leader answers. */
  readonly nodes: readonly AdminAddress[];
  readonly tls: AdminTarget['tls'];
  /** For so long a command repeats its request while no node answers. */
  readonly patienceMs?: number;
}

/**
 * `down`: no process listens there. `away`: one does, and may answer in a moment. `notLeader`: it did nothing, and named
 * the leader.
 */
type Attempt =
  | { readonly kind: 'answered'; readonly body: unknown }
  | { readonly kind: 'refused'; readonly error: RaftkvError }
  | { readonly kind: 'down' | 'away'; readonly why: string }
  | { readonly kind: 'notLeader'; readonly why: string; readonly leader: NonNullable<NotLeaderBody['leader']> };

interface Question {
  readonly path: string;
  readonly post?: string;
  readonly msMax: number;
}

export function createMembersClient(options: MembersClientOptions): MembersClient {
  const { config, nodes, tls, patienceMs = PATIENCE_MS } = options;
  /** The node that answered last is asked first. */
  let order = [...nodes];

  /** The operator's own addresses take precedence: another node may know an address that leads elsewhere from here. */
  const addressOf = ({ id, address }: NonNullable<NotLeaderBody['leader']>): AdminAddress | null =>
    findNode(config, id) ?? (address && { id, ...address });

  /**
   * One pass over all nodes, and the leaders that they name, each once: two nodes that name each other end it.
   * `uncertain` is called where one may have done what it was asked and not said so.
   */
  const askAll = async (question: Question, uncertain: () => void): Promise<Attempt> => {
    const failures: string[] = [];
    const asked = new Set<number>();
    let someAway = false;
    const toAsk = [...order];
    for (let node = toAsk.shift(); node !== undefined && asked.size < ASKED_MAX; node = toAsk.shift()) {
      if (asked.has(node.id)) continue;
      asked.add(node.id);
      const attempt = await ask({ node, cluster: config.cluster, tls }, question);
      if (attempt.kind === 'answered' || attempt.kind === 'refused') {
        const answering = node;
        order = [answering, ...nodes.filter(({ id }) => id !== answering.id)];
        return attempt;
      }
      failures.push(`  node ${node.id} (${node.host}:${node.adminPort}): ${attempt.why}`);
      if (attempt.kind === 'away') uncertain();
      if (attempt.kind !== 'down') someAway = true;
      const leader = attempt.kind === 'notLeader' ? addressOf(attempt.leader) : null;
      if (leader !== null) toAsk.unshift(leader);
    }
    return { kind: someAway ? 'away' : 'down', why: failures.join('\n') };
  };

  const askPatiently = async (question: Question, uncertain: () => void): Promise<Attempt> => {
    const untilMs = performance.now() + patienceMs;
    for (;;) {
      const attempt = await askAll(question, uncertain);
      if (attempt.kind !== 'away' || performance.now() >= untilMs) return attempt;
      await pause(RETRY_MS);
    }
  };

  const client: MembersClient = {
    async view() {
      const attempt = await askPatiently({ path: '/members', msMax: VIEW_MS_MAX }, () => {});
      const body = bodyOf(attempt);
      if (isMembersBody(body)) return body;
      throw new RaftkvError(
        'PEER_UNREACHABLE',
        'the server at the admin port is not a raftkv node that supports membership changes',
      );
    },
    async change(change) {
      let uncertain = false;
      const msMax = config.requestTimeoutMs + CHANGE_MS_EXTRA;
      const attempt = await askPatiently({ path: '/members', post: JSON.stringify(change), msMax }, () => {
        uncertain = true;
      });
      // An earlier attempt may have succeeded without an answer, so this one is refused.
      if (attempt.kind === 'refused' && uncertain && tookPlace(await client.view(), change)) return;
      bodyOf(attempt);
    },
  };
  return client;
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Whether the members are, or become, as the change asks. */
export function tookPlace({ members }: Pick<MembersBody, 'members'>, change: MemberChange): boolean {
  const member = members.find(({ id }) => id === change.id);
  if (change.op === 'remove') return member === undefined;
  if (member === undefined) return false;
  if (change.op === 'promote') return member.role === 'voter';
  const leftBehind = change.replaces !== 0 && members.some(({ id }) => id === change.replaces);
  if (member.role === 'voter') return change.joins && !leftBehind;
  return member.joins === change.joins && member.replaces === change.replaces;
}

async function ask(target: AdminTarget, { path, post, msMax }: Question): Promise<Attempt> {
  let status: number;
  let body: unknown;
  try {
    const signal = AbortSignal.timeout(msMax);
    const response = await requestAdmin(target, { path, signal, ...(post === undefined ? {} : { post }) });
    status = response.statusCode ?? 0;
    body = JSON.parse(await readText(response, ANSWER_BYTES_MAX));
  } catch (error) {
    const isDown = error instanceof Error && 'code' in error && error.code === 'ECONNREFUSED';
    return { kind: isDown ? 'down' : 'away', why: explainFailure(error, msMax) };
  }
  if ((isNotLeaderBody(body) || isMembersBody(body)) && body.cluster !== target.cluster)
    return { kind: 'down', why: `the server is node ${body.nodeId} of cluster ${body.cluster}` };
  if (status === 200) return { kind: 'answered', body };
  if (isNotLeaderBody(body) && body.leader !== null) {
    return { kind: 'notLeader', why: body.error, leader: body.leader };
  }
  if (!isFailureBody(body))
    return { kind: 'down', why: `unexpected HTTP status ${status}: the server is not a raftkv node` };
  if (status === 503) return { kind: 'away', why: body.error };
  return { kind: 'refused', error: new RaftkvError('MEMBER_CHANGE_REFUSED', body.error, body.remedy) };
}

function bodyOf(attempt: Attempt): unknown {
  switch (attempt.kind) {
    case 'answered':
      return attempt.body;
    case 'refused':
      throw attempt.error;
    case 'away':
    case 'notLeader':
      throw new RaftkvError(
        'QUORUM_LOST',
        `the cluster did not respond:\n${attempt.why}`,
        'Members can be listed and changed only while a majority of them is up: `raftkv status` shows which are.',
      );
    case 'down':
      throw new RaftkvError(
        'PEER_UNREACHABLE',
        `no node can be reached:\n${attempt.why}`,
        'Start the nodes, or pass with --config the file that lists the running ones.',
      );
  }
}

function isMembersBody(value: unknown): value is MembersBody {
  if (typeof value !== 'object' || value === null) return false;
  return 'cluster' in value && 'members' in value && Array.isArray(value.members) && 'lastIndex' in value;
}

function isNotLeaderBody(value: unknown): value is NotLeaderBody {
  if (!isFailureBody(value) || value.code !== 'NOT_LEADER') return false;
  if (!('cluster' in value && 'nodeId' in value && 'leader' in value)) return false;
  return value.leader === null || isLeader(value.leader);
}

function isLeader(value: unknown): boolean {
  if (typeof value !== 'object' || value === null || !('id' in value && 'address' in value)) return false;
  const { id, address } = value;
  return Number.isSafeInteger(id) && (address === null || isAddress(address));
}

function isAddress(value: unknown): boolean {
  if (typeof value !== 'object' || value === null || !('host' in value && 'adminPort' in value)) return false;
  const { host, adminPort } = value;
  return typeof host === 'string' && Number.isInteger(adminPort);
}

function isFailureBody(value: unknown): value is FailureBody {
  return typeof value === 'object' && value !== null && 'error' in value && typeof value.error === 'string';
}
