import { createServer, type IncomingMessage, type Server } from 'node:http';
import { text } from 'node:stream/consumers';
import type { MemberView } from '../../../src/replica/types.ts';
import type { MembersBody } from '../../../src/server/admin/members.ts';

/** Admin ports that answer what a test tells them to. */

export interface AdminAnswer {
  readonly status: number;
  readonly body: unknown;
}

export interface FakeAdmin {
  readonly port: number;
  /** What was posted, in order. */
  readonly posted: unknown[];
  /** How many requests came, of either kind. */
  asked(): number;
  close(): Promise<void>;
}

/** `answer` gets the path of a GET, or the change that was posted. */
export async function createFakeAdmin(answer: (asked: string | object) => AdminAnswer): Promise<FakeAdmin> {
  const posted: unknown[] = [];
  let asked = 0;
  const askedOf = async (request: IncomingMessage): Promise<string | object> => {
    if (request.method === 'GET') return request.url ?? '';
    const change = JSON.parse(await text(request));
    posted.push(change);
    return change;
  };
  const server: Server = createServer(async (request, response) => {
    asked++;
    const { status, body } = answer(await askedOf(request));
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body));
  });
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  const address = server.address();
  return {
    port: typeof address === 'object' && address ? address.port : 0,
    posted,
    asked: () => asked,
    close: () => new Promise((closed) => server.close(() => closed())),
  };
}

export function memberView(id: number, changes: Partial<MemberView> = {}): MemberView {
  const address = { host: '127.0.0.1', clientPort: id, peerPort: 100 + id, adminPort: 200 + id };
  return {
    id,
    role: 'voter',
    address,
    joins: false,
    replaces: 0,
    matchIndex: 100,
    state: id === 1 ? 'leader' : 'replicate',
    hasRights: true,
    ...changes,
  };
}

export function membersBody(members: readonly MemberView[], changes: Partial<MembersBody> = {}): MembersBody {
  return {
    cluster: 'demo',
    nodeId: 1,
    leader: 1,
    term: 3,
    lastIndex: 100,
    changing: false,
    configuration: {
      clusterId: '0123456789abcdef0123456789abcdef',
      voters: members.filter(({ role }) => role === 'voter').map(({ id }) => id),
      votersOutgoing: [],
      learners: members.filter(({ role }) => role === 'learner').map(({ id }) => id),
      learnersNext: [],
      autoLeave: false,
      details: [],
      removed: [],
    },
    members,
    ...changes,
  };
}
