import { ClusterChecks } from './checks.ts';
import { Client } from './clients.ts';
import { Faults } from './faults.ts';
import { History } from './history.ts';
import { Network } from './network.ts';
import { type Plan, planOf } from './plan.ts';
import { Probe } from './probe.ts';
import { SimNode } from './processes.ts';
import { Random } from './random.ts';
import { showFrame } from './show-frame.ts';
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
  /** How often a log was cut because it disagreed with the leader's. */
  readonly truncations: number;
  readonly replies: number;
  /** Writes of which no client knows what became. */
  readonly unknown: number;
  /** The history was too tangled to be judged in time. */
  readonly undecided: boolean;
  readonly faults: Readonly<Record<string, number>>;
  readonly cpuMs: number;
}

/** Flushes concern every key, and spoil the sums: some worlds have them. */
const FLUSHING_SHARE = 0.15;

export function runSeed(seed: number, onTrace: ((line: string) => void) | null = null): RunResult {
  const startedMs = performance.now();
  const plan = planOf(seed);
  const random = new Random(seed, 2);
  const world = new World(onTrace);
  world.say(() => JSON.stringify(plan));
  const checks = new ClusterChecks(world, plan.hashInterval);
  const network = new Network(world, random.fork(1), plan.network);
  if (onTrace !== null) traceFrames(world, network);
  const nodes = plan.nodeIds.map((id) => new SimNode(id, world, plan, random.fork(10 + id), network, checks));
  const flushes = random.chance(FLUSHING_SHARE);
  const history = new History(world, plan.keys);
  const clients = Array.from(
    { length: plan.clients },
    (_, i) => new Client(i, world, plan, random.fork(100 + i), nodes, history, flushes),
  );
  const faults = new Faults(world, plan, random.fork(3), nodes, network, checks);

  for (const node of nodes) node.start();
  for (const client of clients) client.begin();
  faults.begin();
  world.run(plan.troubleMs, () => false);

  world.say(() => 'the trouble is over');
  faults.end();
  for (const client of clients) client.finish();
  const probes = nodes.map((node, i) => new Probe(1000 + i, world, plan, node, history));
  waitForService(world, plan, nodes, probes);
  for (const client of clients) client.end();
  if (world.violation === null) judge(world, plan, history, nodes);
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
    faults: faults.counts,
    cpuMs: performance.now() - startedMs,
  };
}

/** Liveness: with everything healed, every node serves within a bounded time. */
function waitForService(world: World, plan: Plan, nodes: readonly SimNode[], probes: readonly Probe[]): void {
  const { electionTimeoutMs, requestTimeoutMs } = plan.timing;
  const limitMs = world.nowMs + 20 * electionTimeoutMs + requestTimeoutMs + 2 * plan.network.silenceMs + 3000;
  for (const probe of probes) probe.begin();
  const waiting = () => probes.filter((probe, i) => !probe.done && nodes[i]?.refused !== true);
  world.run(limitMs, () => waiting().length === 0);
  if (world.violation !== null) return;
  const left = waiting().map(({ node }) => node.id);
  if (left.length > 0) world.fail('liveness', `after all had healed, no service in time at node ${left.join(', ')}`);
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
  network.onDelivery = (from, to, frame) => world.say(() => `${from}→${to}: ${showFrame(frame, from, to)}`);
}
