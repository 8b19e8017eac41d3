import { get } from 'node:http';
import { get as getSecure } from 'node:https';
import { connect as connectPlain, type Socket } from 'node:net';
import { type ConnectionOptions, connect } from 'node:tls';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Clock, systemClock } from '../../../src/base/clock.ts';
import type { Logger } from '../../../src/base/logger.ts';
import type { PortTls, TlsIdentity } from '../../../src/base/tls.ts';
import { type AdminPort, openAdminPort } from '../../../src/server/admin/admin-port.ts';
import { EXPIRED, newAuthority, type TestAuthority } from '../../support/certificates.ts';
import { serveStore } from '../../support/client-port.ts';
import { FakeReplica } from '../../support/fake-replica.ts';
import { createManualClock } from '../../support/manual-clock.ts';
import { converse, TextClient } from '../../support/text-client.ts';

const HOST = '127.0.0.1';
let authority: TestAuthority;
let node: TlsIdentity;
let client: TlsIdentity;
let logs: string[] = [];
const admins: AdminPort[] = [];
const sockets: Socket[] = [];
beforeAll(async () => {
  authority = await newAuthority();
  [node, client] = await Promise.all([authority.node(1), authority.client()]);
});
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await Promise.all(admins.splice(0).map((admin) => admin.close()));
  logs = [];
});

const record = (_fields: object, message: string) => void logs.push(message);
const logger: Logger = { debug: record, info: record, warn: record, error: record };
const tlsOf = (clientCertificates: PortTls['clientCertificates']): PortTls => ({ identity: node, clientCertificates });

const serve = (clientCertificates: PortTls['clientCertificates'] = 'required', clock: Clock = systemClock) =>
  serveStore({}, new FakeReplica({ clock }), { tls: tlsOf(clientCertificates), logger, clock });

async function talk(port: number, text: string, options: ConnectionOptions = {}): Promise<string> {
  const wanted: ConnectionOptions & { allowHalfOpen: boolean } = {
    allowHalfOpen: true,
    rejectUnauthorized: false,
    ...options,
  };
  const socket = connect(port, HOST, wanted);
  const talker = new TextClient(socket);
  talker.end(text);
  const replies = await talker.rest();
  talker.destroy();
  return replies;
}

const outsiders: readonly [who: string, show: () => Promise<ConnectionOptions>][] = [
  ['no certificate', async () => ({})],
  ['a certificate of another authority', async () => (await newAuthority('another CA')).client()],
  ['a certificate of an authority that takes the name of ours', async () => (await newAuthority()).client()],
  ['an expired certificate', () => authority.issue({ commonName: 'client', validity: EXPIRED })],
  [
    'a TLS that is too old',
    async () => ({ ...client, maxVersion: 'TLSv1.1', minVersion: 'TLSv1', ciphers: 'ALL:@SECLEVEL=0' }),
  ],
];

describe('a client port with TLS', () => {
  it('serves one with a certificate of the authority, who can tell that it is the right node', async () => {
    const { port } = await serve();
    const text = 'set a 0 0 1\r\nx\r\nget a\r\n';
    const answer = 'STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n';
    expect(await talk(port, text, { ...client, rejectUnauthorized: true })).toBe(answer);
    expect(await talk(port, text, { ...client, rejectUnauthorized: true, maxVersion: 'TLSv1.2' })).toBe(answer);
  });

  it('hangs up on one who begins with the binary protocol', async () => {
    const { port, server } = await serve();
    const socket = connect({ host: HOST, port, rejectUnauthorized: false, ...client });
    const talker = new TextClient(socket);
    talker.send('\x80\x0b');
    expect(await talker.rest()).toBe('');
    await expect.poll(() => server.connections).toBe(0);
    talker.destroy();
  });

  it('carries long values and many replies', async () => {
    const { port } = await serve();
    const value = 'v'.repeat(1_000_000);
    const replies = await talk(port, `set a 0 0 ${value.length}\r\n${value}\r\n${'get a\r\n'.repeat(20)}`, client);
    expect(replies).toBe(`STORED\r\n${`VALUE a 0 ${value.length}\r\n${value}\r\nEND\r\n`.repeat(20)}`);
  });

  it.each(outsiders)('serves nothing to one with %s, says so in the log, and serves the next', async (_, show) => {
    const { port, replica } = await serve();
    replica.proposals = [];
    expect(await talk(port, 'set a 0 0 1\r\nx\r\nversion\r\n', await show())).toBe('');
    expect(replica.proposals).toEqual([]);
    expect(logs.join()).toMatch(/refused a connection to the client port( from 127.0.0.1)?: /);
    expect(await talk(port, 'version\r\n', client)).toMatch(/^VERSION/);
  });

  it('serves nothing to plain text and to plain HTTP', async () => {
    const { port } = await serve();
    // What comes back is the alert of TLS, and no word of ours.
    expect(await converse(port, 'version\r\n')).not.toMatch(/VERSION|ERROR/);
    expect(await converse(port, 'GET / HTTP/1.1\r\n\r\n')).not.toMatch(/VERSION|ERROR|HTTP/);
  });

  it('asks for no certificate where it is told to encrypt only', async () => {
    const { port } = await serve('none');
    expect(await talk(port, 'version\r\n', { ca: node.ca, rejectUnauthorized: true })).toMatch(/^VERSION/);
  });

  it('shows another certificate from when it is replaced; who is connected stays', async () => {
    const { port, server } = await serve();
    const inside = new TextClient(connect({ host: HOST, port, ...client }));
    inside.send('version\r\n');
    await inside.reply('\r\n');
    const other = await newAuthority('another CA');
    server.replaceIdentity(await other.node(1));
    expect(await talk(port, 'version\r\n', client)).toBe('');
    expect(await talk(port, 'version\r\n', { ...(await other.client()), rejectUnauthorized: true })).toMatch(
      /^VERSION/,
    );
    inside.send('version\r\n');
    expect(await inside.reply('\r\n')).toMatch(/^VERSION/);
    inside.destroy();
  });

  it('resumes no session: a certificate is looked at each time', async () => {
    const { port } = await serve();
    for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
      let session: Buffer | undefined;
      for (let i = 0; i < 2; i++) {
        const socket = connect({ host: HOST, port, ...client, maxVersion, ...(session && { session }) });
        socket.on('session', (given) => {
          session = given;
        });
        const talker = new TextClient(socket);
        talker.send('version\r\n');
        await talker.reply('\r\n');
        expect(socket.isSessionReused()).toBe(false);
        talker.destroy();
      }
    }
  });

  it('gives no renegotiation', async () => {
    const { port } = await serve();
    const socket = connect({ host: HOST, port, ...client, maxVersion: 'TLSv1.2' });
    await new Promise((resolve) => socket.once('secureConnect', resolve));
    const error = await new Promise<Error | null>((resolve) => {
      socket.on('error', resolve);
      socket.renegotiate({}, resolve);
    });
    expect(error?.message).toMatch(/renegotiation/i);
    socket.destroy();
  });

  it('survives those that leave in the middle of a handshake', async () => {
    const { port } = await serve();
    for (let i = 0; i < 50; i++) {
      const socket = connectPlain({ host: HOST, port });
      await new Promise((resolve) => socket.once('connect', resolve));
      socket.write(Buffer.from('1603010200010001fc0303', 'hex'));
      if (i % 2 === 0) socket.resetAndDestroy();
      else socket.destroy();
    }
    expect(await talk(port, 'version\r\n', client)).toMatch(/^VERSION/);
  });

  it('stops without waiting for a handshake that never ends', async () => {
    const manual = createManualClock();
    const { port, server } = await serve('required', manual.clock);
    await beginHandshake(port, manual);
    await server.stop();
  });
});

/** Connects and says nothing. Resolves once the port waits for the handshake. */
async function beginHandshake(port: number, { pending, until }: ReturnType<typeof createManualClock>): Promise<void> {
  const before = pending();
  const socket = connectPlain({ host: HOST, port });
  sockets.push(socket);
  await until(() => pending() > before);
}

async function openAdmin(clock: Clock = systemClock): Promise<AdminPort> {
  const admin = await openAdminPort({
    host: HOST,
    port: 0,
    clock,
    logger,
    identity: { version: '1', cluster: 'test', nodeId: 1, pid: 1, addresses: { client: '', peer: '', admin: '' } },
    listedNodes: [],
    door: () => null,
    status: () => null,
    readiness: () => ({ ready: true, reason: '' }),
    tls: tlsOf('required'),
  });
  admins.push(admin);
  return admin;
}

/** The status, or the failure. */
function ask(port: number, options: ConnectionOptions): Promise<string> {
  return new Promise((resolve) => {
    const request = getSecure({
      host: HOST,
      port,
      path: '/livez',
      agent: false,
      rejectUnauthorized: false,
      ...options,
    });
    request.on('response', (response) => resolve(String(response.statusCode)));
    request.on('error', () => resolve('nothing'));
  });
}

describe('an admin port with TLS', () => {
  it('serves one with a certificate of the authority', async () => {
    expect(await ask((await openAdmin()).port, { ...client, rejectUnauthorized: true })).toBe('200');
  });

  it.each(outsiders)('serves nothing to one with %s', async (_, show) => {
    const { port } = await openAdmin();
    expect(await ask(port, await show())).toBe('nothing');
    expect(logs.join()).toMatch(/refused a connection to the admin port/);
    expect(await ask(port, client)).toBe('200');
  });

  it('serves nothing to plain HTTP', async () => {
    const { port } = await openAdmin();
    const answer = await new Promise((resolve) => {
      const request = get({ host: HOST, port, path: '/livez', agent: false }, () => resolve('served'));
      request.on('error', () => resolve('nothing'));
    });
    expect(answer).toBe('nothing');
  });

  it('closes without waiting for a handshake that never ends', async () => {
    const manual = createManualClock();
    const admin = await openAdmin(manual.clock);
    await beginHandshake(admin.port, manual);
    await admin.close();
  });
});
