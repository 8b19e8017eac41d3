import type { NodeConfig } from '../../config/schema.ts';
import type { StatusBody } from '../../server/admin/admin-port.ts';
import { type AdminTarget, explainFailure, readText, requestAdmin } from './admin-client.ts';

/** A node that doesn't answer within this is as good as unreachable, and somebody waits at a terminal. */
const ANSWER_MS_MAX = 2_000;
/** Far above what /status says. */
const ANSWER_BYTES_MAX = 64 * 1024;

/** What a report needs to know of a node: `cluster.json` has it, or the cluster itself. */
export type AskedNode = Pick<NodeConfig, 'id' | 'host' | 'clientPort' | 'adminPort'>;

export interface NodeReport {
  readonly node: AskedNode;
  /** Null where the node could not be asked, or answered something else. */
  readonly answer: StatusBody | null;
  /** Why there is no answer; empty where there is one. */
  readonly failure: string;
}

/**
 * Asks one node's admin port, with TLS where `tls` is not null: then the server must prove to be that node. Never
 * rejects: what went wrong is in the report.
 */
export async function askStatus(node: AskedNode, cluster: string, tls: AdminTarget['tls'] = null): Promise<NodeReport> {
  try {
    const request = { path: '/status', signal: AbortSignal.timeout(ANSWER_MS_MAX) };
    const response = await requestAdmin({ node, cluster, tls }, request);
    const answer: unknown = JSON.parse(await readText(response, ANSWER_BYTES_MAX));
    if (!isStatusBody(answer)) return { node, answer: null, failure: 'the server is not a raftkv node' };
    if (answer.cluster !== cluster || answer.nodeId !== node.id) {
      const failure = `the server is node ${answer.nodeId} of cluster ${answer.cluster}`;
      return { node, answer: null, failure };
    }
    return { node, answer, failure: '' };
  } catch (error) {
    return { node, answer: null, failure: explainFailure(error, ANSWER_MS_MAX) };
  }
}

function isStatusBody(value: unknown): value is StatusBody {
  if (typeof value !== 'object' || value === null) return false;
  if (!('cluster' in value && 'nodeId' in value && 'ready' in value && 'replica' in value)) return false;
  const { replica } = value;
  return replica === null || (typeof replica === 'object' && 'term' in replica && 'leader' in replica);
}
