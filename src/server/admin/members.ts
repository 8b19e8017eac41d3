import type { IncomingMessage } from 'node:http';
import { z } from 'zod';
import { RaftkvError } from '../../base/errors.ts';
import type { MemberChange } from '../../raft/state/types.ts';
import type { MembersView, Replica } from '../../replica/types.ts';
import { type Answer, failure, failureOf, readBody } from './answers.ts';

/**
 * The members of the cluster, seen and changed through any node:
 *
 *   GET  /members  the members as the leader sees them
 *   POST /members  one change, as JSON: 200 once it is committed, 409 where the cluster refuses it, 503 without a leader
 *
 * A change is taken only as `application/json` and without an `Origin` header: a page in somebody's browser can send
 * neither.
 */

export type MembersDoor = Pick<Replica, 'members' | 'changeMembers' | 'status'>;

/** What `GET /members` answers. */
export interface MembersBody extends MembersView {
  readonly cluster: string;
  /** Who answered. */
  readonly nodeId: number;
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

export async function membersAnswer(
  door: MembersDoor,
  { cluster, nodeId }: { readonly cluster: string; readonly nodeId: number },
): Promise<Answer> {
  try {
    const view = await door.members();
    return { status: 200, body: { cluster, nodeId, ...view } satisfies MembersBody };
  } catch (error) {
    return failureOf(error instanceof RaftkvError ? 503 : 500, withHealthProblem(error, door));
  }
}

/** Adds the health problem to an error, because "no leader" alone seldom explains it. */
function withHealthProblem(error: unknown, door: MembersDoor): unknown {
  const { healthProblem } = door.status();
  if (!(error instanceof RaftkvError) || healthProblem === '') return error;
  return new RaftkvError(error.code, `${error.message}: ${healthProblem}`, error.remedy, error);
}

export async function changeMembersAnswer(door: MembersDoor, request: IncomingMessage): Promise<Answer> {
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
    const status = statusOfRefusal(error, door);
    return failureOf(status, status === 503 ? withHealthProblem(error, door) : error);
  }
}

/** What only a moment's wait mends, as the replica names it at the end of its message. */
const PASSING = /\((NOT_LEADER|LEADER_NOT_READY|TIMEOUT|BUSY)\)$/;

/** A refusal is a client error (4xx), unless the cluster just has no leader (503). */
function statusOfRefusal(error: unknown, door: MembersDoor): number {
  if (!(error instanceof RaftkvError)) return 500;
  const isForGood = error.code === 'MEMBER_CHANGE_REFUSED' && !PASSING.test(error.message);
  return isForGood && door.status().leader !== 0 ? 409 : 503;
}

/** What is wrong with it, where it is no change. */
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
