import { createPrivateKey, X509Certificate } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { isNodeCertificate } from '../../../src/base/node-names.ts';
import { certsCommand } from '../../../src/cli/commands/certs.ts';
import { loadConfig } from '../../../src/config/load.ts';
import type { TlsConfig } from '../../../src/config/schema.ts';
import { readNodeTls, readOperatorTls } from '../../../src/config/tls-files.ts';

const DAY_MS = 24 * 3600 * 1000;
const HOSTS = ['10.1.2.3', 'fe80::1:0:ff', 'two.example.org'];
let folder: string;
let file: string;
let out: string;
let printed = '';

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'raftkv-certs-'));
  file = join(folder, 'cluster.json');
  out = join(folder, 'made', 'certs');
  const nodes = HOSTS.map((host, i) => ({ id: i + 1, host, clientPort: 1, peerPort: 2, adminPort: 3 }));
  writeFileSync(file, JSON.stringify({ cluster: 'demo', nodes }));
  const write = vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    printed += text;
    return true;
  });
  await certsCommand({ config: file, out, days: 90 });
  write.mockRestore();
});
afterAll(() => rmSync(folder, { recursive: true }));

const read = (name: string) => readFileSync(join(out, name));
const certificate = (name: string) => new X509Certificate(read(`${name}.crt`));

/** What is printed, put into the configuration as it says. */
function configured(changes: Partial<TlsConfig> = {}) {
  const { tls } = JSON.parse(`{${printed.slice(printed.indexOf('"tls"'))}}`);
  const content = JSON.parse(readFileSync(file, 'utf8'));
  const secured = join(folder, 'secured.json');
  writeFileSync(secured, JSON.stringify({ ...content, tls: { ...tls, ...changes } }));
  const { config } = loadConfig({ file: secured, environment: {} });
  if (config.tls === undefined) throw new Error('no tls');
  return { config, tls: config.tls };
}

describe('raftkv certs', () => {
  it('makes an authority, a certificate for each node, and one for clients; keys are for their owner only', () => {
    const names = ['ca', 'client', 'node-1', 'node-2', 'node-3'];
    expect(readdirSync(out).sort()).toEqual(names.flatMap((name) => [`${name}.crt`, `${name}.key`]).sort());
    for (const name of names) {
      expect(statSync(join(out, `${name}.key`)).mode & 0o777).toBe(0o600);
      expect(certificate(name).checkPrivateKey(createPrivateKey(read(`${name}.key`)))).toBe(true);
      expect(certificate(name).verify(certificate('ca').publicKey)).toBe(true);
      const daysLeft = (Date.parse(certificate(name).validTo) - Date.now()) / DAY_MS;
      expect(daysLeft).toBeGreaterThan(89.9);
      expect(daysLeft).toBeLessThan(90.1);
    }
    expect(statSync(out).mode & 0o777).toBe(0o700);
    expect(new Set(names.map((name) => certificate(name).serialNumber)).size).toBe(names.length);
  });

  it('names each node, and the hosts at which it is reached', () => {
    for (const id of [1, 2, 3]) {
      const { subjectAltName } = certificate(`node-${id}`);
      for (const other of [1, 2, 3]) expect(isNodeCertificate(subjectAltName, 'demo', other)).toBe(other === id);
      expect(isNodeCertificate(subjectAltName, 'other', id)).toBe(false);
      expect(certificate(`node-${id}`).checkIP('127.0.0.1')).toBeTruthy();
    }
    expect(certificate('node-1').checkIP('10.1.2.3')).toBeTruthy();
    expect(certificate('node-2').checkIP('fe80::1:0:ff')).toBeTruthy();
    expect(certificate('node-2').checkIP('::1')).toBeTruthy();
    expect(certificate('node-3').checkHost('two.example.org')).toBeTruthy();
    expect(certificate('client').subjectAltName).toBeUndefined();
    expect(certificate('ca').ca).toBe(true);
    expect(certificate('node-1').ca).toBe(false);
  });

  it('--missing makes those of nodes that were added, by the authority that is there, and touches no other', async () => {
    const more = join(folder, 'more.json');
    const content = JSON.parse(readFileSync(file, 'utf8'));
    const added = { id: 4, host: 'four.example.org', clientPort: 1, peerPort: 2, adminPort: 3 };
    writeFileSync(more, JSON.stringify({ ...content, nodes: [...content.nodes, added] }));
    const before = ['ca.crt', 'node-1.crt', 'client.key'].map(read);
    const write = vi.spyOn(process.stdout, 'write').mockImplementation(() => true);
    await certsCommand({ config: more, out, days: 30, missing: true });
    await certsCommand({ config: more, out, days: 30, missing: true });
    const elsewhere = certsCommand({ config: more, out: join(folder, 'none'), days: 30, missing: true });
    await expect(elsewhere).rejects.toMatchObject({ code: 'TLS_INVALID' });
    rmSync(join(out, 'node-4.crt'));
    const halved = certsCommand({ config: more, out, days: 30, missing: true });
    await expect(halved).rejects.toMatchObject({ code: 'CERTIFICATES_EXIST' });
    rmSync(join(out, 'node-4.key'));
    await certsCommand({ config: more, out, days: 30, missing: true });
    write.mockRestore();
    expect(certificate('node-4').verify(certificate('ca').publicKey)).toBe(true);
    expect(certificate('node-4').checkIssued(certificate('ca'))).toBe(true);
    expect(certificate('node-4').checkPrivateKey(createPrivateKey(read('node-4.key')))).toBe(true);
    expect(isNodeCertificate(certificate('node-4').subjectAltName, 'demo', 4)).toBe(true);
    expect(statSync(join(out, 'node-4.key')).mode & 0o777).toBe(0o600);
    expect(['ca.crt', 'node-1.crt', 'client.key'].map(read)).toEqual(before);
    for (const kind of ['crt', 'key']) rmSync(join(out, `node-4.${kind}`));
  });

  it('overwrites nothing, and then writes nothing', async () => {
    rmSync(join(out, 'node-3.crt'));
    const before = read('ca.crt');
    await expect(certsCommand({ config: file, out, days: 90 })).rejects.toMatchObject({ code: 'CERTIFICATES_EXIST' });
    expect(read('ca.crt')).toEqual(before);
    expect(readdirSync(out)).not.toContain('node-3.crt');
  });

  it('prints what a node takes', () => {
    const { config, tls } = configured();
    expect(readNodeTls(tls, config, 1)).toMatchObject({ identity: { cert: read('node-1.crt') }, warnings: [] });
    expect(readOperatorTls(tls, config).cert).toEqual(read('client.crt'));
  });
});

describe('the files of tls', () => {
  it.each([
    [{ cert: 'made/certs/node-2.crt', key: 'made/certs/node-2.key' }, /node-2.crt is not the certificate of node 1/],
    [{ cert: 'made/certs/client.crt', key: 'made/certs/client.key' }, /client.crt is not the certificate of node 1/],
    [{ key: 'made/certs/node-2.key' }, /node-2.key is not the key of .*node-1.crt/],
    [{ key: 'made/certs/none.key' }, /none.key cannot be used: ENOENT/],
    [{ ca: 'cluster.json' }, /cluster.json cannot be used: /],
  ])('are refused at the start where they are %j', (changes, message) => {
    const { config, tls } = configured(changes);
    expect(() => readNodeTls(tls, config, 1)).toThrow(expect.objectContaining({ code: 'TLS_INVALID' }));
    expect(() => readNodeTls(tls, config, 1)).toThrow(message);
  });

  it("are a node's for an operator who has none of a client", () => {
    const { config } = configured();
    const { clientCert: _cert, clientKey: _key, ...tls } = config.tls ?? { ca: '', cert: '', key: '' };
    expect(readOperatorTls(tls as TlsConfig, config).cert).toEqual(read('node-1.crt'));
  });
});
