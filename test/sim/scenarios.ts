import type { DiskOperation } from '../support/memory-disk.ts';
import type { Random } from '../support/random.ts';
import type { ClusterChecks } from './checks.ts';
import { outputOf } from './clients.ts';
import type { Faults } from './faults.ts';
import type { History } from './history.ts';
import type { IntactDirectories } from './intact-directories.ts';
import type { Network } from './network.ts';
import type { Plan } from './plan.ts';
import type { SimNode } from './processes.ts';
import { isRefused, isWithoutOutcome, ReplyReader } from './replies.ts';
import { bytesOf, type Request, request } from './requests.ts';
import type { ScenarioKind } from './scenario-kinds.ts';
import type { World } from './world.ts';

/**
 * An scenario: a chain of events, each of which may happen, but hardly one after the other by chance. It comes at the end of
 * some runs, once all is well, and each step waits for the moment that it needs. Where a moment does not come (the limits
 * of this world may not allow it), the scenario ends there. What must hold is what must always hold.
 */
export interface Scene {
  readonly world: World;
  readonly plan: Plan;
  readonly random: Random;
  /** The members of the cluster. */
  readonly nodes: readonly SimNode[];
  readonly network: Network;
  readonly faults: Faults;
  readonly directories: IntactDirectories;
  readonly checks: ClusterChecks;
  readonly history: History;
}

/** Writes that must be enough for a snapshot, in a world in which they are taken often; in others, none is waited for. */
const FILLING_WRITES_MAX = 80;
const SNAPSHOT_LOG_BYTES_MAX = 64 * 1024;
/** What one of them may cost a disk at most: room made in small steps, each synced, and the write. */
const DISK_OPERATIONS_PER_WRITE = 8;
/** Of one such write, with most of what an item may hold. */
const FILLING_BYTES = 1400;
/** Many sectors, so that much may remain of it. */
const LONG_WRITE_BYTES = 6 * 512;
const ROUNDS = 4;
const CLIENT = 5000;
const KEY = 'scenario';

/** Returns whether the scenario took place to its end. */
export function playScenario(kind: ScenarioKind, scene: Scene): boolean {
  const { world } = scene;
  world.say(() => `scenario: ${kind}`);
  const isOver = SCENARIOS[kind](scene);
  world.say(() => (isOver ? 'the scenario is over' : 'the scenario finds no occasion'));
  scene.network.healAll();
  for (const node of scene.nodes) {
    node.disk.goOnEverywhere();
    if (!node.ended) node.start();
  }
  // Those that were away may have much to write, and disks in small steps may be slow.
  const catchUpMs = FILLING_WRITES_MAX * DISK_OPERATIONS_PER_WRITE * scene.plan.disk.latencyMs.max;
  world.run(world.nowMs + catchUpMs, () => areEven(scene));
  return isOver;
}

function areEven({ nodes }: Scene): boolean {
  const ends = nodes.map(({ running }) => running?.replica.status().appliedIndex);
  return ends.every((end) => end !== undefined && end === ends[0]);
}

function takesSnapshots({ plan }: Scene): boolean {
  return (plan.snapshotLimits.snapshotLogBytes ?? 0) <= SNAPSHOT_LOG_BYTES_MAX;
}

/** Each is true where it came to its end. */
const SCENARIOS: Record<ScenarioKind, (scene: Scene) => boolean> = {
  nameTakenBack,
  tornTwice,
  sameSession,
  keptTail,
  slowLog,
  slowReader,
};

function nameTakenBack(scene: Scene): boolean {
  const { random, nodes } = scene;
  const victim = random.pick(nodes);
  if (!takesSnapshots(scene)) return false;
  victim.disk.hangAt(({ kind, path }) => kind === 'syncDirectory' && path.endsWith('/snapshots'));
  if (!fill(scene, otherThan(scene, victim), () => victim.disk.hangs)) return false;
  victim.kill();
  victim.disk.goOnEverywhere();
  if (!comesUp(scene, victim)) return false;
  wait(scene, random.skewed(0, 3));
  victim.powerLoss();
  return comesUp(scene, victim);
}

function tornTwice(scene: Scene): boolean {
  const { random, faults } = scene;
  const victim = faults.leader();
  if (victim === null) return false;
  separate(scene, victim);
  victim.disk.hangAt((operation) => isLogWrite(operation) && operation.length >= LONG_WRITE_BYTES);
  ask(scene, victim, Array.from({ length: 6 }, filling), false);
  const isLong = wait(scene, 0.5, () => victim.disk.hangs);
  victim.powerLoss();
  victim.disk.goOnEverywhere();
  if (!isLong) return false;
  // The others must do without what was torn.
  if (scene.nodes.length > 1 && !wait(scene, 20, () => faults.leader() !== null)) return false;
  scene.network.healAll();
  for (let round = 0; round < ROUNDS; round++) {
    if (!comesUp(scene, victim) || !wait(scene, 20, () => faults.leader() !== null)) return false;
    wait(scene, 1);
    const length = random.pick([2, 3, 4]) * 512;
    victim.disk.hangAt((operation) => isLogWrite(operation) && operation.length >= length);
    const isTorn = fill(scene, otherThan(scene, victim), () => victim.disk.hangs, length);
    victim.powerLoss();
    victim.disk.goOnEverywhere();
    if (!isTorn) return false;
  }
  return comesUp(scene, victim);
}

function sameSession(scene: Scene): boolean {
  const { world, plan, random, nodes, directories, checks } = scene;
  const victim = random.pick(nodes);
  const other = otherThan(scene, victim);
  // The operator who sets up a wiped node must list members that exist.
  const areInitialMembers = nodes.length === plan.nodeIds.length && !nodes.some(({ isSpare }) => isSpare);
  if (nodes.length < 3 || !areInitialMembers || !directories.mayHarm(victim)) return false;
  const counting = [request({ kind: 'incr', key: KEY, delta: 1 })];
  if (!isAnswered(scene, ask(scene, other, [request({ kind: 'set', key: KEY, value: '0' })]))) return false;
  // One more disk, which the cluster knows by the time that it is lost; it has not heard so itself.
  if (random.chance(0.5)) {
    victim.wipe(nodes.map(({ id }) => id));
    const isNamed = () =>
      checks.members.newestCommitted?.details.some(
        ({ directoryId }) => directoryId === victim.core?.rights.directoryId,
      );
    if (!comesUp(scene, victim) || !wait(scene, 40, () => victim.core?.rights.directoryId !== 0 && isNamed() === true))
      return false;
    if (!directories.mayHarm(victim)) return false;
  }
  victim.wipe(nodes.map(({ id }) => id));
  // Ahead of all starts that it has counted so far.
  victim.jumpWallTime(1_000_000);
  if (!comesUp(scene, victim)) return false;
  if (!wait(scene, 40, () => victim.core?.rights.lifecycle === 'normal')) return false;
  if (!isAnswered(scene, ask(scene, victim, counting))) return false;
  const sessionId = victim.running?.view.proposer.sessionId ?? 0;
  const wallMs = victim.incarnation?.clock.wallMs() ?? 0;
  if (!victim.hasOldDisk || !directories.mayHarm(victim)) return false;
  separate(scene, victim);
  victim.swapBack();
  victim.jumpWallTime(sessionId * 1000 + 100 - wallMs);
  if (!comesUp(scene, victim) || victim.running?.view.proposer.sessionId !== sessionId) return false;
  ask(scene, victim, counting);
  const isAccepted = wait(scene, 1, () => (victim.running?.view.proposer.unapplied ?? 0) > 0);
  scene.network.healAll();
  wait(scene, 20);
  return isAccepted && world.violation === null;
}

function keptTail(scene: Scene): boolean {
  const { nodes, faults, network } = scene;
  const leader = faults.leader();
  if (nodes.length !== 3 || leader?.core == null || !takesSnapshots(scene)) return false;
  const follower = otherThan(scene, leader);
  const next = nodes.find((node) => node !== leader && node !== follower);
  if (next === undefined) return false;
  const endOf = (node: SimNode) => node.core?.log.lastIndex ?? 0;
  const startOf = (node: SimNode) => node.core?.log.snapshotIndex ?? 0;
  // The next leader takes no snapshot, and so keeps its log.
  const takesNone = () => next.disk.hangAt(({ path }) => path.includes('/snapshots/') && path.endsWith('.tmp'));
  takesNone();
  separate(scene, follower);
  if (!fill(scene, leader, () => startOf(leader) > endOf(follower))) return false;
  // By its start it forgets what it knew to be committed, and no node tells it.
  next.kill();
  separate(scene, next);
  linkAnew(scene, follower, leader);
  if (!comesUp(scene, next)) return false;
  // All has come, and takes its time to become durable.
  follower.disk.hangAt(({ kind, path }) => kind === 'sync' && path.endsWith('.part'));
  if (!wait(scene, 20, () => follower.disk.hangs)) return false;
  const snapshot = leader.core?.snapshot?.index ?? 0;
  if (startOf(next) > endOf(follower) || endOf(next) < snapshot) return false;
  leader.kill();
  linkAnew(scene, follower, next);
  if (!wait(scene, 20, () => endOf(follower) >= snapshot)) return false;
  // What the follower acknowledges does not arrive, so nothing more is committed.
  network.partition(follower.id, next.id);
  if ((follower.core?.log.commitIndex ?? snapshot) >= snapshot) return false;
  const { installed } = scene.checks.snapshots;
  follower.disk.goOnEverywhere();
  return wait(scene, 3, () => scene.checks.snapshots.installed > installed);
}

function slowLog(scene: Scene): boolean {
  const { nodes, faults } = scene;
  const before = faults.leader();
  if (nodes.length < 3 || before === null || !takesSnapshots(scene)) return false;
  const follower = otherThan(scene, before);
  separate(scene, follower);
  const { incarnation, running } = before;
  incarnation?.call(() => void running?.replica.handOver());
  if (!wait(scene, 10, () => ![before, null].includes(faults.leader()))) return false;
  const leader = faults.leader();
  const core = leader?.core;
  if (leader === null || core == null) return false;
  if (!fill(scene, leader, () => core.snapshot?.term === core.term)) return false;
  follower.disk.hangAt(isLogWrite);
  scene.network.healAll();
  const isOffered = () => core.leading?.progress.get(follower.id)?.state === 'snapshot';
  if (!fill(scene, leader, isOffered)) return false;
  wait(scene, 4);
  return isOffered();
}

function slowReader(scene: Scene): boolean {
  const { nodes, faults } = scene;
  const leader = faults.leader();
  const core = leader?.core;
  if (nodes.length < 3 || leader === null || core == null || !takesSnapshots(scene)) return false;
  const follower = otherThan(scene, leader);
  separate(scene, follower);
  const wanted = (follower.core?.log.lastIndex ?? 0) + 1;
  if (!fill(scene, leader, () => core.log.firstCachedIndex > wanted) || core.log.snapshotIndex >= wanted) return false;
  const isFetching = () => core.leading?.progress.get(follower.id)?.readingBack === true;
  leader.disk.hangAt(({ kind }) => kind === 'open' && isFetching() && !leader.disk.hangs);
  linkAnew(scene, follower, leader);
  if (!wait(scene, 5, () => leader.disk.hangs)) return false;
  if (!fill(scene, leader, () => (leader.running?.view.wal.firstIndex ?? 0) > wanted)) return false;
  wait(scene, 1);
  leader.disk.goOnEverywhere();
  return wait(scene, 5, () => !isFetching());
}

function isLogWrite({ kind, path, dataSync }: DiskOperation): boolean {
  return kind === 'write' && dataSync && path.includes('/wal/');
}

function filling(): Request {
  return request({ kind: 'set', key: `${KEY}-filling`, value: '-'.repeat(FILLING_BYTES) });
}

/** Writes one after the other, at any node, until `done`. */
function fill(scene: Scene, node: SimNode, done: () => boolean, bytes = FILLING_BYTES): boolean {
  const value = '-'.repeat(Math.min(FILLING_BYTES, bytes));
  for (let write = 0; write < FILLING_WRITES_MAX && !done(); write++) {
    const question = ask(scene, node, [request({ kind: 'set', key: `${KEY}-filling`, value })], false);
    wait(scene, 2, () => question.over || done());
  }
  return done();
}

interface Question {
  over: boolean;
  /** Every request had its reply. */
  answered: boolean;
}

/** Asks a node once. Only this reads what is not `remembered`. */
function ask(scene: Scene, node: SimNode, asked: readonly Request[], remembered = true): Question {
  const { world, history } = scene;
  const question = { over: false, answered: false };
  const call = world.nextMoment();
  const reader = new ReplyReader();
  const open = [...asked];
  const giveUp = () => {
    if (question.over) return;
    question.over = true;
    if (remembered) for (const { input } of open) history.record(CLIENT, input, undefined, call);
  };
  const socket = node.connect({
    onBytes: (bytes) => {
      if (question.over) return;
      reader.append(bytes);
      for (let reply = reader.next(); reply !== null; reply = reader.next()) {
        const each = open.shift();
        if (each === undefined) return;
        const isKnown = !isWithoutOutcome(reply) && !isRefused(reply);
        if (remembered) history.record(CLIENT, each.input, isKnown ? outputOf(each.input, reply) : undefined, call);
      }
      question.answered = open.length === 0;
      question.over = question.answered;
    },
    onClosed: giveUp,
  });
  if (socket === null) giveUp();
  else socket.send(Buffer.from(asked.map(bytesOf).join(''), 'latin1'));
  return question;
}

function isAnswered(scene: Scene, question: Question): boolean {
  wait(scene, 10, () => question.over);
  return question.answered;
}

/** Lets so many election timeouts pass, or until it is done. False where it is not. */
function wait({ world, plan }: Scene, timeouts: number, done: () => boolean = () => false): boolean {
  world.run(world.nowMs + timeouts * plan.timing.electionTimeoutMs, done);
  return world.violation === null && done();
}

function comesUp(scene: Scene, node: SimNode): boolean {
  node.start();
  return wait(scene, 10, () => node.running !== null);
}

/** Itself where it is alone. */
function otherThan({ random, nodes }: Scene, victim: SimNode): SimNode {
  return nodes.length === 1 ? victim : random.pick(nodes.filter((node) => node !== victim));
}

function separate({ nodes, network }: Scene, { id }: SimNode): void {
  for (const other of nodes) {
    if (other.id === id) continue;
    network.partition(id, other.id);
    network.partition(other.id, id);
  }
}

/** What was under way to the first is lost. */
function linkAnew({ network }: Scene, { id: a }: SimNode, { id: b }: SimNode): void {
  network.reset('main', a, b);
  network.heal(a, b);
  network.heal(b, a);
}
