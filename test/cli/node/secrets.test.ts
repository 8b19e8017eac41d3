import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import type { Logger } from '../../../src/base/logger.ts';
import type { TlsIdentity } from '../../../src/base/tls.ts';
import { loadSecrets } from '../../../src/cli/node/secrets.ts';
import type { Config, TlsConfig } from '../../../src/config/schema.ts';
import { newAuthority } from '../../support/certificates.ts';
import { fakeConfig } from '../fake-cluster.ts';

const folder = mkdtempSync(join(tmpdir(), 'raftkv-secrets-'));
afterAll(() => rmSync(folder, { recursive: true }));

const base = fakeConfig(3);
const paths = { ca: join(folder, 'ca.crt'), cert: join(folder, 'node-{id}.crt'), key: join(folder, 'node-{id}.key') };
const authFile = join(folder, 'passwords');
let logged: { level: string; message: string }[];
const record = (level: string) => (_fields: object, message: string) => void logged.push({ level, message });
const logger: Logger = { debug: record('debug'), info: record('info'), warn: record('warn'), error: record('error') };
beforeEach(() => {
  logged = [];
});

async function writeIdentity(nodeId = 1): Promise<TlsIdentity> {
  const identity = await (await newAuthority()).node(nodeId, base.cluster);
  writeFileSync(paths.ca, identity.ca);
  writeFileSync(join(folder, 'node-1.crt'), identity.cert);
  writeFileSync(join(folder, 'node-1.key'), identity.key, { mode: 0o600 });
  return identity;
}

const secured = (changes: Partial<TlsConfig> = {}): Config => ({
  ...base,
  authFile,
  tls: { ...paths, clients: 'mutual', admin: 'encrypted', peers: 'mutual', ...changes },
});

describe('the secrets of a node', () => {
  it('are none where the configuration names none', async () => {
    const { credentials, tls } = await loadSecrets(base, 1, logger);
    expect({ credentials, tls }).toEqual({ credentials: null, tls: { peers: null, clients: null, admin: null } });
  });

  it('are asked for at each port as the configuration says', async () => {
    const identity = await writeIdentity();
    writeFileSync(authFile, 'ada:secret\n', { mode: 0o600 });
    const { credentials, tls } = await loadSecrets(secured(), 1, logger);
    expect(credentials?.accept('ada secret')).toBe(true);
    expect(tls).toEqual({
      peers: identity,
      clients: { identity, clientCertificates: 'required' },
      admin: { identity, clientCertificates: 'none' },
    });
    const plain = await loadSecrets(secured({ clients: 'plain', peers: 'plain' }), 1, logger);
    expect(plain.tls).toEqual({ peers: null, clients: null, admin: { identity, clientCertificates: 'none' } });
  });

  it('are replaced by what is read again, each file for itself, and stay where a file is wrong', async () => {
    await writeIdentity();
    writeFileSync(authFile, 'ada:secret\n', { mode: 0o600 });
    const { credentials, reload } = await loadSecrets(secured(), 1, logger);
    const replaced: TlsIdentity[] = [];
    const other = await writeIdentity();
    writeFileSync(authFile, 'ada secret\n');
    reload((identity) => replaced.push(identity));
    expect(replaced).toEqual([other]);
    expect(credentials?.accept('ada secret')).toBe(true);
    expect(logged.filter(({ level }) => level === 'error')).toEqual([
      { level: 'error', message: expect.stringMatching(/line 1 has no colon; keeping the previously loaded files/) },
    ]);

    writeFileSync(join(folder, 'node-1.key'), 'no key');
    writeFileSync(authFile, 'ada:better\n');
    reload((identity) => replaced.push(identity));
    expect(replaced).toHaveLength(1);
    expect(credentials?.accept('ada secret')).toBe(false);
    expect(credentials?.accept('ada better')).toBe(true);
    expect(logged.at(-1)).toMatchObject({
      level: 'error',
      message: expect.stringMatching(/node-1.key cannot be used/),
    });
  });
});
