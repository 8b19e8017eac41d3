import { request } from 'node:http';
import { connect, createServer } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterEach, describe, expect, it } from 'vitest';
import type { Clock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/logger.ts';
import type { ReadOwner, ReplicaStatus } from '../../src/replica/types.ts';
import { type AdminPort, type AdminPortOptions, openAdminPort } from '../../src/server/admin-port.ts';
import { RECOVERING, watchReadiness } from '../../src/server/readiness.ts';

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
    status: () => replicaStatus,
    readiness: () => ({ ready: true, reason: '' }),
    ...changes,
  });
  opened.push(port);
  return port;
}

function ask({ port }: AdminPort, path: string, method = 'GET') {
  return new Promise<{ status: number; headers: NodeJS.Dict<string | string[]>; body: string }>((resolve, reject) => {
    request({ host: '127.0.0.1', port, path, method, agent: false }, async (response) => {
      resolve({ status: response.statusCode ?? 0, headers: response.headers, body: await text(response) });
    })
      .on('error', reject)
      .end();
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
    expect(JSON.parse(answer.body)).toEqual({ error: 'no /metric here', paths: ['/livez', '/readyz', '/status'] });
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

  it('closes at once when it is closed, also a connection in the middle of a request', { timeout: 2_000 }, async () => {
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

describe('readiness', () => {
  function fakeReplica() {
    const reads: ReadOwner[] = [];
    const replica = {
      leader: 3,
      read: (owner: ReadOwner) => void reads.push(owner),
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
    expect(readiness()).toEqual({ ready: false, reason: 'no leader is known' });
    replica.leader = 1;
    expect(readiness().ready).toBe(true);
  });
});
