import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { get } from 'node:http';
import { connect as connectPlain } from 'node:net';
import { join, resolve } from 'node:path';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadConfig } from '../../src/config/load.ts';
import { readOperatorTls } from '../../src/config/tls-files.ts';
import { newAuthority } from '../support/certificates.ts';
import { type Cluster, showLogOfFailure, startCluster, until } from '../support/cluster.ts';
import { PASSWORD, USER } from '../support/secure-cluster.ts';
import { TextClient } from '../support/text-client.ts';

/** A cluster with TLS at every port and a password, as those see it who belong to it, and as outsiders do. */

const HOST = '127.0.0.1';
const BIN = resolve(import.meta.dirname, '../../bin/raftkv.js');
const SERVED = /VERSION|STORED|VALUE|ERROR|STAT|HTTP\/1|"live"/;
const login = (password: string) => `set x 0 0 ${USER.length + 1 + password.length}\r\n${USER} ${password}\r\n`;
const WORDS = ['version\r\n', 'set a 0 0 1\r\nx\r\n', login(PASSWORD), 'GET /livez HTTP/1.1\r\nHost: x\r\n\r\n'];

let cluster: Cluster;
let member: ConnectionOptions;
showLogOfFailure(() => cluster);
beforeAll(async () => {
  cluster = await startCluster({ secure: true });
  const { config } = loadConfig({ file: cluster.file, environment: {} });
  if (config.tls === undefined) throw new Error('no tls');
  member = { ...readOperatorTls(config.tls, config) };
});
afterAll(() => cluster?.stop());

/** All that comes back until the other end closes; a failure of any kind is nothing. */
function hear(port: number, text: string, tls: ConnectionOptions | null): Promise<string> {
  const address = { host: HOST, port, allowHalfOpen: true };
  const socket = tls === null ? connectPlain(address) : connectTls({ ...address, ...tls, rejectUnauthorized: false });
  const talker = new TextClient(socket);
  talker.end(text);
  return talker.rest().finally(() => talker.destroy());
}

async function expectHealthy(): Promise<void> {
  for (const { id } of cluster.nodes) {
    const client = await cluster.connect(id);
    expect(await client.set(`healthy${id}`, 'yes')).toBe('STORED');
    expect((await cluster.status(id))?.leader).toBeGreaterThan(0);
    client.destroy();
  }
}

describe('a cluster with TLS everywhere and a password', () => {
  it('serves its members through every node, also when its leader is killed', async () => {
    await expectHealthy();
    const leader = await cluster.leader();
    const [other = 0] = cluster.running().filter((id) => id !== leader);
    const client = await cluster.connect(other);
    expect(await client.set('a', 'before')).toBe('STORED');
    await cluster.kill(leader);
    expect(await client.set('b', 'after')).toBe('STORED');
    expect(await client.get('a')).toBe('before');
    await cluster.start(leader);
    await cluster.serving(leader);
    await expectHealthy();
  });

  it('shows its status to an operator with a certificate', async () => {
    const { stdout } = await promisify(execFile)(process.execPath, [BIN, 'status', '--json', '--config', cluster.file]);
    const status = JSON.parse(stdout);
    expect(status.serves).toBe(true);
    expect(status.nodes.map((node: { reachable: boolean }) => node.reachable)).toEqual([true, true, true]);
  });

  const outsiders: readonly [who: string, tls: () => Promise<ConnectionOptions | null>][] = [
    ['plain text', async () => null],
    ['no certificate', async () => ({})],
    ['a certificate of another authority', async () => ({ ...(await (await newAuthority('other')).node(2)) })],
  ];
  it.each(outsiders)('serves nothing at any port to one with %s', async (_, tls) => {
    for (const { clientPort, peerPort, adminPort } of cluster.nodes) {
      for (const port of [clientPort, peerPort, adminPort]) {
        for (const words of WORDS) expect(await hear(port, words, await tls())).not.toMatch(SERVED);
      }
    }
    expect(cluster.lines().join('\n')).toMatch(/TLS_REFUSED/);
    await expectHealthy();
  });

  it('serves nothing to a member of the authority without the password, or with a wrong one', async () => {
    const { clientPort } = cluster.node(1);
    expect(await hear(clientPort, 'get a\r\n', member)).toBe('CLIENT_ERROR unauthenticated\r\n');
    expect(await hear(clientPort, `${login('wrong')}get a\r\n`, member)).toBe(
      'CLIENT_ERROR authentication failure\r\nCLIENT_ERROR unauthenticated\r\n',
    );
  });

  it('tells a client that comes to the peer port nothing', async () => {
    for (const { peerPort } of cluster.nodes) {
      for (const words of WORDS) expect(await hear(peerPort, words, member)).not.toMatch(SERVED);
    }
    await expectHealthy();
  });

  it('answers no plain HTTP at any port', async () => {
    for (const { clientPort, peerPort, adminPort } of cluster.nodes) {
      for (const port of [clientPort, peerPort, adminPort]) {
        const answered = await new Promise((resolve) => {
          const request = get({ host: HOST, port, path: '/status', agent: false, timeout: 3000 }, () => resolve(true));
          request.on('timeout', () => request.destroy());
          request.on('error', () => resolve(false));
        });
        expect(answered).toBe(false);
      }
    }
  });

  it('takes another password on SIGHUP, and keeps the old where the file is wrong', async () => {
    const { clientPort } = cluster.node(1);
    const file = join(cluster.folder, 'passwords');
    writeFileSync(file, 'no colon\n');
    process.kill(cluster.pid(1), 'SIGHUP');
    await until('the warning', async () => /AUTH_FILE_INVALID/.test(cluster.lines().join('\n')) || undefined);
    expect(cluster.lines().join('\n')).not.toMatch(/no colon\b.*no colon\b/);
    expect(await hear(clientPort, login(PASSWORD), member)).toBe('STORED\r\n');
    writeFileSync(file, `${USER}:countess\n`);
    process.kill(cluster.pid(1), 'SIGHUP');
    await until(
      'the new password',
      async () => (await hear(clientPort, login('countess'), member)) === 'STORED\r\n' || undefined,
    );
    expect(await hear(clientPort, login(PASSWORD), member)).toBe('CLIENT_ERROR authentication failure\r\n');
    writeFileSync(file, `${USER}:${PASSWORD}\n`);
    process.kill(cluster.pid(1), 'SIGHUP');
    await until(
      'the old password',
      async () => (await hear(clientPort, login(PASSWORD), member)) === 'STORED\r\n' || undefined,
    );
  });
});
