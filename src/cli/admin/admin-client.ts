import { type ClientRequest, type IncomingMessage, type RequestOptions, request } from 'node:http';
import { isNodeCertificate } from '../../base/node-names.ts';
import type { TlsIdentity } from '../../base/tls.ts';
import type { Config, NodeConfig } from '../../config/schema.ts';

/** Requests to admin ports. If the cluster uses TLS, so do they, and the server must prove to be the node that was asked. */

export type AdminAddress = Pick<NodeConfig, 'id' | 'host' | 'adminPort'>;

export interface AdminTarget {
  readonly node: AdminAddress;
  readonly cluster: string;
  /** Null where admin ports are plain. */
  readonly tls: TlsIdentity | null;
}

export interface AdminRequest {
  readonly path: string;
  /** JSON to post; without, it is a GET. */
  readonly post?: string;
  /** Ends the request at any moment; its reason is what the promise rejects with. */
  readonly signal: AbortSignal;
}

/** The certificate that commands show to admin ports; null if those do not use TLS. Loaded only if needed, because it takes a while. */
export async function operatorTls(config: Config): Promise<TlsIdentity | null> {
  if (config.tls === undefined || config.tls.admin === 'plain') return null;
  const { readOperatorTls } = await import('../../config/tls-files.ts');
  return readOperatorTls(config.tls, config);
}

/** Resolves when the answer begins. */
export async function requestAdmin(
  { node, cluster, tls }: AdminTarget,
  { path, post, signal }: AdminRequest,
): Promise<IncomingMessage> {
  const content =
    post === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(post) };
  const options = {
    host: node.host,
    port: node.adminPort,
    path,
    method: post === undefined ? 'GET' : 'POST',
    headers: content,
    agent: false,
    signal,
  };
  if (tls === null) return begin(request, options, post);
  const https = await import('node:https');
  const checkServerIdentity = (_host: string, { subjectaltname }: { subjectaltname?: string }) =>
    isNodeCertificate(subjectaltname, cluster, node.id)
      ? undefined
      : new Error(`the server's certificate is not that of node ${node.id} of cluster ${cluster}`);
  return begin(https.request, { ...options, ...tls, checkServerIdentity }, post);
}

function begin<O extends RequestOptions>(
  ask: (options: O, answered: (response: IncomingMessage) => void) => ClientRequest,
  options: O,
  post: string | undefined,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const asked = ask(options, resolve);
    asked.on('error', reject);
    asked.end(post);
  });
}

export async function readText(response: IncomingMessage, bytesMax: number): Promise<string> {
  let text = '';
  response.setEncoding('utf8');
  for await (const chunk of response) {
    text += chunk;
    // Leaving the loop destroys the response.
    if (text.length > bytesMax) throw new Error('the response is too large');
  }
  return text;
}

/** Why a node could not be asked, for a person. */
export function explainFailure(error: unknown, msMax: number): string {
  if (error instanceof SyntaxError) return 'the server is not a raftkv node';
  if (!(error instanceof Error)) return String(error);
  const code = 'code' in error ? error.code : undefined;
  if (code === 'ECONNREFUSED') return 'connection refused';
  if (code === 'ABORT_ERR' || error.name === 'TimeoutError') return `no response within ${msMax} ms`;
  return error.message;
}
