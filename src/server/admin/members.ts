import type { IncomingMessage } from 'node:http';
import { z } from 'zod';
import { RaftkvError } from '../../base/errors.ts';
import type { MemberChange } from '../../raft/state/types.ts';
import { NotLeaderError } from '../../replica/peers/member-requests.ts';
import type { MembersView, Replica } from '../../replica/types.ts';
import { type Answer, type FailureBody, failure, failureOf, readBody } from './answers.ts';

/**
 * The members of the cluster, seen and changed at the leader:
 *
 *   GET  /members  the members as the leader sees them
 *   POST /members  one change, as JSON: 200 once it is committed, 409 if the cluster refuses it
 *
 * A node that does not lead answers both with 307 and the leader's address, or with 503 if it knows no leader.
 *
 * A change is taken only as `application/json` and without an `Origin` header: a page in somebody's browser can send
 * neither.
 */

export type MembersDoor = Pick<Replica, 'members' | 'changeMembers' | 'status'>;

/** The answer of `GET /members`. */
export interface MembersBody extends MembersView {
  readonly cluster: string;
  /** The node that answered. */
  readonly nodeId: number;
}

interface AdminAddress {
  readonly host: string;
  readonly adminPort: number;
}

/** The answer of a node that does not lead, with `code` NOT_LEADER. */
export interface NotLeaderBody extends FailureBody {
  readonly cluster: string;
  /** The node that answered. */
  readonly nodeId: number;
  /** Null if no leader is known; its address is null if this node does not know that. */
  readonly leader: { readonly id: number; readonly address: AdminAddress | null } | null;
}

/** The identity of a node in its answers, and the addresses that it knows of the others. */
export interface MembersContext {
  readonly cluster: string;
  readonly nodeId: number;
  /** The nodes of the configuration file, whose addresses take precedence over those in the log. */
  readonly listedNodes: readonly (AdminAddress & { readonly id: number })[];
  /** The scheme of this node's admin port; the other nodes have the same. */
  readonly scheme: 'http' | 'https';
}

/** Far above any change. */
const CHANGE_BYTES_MAX = 4 * 1024;
const NODE_ID_MAX = 65_535;
const PORT_MAX = 65_535;

const id = z.int().min(1).max(NODE_ID_MAX);
const port = z.int().min(1).max(PORT_MAX);
const changeSchema = z.discriminatedUnion('op', [
  z.strictObject({
    op: z.literal('add'),
    id,
    address: z.strictObject({
      /** A name or an address, within the longest DNS name. */
      host: z.string().regex(/^[A-Za-z0-9._:-]{1,253}$/),
      clientPort: port,
      peerPort: port,
      adminPort: port,
    }),
    joins: z.boolean().default(true),
    replaces: z.int().min(0).max(NODE_ID_MAX).default(0),
  }),
  z.strictObject({ op: z.literal('remove'), id }),
  z.strictObject({ op: z.literal('promote'), id }),
]);

export function membersAnswer(door: MembersDoor, context: MembersContext): Answer {
  const { cluster, nodeId } = context;
  try {
    return { status: 200, body: { cluster, nodeId, ...door.members() } satisfies MembersBody };
  } catch (error) {
    if (error instanceof NotLeaderError) return redirection(error, door, context);
    return failureOf(500, error);
  }
}

/** 307 keeps the method and the body, so that any HTTP client can follow it with a change. */
function redirection(error: NotLeaderError, door: MembersDoor, context: MembersContext): Answer {
  const { cluster, nodeId, listedNodes, scheme } = context;
  const { leader } = error;
  const known = leader && (listedNodes.find(({ id }) => id === leader.id) ?? leader.address);
  const address = known && { host: known.host, adminPort: known.adminPort };
  const { message, code, remedy } = withHealthProblem(error, door);
  const body: NotLeaderBody = {
    ...{ error: message, code, remedy, cluster, nodeId },
    leader: leader && { id: leader.id, address },
  };
  if (address === null) return { status: 503, body };
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  return { status: 307, body, headers: { location: `${scheme}://${host}:${address.adminPort}/members` } };
}

/** Adds the health problem to an error, because "no leader" alone seldom explains it. */
function withHealthProblem(error: RaftkvError, door: MembersDoor): RaftkvError {
  const { healthProblem } = door.status();
  if (healthProblem === '') return error;
  return new RaftkvError(error.code, `${error.message}: ${healthProblem}`, error.remedy, error);
}

export async function changeMembersAnswer(
  door: MembersDoor,
  request: IncomingMessage,
  context: MembersContext,
): Promise<Answer> {
  const { origin, 'content-type': contentType = '' } = request.headers;
  if (origin !== undefined) return failure(403, 'requests from web pages cannot change members');
  if (!/^application\/json\s*(;|$)/i.test(contentType)) {
    return failure(415, 'the content type must be application/json', 'Send content-type: application/json.');
  }
  const text = await readBody(request, CHANGE_BYTES_MAX);
  if (text === null) return failure(413, `the body is larger than ${CHANGE_BYTES_MAX} bytes`);
  const change = parseChange(text);
  if (typeof change === 'string') return failure(400, change);
  try {
    await door.changeMembers(change);
    return { status: 200, body: { committed: true } };
  } catch (error) {
    if (error instanceof NotLeaderError) return redirection(error, door, context);
    if (!(error instanceof RaftkvError)) return failureOf(500, error);
    // A refusal is a client error (4xx), unless the same request may succeed in a moment.
    return PASSING.test(error.message) ? failureOf(503, withHealthProblem(error, door)) : failureOf(409, error);
  }
}

/** Refusals that a short wait resolves, as the replica names them at the end of its message. */
const PASSING = /\((NOT_LEADER|LEADER_NOT_READY|TIMEOUT|BUSY|STOPPING)\)$/;

/** The mistake in a body that is no change of members. */
function parseChange(text: string): MemberChange | string {
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch {
    return 'the body is not JSON';
  }
  const parsed = changeSchema.safeParse(raw);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map(({ path, message }) => `${path.join('.') || 'the change'}: ${message}`);
  return `the body is not a valid member change: ${problems.join('; ')}`;
}
