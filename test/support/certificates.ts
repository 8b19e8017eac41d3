import { nodeUri } from '../../src/base/node-names.ts';
import type { TlsIdentity } from '../../src/base/tls.ts';
import {
  type Authority,
  type CertificateRequest,
  createAuthority,
} from '../../src/cli/commands/certificate-authority.ts';

/** Certificates made in the test: right ones, and every kind of wrong. */

const DAY_MS = 24 * 3600 * 1000;
const HOST = '127.0.0.1';

export interface TestAuthority {
  node(id: number, clusterName?: string): Promise<TlsIdentity>;
  client(): Promise<TlsIdentity>;
  issue(request: CertificateRequest): Promise<TlsIdentity>;
}

export async function newAuthority(name = 'test CA'): Promise<TestAuthority> {
  const now = Date.now();
  const validity = { notBefore: new Date(now - DAY_MS), notAfter: new Date(now + DAY_MS) };
  const authority: Authority = await createAuthority(name, validity);
  const issue = async (request: CertificateRequest): Promise<TlsIdentity> => {
    const { cert, key } = await authority.issue(request);
    return { ca: Buffer.from(authority.cert), cert: Buffer.from(cert), key: Buffer.from(key) };
  };
  return {
    issue,
    node: (id, clusterName = 'test') =>
      issue({ commonName: `node ${id}`, uris: [nodeUri(clusterName, id)], hosts: [HOST, 'localhost'] }),
    client: () => issue({ commonName: 'client' }),
  };
}

export const EXPIRED = { notBefore: new Date(Date.now() - 3 * DAY_MS), notAfter: new Date(Date.now() - DAY_MS) };
