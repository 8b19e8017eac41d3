import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { RaftkvError } from '../../base/errors.ts';
import { nodeUri } from '../../base/node-names.ts';
import { loadConfig } from '../../config/load.ts';
import type { Config } from '../../config/schema.ts';
import {
  type CertificateRequest,
  createAuthority,
  type KeyPair,
  openAuthority,
  type Validity,
} from './certificate-authority.ts';

/**
 * `raftkv certs`: a development authority, a certificate for each node, and one for clients.
 *
 *   ca.crt ca.key    node-1.crt node-1.key …    client.crt client.key
 */

export interface CertsOptions {
  readonly config: string;
  readonly out: string;
  readonly days: number;
  /** Makes only missing certificates, with the authority in the folder: for nodes that were added. */
  readonly missing?: boolean;
}

const DAY_MS = 24 * 3600 * 1000;
/** A machine whose clock is a little behind should take them at once. */
const CLOCK_SKEW_MS = 3600 * 1000;
const FOLDER_MODE = 0o700;
const KEY_MODE = 0o600;
const CERT_MODE = 0o644;
/** Clients on the machine of a node reach it by these. */
const LOCAL_HOSTS = ['localhost', '127.0.0.1', '::1'];

/** Throws CERTIFICATES_EXIST, and what `loadConfig` throws. */
export async function certsCommand(options: CertsOptions): Promise<void> {
  const { config } = loadConfig({ file: options.config, environment: process.env });
  const folder = resolve(options.out);
  const names = ['ca', ...config.nodes.map(({ id }) => `node-${id}`), 'client'];
  if (options.missing) return makeMissing(config, folder, names, options);
  for (const file of names.flatMap((name) => [`${name}.crt`, `${name}.key`])) refuseToOverwrite(join(folder, file));

  const pairs = await makeCertificates(config, validityOf(options));
  mkdirSync(folder, { recursive: true, mode: FOLDER_MODE });
  for (const [name, pair] of pairs) writePair(folder, name, pair);
  process.stdout.write(describe(folder, names, options));
}

function validityOf({ days }: CertsOptions): Validity {
  const now = Date.now();
  return { notBefore: new Date(now - CLOCK_SKEW_MS), notAfter: new Date(now + days * DAY_MS) };
}

function writePair(folder: string, name: string, { cert, key }: KeyPair): void {
  writeFileSync(join(folder, `${name}.key`), key, { mode: KEY_MODE, flag: 'wx' });
  writeFileSync(join(folder, `${name}.crt`), cert, { mode: CERT_MODE, flag: 'wx' });
}

async function makeMissing(
  config: Config,
  folder: string,
  names: readonly string[],
  options: CertsOptions,
): Promise<void> {
  const [ca, caKey] = ['ca.crt', 'ca.key'].map((name) => join(folder, name));
  if (ca === undefined || caKey === undefined || !existsSync(ca) || !existsSync(caKey)) {
    throw new RaftkvError(
      'TLS_INVALID',
      `${folder} has no certificate authority (ca.crt and ca.key)`,
      'Pass with --out the folder in which `raftkv certs` created the authority.',
    );
  }
  const pair = { cert: readFileSync(ca, 'utf8'), key: readFileSync(caKey, 'utf8') };
  const authority = await openAuthority(pair, validityOf(options));
  const requests = requestsFor(config);
  const made = names.filter((name) => requests.has(name) && !existsSync(join(folder, `${name}.crt`)));
  for (const name of made) refuseToOverwrite(join(folder, `${name}.key`));
  for (const name of made) {
    const request = requests.get(name);
    if (request !== undefined) writePair(folder, name, await authority.issue(request));
  }
  const what = made.length === 0 ? 'Nothing was missing' : `Created ${made.join(', ')}`;
  process.stdout.write(`${what} in ${folder}, signed by the existing authority.\n`);
}

/** By the name of their files; the authority's own first. */
export async function makeCertificates(
  config: Pick<Config, 'cluster' | 'nodes'>,
  validity: Validity,
): Promise<Map<string, KeyPair>> {
  const authority = await createAuthority(`raftkv ${config.cluster} development CA`, validity);
  const pairs = new Map<string, KeyPair>([['ca', authority]]);
  for (const [name, request] of requestsFor(config)) pairs.set(name, await authority.issue(request));
  return pairs;
}

function requestsFor({ cluster, nodes }: Pick<Config, 'cluster' | 'nodes'>): Map<string, CertificateRequest> {
  const requests = new Map<string, CertificateRequest>();
  for (const { id, host } of nodes) {
    requests.set(`node-${id}`, {
      commonName: `node ${id} of ${cluster}`,
      uris: [nodeUri(cluster, id)],
      hosts: [...new Set([host, ...LOCAL_HOSTS])],
    });
  }
  return requests.set('client', { commonName: `client of ${cluster}` });
}

function refuseToOverwrite(file: string): void {
  if (!existsSync(file)) return;
  throw new RaftkvError(
    'CERTIFICATES_EXIST',
    `${file} already exists; nothing was written`,
    'For added nodes, use --missing. Otherwise choose another folder with --out, or move the old files away: nodes that ' +
      'use certificates of two authorities do not accept each other.',
  );
}

function describe(folder: string, names: readonly string[], { config, days }: CertsOptions): string {
  const base = relative(resolve(config, '..'), folder);
  const tls = {
    ca: join(base, 'ca.crt'),
    cert: join(base, 'node-{id}.crt'),
    key: join(base, 'node-{id}.key'),
    clientCert: join(base, 'client.crt'),
    clientKey: join(base, 'client.key'),
  };
  return `Made ${names.length} certificates in ${folder}, good for ${days} days. They are for development: who has ca.key can
make more. Put this into ${config}, and start the nodes again:

  "tls": ${JSON.stringify(tls, null, 2).replaceAll('\n', '\n  ')}
`;
}
