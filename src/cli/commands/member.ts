import { RaftkvError } from '../../base/errors.ts';
import { findNode, loadConfig } from '../../config/load.ts';
import { type Config, type NodeConfig, nodeSchema } from '../../config/schema.ts';
import type { MemberChange, NodeAddress } from '../../raft/state/types.ts';
import type { MemberView } from '../../replica/types.ts';
import type { MembersBody } from '../../server/admin/members.ts';
import { operatorTls } from '../admin/admin-client.ts';
import { createMembersClient, type MembersClient, pause, tookPlace } from '../admin/members-client.ts';
import { formatTable, UsageError } from '../terminal/output.ts';
import { createProgressLine, type Goal, phaseOf, SILENT } from './member-progress.ts';

/**
 * `raftkv member …`: who belongs to the cluster, and changing it while it serves.
 *
 *   change ─▶ the leader, which any node names ─▶ in the log, committed ─▶ what follows of itself is watched until it is done
 */

export interface MemberOptions {
  readonly config: string;
  /** Whom to ask; without, the nodes of the configuration in turn. */
  readonly node?: number;
  readonly json: boolean;
}

export interface ChangeOptions extends MemberOptions {
  /** Until what follows of itself is done. */
  readonly wait: boolean;
}

/** Over what the configuration says of the node. */
export interface AddressOptions {
  readonly host?: string;
  readonly clientPort?: number;
  readonly peerPort?: number;
  readonly adminPort?: number;
}

export interface AddOptions extends ChangeOptions, AddressOptions {
  /** The node receives the data but gets no vote until an operator promotes it. */
  readonly learner: boolean;
}

/** Often enough to look alive. */
const POLL_MS = 300;
/** A leader that was replaced may show old members for so long: some election timeouts. */
const STALE_MS_MAX = 2_000;

export async function memberListCommand(options: MemberOptions): Promise<void> {
  const { client, config } = await connect(options);
  const view = await client.view();
  const text = `${describeMembers(view)}\n\n${describeVerdict(config, view)}\nCluster id: ${view.configuration.clusterId}.\n`;
  process.stdout.write(options.json ? asJson(view) : text);
}

export async function memberAddCommand(id: number, options: AddOptions): Promise<void> {
  const connection = await connect(options);
  const address = addressOf(connection.config, id, options);
  const change: MemberChange = { op: 'add', id, address, joins: !options.learner, replaces: 0 };
  await carryOut(connection, change, options);
}

export async function memberReplaceCommand(
  oldId: number,
  id: number,
  options: ChangeOptions & AddressOptions,
): Promise<void> {
  if (oldId === id) {
    throw new UsageError(
      `node ${id} cannot replace itself; to give it an empty disk, stop it, empty its data directory and start it again`,
    );
  }
  const connection = await connect(options);
  const address = addressOf(connection.config, id, options);
  const change: MemberChange = { op: 'add', id, address, joins: true, replaces: oldId };
  await carryOut(connection, change, options);
}

export async function memberRemoveCommand(id: number, options: ChangeOptions): Promise<void> {
  await carryOut(await connect(options), { op: 'remove', id }, options);
}

export async function memberPromoteCommand(id: number, options: ChangeOptions): Promise<void> {
  await carryOut(await connect(options), { op: 'promote', id }, options);
}

interface Connection {
  readonly client: MembersClient;
  /** Asks all nodes in turn: the one that was named may be the one that leaves. */
  readonly watcher: MembersClient;
  readonly config: Config;
}

async function connect(options: MemberOptions): Promise<Connection> {
  const { config } = loadConfig({ file: options.config, environment: process.env });
  const tls = await operatorTls(config);
  const nodes = nodesToAsk(config, options.node);
  const others = config.nodes.filter((node) => !nodes.includes(node));
  return {
    client: createMembersClient({ config, nodes, tls }),
    watcher: createMembersClient({ config, nodes: [...nodes, ...others], tls }),
    config,
  };
}

function nodesToAsk(config: Config, id: number | undefined): readonly NodeConfig[] {
  if (id === undefined) return config.nodes;
  const node = findNode(config, id);
  if (node !== undefined) return [node];
  throw new UsageError(`--node ${id}: the configuration lists ${config.nodes.map((each) => each.id).join(', ')}`);
}

/** The address that the flags give, or else the one that the configuration has for the id. */
function addressOf(config: Config, id: number, flags: AddressOptions): NodeAddress {
  const listed: AddressOptions = findNode(config, id) ?? {};
  const parsed = nodeSchema.safeParse({
    id,
    host: flags.host ?? listed.host,
    clientPort: flags.clientPort ?? listed.clientPort,
    peerPort: flags.peerPort ?? listed.peerPort,
    adminPort: flags.adminPort ?? listed.adminPort,
  });
  if (parsed.success) {
    const { host, clientPort, peerPort, adminPort } = parsed.data;
    return { host, clientPort, peerPort, adminPort };
  }
  const problems = parsed.error.issues.map(({ path, message }) => `  ${path.join('.')}: ${message}`);
  throw new UsageError(
    `the addresses of node ${id} are unknown: list it in the configuration, or pass --host, --client-port, --peer-port and ` +
      `--admin-port\n${problems.join('\n')}`,
  );
}

/** Has the change made, unless it is under way already, and stays with it until it is done. */
async function carryOut(
  { client, watcher, config }: Connection,
  change: MemberChange,
  options: ChangeOptions,
): Promise<void> {
  const before = await client.view();
  refuseUnknownNodes(before, change);
  // A command that was broken off, given again, goes on watching.
  if (!isUnderWay(before, change)) await client.change(change);
  const after = await watcher.view();
  const view = options.wait ? await watch(watcher, goalOf(change, after), after, options) : after;
  if (options.json) {
    process.stdout.write(asJson(view));
    return;
  }
  const text = phaseOf(view, goalOf(change, after)).text;
  process.stdout.write(`${capitalized(text)}. ${describeVerdict(config, view)}\n${nextSteps(config, change, options)}`);
}

function isUnderWay(view: MembersBody, change: MemberChange): boolean {
  return change.op === 'add' && view.members.some(({ id }) => id === change.id) && tookPlace(view, change);
}

/** Refuses what the cluster would refuse, too, and lists the members. */
function refuseUnknownNodes({ members }: MembersBody, change: MemberChange): void {
  const wanted = change.op === 'add' ? change.replaces : change.id;
  const isVoter = members.some(({ id, role }) => id === change.id && role === 'voter');
  if (change.op === 'add' && wanted !== 0 && isVoter && members.some(({ id }) => id === wanted)) {
    throw new RaftkvError(
      'MEMBER_CHANGE_REFUSED',
      `node ${change.id} is already a voter, and so is node ${wanted}`,
      `To remove node ${wanted}: raftkv member remove ${wanted}.`,
    );
  }
  const isThere = wanted === 0 || members.some(({ id }) => id === wanted);
  if (isThere || (change.op === 'add' && isVoter)) return;
  throw new RaftkvError(
    'MEMBER_CHANGE_REFUSED',
    `node ${wanted} is not a member of the cluster; its members are ${members.map(({ id }) => id).join(', ')}`,
    'Name one of them; `raftkv member list` shows them.',
  );
}

function goalOf(change: MemberChange, { lastIndex }: MembersBody): Goal {
  switch (change.op) {
    case 'remove':
      return { kind: 'gone', id: change.id };
    case 'promote':
      return { kind: 'voter', id: change.id, replaces: 0 };
    case 'add':
      if (change.joins) return { kind: 'voter', id: change.id, replaces: change.replaces };
      return { kind: 'learner', id: change.id, upTo: lastIndex };
  }
}

/** Gives the last view. @throws RaftkvError MEMBER_CHANGE_REFUSED where the change will not come about any more. */
async function watch(
  client: MembersClient,
  goal: Goal,
  first: MembersBody,
  { json }: ChangeOptions,
): Promise<MembersBody> {
  const progress = json ? SILENT : createProgressLine(process.stdout);
  try {
    let undoneSinceMs = Number.POSITIVE_INFINITY;
    for (let view = first; ; view = await client.view()) {
      const phase = phaseOf(view, goal);
      if (phase.state === 'done') return view;
      if (phase.state === 'running') {
        undoneSinceMs = Number.POSITIVE_INFINITY;
        progress.show(phase.name, phase.text);
      } else {
        undoneSinceMs = Math.min(undoneSinceMs, performance.now());
        if (performance.now() - undoneSinceMs >= STALE_MS_MAX) {
          throw new RaftkvError('MEMBER_CHANGE_REFUSED', phase.text);
        }
      }
      await pause(POLL_MS);
    }
  } catch (error) {
    if (!(error instanceof RaftkvError) || error.code === 'MEMBER_CHANGE_REFUSED') throw error;
    const remedy =
      'The change is in the log and continues without this command: `raftkv member list` shows its progress.';
    throw new RaftkvError(error.code, error.message, remedy, error);
  } finally {
    progress.end();
  }
}

const HEAD = ['node', 'clients', 'peers', 'admin', 'role', 'log', 'state'];

function describeMembers({ leader, lastIndex, members }: MembersBody): string {
  const rows = members.map((member) => {
    const { id, address, role, matchIndex } = member;
    const where =
      address === null
        ? ['-', '-', '-']
        : [`${address.host}:${address.clientPort}`, String(address.peerPort), String(address.adminPort)];
    return [String(id), ...where, id === leader ? 'leader' : role, `${matchIndex} of ${lastIndex}`, stateOf(member)];
  });
  return formatTable([HEAD, ...rows]);
}

function stateOf({ state, role, joins, replaces, hasRights }: MemberView): string {
  const parts: string[] = [];
  if (state === 'unreachable') parts.push('unreachable');
  else if (state === 'snapshot') parts.push('receives a snapshot');
  else if (state === 'probe') parts.push('probing');
  else parts.push('follows');
  if (state === 'leader') parts[0] = 'leads';
  if (joins) parts.push(replaces === 0 ? 'will become a voter' : `will replace node ${replaces}`);
  if (role === 'voter' && state !== 'unreachable' && !hasRights) parts.push('recovering, without a vote');
  if (role === 'leaving') parts.push('leaves');
  return parts.join(', ');
}

function describeVerdict({ cluster }: Config, { members, changing }: MembersBody): string {
  const voters = members.filter(({ role }) => role === 'voter').map(({ id }) => id);
  const survives = Math.ceil(voters.length / 2) - 1;
  const losses = survives === 0 ? 'no failure' : survives === 1 ? '1 failure' : `${survives} failures`;
  const running = changing ? ' A change is in progress.' : '';
  return `Cluster ${cluster} has ${voters.length === 1 ? 'the voter' : 'the voters'} ${voters.join(', ')} and survives ${losses}.${running}`;
}

function nextSteps(config: Config, change: MemberChange, { wait }: ChangeOptions): string {
  const steps: string[] = [];
  if (!wait) steps.push('`raftkv member list` shows its progress.');
  const isListed = (id: number) => findNode(config, id) !== undefined;
  if (change.op === 'add' && !isListed(change.id)) {
    steps.push(`Add node ${change.id} to cluster.json, so that \`raftkv status\` and new nodes know it.`);
  }
  const left = change.op === 'remove' ? change.id : change.op === 'add' ? change.replaces : 0;
  if (left !== 0) {
    const listed = isListed(left) ? ' Remove it from cluster.json.' : '';
    steps.push(`The process of node ${left} exits by itself; its data directory can be deleted.${listed}`);
  }
  return steps.map((step) => `${step}\n`).join('');
}

function asJson(view: MembersBody): string {
  return `${JSON.stringify(view, null, 2)}\n`;
}

function capitalized(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
