import { RaftkvError } from '../../base/errors.ts';
import type { Config, NodeConfig } from '../../config/schema.ts';
import type { MemberChange } from '../../raft/state/types.ts';
import type { FailureBody } from '../../server/admin/answers.ts';
import type { MembersBody } from '../../server/admin/members.ts';
import { type AdminTarget, explainFailure, readText, requestAdmin } from './admin-client.ts';

/**
 * Asks about members, and changes them, through whichever node answers: each passes the question on to the leader.
 *
 *   node 1 ✗ nothing listens there   node 2 ✗ no leader is known   node 3 ✓   … all ✗ → a moment later again
 */

/** A node passes the question on to the leader, whose answer takes a round trip. */
const VIEW_MS_MAX = 5_000;
/** On top of the time within which the cluster itself answers a change. */
const CHANGE_MS_EXTRA = 2_000;
/** Far above fifteen members. */
const ANSWER_BYTES_MAX = 256 * 1024;
/** How long a cluster without a leader is asked again: several elections. */
const PATIENCE_MS = 10_000;
const RETRY_MS = 250;

export interface MembersClient {
  /** @throws RaftkvError QUORUM_LOST, PEER_UNREACHABLE */
  view(): Promise<MembersBody>;
  /** Resolves once the change is committed. @throws RaftkvError MEMBER_CHANGE_REFUSED, and as `view`. */
  change(change: MemberChange): Promise<void>;
}

export interface MembersClientOptions {
  readonly config: Pick<Config, 'cluster' | 'requestTimeoutMs'>;
  /** To be asked in this order, until one answers. */
  readonly nodes: readonly NodeConfig[];
  readonly tls: AdminTarget['tls'];
  /** How long a cluster that does not answer yet is asked again. */
  readonly patienceMs?: number;
}

/** `down`: no process listens there. `away`: one does, and may answer in a moment. */
type Attempt =
  | { readonly kind: 'answered'; readonly body: unknown }
  | { readonly kind: 'refused'; readonly error: RaftkvError }
  | { readonly kind: 'down' | 'away'; readonly why: string };

interface Question {
  readonly path: string;
  readonly post?: string;
  readonly msMax: number;
}

export function createMembersClient(options: MembersClientOptions): MembersClient {
  const { config, nodes, tls, patienceMs = PATIENCE_MS } = options;
  /** Who answered last comes first. */
  let order = [...nodes];

  /** One pass over all nodes. `uncertain` is called where one may have done what it was asked and not said so. */
  const askAll = async (question: Question, uncertain: () => void): Promise<Attempt> => {
    const failures: string[] = [];
    let someAway = false;
    for (const node of order) {
      const attempt = await ask({ node, cluster: config.cluster, tls }, question);
      if (attempt.kind === 'answered' || attempt.kind === 'refused') {
        order = [node, ...order.filter((other) => other !== node)];
        return attempt;
      }
      if (attempt.kind === 'away') {
        someAway = true;
        uncertain();
      }
      failures.push(`  node ${node.id} (${node.host}:${node.adminPort}): ${attempt.why}`);
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
      // An earlier attempt may have gone through, so that this one comes too late.
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
  if (status === 200 && post === undefined && isMembersBody(body) && body.cluster !== target.cluster) {
    return { kind: 'down', why: `the server is node ${body.nodeId} of cluster ${body.cluster}` };
  }
  if (status === 200) return { kind: 'answered', body };
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

function isFailureBody(value: unknown): value is FailureBody {
  return typeof value === 'object' && value !== null && 'error' in value && typeof value.error === 'string';
}
