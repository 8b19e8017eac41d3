import type { Random } from '../support/random.ts';
import type { ClusterChecks } from './checks.ts';
import type { Faults } from './faults.ts';
import type { History } from './history.ts';
import type { Network } from './network.ts';
import type { Operator } from './operator.ts';
import type { Plan } from './plan.ts';
import { Probe } from './probe.ts';
import type { SimNode } from './processes.ts';
import type { SustainedFaultKind } from './sustained-fault-kinds.ts';
import type { World } from './world.ts';

/**
 * A sustainedFault: one thing goes wrong, for long, and the rest of the cluster must serve all the while. Most promises of
 * availability can only be shown this way; among faults at random every stand-still has an excuse.
 */

/** Until the others serve again, in election timeouts: notice, elect, and once more where two collided. */
const RECOVERY_TIMEOUTS_MAX = 15;
/** Until the sustainedFault is lifted. */
const FOR_EVER_MS = 1e9;
/** Those who are well may need one election, and a second where it is the first leader that can't reach them. */
const ELECTIONS_MAX = 4;
/** One for each newcomer would do; the leader may not be ready, or a change not finished. */
const GROWTH_REQUESTS_MAX = 40;

/** A cluster that one node bootstrapped alone, and that others joined. */
export function grow(
  world: World,
  plan: Plan,
  nodes: readonly SimNode[],
  operator: Operator,
  { members }: ClusterChecks,
): void {
  const { electionTimeoutMs } = plan.timing;
  const isGrown = () => {
    const newest = members.newestCommitted;
    return newest !== null && newest.voters.length === nodes.length && newest.votersOutgoing.length === 0;
  };
  for (let asked = 0; asked < GROWTH_REQUESTS_MAX && !isGrown() && world.violation === null; asked++) {
    operator.addAll();
    world.run(world.nowMs + 5 * electionTimeoutMs, isGrown);
  }
  if (!isGrown()) world.fail('liveness', 'the cluster does not grow, though nothing went wrong');
}

export function sustainFault(
  world: World,
  plan: Plan,
  random: Random,
  nodes: readonly SimNode[],
  network: Network,
  faults: Faults,
  checks: ClusterChecks,
  history: History,
  happened: () => void,
): void {
  const { electionTimeoutMs } = plan.timing;
  const kind = plan.sustainedFault;
  if (kind === null) return;
  network.lossy = false;
  world.run(world.nowMs + 60 * electionTimeoutMs, () => faults.leader() !== null);
  world.run(world.nowMs + random.between(1, 10) * electionTimeoutMs, () => false);
  const leader = faults.leader();
  if (world.violation !== null) return;
  if (leader === null) {
    world.fail('liveness', 'no leader, though nothing went wrong');
    return;
  }
  const followers = nodes.filter((node) => node !== leader);
  const initialMember = nodes.find(({ id }) => id === 1) ?? leader;
  const victim = kind === 'oneWay' ? random.pick(followers) : kind === 'oldFile' ? initialMember : leader;
  world.say(() => `${victim.id}: sustainedFault: ${kind}`);
  let met = false;
  const onMet = () => {
    met = true;
  };
  const { starts } = victim;
  lay(kind, world, random, network, leader, victim, nodes, onMet);
  const electionsBefore = checks.elections;
  const others = kind === 'allFull' ? nodes : nodes.filter((node) => node !== victim);
  const mustServe = (what: 'read' | 'write', firstId: number) => {
    const probes = others.map((node, i) => new Probe(firstId + i, what, world, plan, node, history));
    for (const probe of probes) probe.begin();
    const limitMs = world.nowMs + RECOVERY_TIMEOUTS_MAX * electionTimeoutMs;
    world.run(limitMs, () => probes.every(({ done }) => done));
    const left = probes.filter(({ done }) => !done).map(({ node }) => node.id);
    // A node whose own disk filled up first may lack what the others still had room for.
    if (left.length <= (kind === 'allFull' ? (nodes.length - 1) / 2 : 0) || world.violation !== null) return;
    world.fail('availability', `no ${what} at node ${left.join(', ')} while node ${victim.id} is ${kind}`);
  };
  mustServe(kind === 'allFull' ? 'read' : 'write', 2000);
  if (world.violation !== null) return;
  world.run(world.nowMs + 30 * electionTimeoutMs, () => false);
  mustServe(kind === 'allFull' ? 'read' : 'write', 3000);
  if (kind === 'diskHangs' && faults.leader() === victim) {
    world.fail('availability', `node ${victim.id} leads on though its disk hangs`);
  }
  if (isInForce(kind, network, victim, met, victim.starts > starts)) happened();
  if (kind === 'oldFile') victim.correctFile(nodes.map(({ id }) => id));
  const elections = checks.elections - electionsBefore;
  // Each leader whose disk fills up offers leadership to one that may still have room.
  if (elections > ELECTIONS_MAX + (kind === 'allFull' || kind === 'full' ? 2 * nodes.length : 0)) {
    world.fail('availability', `${elections} elections while node ${victim.id} is ${kind}`);
  }
}

function lay(
  kind: SustainedFaultKind,
  world: World,
  random: Random,
  network: Network,
  leader: SimNode,
  victim: SimNode,
  nodes: readonly SimNode[],
  onMet: () => void,
): void {
  for (const { id } of nodes) {
    if (id === victim.id) continue;
    if (kind === 'deaf' || kind === 'partitioned') network.partition(id, victim.id);
    if (kind === 'mute' || kind === 'partitioned') network.partition(victim.id, id);
  }
  switch (kind) {
    case 'diskHangs':
      victim.disk.stall(world, world.nowMs + FOR_EVER_MS, onMet);
      return;
    case 'killed':
      victim.kill();
      return;
    case 'withoutPower':
      victim.powerLoss();
      return;
    case 'full':
      victim.disk.fillUp(onMet);
      return;
    case 'allFull':
      for (const { disk } of nodes) disk.fillUp(onMet);
      return;
    case 'wiped':
      victim.wipe();
      world.after(random.next() * FOR_EVER_MS * 1e-6, () => victim.start());
      return;
    case 'oldFile':
      victim.loseData();
      victim.start();
      return;
    case 'frozen':
      victim.pause();
      return;
    case 'oneWay':
      if (random.chance(0.5)) network.partition(leader.id, victim.id);
      else network.partition(victim.id, leader.id);
      return;
    case 'deaf':
    case 'mute':
    case 'partitioned':
      return;
  }
}

/** Whether the sustainedFault is still on, and has been noticed by the node or its disk. */
function isInForce(
  kind: SustainedFaultKind,
  network: Network,
  victim: SimNode,
  met: boolean,
  startedAgain: boolean,
): boolean {
  switch (kind) {
    case 'diskHangs':
    case 'full':
    case 'allFull':
      return met;
    case 'killed':
    case 'withoutPower':
      return victim.incarnation === null;
    case 'frozen':
      return victim.incarnation?.paused === true;
    case 'wiped':
    case 'oldFile':
      return victim.hasOldDisk && startedAgain;
    case 'deaf':
    case 'mute':
    case 'partitioned':
    case 'oneWay':
      return network.hasPartitions;
  }
}
