import { Random } from '../support/random.ts';
import { ClusterChecks } from './checks.ts';
import { Client } from './clients.ts';
import { checkDiskUsage } from './disk-usage.ts';
import { type FaultCount, FaultCounts } from './fault-counts.ts';
import { Faults } from './faults.ts';
import { History } from './history.ts';
import { IntactDirectories } from './intact-directories.ts';
import { Network } from './network.ts';
import { Operator } from './operator.ts';
import { type Plan, planOf } from './plan.ts';
import { Probe } from './probe.ts';
import { SimNode } from './processes.ts';
import { playScenario } from './scenarios.ts';
import { showBulkFrame, showFrame } from './show-frame.ts';
import { grow, sustainFault } from './sustained-fault.ts';
import { World } from './world.ts';

/** One seed, one world, one verdict. */
export interface RunResult {
  readonly seed: number;
  /** Null where every promise was kept. */
  readonly violation: { readonly check: string; readonly message: string } | null;
  readonly traceHash: string;
  readonly simulatedMs: number;
  readonly events: number;
  readonly elections: number;
  readonly entries: number;
  /** How often a log was truncated because it disagreed with the leader's. */
  readonly truncations: number;
  readonly replies: number;
  /** Writes of which no client knows what became. */
  readonly unknown: number;
  /** The history was too tangled to be judged in time. */
  readonly undecided: boolean;
  readonly faults: Readonly<Record<string, FaultCount>>;
  /** What else happened, and how often. */
  readonly counts: Readonly<Record<string, number>>;
  readonly cpuMs: number;
}

/** Flushes concern every key, and spoil the sums: some worlds have them. */
const FLUSHING_SHARE = 0.15;

export function runSeed(seed: number, onTrace: ((line: string) => void) | null = null): RunResult {
  const startedMs = cpuMs();
  const plan = planOf(seed);
  const random = new Random(seed, 2);
  const world = new World(onTrace);
  world.say(() => JSON.stringify(plan));
  const checks = new ClusterChecks(world, plan.nodeIds, plan.hashInterval);
  const network = new Network(world, random.fork(1), plan.network);
  if (onTrace !== null) traceFrames(world, network);
  const ids = [...plan.nodeIds, ...plan.spareIds];
  const nodes = ids.map((id) => new SimNode(id, world, plan, random.fork(10 + id), network, checks));
  const flushes = random.chance(FLUSHING_SHARE);
  const history = new History(world, plan.keys);
  const clients = Array.from(
    { length: plan.clients },
    (_, i) => new Client(i, world, plan, random.fork(100 + i), nodes, history, flushes),
  );
  const directories = new IntactDirectories(nodes);
  const operator = new Operator(world, plan, random.fork(4), nodes, directories, checks);
  const faultCounts = new FaultCounts();
  const faults = new Faults(world, plan, random.fork(3), nodes, network, operator, directories, checks, faultCounts);

  const { oddFile } = plan;
  for (const node of nodes) world.after(node.id === oddFile?.late ? oddFile.lateMs : 0, () => node.start());
  for (const client of clients) client.begin();
  if (oddFile !== null)
    world.after(oddFile.rightAtMs, () => nodes.find(({ id }) => id === oddFile.node)?.correctFile(plan.nodeIds));
  faults.begin();
  if (plan.sustainedFault === null) world.run(plan.faultPhaseMs, () => false);
  else {
    if (plan.sustainedFault === 'oldFile') {
      // A bulk link that breaks at every third chunk would take longer than anybody waits for.
      network.lossy = false;
      grow(world, plan, nodes, operator, checks);
      network.lossy = true;
    }
    const affected = nodes.filter(({ begun }) => begun);
    const happened = faultCounts.plan(`sustained fault: ${plan.sustainedFault}`);
    sustainFault(world, plan, random, affected, network, faults, checks, history, happened);
  }

  world.say(() => 'the fault phase is over');
  faults.end();
  operator.mindFiles();
  for (const client of clients) client.finish();
  // First without a write: what was accepted before, and what was lost on the way, must not need one to go on.
  waitForService(world, plan, 'read', nodes, history, checks);
  waitForService(world, plan, 'write', nodes, history, checks);
  for (const client of clients) client.end();
  waitForHealth(world, plan, nodes, checks);
  if (plan.scenario !== null && world.violation === null) {
    const scene = { world, plan, random: new Random(seed, 7), network, faults, directories, checks, history };
    const happened = faultCounts.plan(`scenario: ${plan.scenario}`);
    if (playScenario(plan.scenario, { ...scene, nodes: membersOf(nodes, checks) })) happened();
    waitForService(world, plan, 'write', nodes, history, checks);
    waitForHealth(world, plan, nodes, checks);
  }
  if (world.violation === null) {
    judge(world, plan, history, membersOf(nodes, checks));
    checkDiskUsage(world, plan, membersOf(nodes, checks));
  }
  const undecided = world.violation === null && !history.judge();
  return {
    seed,
    violation: world.violation === null ? null : { check: world.violation.check, message: world.violation.message },
    traceHash: world.traceHash(),
    simulatedMs: world.nowMs,
    events: world.events,
    elections: checks.elections,
    entries: checks.entriesCommitted,
    truncations: checks.truncations,
    replies: history.replies,
    unknown: history.unknown,
    undecided,
    faults: faultCounts.byKind,
    counts: { ...operator.counts, ...countsOf(checks, network), writesRefused: history.refused },
    cpuMs: cpuMs() - startedMs,
  };
}

/** What happened besides, for the summary. */
function countsOf({ members, snapshots }: ClusterChecks, network: Network): Record<string, number> {
  const { taken, installed, kept, compactions } = snapshots;
  return {
    snapshotsTaken: taken,
    snapshotsInstalled: installed,
    logsKept: kept,
    compactions,
    configurations: members.changes,
    recoveries: members.recoveries,
    bulkFrames: network.bulkFrames,
    bulkBreaks: network.bulkBreaks,
  };
}

/** For a run that could not say itself what became of it. */
export function failedRun(seed: number, check: string, message: string): RunResult {
  const nothing = {
    simulatedMs: 0,
    events: 0,
    elections: 0,
    entries: 0,
    truncations: 0,
    replies: 0,
    unknown: 0,
    cpuMs: 0,
  };
  return {
    seed,
    violation: { check, message: `${check}: ${message}` },
    traceHash: '',
    ...nothing,
    undecided: false,
    faults: {},
    counts: {},
  };
}

/** Liveness: with everything healed, every node serves within a bounded time, and completes all that it had accepted. */
function waitForService(
  world: World,
  plan: Plan,
  what: 'read' | 'write',
  nodes: readonly SimNode[],
  history: History,
  checks: ClusterChecks,
): void {
  if (world.violation !== null) return;
  const { electionTimeoutMs, requestTimeoutMs } = plan.timing;
  const limitMs = world.nowMs + 20 * electionTimeoutMs + requestTimeoutMs + 2 * plan.network.silenceMs + 3000;
  const probes = nodes.map((node, i) => new Probe(1000 + i, what, world, plan, node, history));
  for (const probe of probes) probe.begin();
  const isWaiting = ({ node, done }: Probe) => isMember(node, checks) && !(done && node.isDrained);
  world.run(limitMs, () => !probes.some(isWaiting));
  if (world.violation !== null) return;
  const left = probes.filter(isWaiting).map(({ node, done }) => `${node.id}${done ? ' (has batches left)' : ''}`);
  if (left.length > 0) world.fail('liveness', `after all had healed, no ${what} in time at node ${left.join(', ')}`);
}

function isMember({ id, isSpare }: SimNode, { members }: ClusterChecks): boolean {
  const { newestCommitted } = members;
  return newestCommitted === null ? !isSpare : newestCommitted.details.some((detail) => detail.id === id);
}

function membersOf(nodes: readonly SimNode[], checks: ClusterChecks): readonly SimNode[] {
  return nodes.filter((node) => isMember(node, checks));
}

/** What was lost heals by itself: every member that should vote does so again, by the directory that it has. */
function waitForHealth(world: World, plan: Plan, nodes: readonly SimNode[], checks: ClusterChecks): void {
  if (world.violation !== null) return;
  const { electionTimeoutMs } = plan.timing;
  const limitMs = world.nowMs + 60 * electionTimeoutMs + 2 * plan.network.silenceMs + 20_000;
  const wrong = () => {
    const newest = checks.members.newestCommitted;
    if (newest === null) return [];
    const unwell = newest.details.filter(({ id, directoryId, joins }) => {
      const core = nodes.find((node) => node.id === id)?.running?.replica.raft.core;
      return joins || core?.rights.directoryId !== directoryId || core.rights.lifecycle !== 'normal';
    });
    const leads = nodes.some(({ id, running }) => {
      return running?.replica.raft.core.role === 'leader' && newest.voters.includes(id);
    });
    return newest.votersOutgoing.length > 0 || !leads ? newest.details : unwell;
  };
  world.run(limitMs, () => wrong().length === 0);
  const left = wrong();
  if (left.length === 0 || world.violation !== null) return;
  world.fail('healing', `these are not well again: ${JSON.stringify(left)}`);
}

function judge(world: World, plan: Plan, history: History, nodes: readonly SimNode[]): void {
  const running = nodes.filter(({ running }) => running !== null);
  world.run(world.nowMs + 10 * plan.timing.electionTimeoutMs, () => {
    const applied = running.map((node) => node.running?.replica.status().appliedIndex);
    return applied.every((index) => index === applied[0]);
  });
  const states = running.map(({ id, running }) => ({
    id,
    index: running?.replica.status().appliedIndex ?? 0,
    hash: running?.replica.stateMachine.hash(),
  }));
  for (const { id, index, hash } of states) {
    if (index !== states[0]?.index) world.fail('liveness', `node ${id} does not catch up: ${JSON.stringify(states)}`);
    else if (hash !== states[0]?.hash) world.fail('state-machine safety', `at the end: ${JSON.stringify(states)}`);
  }
  const machine = running[0]?.running?.replica.stateMachine;
  if (machine !== undefined) history.checkCounters((key) => Number(machine.get(key)?.value ?? 0));
}

function traceFrames(world: World, network: Network): void {
  network.onDelivery = (from, to, frame, channel) =>
    world.say(() => `${from}→${to}: ${channel === 'main' ? showFrame(frame, from, to) : showBulkFrame(frame, from)}`);
}

function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
