import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { RaftkvError } from '../base/errors.ts';
import { nodeUri } from '../base/node-names.ts';
import { loadConfig } from '../config/load.ts';
import type { Config } from '../config/schema.ts';
import { type CertificateRequest, createAuthority, type KeyPair, type Validity } from './certificate-authority.ts';

/**
 * `raftkv certs`: a development authority, a certificate for each node, and one for clients.
 *
 *   ca.crt ca.key    node-1.crt node-1.key …    client.crt client.key
 */

export interface CertsOptions {
  readonly config: string;
  readonly out: string;
  readonly days: number;
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
  for (const file of names.flatMap((name) => [`${name}.crt`, `${name}.key`])) refuseToOverwrite(join(folder, file));

  const now = Date.now();
  const validity = { notBefore: new Date(now - CLOCK_SKEW_MS), notAfter: new Date(now + options.days * DAY_MS) };
  const pairs = await makeCertificates(config, validity);
  mkdirSync(folder, { recursive: true, mode: FOLDER_MODE });
  for (const [name, { cert, key }] of pairs) {
    writeFileSync(join(folder, `${name}.key`), key, { mode: KEY_MODE, flag: 'wx' });
    writeFileSync(join(folder, `${name}.crt`), cert, { mode: CERT_MODE, flag: 'wx' });
  }
  process.stdout.write(describe(folder, names, options));
}

/** By the name of their files; the authority's own first. */
export async function makeCertificates(
  config: Pick<Config, 'cluster' | 'nodes'>,
  validity: Validity,
): Promise<Map<string, KeyPair>> {
  const authority = await createAuthority(`raftkv ${config.cluster} development CA`, validity);
  const pairs = new Map<string, KeyPair>([['ca', authority]]);
  for (const { id, host } of config.nodes) {
    const request: CertificateRequest = {
      commonName: `node ${id} of ${config.cluster}`,
      uris: [nodeUri(config.cluster, id)],
      hosts: [...new Set([host, ...LOCAL_HOSTS])],
    };
    pairs.set(`node-${id}`, await authority.issue(request));
  }
  pairs.set('client', await authority.issue({ commonName: `client of ${config.cluster}` }));
  return pairs;
}

function refuseToOverwrite(file: string): void {
  if (!existsSync(file)) return;
  throw new RaftkvError(
    'CERTIFICATES_EXIST',
    `${file} is there already; nothing was written`,
    'Name another folder with --out, or move the old files away: the nodes that use them would not know each other.',
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
