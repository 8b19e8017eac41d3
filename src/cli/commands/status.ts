import type { TlsIdentity } from '../../base/tls.ts';
import { loadConfig } from '../../config/load.ts';
import type { Config, NodeConfig } from '../../config/schema.ts';
import type { ReplicaStatus } from '../../replica/types.ts';
import type { StatusBody } from '../../server/admin/admin-port.ts';
import { type AdminTarget, explainFailure, operatorTls, readText, requestAdmin } from '../admin/admin-client.ts';
import { createMembersClient } from '../admin/members-client.ts';
import { EXIT_FAILURE, EXIT_OK, formatTable } from '../terminal/output.ts';

/**
 * `raftkv status`: every node of the cluster, as the nodes themselves report: those that `cluster.json` lists, and
 * members that it does not, which those that answer know of.
 */

export interface StatusOptions {
  readonly config: string;
  readonly json: boolean;
}

interface Overview {
  readonly cluster: string;
  /** Of the history that the nodes with a leader belong to, else of the one with the most nodes; empty where none is known. */
  readonly clusterId: string;
  readonly reports: readonly NodeReport[];
  /** As the newest report has them; those of the configuration where none does. */
  readonly voters: readonly number[];
  /** Voters and learners; null where no report tells. */
  readonly members: readonly number[] | null;
  /** Members that the configuration does not list. */
  readonly unlisted: readonly number[];
  /** The node that a majority of the voters names as leader of one term; 0 if there is none. */
  readonly leader: number;
  /** The reasons, as the nodes report them, why the cluster does not serve or accept writes; each once. */
  readonly healthProblems: readonly string[];
}

/** Gives the exit code: success where a majority of the voters agrees on a leader. */
export async function statusCommand(options: StatusOptions): Promise<number> {
  const { config, warnings } = loadConfig({ file: options.config, environment: process.env });
  for (const warning of warnings) process.stderr.write(`raftkv: ${warning}\n`);
  const overview = await lookAround(config, await operatorTls(config));
  process.stdout.write(options.json ? describeAsJson(overview) : describeAsTable(overview));
  return overview.leader === 0 ? EXIT_FAILURE : EXIT_OK;
}

async function lookAround(config: Config, tls: TlsIdentity | null): Promise<Overview> {
  const askAll = (nodes: readonly AskedNode[]) =>
    Promise.all(nodes.map((node) => askStatus(node, config.cluster, tls)));
  const listed = await askAll(config.nodes);
  const clusterId = mainHistoryOf(listed);
  const newest = newestOf(ofHistory(listed, clusterId));
  const isListed = (id: number) => config.nodes.some((node) => node.id === id);
  const members = newest?.voters.length ? [...newest.voters, ...newest.learners] : null;
  const unlisted = (members ?? []).filter((id) => !isListed(id));
  const reports =
    unlisted.length === 0 ? listed : [...listed, ...(await askAll(await findNodes(config, tls, unlisted)))];
  const voters = newest?.voters.length ? newest.voters : config.nodes.map(({ id }) => id);
  const healthProblems = reports
    .map(({ answer }) => answer?.replica?.healthProblem ?? '')
    .filter((problem) => problem !== '');
  const leader = agreedLeader(ofHistory(reports, clusterId), voters);
  return {
    cluster: config.cluster,
    clusterId,
    reports,
    voters,
    members,
    unlisted,
    leader,
    healthProblems: [...new Set(healthProblems)],
  };
}

function ofHistory(reports: readonly NodeReport[], clusterId: string): readonly NodeReport[] {
  return reports.filter(({ answer }) => (answer?.replica?.clusterId ?? '') === clusterId);
}

/** Data directories of several histories may stand under one configuration; the nodes of one know nothing of the others. */
function mainHistoryOf(reports: readonly NodeReport[]): string {
  const ids = new Set(reports.map(({ answer }) => answer?.replica?.clusterId ?? ''));
  const weightOf = (clusterId: string) => {
    const same = ofHistory(reports, clusterId);
    const hasLeader = same.some(({ answer }) => answer?.replica?.leader);
    return (clusterId === '' ? 0 : same.length) + (hasLeader ? reports.length : 0);
  };
  return [...ids].sort((a, b) => weightOf(b) - weightOf(a))[0] ?? '';
}

function newestOf(reports: readonly NodeReport[]): ReplicaStatus | null {
  let newest: ReplicaStatus | null = null;
  for (const { answer } of reports) {
    const replica = answer?.replica;
    if (!replica?.voters) continue;
    const order = newest === null ? 1 : replica.term - newest.term || replica.commitIndex - newest.commitIndex;
    if (order > 0) newest = replica;
  }
  return newest;
}

/** The addresses of these nodes as the cluster knows them, as far as it does. */
async function findNodes(config: Config, tls: TlsIdentity | null, ids: readonly number[]): Promise<AskedNode[]> {
  const client = createMembersClient({ config, nodes: config.nodes, tls, patienceMs: 0 });
  const members = await client.view().then(
    (view) => view.members,
    () => [],
  );
  return members.flatMap(({ id, address }) => (address === null || !ids.includes(id) ? [] : [{ id, ...address }]));
}

function agreedLeader(reports: readonly NodeReport[], voters: readonly number[]): number {
  const majority = Math.floor(voters.length / 2) + 1;
  const supporters = new Map<string, number>();
  for (const { node, answer } of reports) {
    const replica = answer?.replica;
    if (!replica || replica.leader === 0 || !voters.includes(node.id)) continue;
    const claim = `${replica.term}/${replica.leader}`;
    const count = (supporters.get(claim) ?? 0) + 1;
    if (count >= majority) return replica.leader;
    supporters.set(claim, count);
  }
  return 0;
}

function describeAsJson({ cluster, clusterId, reports, leader, voters, healthProblems }: Overview): string {
  const nodes = reports.map(({ node, answer, failure }) =>
    answer === null
      ? { id: node.id, host: node.host, adminPort: node.adminPort, reachable: false, error: failure }
      : { id: node.id, host: node.host, adminPort: node.adminPort, reachable: true, ...answer },
  );
  const serves = leader !== 0;
  const body = { cluster, clusterId, leader: serves ? leader : null, serves, voters, healthProblems, nodes };
  return `${JSON.stringify(body, null, 2)}\n`;
}

const HEAD = ['node', 'clients', 'role', 'term', 'leader', 'committed', 'applied', 'log', 'snapshot', 'state'];
const UNKNOWN = ['-', '-', '-', '-', '-', '-', '-'];

function describeAsTable({
  cluster,
  clusterId,
  reports,
  leader,
  voters,
  members,
  unlisted,
  healthProblems,
}: Overview): string {
  const rows = reports.map(({ node, answer, failure }) => {
    const own = [String(node.id), `${node.host}:${node.clientPort}`];
    if (answer === null) {
      const isNotMember = members !== null && !members.includes(node.id);
      return [...own, ...UNKNOWN, `${isNotMember ? 'not a member, and ' : ''}unreachable: ${failure}`];
    }
    const state = answer.ready ? 'ready' : `not ready: ${answer.reason}`;
    const replica = answer.replica;
    if (replica === null) return [...own, ...UNKNOWN, state];
    return [
      ...own,
      roleOf(replica),
      String(replica.term),
      replica.leader === 0 ? '-' : String(replica.leader),
      String(replica.commitIndex),
      String(replica.appliedIndex),
      formatBytes(replica.logBytes),
      replica.snapshotting ? 'writing' : replica.snapshotIndex > 0 ? formatBytes(replica.snapshotBytes) : '-',
      state,
    ];
  });
  const lines = [
    ...(clusterId === '' ? [] : [`Cluster id: ${clusterId}.`]),
    leader === 0
      ? `Cluster ${cluster} has no leader that a majority of its ${voters.length} voters follows.`
      : `Cluster ${cluster}: node ${leader} leads.`,
    ...foreignNodes(reports, clusterId),
    ...healthProblems.map((problem) => `Health problem: ${problem}`),
  ];
  if (unlisted.length > 0) {
    lines.push(`Not in cluster.json, but ${unlisted.length === 1 ? 'a member' : 'members'}: ${unlisted.join(', ')}.`);
  }
  return `${formatTable([HEAD, ...rows])}\n\n${lines.join('\n')}\n`;
}

function foreignNodes(reports: readonly NodeReport[], clusterId: string): string[] {
  return reports.flatMap(({ node, answer }) => {
    const own = answer?.replica?.clusterId ?? '';
    if (own === '' || own === clusterId) return [];
    return [
      `Node ${node.id} belongs to another history, cluster id ${own}: it takes no part. Empty its data directory.`,
    ];
  });
}

/** A node without a vote follows, too; that it has none is what matters. */
function roleOf({ role, nodeId, lifecycle, learners }: ReplicaStatus): string {
  if (lifecycle !== 'normal') return lifecycle;
  return learners.includes(nodeId) ? 'learner' : role;
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

/** A node that doesn't answer within this is as good as unreachable, and somebody waits at a terminal. */
const ANSWER_MS_MAX = 2_000;
/** Far above what /status says. */
const ANSWER_BYTES_MAX = 64 * 1024;

/** A node to ask. Its address comes from `cluster.json` or from the cluster itself. */
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
