import type { TlsIdentity } from '../base/tls.ts';
import { loadConfig } from '../config/load.ts';
import type { Config } from '../config/schema.ts';
import { askStatus, type NodeReport } from './ask-status.ts';
import { EXIT_FAILURE, EXIT_OK } from './report.ts';
import { formatTable } from './table.ts';

/** `raftkv status`: every node of the cluster, as the nodes themselves report. */

export interface StatusOptions {
  readonly config: string;
  readonly json: boolean;
}

/** Gives the exit code: success where a majority of the configured nodes agrees on a leader. */
export async function statusCommand(options: StatusOptions): Promise<number> {
  const { config, warnings } = loadConfig({ file: options.config, environment: process.env });
  for (const warning of warnings) process.stderr.write(`raftkv: ${warning}\n`);
  const tls = await operatorTls(config);
  const reports = await Promise.all(config.nodes.map((node) => askStatus(node, config.cluster, tls)));
  const leader = agreedLeader(reports);
  const output = options.json ? describeAsJson(config, reports, leader) : describeAsTable(config, reports, leader);
  process.stdout.write(output);
  return leader === 0 ? EXIT_FAILURE : EXIT_OK;
}

/** Null where admin ports are plain. Loaded only where they are not: TLS takes a while to load. */
async function operatorTls(config: Config): Promise<TlsIdentity | null> {
  if (config.tls === undefined || config.tls.admin === 'plain') return null;
  const { readOperatorTls } = await import('../config/tls-files.ts');
  return readOperatorTls(config.tls, config);
}

/** The node that a majority of all nodes names as leader of one term; 0 where there is none. */
function agreedLeader(reports: readonly NodeReport[]): number {
  const majority = Math.floor(reports.length / 2) + 1;
  const supporters = new Map<string, number>();
  for (const { answer } of reports) {
    const replica = answer?.replica;
    if (!replica || replica.leader === 0) continue;
    const claim = `${replica.term}/${replica.leader}`;
    const count = (supporters.get(claim) ?? 0) + 1;
    if (count >= majority) return replica.leader;
    supporters.set(claim, count);
  }
  return 0;
}

function describeAsJson(config: Config, reports: readonly NodeReport[], leader: number): string {
  const nodes = reports.map(({ node, answer, failure }) =>
    answer === null
      ? { id: node.id, host: node.host, adminPort: node.adminPort, reachable: false, error: failure }
      : { id: node.id, host: node.host, adminPort: node.adminPort, reachable: true, ...answer },
  );
  const body = { cluster: config.cluster, leader: leader === 0 ? null : leader, serves: leader !== 0, nodes };
  return `${JSON.stringify(body, null, 2)}\n`;
}

const HEAD = ['node', 'clients', 'role', 'term', 'leader', 'committed', 'applied', 'log', 'state'];
const UNKNOWN = ['-', '-', '-', '-', '-', '-'];

function describeAsTable(config: Config, reports: readonly NodeReport[], leader: number): string {
  const rows = reports.map(({ node, answer, failure }) => {
    const own = [String(node.id), `${node.host}:${node.clientPort}`];
    if (answer === null) return [...own, ...UNKNOWN, `unreachable: ${failure}`];
    const state = answer.ready ? 'ready' : `not ready: ${answer.reason}`;
    const replica = answer.replica;
    if (replica === null) return [...own, ...UNKNOWN, state];
    return [
      ...own,
      replica.role,
      String(replica.term),
      replica.leader === 0 ? '-' : String(replica.leader),
      String(replica.commitIndex),
      String(replica.appliedIndex),
      formatBytes(replica.logBytes),
      state,
    ];
  });
  const verdict =
    leader === 0
      ? `Cluster ${config.cluster}: no majority of its ${reports.length} nodes agrees on a leader.`
      : `Cluster ${config.cluster}: node ${leader} leads.`;
  return `${formatTable([HEAD, ...rows])}\n\n${verdict}\n`;
}

function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit] ?? ''}`;
}
