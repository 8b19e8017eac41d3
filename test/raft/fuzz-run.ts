import type { Core } from '../../src/raft/state/core.ts';
import type { NodeId } from '../../src/raft/state/types.ts';
import { describeConfiguration } from './describe.ts';
import { ELECTION_TIMEOUT_TICKS, FaultyWorld } from './faulty-world.ts';
import { activeOf, decide, survives, unrest } from './member-faults.ts';

/**
 * One random run of a cluster, wholly decided by its seed: first everything that can go wrong does; then the faults
 * end, but for a minority that may stay dead. Within a bounded time there must be one leader whom all follow, logs must
 * be the same, writes must be applied and reads be served everywhere. Last comes one trial: a single fault, and what the
 * cluster owes its users under it.
 */
export interface FuzzReport {
  readonly steps: number;
  readonly committed: number;
  readonly terms: number;
  /** Ticks from the end of the faults until all was well. */
  readonly recoveryTicks: number;
  readonly reads: number;
  readonly readBacks: number;
  readonly compactions: number;
  readonly installs: number;
  /** Of the installs, those that dropped the log. */
  readonly resets: number;
  /** Changes of members that were taken, disks that were lost, directories that earned their rights, nodes that left. */
  readonly changes: number;
  readonly wipes: number;
  /** Of the lost disks, those that came back. */
  readonly putBack: number;
  readonly recovered: number;
  readonly removed: number;
}

/** Generous: campaigns may fail, members may have to change one after the other, and a long log may have to be sent one small append at a time. */
const RECOVERY_TICKS_MAX = 120 * ELECTION_TIMEOUT_TICKS;
/** The quorum check runs once in an election timeout, and counts what was still on the wire for a while. */
const STEP_DOWN_TICKS_MAX = 3 * ELECTION_TIMEOUT_TICKS;
const TRIAL_TICKS = 5 * ELECTION_TIMEOUT_TICKS;

/** @throws Error with what was broken; the run can be repeated with the same seed. */
export function runSeed(seed: number, trace?: (line: string) => void): FuzzReport {
  const world = new FaultyWorld(seed, trace);
  const length = 300 + world.random.below(3000);
  for (let i = 0; i < length; i++) world.act();
  const calm = new Calm(world);
  const recoveryTicks = calm.recover();
  calm.trial(trace ?? (() => {}));
  calm.checkOwedReads();
  const terms = Math.max(...calm.alive.map((id) => world.cluster.node(id).core?.term ?? 0));
  return { ...world.counts, committed: world.cluster.checks.committed.length, terms, recoveryTicks };
}

/** The world without faults of its own. */
class Calm {
  readonly alive: readonly NodeId[];
  private readonly world: FaultyWorld;
  private readonly dead: ReadonlySet<NodeId>;

  constructor(world: FaultyWorld) {
    this.world = world;
    this.dead = this.chooseDead();
    this.alive = world.ids.filter((id) => !this.dead.has(id));
  }

  recover(): number {
    this.world.endFaults(this.dead);
    // Without writes first: what reads or heartbeats alone must bring about is not to be had by the way.
    const ticks = this.untilStable('all logs are the same, with reads but without writes');
    return ticks + this.untilWritten();
  }

  trial(trace: (line: string) => void): void {
    const { random } = this.world;
    const trials = [
      this.partitionOneWay,
      this.isolateFollower,
      this.isolateLeader,
      this.stallLeadersDisk,
      this.handOver,
      this.leaveBehind,
    ];
    const trial = random.pick(trials);
    trace(`--- trial: ${trial.name}`);
    trial.call(this);
    this.world.endFaults(this.dead);
    this.untilWritten();
  }

  checkOwedReads(): void {
    for (let i = 0; i < ELECTION_TIMEOUT_TICKS; i++) this.tick();
    for (const { id, node, raft, read } of this.world.owed) {
      if (node.raft === raft && !node.answers.has(read)) throw new Error(`node ${id} never answered read ${read}`);
    }
  }

  /** A leader with a quorum keeps its office, whichever single direction of whichever pair is partitioned (pitfall 7). */
  private partitionOneWay(): void {
    const { random, ids, cluster } = this.world;
    const from = random.pick(ids);
    const to = random.pick(ids);
    const leader = this.leader();
    const other = from === leader.id ? to : from;
    if ((from === leader.id || to === leader.id) && !this.isQuorum((id) => id !== other && !this.dead.has(id))) return;
    cluster.partitions.add(`${from}->${to}`);
    this.staysInOffice(leader);
  }

  /** Nor is it disturbed by a follower that was away and comes back. */
  private isolateFollower(): void {
    const leader = this.leader();
    const follower = this.world.random.pick(this.alive);
    if (follower === leader.id || !this.isQuorum((id) => id !== follower && !this.dead.has(id))) return;
    this.isolate(follower);
    this.staysInOffice(leader);
    this.world.cluster.partitions.clear();
    this.staysInOffice(leader);
  }

  /** A leader that a quorum doesn't hear steps down, and the others find another. */
  private isolateLeader(): void {
    const leader = this.leader();
    this.isolate(leader.id);
    const mayLeadAlone = this.isQuorum((id) => id === leader.id);
    for (let i = 0; i < STEP_DOWN_TICKS_MAX; i++) this.tick();
    if (!mayLeadAlone && leader.role === 'leader') throw new Error(`node ${leader.id} leads though no node answers it`);
    if (!this.isQuorum((id) => id !== leader.id && !this.dead.has(id))) return;
    const isReplaced = () =>
      this.alive.some((id) => this.world.cluster.node(id).core?.role === 'leader' && id !== leader.id);
    this.until('a partitioned leader is replaced', isReplaced);
  }

  /** A leader whose disk hangs hands over to one whose disk does not (pitfall 28). */
  private stallLeadersDisk(): void {
    const leader = this.leader();
    if (!this.isQuorum((id) => id !== leader.id && !this.dead.has(id))) return;
    this.world.stalledDisks.add(leader.id);
    this.world.cluster.propose(leader.id, 'stalled');
    this.until('a leader with a stalled disk steps aside', () => leader.role !== 'leader');
  }

  /** Leadership moves when asked, unless no node can take it; either way writes go on soon (pitfall 27). */
  private handOver(): void {
    const leader = this.leader();
    this.world.cluster.step(leader.id, { kind: 'transferLeadership', to: 0 });
    const others = (id: NodeId) => id !== leader.id && !this.dead.has(id) && this.isVoter(id);
    if (!this.alive.some(others)) return;
    this.until('leadership is handed over', () => leader.role !== 'leader');
  }

  /** A follower comes back after the others have compacted all that it lacks, while writes and newer snapshots go on. */
  private leaveBehind(): void {
    const { world } = this;
    const { cluster, random } = world;
    const follower = random.pick(this.alive);
    if (follower === this.leader().id || !this.isQuorum((id) => id !== follower && !this.dead.has(id))) return;
    const crashes = random.chance(0.5);
    if (crashes) world.crash(follower);
    else this.isolate(follower);
    const writeAndCompact = () => {
      cluster.propose(this.leader().id, `w${++world.counts.proposals}`);
      for (let i = 0; i < 5; i++) this.tick();
      for (const id of this.alive) if (random.chance(0.8)) cluster.snapshot(id, random.below(1000));
    };
    for (let i = 0; i < 4; i++) writeAndCompact();
    world.endFaults(this.dead);
    for (let i = 0; i < 4; i++) writeAndCompact();
  }

  private staysInOffice(leader: Core): void {
    const { term } = leader;
    for (let i = 0; i < TRIAL_TICKS; i++) {
      this.tick();
      if (leader.role === 'leader' && leader.term === term) continue;
      throw new Error(`node ${leader.id} leads a quorum and was deposed\n${this.describe()}`);
    }
  }

  private isolate(isolated: NodeId): void {
    for (const id of this.world.ids) {
      if (id === isolated) continue;
      this.world.cluster.partitions.add(`${id}->${isolated}`).add(`${isolated}->${id}`);
    }
  }

  private leader(): Core {
    const leader = this.world.cluster.leader();
    if (leader === undefined) throw new Error(`no leader\n${this.describe()}`);
    return leader;
  }

  private isVoter(id: NodeId): boolean {
    return this.leader().configurations.current.voters.includes(id);
  }

  private isQuorum(agrees: (id: NodeId) => boolean): boolean {
    return decide(this.world.cluster, agrees);
  }

  private chooseDead(): ReadonlySet<NodeId> {
    const { ids, random } = this.world;
    const dead = new Set(ids.filter(() => random.chance(0.3)));
    return survives(this.world.cluster, (id) => !dead.has(id)) ? dead : new Set();
  }

  private untilWritten(): number {
    const { cluster, counts } = this.world;
    const before = cluster.checks.committed.length;
    let isAccepted = false;
    return this.untilStable('a write is applied everywhere', () => {
      const leader = cluster.leader();
      // Refused at first where leadership is just being handed over.
      if (!isAccepted && leader !== undefined) isAccepted = cluster.propose(leader.id, `w${++counts.proposals}`);
      return isAccepted && cluster.checks.committed.length > before;
    });
  }

  private untilStable(what: string, also: () => boolean = () => true): number {
    const asked = new Map(this.alive.map((id) => [id, [] as number[]]));
    const isServed = (id: NodeId, read: number) => (this.world.cluster.node(id).answers.get(read) ?? -1) >= 0;
    const active = () => activeOf(this.world.cluster, this.alive);
    const allServed = () => active().every((id) => asked.get(id)?.some((read) => isServed(id, read)));
    const readEverywhere = () => {
      for (const id of active()) asked.get(id)?.push(this.world.read(id));
    };
    return this.until(what, () => also() && this.isStable() && allServed(), readEverywhere);
  }

  private until(what: string, isDone: () => boolean, beforeTick: () => void = () => {}): number {
    for (let ticks = 0; ticks < RECOVERY_TICKS_MAX; ticks++) {
      if (isDone()) return ticks;
      beforeTick();
      this.tick();
    }
    throw new Error(`liveness: not within ${RECOVERY_TICKS_MAX} ticks: ${what}\n${this.describe()}`);
  }

  /** One tick of a cluster in which nothing goes wrong by chance, though little is in step. */
  private tick(): void {
    const { world } = this;
    const { cluster, random } = world;
    for (const id of this.alive) cluster.step(id, { kind: 'tick' });
    world.endRemoved();
    world.startAddedAgain();
    for (let turn = 0; turn < 3; turn++) {
      for (let left = cluster.wire.length; left > 0; left--) world.deliverOne();
      for (const id of this.alive) {
        const isStalled = world.stalledDisks.has(id);
        if (random.chance(0.7) && !isStalled) cluster.flushDisk(id);
        while (!isStalled && world.serveReadBack(id));
        while (world.moveTransfer(id));
        cluster.apply(id);
        while (cluster.remember(id));
      }
    }
  }

  private isStable(): boolean {
    const leader = this.world.cluster.leader();
    if (leader === undefined) return false;
    if (unrest(this.world.cluster, (id) => this.alive.includes(id)) !== null) return false;
    const { lastIndex, lastTerm } = leader.log;
    return activeOf(this.world.cluster, this.alive).every((id) => {
      const core = this.world.cluster.node(id).core;
      if (core?.leader !== leader.id || core.term !== leader.term || core.log.lastTerm !== lastTerm) return false;
      const { log } = core;
      return log.lastIndex === lastIndex && log.appliedIndex === lastIndex && log.persistedIndex === lastIndex;
    });
  }

  private describe(): string {
    const line = (id: NodeId) => {
      const core = this.world.cluster.node(id).core;
      if (core === null) return `${id} is down`;
      const { log } = core;
      return (
        `${id} ${core.rights.lifecycle} ${core.role} of term ${core.term}, leader ${core.leader}, ` +
        `${describeConfiguration(core.configurations.current)}, committed ${log.commitIndex}, ` +
        `persisted ${log.persistedIndex}, log ends at ${log.lastIndex}@${log.lastTerm}`
      );
    };
    const what = unrest(this.world.cluster, (id) => this.alive.includes(id)) ?? 'members are in order';
    return [what, ...this.world.ids.map(line)].join('\n');
  }
}
