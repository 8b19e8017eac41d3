import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeCertificates } from '../../src/cli/commands/certs.ts';
import { askStatus } from '../../src/cli/commands/status.ts';
import type { NodeConfig } from '../../src/config/schema.ts';
import type { ReplicaStatus } from '../../src/replica/types.ts';
import { connect, type MemcachedClient } from './memcached-client.ts';

export const USER = 'ada';
export const PASSWORD = 'lovelace';
const DAY_MS = 24 * 3600 * 1000;

/** How a test gets into a cluster that requires certificates and passwords. */
interface SecureAccess {
  /** For the configuration. */
  readonly settings: object;
  connect(port: number): Promise<MemcachedClient>;
  status(node: NodeConfig): Promise<ReplicaStatus | null>;
}

/** Makes certificates and a password in the folder of the configuration. */
export async function secureCluster(
  folder: string,
  cluster: string,
  nodes: readonly NodeConfig[],
): Promise<SecureAccess> {
  const now = Date.now();
  const validity = { notBefore: new Date(now - DAY_MS), notAfter: new Date(now + DAY_MS) };
  const pairs = await makeCertificates({ cluster, nodes }, validity);
  mkdirSync(join(folder, 'certs'));
  for (const [name, { cert, key }] of pairs) {
    writeFileSync(join(folder, 'certs', `${name}.crt`), cert);
    writeFileSync(join(folder, 'certs', `${name}.key`), key, { mode: 0o600 });
  }
  writeFileSync(join(folder, 'passwords'), `${USER}:${PASSWORD}\n`, { mode: 0o600 });
  const pem = (text: string | undefined) => Buffer.from(text ?? '');
  const own = pairs.get('client');
  const identity = { ca: pem(pairs.get('ca')?.cert), cert: pem(own?.cert), key: pem(own?.key) };
  return {
    settings: {
      authFile: 'passwords',
      tls: {
        ca: 'certs/ca.crt',
        cert: 'certs/node-{id}.crt',
        key: 'certs/node-{id}.key',
        clientCert: 'certs/client.crt',
        clientKey: 'certs/client.key',
      },
    },
    async connect(port) {
      const client = await connect(port, undefined, { ...identity });
      const token = `${USER} ${PASSWORD}`;
      const reply = await client.request(`set login 0 0 ${token.length}\r\n${token}\r\n`);
      if (reply !== 'STORED') throw new Error(`could not log in: ${reply}`);
      return client;
    },
    status: async (node) => (await askStatus(node, cluster, identity)).answer?.replica ?? null,
  };
}
