import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { createSecureContext } from 'node:tls';
import { RaftkvError } from '../base/errors.ts';
import { isNodeCertificate, nodeUri } from '../base/node-names.ts';
import type { TlsIdentity } from '../base/tls.ts';
import type { Config, TlsConfig } from './schema.ts';

/** The files that `tls` names, read and checked as far as one node can. */

/** Time enough to notice a warning and to have another made. */
const EXPIRY_WARNING_DAYS = 30;
const DAY_MS = 24 * 3600 * 1000;
const READABLE_BY_OTHERS = 0o004;

export interface TlsFiles {
  readonly identity: TlsIdentity;
  readonly warnings: readonly string[];
}

/** The certificate of a node. @throws RaftkvError TLS_INVALID */
export function readNodeTls(tls: TlsConfig, { cluster }: Config, nodeId: number): TlsFiles {
  const certFile = forNode(tls.cert, nodeId);
  const files = readTls(tls.ca, certFile, forNode(tls.key, nodeId));
  if (!isNodeCertificate(new X509Certificate(files.identity.cert).subjectAltName, cluster, nodeId)) {
    throw invalid(
      certFile,
      `is not the certificate of node ${nodeId}: it lacks the subject alternative name URI:${nodeUri(cluster, nodeId)}`,
    );
  }
  return files;
}

/** The certificate of an operator's command: the client's if there is one, else that of a node of this machine. */
export function readOperatorTls(tls: TlsConfig, { nodes }: Config): TlsIdentity {
  if (tls.clientCert !== undefined && tls.clientKey !== undefined) {
    return readTls(tls.ca, tls.clientCert, tls.clientKey).identity;
  }
  let failure: unknown;
  for (const { id } of nodes) {
    try {
      return readTls(tls.ca, forNode(tls.cert, id), forNode(tls.key, id)).identity;
    } catch (error) {
      failure ??= error;
    }
  }
  throw failure;
}

function forNode(path: string, nodeId: number): string {
  return path.replaceAll('{id}', String(nodeId));
}

function readTls(caFile: string, certFile: string, keyFile: string): TlsFiles {
  const identity = { ca: readPem(caFile), cert: readPem(certFile), key: readPem(keyFile) };
  checked(caFile, () => new X509Certificate(identity.ca));
  const certificate = checked(certFile, () => new X509Certificate(identity.cert));
  const key = checked(keyFile, () => createPrivateKey(identity.key));
  if (!certificate.checkPrivateKey(key)) throw invalid(keyFile, `is not the key of ${certFile}`);
  // Whatever else TLS could find wrong must be found here, before the old files are let go.
  checked(certFile, () => createSecureContext({ ...identity }));
  const warnings = expiryWarnings(certFile, certificate);
  if ((statSync(keyFile).mode & READABLE_BY_OTHERS) !== 0) {
    warnings.push(`tls: ${keyFile} can be read by every user of this machine; chmod 600 it`);
  }
  return { identity, warnings };
}

function expiryWarnings(file: string, { validTo }: X509Certificate): string[] {
  const daysLeft = (Date.parse(validTo) - Date.now()) / DAY_MS;
  if (daysLeft > EXPIRY_WARNING_DAYS) return [];
  return [`tls: ${file} ${daysLeft < 0 ? 'has expired' : 'expires'} on ${validTo}; an expired certificate is refused`];
}

function readPem(file: string): Buffer {
  return checked(file, () => readFileSync(file));
}

function checked<T>(file: string, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    throw invalid(file, `cannot be used: ${cause instanceof Error ? cause.message : String(cause)}`, cause);
  }
}

function invalid(file: string, what: string, cause?: unknown): RaftkvError {
  return new RaftkvError(
    'TLS_INVALID',
    `${file} ${what}`,
    'List PEM files in tls: `raftkv certs` creates a set, and docs/security.md says what your own must contain.',
    cause,
  );
}
