import { type ClientRequest, get, type IncomingMessage, type RequestOptions } from 'node:http';
import { isNodeCertificate } from '../base/node-names.ts';
import type { TlsIdentity } from '../base/tls.ts';
import type { NodeConfig } from '../config/schema.ts';
import type { StatusBody } from '../server/admin-port.ts';

/** A node that doesn't answer within this is as good as unreachable, and somebody waits at a terminal. */
const ANSWER_MS_MAX = 2_000;
/** Far above what /status says. */
const ANSWER_BYTES_MAX = 64 * 1024;

export interface NodeReport {
  readonly node: NodeConfig;
  /** Null where the node could not be asked, or answered something else. */
  readonly answer: StatusBody | null;
  /** Why there is no answer; empty where there is one. */
  readonly failure: string;
}

/**
 * Asks one node's admin port, with TLS where `tls` is not null: then whoever answers must prove to be that node. Never
 * rejects: what went wrong is in the report.
 */
export async function askStatus(
  node: NodeConfig,
  cluster: string,
  tls: TlsIdentity | null = null,
): Promise<NodeReport> {
  try {
    const answer: unknown = JSON.parse(await fetchText(node, cluster, tls));
    if (!isStatusBody(answer)) return { node, answer: null, failure: 'no raftkv answers there' };
    if (answer.cluster !== cluster || answer.nodeId !== node.id) {
      const failure = `node ${answer.nodeId} of cluster ${answer.cluster} answers there`;
      return { node, answer: null, failure };
    }
    return { node, answer, failure: '' };
  } catch (error) {
    return { node, answer: null, failure: explain(error) };
  }
}

async function fetchText(
  { id, host, adminPort }: NodeConfig,
  cluster: string,
  tls: TlsIdentity | null,
): Promise<string> {
  const options = { host, port: adminPort, path: '/status', agent: false, signal: AbortSignal.timeout(ANSWER_MS_MAX) };
  if (tls === null) return readAnswer(get, options);
  const https = await import('node:https');
  const checkServerIdentity = (_host: string, { subjectaltname }: { subjectaltname?: string }) =>
    isNodeCertificate(subjectaltname, cluster, id)
      ? undefined
      : new Error(`what answers there is not certified as node ${id} of cluster ${cluster}`);
  return readAnswer(https.get, { ...options, ...tls, checkServerIdentity });
}

function readAnswer<O extends RequestOptions>(
  ask: (options: O, answered: (response: IncomingMessage) => void) => ClientRequest,
  options: O,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = ask(options, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
        if (text.length > ANSWER_BYTES_MAX) request.destroy(new Error('the answer is too long'));
      });
      response.on('end', () => resolve(text));
      response.on('error', reject);
    });
    request.on('error', reject);
  });
}

function explain(error: unknown): string {
  if (error instanceof SyntaxError) return 'no raftkv answers there';
  if (!(error instanceof Error)) return String(error);
  const code = 'code' in error ? error.code : undefined;
  if (code === 'ECONNREFUSED') return 'nothing listens there';
  if (code === 'ABORT_ERR' || error.name === 'TimeoutError') return `no answer within ${ANSWER_MS_MAX} ms`;
  return error.message;
}

function isStatusBody(value: unknown): value is StatusBody {
  if (typeof value !== 'object' || value === null) return false;
  if (!('cluster' in value && 'nodeId' in value && 'ready' in value && 'replica' in value)) return false;
  const { replica } = value;
  return replica === null || (typeof replica === 'object' && 'term' in replica && 'leader' in replica);
}
