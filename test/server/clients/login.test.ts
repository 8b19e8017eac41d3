import { describe, expect, it } from 'vitest';
import { type Credentials, createCredentials } from '../../../src/server/clients/authenticator.ts';
import { newClient, type ServedStore, serveStore } from '../../support/client-port.ts';
import { FakeReplica } from '../../support/fake-replica.ts';
import { converse } from '../../support/text-client.ts';

const CREDENTIALS = [
  { user: 'ada', password: 'secret' },
  { user: 'bob', password: 'pa:ss' },
  { user: 'bob', password: 'next' },
];
const LOGIN = 'set x 0 0 10\r\nada secret\r\n';
const UNAUTHENTICATED = 'CLIENT_ERROR unauthenticated\r\n';
const FAILURE = 'CLIENT_ERROR authentication failure\r\n';
const BAD_TOKEN = 'CLIENT_ERROR bad authentication token format\r\n';
const BAD_END = 'CLIENT_ERROR bad command line termination\r\n';
const VERSION = 'VERSION 1.6.45\r\n';

const attempt = (token: string) => `set x 0 0 ${token.length}\r\n${token}\r\n`;

interface Guarded extends ServedStore {
  readonly credentials: Credentials;
}

async function serveGuarded(limits: Parameters<typeof serveStore>[0] = {}): Promise<Guarded> {
  const replica = new FakeReplica();
  replica.proposals = [];
  const credentials = createCredentials(CREDENTIALS);
  return { ...(await serveStore(limits, replica, { credentials })), credentials };
}

/** Each as memcached 1.6.18 -Y answers it, but for what is marked. */
const conversations: readonly [sent: string, answered: string][] = [
  [LOGIN, 'STORED\r\n'],
  [`${LOGIN}version\r\n`, `STORED\r\n${VERSION}`],
  [`${LOGIN}${LOGIN}get x\r\n`, 'STORED\r\nSTORED\r\nVALUE x 0 10\r\nada secret\r\nEND\r\n'],
  [`${attempt('bob pa:ss')}version\r\n`, `STORED\r\n${VERSION}`],
  [`${attempt('bob next')}version\r\n`, `STORED\r\n${VERSION}`],
  ['set x y z 10\r\nada secret\r\n', 'STORED\r\n'],
  ['set x 0 0 +10\r\nada secret\r\n', 'STORED\r\n'],
  ['set x 0 0 10 noreply\r\nada secret\r\n', 'STORED\r\n'],
  ['set x 0 0 10 1 2 3\r\nada secret\r\n', 'STORED\r\n'],
  ['  set x 0 0 10\nada secret\r\n', 'STORED\r\n'],
  [`set ${'k'.repeat(400)} 0 0 10\r\nada secret\r\n`, 'STORED\r\n'],
  [attempt('ada  secret '), 'STORED\r\n'],
  [attempt('ada secret more'), 'STORED\r\n'],
  // memcached waits for a \r here.
  ['set x 0 0 10\nada secret\nversion\n', `STORED\r\n${VERSION}`],
  ['version\r\n', UNAUTHENTICATED],
  ['quit\r\n', UNAUTHENTICATED],
  ['mn\r\n', UNAUTHENTICATED],
  ['\r\n', UNAUTHENTICATED],
  ['flush_all noreply\r\n', UNAUTHENTICATED],
  ['add x 0 0 10\r\n', UNAUTHENTICATED],
  ['set x 0 0\r\n', UNAUTHENTICATED],
  ['set x 0 0 -1\r\n', UNAUTHENTICATED],
  ['set x 0 0 10q\r\n', UNAUTHENTICATED],
  ['set x 0 0 4294967296\r\n', UNAUTHENTICATED],
  // memcached answers a pipeline of refusals once.
  ['get a\r\nversion\r\n', UNAUTHENTICATED + UNAUTHENTICATED],
  ['set a 0 0 1\r\nx\r\nget a\r\n', BAD_TOKEN + UNAUTHENTICATED],
  [attempt('ada wrong'), FAILURE],
  [attempt('ADA secret'), FAILURE],
  [attempt('eve secret'), FAILURE],
  [attempt('ada pa:ss'), FAILURE],
  [`${attempt('ada wrong')}${LOGIN}version\r\n`, `${FAILURE}STORED\r\n${VERSION}`],
  [attempt('ada'), BAD_TOKEN],
  [attempt(' secret'), BAD_TOKEN],
  [attempt(''), BAD_TOKEN],
  [attempt('ada\tsecret'), BAD_TOKEN],
  ['set x 0 0 10\r\nada secretXX', BAD_END],
  [`set x 0 0 10\r\nada secretXX${LOGIN}`, `${BAD_END}STORED\r\n`],
];

describe('a client port with passwords', () => {
  it.each(conversations)('answers %j with %j, at once and byte by byte', async (sent, answered) => {
    const { port } = await serveGuarded();
    expect(await converse(port, sent)).toBe(answered);
    const client = await newClient(port);
    for (const byte of sent) {
      client.send(byte);
      await new Promise((resolve) => setImmediate(resolve));
    }
    client.end();
    expect(await client.rest()).toBe(answered);
  });

  it('lets nothing of one who has not logged in reach the replica', async () => {
    const { port, replica } = await serveGuarded();
    const commands = [
      'set a 0 0 1',
      'x',
      'get a',
      'delete a',
      'flush_all',
      'touch a 0',
      'gat 0 a',
      'lru_crawler metadump all',
    ];
    await converse(port, `${commands.join('\r\n')}\r\n`);
    await converse(port, `${attempt('ada wrong')}${commands.join('\r\n')}\r\n`);
    expect(replica.proposals).toEqual([]);
    expect(replica.reads).toBe(0);
    expect(await converse(port, `${LOGIN}set a 0 0 1\r\nx\r\nget a\r\n`)).toMatch(/^STORED\r\nSTORED\r\nVALUE a/);
    expect(replica.proposals).toEqual(['set a']);
    expect(replica.reads).toBe(1);
  });

  it('asks each connection again', async () => {
    const { port } = await serveGuarded();
    const inside = await newClient(port);
    inside.send(LOGIN);
    await inside.reply('STORED\r\n');
    expect(await converse(port, 'version\r\n')).toBe(UNAUTHENTICATED);
    inside.send('version\r\n');
    expect(await inside.reply('\r\n')).toBe(VERSION);
  });

  it('takes the longest token that a file can ask for, and hangs up on a longer one', async () => {
    const { port, credentials } = await serveGuarded();
    const user = 'u'.repeat(256);
    const password = 'p'.repeat(256);
    credentials.replace([{ user, password }]);
    const token = `${user} ${password}`;
    expect(await converse(port, attempt(token))).toBe('STORED\r\n');
    expect(await converse(port, attempt(token + ' '.repeat(528 - token.length)))).toBe('STORED\r\n');
    const client = await newClient(port);
    client.send(`${attempt(token + ' '.repeat(529 - token.length))}${LOGIN}`);
    expect(await client.rest()).toBe(BAD_TOKEN);
  });

  it('hangs up on a line without an end, and on a browser', async () => {
    const { port } = await serveGuarded();
    for (const text of ['x'.repeat(2049), 'GET / HTTP/1.1\r\nHost: x\r\n\r\n']) {
      const client = await newClient(port);
      client.send(text);
      expect(await client.rest()).toBe('');
    }
    const client = await newClient(port);
    client.send(`${'x'.repeat(2047)}\n`);
    expect(await client.reply('\r\n')).toBe(UNAUTHENTICATED);
  });

  it('refuses one connection so often and no more', async () => {
    const { port } = await serveGuarded({ refusalsMax: 3 });
    expect(await converse(port, `${attempt('a b').repeat(2)}${LOGIN}`)).toBe(`${FAILURE.repeat(2)}STORED\r\n`);
    const client = await newClient(port);
    client.send(`${attempt('a b').repeat(3)}${LOGIN}`);
    expect(await client.rest()).toBe(FAILURE.repeat(3));
  });

  it('waits for a login for a while and no longer, and leaves those inside alone', async () => {
    const { port } = await serveGuarded({ loginMsMax: 100 });
    const inside = await newClient(port);
    inside.send(LOGIN);
    await inside.reply('STORED\r\n');
    const silent = await newClient(port);
    const trickling = await newClient(port);
    trickling.send('set x 0 0 10\r\nada');
    expect(await silent.rest()).toBe('');
    expect(await trickling.rest()).toBe('');
    inside.send('version\r\n');
    expect(await inside.reply('\r\n')).toBe(VERSION);
  });

  it('holds to other passwords from the moment they are replaced; who is inside stays', async () => {
    const { port, credentials } = await serveGuarded();
    const inside = await newClient(port);
    inside.send(LOGIN);
    await inside.reply('STORED\r\n');
    credentials.replace([{ user: 'ada', password: 'better' }]);
    expect(await converse(port, LOGIN)).toBe(FAILURE);
    expect(await converse(port, attempt('ada better'))).toBe('STORED\r\n');
    inside.send('version\r\n');
    expect(await inside.reply('\r\n')).toBe(VERSION);
  });

  it('counts attempts and failures', async () => {
    const { port } = await serveGuarded();
    const stats = await converse(port, `version\r\n${attempt('ada wrong')}${LOGIN}stats\r\nstats settings\r\n`);
    expect(stats).toMatch(/STAT auth_cmds 2\r\n/);
    expect(stats).toMatch(/STAT auth_errors 1\r\n/);
    expect(stats).toMatch(/STAT auth_enabled_ascii yes\r\n/);
  });
});
