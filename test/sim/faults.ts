import type { Core } from '../../src/raft/state/core.ts';
import type { Effects, Input } from '../../src/raft/state/types.ts';
import type { Random } from '../support/random.ts';
import type { ClusterChecks } from './checks.ts';
import type { FaultCounts } from './fault-counts.ts';
import type { Incarnation } from './incarnation.ts';
import type { IntactDirectories } from './intact-directories.ts';
import { isMoment, MOMENTS, type Moment } from './moments.ts';
import type { Network } from './network.ts';
import type { Operator } from './operator.ts';
import type { FaultKind, Plan } from './plan.ts';
import type { SimNode } from './processes.ts';
import type { World } from './world.ts';

/**
 * What goes wrong, when, and for how long. Some of it comes at any time; an targeted waits for a moment that hurts (the
 * leader has just appended, a vote was just given, a leader was just elected) and strikes there. Whatever is done has
 * its undoing planned with it; `end` undoes all that is left.
 */
const STRIKES = [
  'kill',
  'killLeader',
  'powerLoss',
  'powerLossSoon',
  'powerLossAll',
  'isolate',
  'pause',
  'diskStall',
  'dieSoon',
  'partitionOneWay',
  'wipe',
] as const;

/** Lying in wait at one time. */
const TARGETED_FAULTS_MAX = 4;

interface TargetedFault {
  readonly moment: Moment;
  readonly strike: (typeof STRIKES)[number];
  /** How many such moments to let pass. */
  skip: number;
  readonly happened: readonly (() => void)[];
}

export class Faults {
  readonly #counts: FaultCounts;
  readonly #world: World;
  readonly #plan: Plan;
  readonly #random: Random;
  readonly #nodes: readonly SimNode[];
  readonly #network: Network;
  readonly #operator: Operator;
  readonly #directories: IntactDirectories;
  #targetedFaults: TargetedFault[] = [];
  #over = false;

  constructor(
    world: World,
    plan: Plan,
    random: Random,
    nodes: readonly SimNode[],
    network: Network,
    operator: Operator,
    directories: IntactDirectories,
    checks: ClusterChecks,
    counts: FaultCounts,
  ) {
    this.#counts = counts;
    this.#world = world;
    this.#plan = plan;
    this.#random = random;
    this.#nodes = nodes;
    this.#network = network;
    this.#operator = operator;
    this.#directories = directories;
    checks.onStep = (incarnation, core, input, effects, truncated) =>
      this.#stepped(incarnation, core, input, effects, truncated);
  }

  begin(): void {
    if (this.#plan.sustainedFault !== null) return;
    this.#planNext();
  }

  /** Everything heals: links, disks, clocks' owners, processes. */
  end(): void {
    this.#over = true;
    this.#targetedFaults = [];
    this.#network.calmDown();
    for (const node of this.#nodes) {
      node.disk.goOn();
      node.disk.makeRoom();
      node.disk.memory.fault = () => null;
      if (node.incarnation !== null) node.incarnation.deathWish = null;
      node.goOn();
      if (!node.ended) node.start();
    }
  }

  #planNext(): void {
    const delayMs = this.#random.skewed(0, this.#plan.faultIntervalMs * 4);
    this.#world.after(delayMs, () => {
      if (this.#over) return;
      this.#do(this.#random.pick(this.#plan.faults));
      this.#planNext();
    });
  }

  /** Undoing and follow-ups; dropped once the trouble is over, for `end` has undone it all. */
  #later(delayMs: number, action: () => void): void {
    this.#world.after(delayMs, () => {
      if (!this.#over) action();
    });
  }

  /**
   * How long a fault lasts: from a blink to several elections. Where no quorum is left it is short, for a cluster that
   * stands still has nothing more to lose.
   */
  #spellMs(): number {
    const { electionTimeoutMs } = this.#plan.timing;
    const well = this.#nodes.filter(
      ({ running, incarnation }) => running !== null && incarnation?.paused === false,
    ).length;
    const quorum = well > this.#nodes.length / 2 && !this.#network.hasPartitions;
    return electionTimeoutMs * this.#random.skewed(0.05, quorum ? 10 : 1.5);
  }

  /** Long enough for the others to choose another leader, and for that one to get something done. */
  #pastAnElection(): number {
    return this.#plan.timing.electionTimeoutMs * this.#random.between(1.5, 8);
  }

  /** Leans towards the leader: it is where most can go wrong. */
  #victim(): SimNode {
    const leader = this.leader();
    if (leader !== null && this.#random.chance(0.5)) return leader;
    return this.#random.pick(this.#nodes.filter(({ begun, ended }) => begun && !ended));
  }

  leader(): SimNode | null {
    let found: SimNode | null = null;
    let term = -1;
    for (const node of this.#nodes) {
      const core = node.running?.replica.raft.core;
      if (core === undefined || core.role !== 'leader' || core.term <= term) continue;
      found = node;
      term = core.term;
    }
    return found;
  }

  #do(kind: FaultKind): void {
    const happened = this.#counts.plan(kind);
    const victim = this.#victim();
    switch (kind) {
      case 'kill':
        this.#down(victim, () => victim.kill(), happened);
        return;
      case 'powerLoss':
        this.#down(victim, () => victim.powerLoss(), happened);
        return;
      case 'killAll':
        this.#allDown((node) => node.kill(), happened);
        return;
      case 'powerLossAll':
        this.#allDown((node) => node.powerLoss(), happened);
        return;
      case 'dieAtEffect':
        this.#dieSoon(victim, this.#random.below(60), happened);
        return;
      case 'stop':
        victim.stop(happened);
        return;
      case 'pause':
        this.#pause(victim, happened);
        return;
      case 'partitionOneWay':
        this.#partitionOneWay(victim, happened);
        return;
      case 'isolate':
        this.#isolate(victim, happened);
        return;
      case 'depose':
        this.#isolate(this.leader() ?? victim, happened, this.#pastAnElection());
        return;
      case 'partition':
        this.#partition(happened);
        return;
      case 'reset':
        if (this.#network.reset('main', victim.id, this.#random.pick(this.#nodes).id)) happened();
        return;
      case 'resetBulk':
        if (this.#network.reset('bulk', victim.id, this.#random.pick(this.#nodes).id)) happened();
        return;
      case 'slowNetwork':
        this.#slowNetwork(happened);
        return;
      case 'diskStall':
        this.#stall(victim, happened);
        return;
      case 'diskFails':
        victim.disk.failNext('EIO', this.#random.pick([['write'], ['sync'], ['syncDirectory', 'rename']]), happened);
        return;
      case 'diskFull':
        victim.disk.fillUp(happened);
        this.#later(this.#spellMs(), () => victim.disk.makeRoom());
        return;
      case 'wallJump':
        victim.jumpWallTime(this.#random.between(-1, 1) * this.#random.pick([10, 1000, 100_000]));
        happened();
        return;
      case 'transfer':
        this.#transfer(happened);
        return;
      case 'backup':
        this.#operator.backup(happened);
        return;
      case 'wipe':
        this.#wipe(victim, happened);
        return;
      case 'rot':
        this.#rot(victim, happened);
        return;
      case 'swapBack':
        this.#swapBack(victim, happened);
        return;
      case 'addMember':
        this.#operator.add(happened);
        return;
      case 'removeMember':
        this.#operator.remove(happened);
        return;
      case 'replaceMember':
        this.#operator.replace(happened);
        return;
      case 'promoteMember':
        this.#operator.promote(happened);
        return;
      case 'startRemoved':
        this.#operator.startRemoved(happened);
        return;
      case 'targetedFault':
        this.#lieInWait(happened);
        return;
    }
  }

  #down(node: SimNode, end: () => void, happened: () => void): void {
    if (node.incarnation === null) return;
    end();
    happened();
    this.#startAgain(node, this.#spellMs());
  }

  #startAgain(node: SimNode, delayMs: number): void {
    this.#later(delayMs, () => {
      if (!node.ended) node.start();
    });
  }

  /** All at once; sometimes one after the other, and they come back as they please. */
  #allDown(end: (node: SimNode) => void, happened: () => void): void {
    const spreadMs = this.#random.pick([0, 0, this.#plan.timing.electionTimeoutMs]);
    for (const node of this.#nodes) {
      if (spreadMs === 0) this.#down(node, () => end(node), happened);
      else this.#later(this.#random.next() * spreadMs, () => this.#down(node, () => end(node), happened));
    }
  }

  #dieSoon(node: SimNode, effects: number, happened: () => void): void {
    const { incarnation } = node;
    if (incarnation === null) return;
    const loses = this.#random.chance(0.5);
    incarnation.deathWish = {
      effectsLeft: effects,
      die: () => this.#down(node, () => (loses ? node.powerLoss() : node.kill()), happened),
    };
  }

  #pause(node: SimNode, happened: () => void): void {
    const { incarnation } = node;
    if (incarnation === null) return;
    const spellMs = this.#spellMs();
    if (!incarnation.paused) happened();
    node.pause();
    this.#later(spellMs, () => {
      if (node.incarnation === incarnation) node.goOn();
    });
    const { silenceMs } = this.#plan.network;
    if (spellMs > silenceMs) this.#later(silenceMs, () => this.#network.wasSilent(node.id));
  }

  #partitionOneWay(node: SimNode, happened: () => void): void {
    const other = this.#random.pick(this.#nodes);
    if (other === node) return;
    const [from, to] = this.#random.chance(0.5) ? [node.id, other.id] : [other.id, node.id];
    this.#network.partition(from, to);
    happened();
    this.#later(this.#spellMs(), () => this.#network.heal(from, to));
  }

  #isolate(node: SimNode, happened: () => void, spellMs = this.#spellMs()): void {
    this.#separate((id) => id === node.id, happened, spellMs);
  }

  #partition(happened: () => void): void {
    const side = new Set(this.#nodes.filter(() => this.#random.chance(0.5)).map(({ id }) => id));
    this.#separate((id) => side.has(id), happened, this.#spellMs());
  }

  /** Partitions everything between those inside and those outside, or only one of the two directions. */
  #separate(isInside: (id: number) => boolean, happened: () => void, spellMs: number): void {
    const directions = this.#random.pick(['both', 'both', 'both', 'in', 'out'] as const);
    for (const { id: a } of this.#nodes) {
      for (const { id: b } of this.#nodes) {
        if (isInside(a) === isInside(b)) continue;
        if (directions !== 'both' && isInside(a) !== (directions === 'out')) continue;
        this.#network.partition(a, b);
        happened();
        this.#later(spellMs, () => this.#network.heal(a, b));
      }
    }
  }

  #slowNetwork(happened: () => void): void {
    this.#network.delayFactor = this.#random.pick([3, 10, 50]);
    happened();
    this.#later(this.#spellMs(), () => {
      this.#network.delayFactor = 1;
    });
  }

  #stall(node: SimNode, happened: () => void): void {
    node.disk.stall(this.#world, this.#world.nowMs + this.#spellMs() * 2, happened);
  }

  #transfer(happened: () => void): void {
    const leader = this.leader();
    const { incarnation, running } = leader ?? { incarnation: null, running: null };
    if (incarnation === null || running === null) return;
    happened();
    incarnation.call(() => void running.replica.handOver());
  }

  #rot(node: SimNode, happened: () => void): void {
    // The only node of a cluster cannot be healed by others: it refuses to start.
    if (this.#plan.nodeIds.length === 1 || !this.#directories.mayHarm(node)) return;
    if (node.rot()) happened();
    this.#startAgain(node, this.#spellMs());
  }

  #wipe(node: SimNode, happened: () => void): void {
    if (!this.#directories.mayHarm(node)) return;
    happened();
    const others = node.core?.configurations.current.details.map(({ id }) => id) ?? [];
    node.wipe(others);
    this.#startAgain(node, this.#spellMs());
  }

  /** A disk that was lost comes back, while a leader that knows of its loss is away. */
  #swapBack(victim: SimNode, happened: () => void): void {
    const old = this.#nodes.filter(({ hasOldDisk, ended }) => hasOldDisk && !ended);
    const node = old.length > 0 ? this.#random.pick(old) : victim;
    if (!node.hasOldDisk) {
      this.#wipe(node, this.#counts.plan('wipe'));
      return;
    }
    if (!this.#directories.mayHarm(node)) return;
    happened();
    node.swapBack();
    const leader = this.leader();
    if (leader !== null && leader !== node && this.#random.chance(0.5)) {
      this.#isolate(leader, this.#counts.plan('isolate'), this.#pastAnElection());
    }
    this.#startAgain(node, this.#plan.timing.electionTimeoutMs * this.#random.skewed(0.05, 3));
  }

  #lieInWait(happened: () => void): void {
    const moment = this.#random.pick(MOMENTS);
    const strike = this.#random.pick(STRIKES);
    const skip = this.#random.pick([0, 0, 1, 5]);
    this.#targetedFaults.push({ moment, strike, skip, happened: [happened, this.#counts.plan(`at: ${moment}`)] });
    if (this.#targetedFaults.length > TARGETED_FAULTS_MAX) this.#targetedFaults.shift();
  }

  #stepped(incarnation: Incarnation, core: Core, input: Input, effects: Effects, truncated: boolean): void {
    const targeted = this.#targetedFaults.find(({ moment }) => isMoment(moment, core, input, effects, truncated));
    if (targeted === undefined || targeted.skip-- > 0) return;
    this.#targetedFaults.splice(this.#targetedFaults.indexOf(targeted), 1);
    const node = this.#nodes.find(({ id }) => id === incarnation.nodeId);
    if (node === undefined || node.incarnation !== incarnation) return;
    for (const happened of targeted.happened) happened();
    this.#world.say(() => `${node.id}: has ${targeted.moment}: ${targeted.strike}`);
    this.#strike(node, targeted.strike, this.#counts.plan(`strike: ${targeted.strike}`));
  }

  #strike(node: SimNode, strike: TargetedFault['strike'], happened: () => void): void {
    switch (strike) {
      case 'kill':
        this.#dieSoon(node, 0, happened);
        return;
      case 'powerLoss':
        this.#down(node, () => node.powerLoss(), happened);
        return;
      case 'killLeader':
        this.#dieSoon(this.leader() ?? node, 0, happened);
        return;
      case 'powerLossSoon':
        // While what this step writes is under way.
        this.#later(this.#random.next() * this.#plan.disk.latencyMs.max, () =>
          this.#down(node, () => node.powerLoss(), happened),
        );
        return;
      case 'powerLossAll':
        // In a moment: what was about to be said has been said by then, and acted upon.
        this.#later(this.#random.skewed(0, 20), () => this.#allDown((each) => each.powerLoss(), happened));
        return;
      case 'isolate':
        this.#isolate(node, happened, this.#pastAnElection());
        return;
      case 'pause':
        this.#pause(node, happened);
        return;
      case 'diskStall':
        this.#stall(node, happened);
        return;
      case 'dieSoon':
        this.#dieSoon(node, 1 + this.#random.below(8), happened);
        return;
      case 'partitionOneWay':
        this.#partitionOneWay(node, happened);
        return;
      case 'wipe':
        if (this.#plan.faults.includes('wipe')) this.#later(0, () => this.#wipe(node, happened));
        return;
    }
  }
}
