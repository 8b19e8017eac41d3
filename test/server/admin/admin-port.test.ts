import { get, type IncomingMessage, type OutgoingHttpHeaders, request } from 'node:http';
import { connect, createServer } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterEach, describe, expect, it } from 'vitest';
import type { Clock } from '../../../src/base/clock.ts';
import { RaftkvError } from '../../../src/base/errors.ts';
import { silentLogger } from '../../../src/base/logger.ts';
import { configurationOf } from '../../../src/raft/state/configuration.ts';
import { ConfigurationTracker } from '../../../src/raft/state/configuration-tracker.ts';
import type { MemberChange, NodeAddress } from '../../../src/raft/state/types.ts';
import { NotLeaderError } from '../../../src/replica/peers/member-requests.ts';
import type { MembersView, ReadCompletion, ReplicaStatus } from '../../../src/replica/types.ts';
import {
  type AdminDoor,
  type AdminPort,
  type AdminPortOptions,
  openAdminPort,
} from '../../../src/server/admin/admin-port.ts';
import { RECOVERING, watchReadiness } from '../../../src/server/admin/readiness.ts';

const replicaStatus: ReplicaStatus = {
  nodeId: 2,
  role: 'follower',
  term: 7,
  leader: 3,
  commitIndex: 41,
  appliedIndex: 40,
  lastLogIndex: 42,
  logBytes: 4096,
  items: 1,
  storeBytes: 100,
  totalItems: 5,
  clusterTimeMs: 1_700_000_000_000,
  pendingWrites: 0,
  pendingReads: 0,
  peersConnected: [1, 3],
  clusterId: '0123456789abcdef'.repeat(2),
  lifecycle: 'normal',
  voters: [1, 2, 3],
  learners: [],
  snapshotIndex: 30,
  snapshotBytes: 2048,
  snapshotting: false,
  firstLogIndex: 21,
  healthProblem: '',
};
const identity = {
  version: '1.2.3',
  cluster: 'demo',
  nodeId: 2,
  pid: 4711,
  addresses: { client: 'h:1', peer: 'h:2', admin: 'h:3' },
};

let nowMs = 5_000;
const clock: Clock = { wallMs: () => 0, monotonicMs: () => nowMs, after: () => () => {}, endOfTurn() {} };

/** Below the time after which the port would end half a request anyway. */
const HALF_REQUEST_MS_MAX = 4_500;
const opened: AdminPort[] = [];
afterEach(async () => {
  await Promise.all(opened.splice(0).map((port) => port.close()));
});

async function open(changes: Partial<AdminPortOptions> = {}): Promise<AdminPort> {
  const port = await openAdminPort({
    host: '127.0.0.1',
    port: 0,
    clock,
    logger: silentLogger,
    identity,
    listedNodes: [],
    status: () => replicaStatus,
    readiness: () => ({ ready: true, reason: '' }),
    door: () => null,
    ...changes,
  });
  opened.push(port);
  return port;
}

interface Answered {
  readonly status: number;
  readonly headers: NodeJS.Dict<string | string[]>;
  readonly body: string;
}

function ask(
  { port }: AdminPort,
  path: string,
  method = 'GET',
  headers: OutgoingHttpHeaders = {},
  content = '',
): Promise<Answered> {
  return new Promise((resolve, reject) => {
    request({ host: '127.0.0.1', port, path, method, headers, agent: false }, async (response) => {
      resolve({ status: response.statusCode ?? 0, headers: response.headers, body: await text(response) });
    })
      .on('error', reject)
      .end(content);
  });
}

/** What a raw connection gets until the server ends it. */
async function talk({ port }: AdminPort, bytes: string): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  socket.write(bytes);
  return text(socket);
}

describe('the admin port', () => {
  it('is alive before the replica exists', async () => {
    const port = await open({ status: () => null, readiness: () => RECOVERING });
    expect(await ask(port, '/livez')).toMatchObject({ status: 200, body: '{"live":true}\n' });
  });

  it('is ready when the node can serve', async () => {
    expect(await ask(await open(), '/readyz')).toMatchObject({ status: 200, body: '{"ready":true}\n' });
  });

  it('says why it is not ready, with 503', async () => {
    const answer = await ask(await open({ readiness: () => RECOVERING }), '/readyz');
    expect(answer.status).toBe(503);
    expect(JSON.parse(answer.body)).toEqual({ ready: false, reason: 'recovering the log' });
  });

  it('gives the status of the node and of its replica', async () => {
    const port = await open();
    nowMs += 12_345;
    const answer = await ask(port, '/status?pretty');
    expect(answer.headers['content-type']).toBe('application/json; charset=utf-8');
    expect(JSON.parse(answer.body)).toEqual({
      ...identity,
      uptimeSeconds: 12,
      ready: true,
      reason: '',
      replica: replicaStatus,
    });
  });

  it('gives a status without a replica while the node recovers', async () => {
    const answer = await ask(await open({ status: () => null, readiness: () => RECOVERING }), '/status');
    expect(JSON.parse(answer.body)).toMatchObject({ replica: null, ready: false, reason: 'recovering the log' });
  });

  it('answers HEAD with the length and no body', async () => {
    const answer = await ask(await open(), '/livez', 'HEAD');
    expect(answer).toMatchObject({ status: 200, body: '' });
    expect(answer.headers['content-length']).toBe('14');
  });

  it.each(['POST', 'PUT', 'DELETE', 'OPTIONS'])('refuses %s with 405', async (method) => {
    const answer = await ask(await open(), '/status', method);
    expect(answer.status).toBe(405);
    expect(answer.headers['allow']).toBe('GET, HEAD');
  });

  it('answers an unknown path with 404 and the paths there are', async () => {
    const answer = await ask(await open(), '/metric');
    expect(answer.status).toBe(404);
    expect(JSON.parse(answer.body)).toEqual({
      error: 'no /metric here',
      paths: ['/livez', '/readyz', '/status', '/members', '/snapshot'],
    });
  });

  it('refuses what is no HTTP, and goes on serving', async () => {
    const port = await open();
    expect(await talk(port, 'set a 0 0 1\r\nx\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 /);
    expect((await ask(port, '/livez')).status).toBe(200);
  });

  it('refuses headers beyond its limit', async () => {
    const port = await open();
    expect(await talk(port, `GET /livez HTTP/1.1\r\nhost: x\r\na: ${'b'.repeat(9_000)}\r\n\r\n`)).toMatch(
      /^HTTP\/1\.1 4/,
    );
  });

  it('closes at once when it is closed, also a connection in the middle of a request', {
    timeout: HALF_REQUEST_MS_MAX,
  }, async () => {
    const port = await open();
    const slow = connect(port.port, '127.0.0.1');
    slow.write('GET /livez HTTP/1.1\r\nhost: x\r\n\r\nGET /li');
    await new Promise((resolve) => slow.once('data', resolve));
    const ended = new Promise((resolve) => slow.once('close', resolve));
    await port.close();
    await ended;
    opened.splice(0);
  });

  it('rejects with PORT_UNAVAILABLE where the port is taken', async () => {
    const squatter = createServer();
    await new Promise<void>((resolve) => squatter.listen(0, '127.0.0.1', resolve));
    const address = squatter.address();
    const port = typeof address === 'object' && address ? address.port : 0;
    await expect(open({ port })).rejects.toMatchObject({
      code: 'PORT_UNAVAILABLE',
      message: expect.stringContaining(`:${port}`),
    });
    await new Promise((resolve) => squatter.close(resolve));
  });
});

const view: MembersView = {
  leader: 3,
  term: 7,
  lastIndex: 42,
  configuration: {
    clusterId: '',
    voters: [2, 3],
    votersOutgoing: [],
    learners: [],
    learnersNext: [],
    autoLeave: false,
    details: [],
    removed: [],
  },
  changing: false,
  members: [],
};
const address = { host: '10.0.0.4', clientPort: 1, peerPort: 2, adminPort: 3 };
const JSON_BODY = { 'content-type': 'application/json' };

function door(changes: Partial<AdminDoor> = {}): AdminDoor {
  return {
    members: () => view,
    changeMembers: async () => {},
    backup: () => Promise.reject(new Error('unexpected')),
    status: () => replicaStatus,
    ...changes,
  };
}

describe('/members', () => {
  const post = (port: AdminPort, change: unknown, headers: OutgoingHttpHeaders = JSON_BODY) =>
    ask(port, '/members', 'POST', headers, typeof change === 'string' ? change : JSON.stringify(change));
  const refused = () =>
    Promise.reject(new RaftkvError('MEMBER_CHANGE_REFUSED', 'node 4 is a member already', 'Remove it first.'));

  it('shows the members, and who says so, if the node leads', async () => {
    const answer = await ask(await open({ door: () => door() }), '/members');
    expect([answer.status, JSON.parse(answer.body)]).toEqual([200, { cluster: 'demo', nodeId: 2, ...view }]);
  });

  it('answers 503 while there is no replica', async () => {
    const starting = await open();
    for (const path of ['/members', '/snapshot']) expect((await ask(starting, path)).status).toBe(503);
    expect((await post(starting, { op: 'remove', id: 1 })).status).toBe(503);
  });

  /** The door of a node that does not lead, and both answers of its admin port. */
  const elsewhere = (leader: number, address: NodeAddress | null = null, status = replicaStatus) => {
    const details = [{ id: 3, address, directoryId: 0, joins: false, replaces: 0 }];
    const configurations = new ConfigurationTracker([{ index: 0, configuration: configurationOf([3], details) }], 0, 0);
    const error = new NotLeaderError({ id: 2, leader, configurations });
    return door({
      members() {
        throw error;
      },
      changeMembers: () => Promise.reject(error),
      status: () => status,
    });
  };
  const bothAnswers = async (port: AdminPort) => [
    await ask(port, '/members'),
    await post(port, { op: 'remove', id: 1 }),
  ];

  it('redirects to the leader, with its id and admin address', async () => {
    const port = await open({ door: () => elsewhere(3, address) });
    for (const answer of await bothAnswers(port)) {
      expect([answer.status, answer.headers['location']]).toEqual([307, 'http://10.0.0.4:3/members']);
      expect(JSON.parse(answer.body)).toEqual({
        error: 'node 2 is not the leader; node 3 is',
        code: 'NOT_LEADER',
        remedy: 'Ask node 3.',
        cluster: 'demo',
        nodeId: 2,
        leader: { id: 3, address: { host: '10.0.0.4', adminPort: 3 } },
      });
    }
    expect(await ask(port, '/members', 'HEAD')).toMatchObject({ status: 307, body: '' });
  });

  it('redirects to the address that its configuration file lists, if it lists the leader', async () => {
    const listedNodes = [{ id: 3, host: '::1', adminPort: 4 }];
    for (const answer of await bothAnswers(await open({ listedNodes, door: () => elsewhere(3, address) }))) {
      expect([answer.status, answer.headers['location']]).toEqual([307, 'http://[::1]:4/members']);
      expect(JSON.parse(answer.body).leader.address).toEqual({ host: '::1', adminPort: 4 });
    }
  });

  it('answers 503 without the address of the leader, and without a leader', async () => {
    for (const leader of [3, 0]) {
      for (const answer of await bothAnswers(await open({ door: () => elsewhere(leader) }))) {
        expect([answer.status, answer.headers['location']]).toEqual([503, undefined]);
        expect(JSON.parse(answer.body)).toMatchObject({
          code: 'NOT_LEADER',
          leader: leader === 0 ? null : { id: 3, address: null },
        });
      }
    }
  });

  it('says why there is no leader, if that is known', async () => {
    const status = { ...replicaStatus, leader: 0, healthProblem: 'nodes 1 and 2 lost data' };
    for (const answer of await bothAnswers(await open({ door: () => elsewhere(0, null, status) }))) {
      expect([answer.status, JSON.parse(answer.body).error]).toEqual([
        503,
        'no leader is known: nodes 1 and 2 lost data',
      ]);
    }
  });

  it.each(['LEADER_NOT_READY', 'NOT_LEADER', 'STOPPING'])(
    'answers 503 to a refusal that may pass: %s',
    async (code) => {
      const early = () => Promise.reject(new RaftkvError('MEMBER_CHANGE_REFUSED', `refused (${code})`, 'Try again.'));
      const port = await open({ door: () => door({ changeMembers: early }) });
      expect((await post(port, { op: 'remove', id: 1 })).status).toBe(503);
    },
  );

  it.each<[sent: object, taken: MemberChange]>([
    [
      { op: 'add', id: 4, address },
      { op: 'add', id: 4, address, joins: true, replaces: 0 },
    ],
    [
      { op: 'add', id: 4, address, joins: false, replaces: 1 },
      { op: 'add', id: 4, address, joins: false, replaces: 1 },
    ],
    [
      { op: 'remove', id: 3 },
      { op: 'remove', id: 3 },
    ],
    [
      { op: 'promote', id: 3 },
      { op: 'promote', id: 3 },
    ],
  ])('takes the change %j', async (sent, taken) => {
    const changes: MemberChange[] = [];
    const port = await open({ door: () => door({ changeMembers: async (change) => void changes.push(change) }) });
    const answer = await post(port, sent, { 'content-type': 'application/json; charset=utf-8' });
    expect(answer).toMatchObject({ status: 200, body: '{"committed":true}\n' });
    expect(changes).toEqual([taken]);
  });

  it('answers a refusal with 409, its reason and what to do', async () => {
    const answer = await post(await open({ door: () => door({ changeMembers: refused }) }), { op: 'remove', id: 3 });
    expect([answer.status, JSON.parse(answer.body)]).toEqual([
      409,
      { error: 'node 4 is a member already', code: 'MEMBER_CHANGE_REFUSED', remedy: 'Remove it first.' },
    ]);
  });

  it.each<[what: string, status: number, body: unknown, headers: OutgoingHttpHeaders]>([
    ['what a form sends', 415, { op: 'remove', id: 3 }, { 'content-type': 'text/plain' }],
    ['what has no type', 415, { op: 'remove', id: 3 }, {}],
    [
      'what a page of the same origin sends',
      403,
      { op: 'remove', id: 3 },
      { ...JSON_BODY, origin: 'http://evil.test' },
    ],
    ['no JSON', 400, '{', JSON_BODY],
    ['an unknown change', 400, { op: 'rename', id: 3 }, JSON_BODY],
    ['an id out of range', 400, { op: 'remove', id: 0 }, JSON_BODY],
    ['a node without an address', 400, { op: 'add', id: 4 }, JSON_BODY],
    ['a host with a line break', 400, { op: 'add', id: 4, address: { ...address, host: 'a\nb' } }, JSON_BODY],
    ['a long body', 413, 'x'.repeat(5000), JSON_BODY],
  ])('refuses %s with %i, and changes nothing', async (_what, status, body, headers) => {
    let changes = 0;
    const port = await open({ door: () => door({ changeMembers: async () => void changes++ }) });
    const answer = await post(port, body, headers);
    expect([answer.status, answer.headers['connection'] ?? 'close', changes]).toEqual([status, 'close', 0]);
  });
});

describe('/snapshot', () => {
  const INFO = { index: 41, term: 7, configuration: Buffer.alloc(0), path: '/nowhere', byteLength: 3_000_000 };
  const content = Buffer.alloc(INFO.byteLength, 'raftkv');

  function backups() {
    const log = { asked: 0, released: 0, read: 0, pieceBytesMax: 0, onReleased: () => {} };
    const backup = async () => {
      log.asked++;
      return {
        info: INFO,
        async read(offset: number, length: number) {
          log.read += length;
          log.pieceBytesMax = Math.max(log.pieceBytesMax, length);
          return content.subarray(offset, offset + length);
        },
        release() {
          log.released++;
          log.onReleased();
        },
      };
    };
    /** Far beyond what the sockets on the way hold. */
    const large = async () => ({
      ...(await backup()),
      info: { ...INFO, byteLength: 1_000_000_000 },
      async read(_offset: number, length: number) {
        log.read += length;
        return content.subarray(0, length);
      },
    });
    return { log, backup, large };
  }
  const begin = ({ port }: AdminPort) =>
    new Promise<IncomingMessage>((resolve, reject) => {
      get({ host: '127.0.0.1', port, path: '/snapshot', agent: false }, resolve).on('error', reject);
    });

  it('gives the whole file with its length, in pieces, and lets it go', async () => {
    const { log, backup } = backups();
    const answer = await ask(await open({ door: () => door({ backup }) }), '/snapshot');
    expect(answer.headers).toMatchObject({ 'content-length': '3000000', 'x-raftkv-index': '41', 'x-raftkv-term': '7' });
    expect(Buffer.from(answer.body).equals(content)).toBe(true);
    expect(log).toMatchObject({ asked: 1, released: 1, read: 3_000_000, pieceBytesMax: 256 * 1024 });
  });

  it('reads no further than a slow reader does, and lets go when it leaves', async () => {
    const { log, large } = backups();
    const response = await begin(await open({ door: () => door({ backup: large }) }));
    const released = new Promise<void>((resolve) => {
      log.onReleased = resolve;
    });
    response.destroy();
    await released;
    expect(log.read).toBeLessThan(50_000_000);
  });

  it('drops a reader that takes nothing for too long', async () => {
    const { log, large } = backups();
    const released = new Promise<void>((resolve) => {
      log.onReleased = resolve;
    });
    // The first wait for the reader is the last: time flies.
    const manual: Clock = {
      ...clock,
      after(_delayMs, callback) {
        setImmediate(callback);
        return () => {};
      },
    };
    const response = await begin(await open({ clock: manual, door: () => door({ backup: large }) }));
    response.on('error', () => {});
    await released;
    response.destroy();
  });

  it('makes two at a time, and refuses a third with 429', async () => {
    const { log, large } = backups();
    const port = await open({ door: () => door({ backup: large }) });
    const readers = [await begin(port), await begin(port)];
    expect((await ask(port, '/snapshot')).status).toBe(429);
    expect(log.asked).toBe(2);
    for (const reader of readers) reader.destroy();
  });

  it('aborts the answer where the file cannot be read to its end', async () => {
    const { log, backup } = backups();
    const broken = async () => ({ ...(await backup()), read: () => Promise.reject(new Error('EIO')) });
    const answered = ask(await open({ door: () => door({ backup: broken }) }), '/snapshot');
    await expect(answered).rejects.toThrow();
    expect(log.released).toBe(1);
  });

  it('says where no snapshot is to be had', async () => {
    const backup = () => Promise.reject(new RaftkvError('QUORUM_LOST', 'no leader answers', 'Wait.'));
    const answer = await ask(await open({ door: () => door({ backup }) }), '/snapshot');
    expect([answer.status, JSON.parse(answer.body)]).toEqual([
      503,
      { error: 'no leader answers', code: 'QUORUM_LOST', remedy: 'Wait.' },
    ]);
  });

  it('is not made for a HEAD', async () => {
    const answer = await ask(await open({ door: () => door() }), '/snapshot', 'HEAD');
    expect([answer.status, answer.headers['allow']]).toEqual([405, 'GET']);
  });
});

describe('readiness', () => {
  function fakeReplica() {
    const reads: ReadCompletion[] = [];
    const replica = {
      leader: 3,
      read: (completion: ReadCompletion) => void reads.push(completion),
      status: () => ({ ...replicaStatus, leader: replica.leader }),
    };
    return { replica, reads };
  }

  it('begins when a first read is confirmed and applied, and says so once', () => {
    const { replica, reads } = fakeReplica();
    let served = 0;
    const readiness = watchReadiness(replica, () => served++);
    expect(readiness()).toMatchObject({ ready: false, reason: expect.stringContaining('quorum') });
    reads[0]?.readable();
    expect(readiness()).toEqual({ ready: true, reason: '' });
    expect([reads.length, served]).toEqual([1, 1]);
  });

  it('asks again after a read that found no quorum in time', () => {
    const { replica, reads } = fakeReplica();
    const readiness = watchReadiness(replica, () => {});
    reads[0]?.readFailed('timeout');
    expect(readiness().ready).toBe(false);
    reads[1]?.readable();
    expect(readiness().ready).toBe(true);
  });

  it('asks no more when the node stops', () => {
    const { replica, reads } = fakeReplica();
    watchReadiness(replica, () => {});
    reads[0]?.readFailed('stopping');
    expect(reads).toHaveLength(1);
  });

  it('ends while no leader is known, and comes back with one', () => {
    const { replica, reads } = fakeReplica();
    const readiness = watchReadiness(replica, () => {});
    reads[0]?.readable();
    replica.leader = 0;
    expect(readiness()).toEqual({ ready: false, reason: 'no leader' });
    replica.leader = 1;
    expect(readiness().ready).toBe(true);
  });

  it('names what is wrong with the cluster, or with being no member of it, rather than guess', () => {
    const { replica } = fakeReplica();
    const changed = (changes: Partial<ReplicaStatus>) =>
      watchReadiness({ ...replica, status: () => ({ ...replica.status(), ...changes }) }, () => {})().reason;
    expect(changed({ healthProblem: 'nodes 1 and 3 have lost data' })).toBe('nodes 1 and 3 have lost data');
    expect(changed({ lifecycle: 'recovering', voters: [1, 3] })).toContain('raftkv member add 2');
    expect(changed({ lifecycle: 'recovering', voters: [1, 3], learners: [2] })).toContain('quorum');
    expect(changed({ lifecycle: 'recovering' })).toContain('quorum');
  });
});
