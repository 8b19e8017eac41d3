import { isMember, members } from '../../src/raft/state/configuration.ts';
import type { Configuration, Message, NodeId } from '../../src/raft/state/types.ts';
import { Random, seededRandom } from '../support/random.ts';
import { configurationWith } from './configurations.ts';
import { type ClusterNode, type ClusterOptions, CoreCluster } from './core-cluster.ts';
import { configurationsInForce, drawChange, mayRemove, survives } from './member-faults.ts';
import type { SimulatedDisk } from './simulated-disk.ts';

/**
 * A cluster to which everything happens that can: one random action at a time, each with a weight drawn from the seed.
 * Some never happen in a given run, so that others may go far.
 *
 *   wire      lost, repeated, overtaken, replayed long after; partitioned by direction, by node, in halves
 *   links     break (what is on them is lost) and come back, which each end notices in its own time
 *   processes crash at any point, restart, stand still while their messages pile up
 *   disks     finish late or not at all; a crash tears the write that is on its way
 *   members   come, go and change places; disks are lost, new directories begin, and old ones come back, at once or after the
 *             cluster has gone on without them; disks are full for a while
 *   snapshots are taken, and the log compacted, at any moment; transfers are lost, or overtaken, at any moment, and
 *             crashes come between what is durable and what the core has heard of
 */
export const ELECTION_TIMEOUT_TICKS = 10;

const CONFIGURATIONS: readonly Configuration[] = [
  configurationWith({ voters: [1] }),
  configurationWith({ voters: [1, 2], learners: [3] }),
  configurationWith({ voters: [1, 2, 3] }),
  configurationWith({ voters: [1, 2, 3] }),
  configurationWith({ voters: [1, 2, 3], learners: [4] }),
  configurationWith({ voters: [1, 2, 3, 4, 5] }),
  configurationWith({ voters: [1, 2, 3, 4, 5] }),
  configurationWith({ voters: [1, 2, 3], votersOutgoing: [2, 3, 4] }),
  configurationWith({ voters: [1, 2, 3], votersOutgoing: [3, 4, 5], learners: [6], autoLeave: true }),
];

/** Nodes that may become members, beside those that a run begins with. */
const NEWCOMERS_MAX = 3;
/** What lies on the wire beyond this is lost, as links do when their buffers are full. */
const WIRE_MESSAGES_MAX = 300;
/** Delivered messages that may come again long after. */
const PAST_MESSAGES_MAX = 100;

type Action = readonly [weight: number, act: () => void];

export class FaultyWorld {
  readonly random: Random;
  readonly cluster: CoreCluster;
  readonly configuration: Configuration;
  readonly ids: readonly NodeId[];
  readonly stalledDisks = new Set<NodeId>();
  /** Standing still, as after SIGSTOP: no ticks, and messages wait. */
  readonly paused = new Set<NodeId>();
  readonly counts = {
    steps: 0,
    reads: 0,
    proposals: 0,
    readBacks: 0,
    compactions: 0,
    installs: 0,
    resets: 0,
    changes: 0,
    wipes: 0,
    putBack: 0,
    recovered: 0,
    removed: 0,
  };
  /** Reads that a leader was asked for on its own node, and has to answer unless it crashes. */
  readonly owed: { readonly id: NodeId; readonly node: ClusterNode; readonly raft: unknown; readonly read: number }[] =
    [];
  private readonly trace: (line: string) => void;
  private readonly linksDown = new Set<string>();
  /** Link events that their node has not noticed yet. */
  private notices: { readonly at: NodeId; readonly peer: NodeId; readonly kind: 'linkLost' | 'linkUp' }[] = [];
  private readonly past: Message[] = [];
  /** Links that deliver in order, as TCP does; else messages may overtake each other and come twice. */
  private readonly inOrder: boolean;
  /** Members may change, and disks be lost. */
  private readonly changesMembers: boolean;
  private readonly duplicateChance: number;
  private readonly tickRates: ReadonlyMap<NodeId, number>;
  private readonly actions: readonly Action[];
  private readonly weight: number;

  constructor(seed: number, trace?: (line: string) => void) {
    const random = new Random(seed);
    this.random = random;
    this.trace = trace ?? (() => {});
    this.configuration = random.pick(CONFIGURATIONS);
    const first = members(this.configuration);
    this.changesMembers =
      random.chance(0.7) && (this.configuration.autoLeave || this.configuration.votersOutgoing.length === 0);
    const newcomers = Array.from(
      { length: this.changesMembers ? 1 + random.below(NEWCOMERS_MAX) : 0 },
      (_, i) => i + 1,
    );
    const highest = Math.max(...first);
    this.ids = [...first, ...newcomers.map((i) => highest + i)];
    const options: ClusterOptions = {
      configuration: this.configuration,
      newcomers: this.ids.slice(first.length),
      electionTimeoutTicks: ELECTION_TIMEOUT_TICKS,
      heartbeatIntervalTicks: 1 + random.below(3),
      appendBytesMax: random.pick([30, 80, 200, 4000]),
      flow: { inflightMessagesMax: 1 + random.below(5), inflightBytesMax: random.pick([60, 300, 100_000]) },
      cacheBytesMax: random.pick([0, 400, 1500, 1_000_000]),
      randomOf: (id) => seededRandom(seed * 16 + id),
      observe: (_core, _before, { install, recovered }) => {
        if (recovered) this.counts.recovered++;
        if (install === null) return;
        this.counts.installs++;
        if (install.resetLog) this.counts.resets++;
      },
      ...(trace === undefined ? {} : { trace }),
    };
    this.cluster = new CoreCluster(options);
    this.cluster.lostOnLink = (from, to) => this.linksDown.has(linkOf(from, to));
    this.inOrder = random.chance(0.4);
    this.duplicateChance = this.inOrder || random.chance(0.5) ? 0 : random.next() * 0.4;
    this.tickRates = new Map(this.ids.map((id) => [id, random.chance(0.7) ? 1 : 0.3 + random.next() * 2]));
    this.actions = this.drawActions();
    this.weight = this.actions.reduce((sum, [weight]) => sum + weight, 0);
  }

  act(): void {
    this.counts.steps++;
    let at = this.random.next() * this.weight;
    for (const [weight, act] of this.actions) {
      at -= weight;
      if (at >= 0) continue;
      act();
      this.endRemoved();
      return;
    }
  }

  /** The process of a node that was removed ends by itself. */
  endRemoved(): void {
    for (const id of this.ids) {
      const { isRemoved, raft } = this.cluster.node(id);
      if (!isRemoved || raft === null) continue;
      this.counts.removed++;
      this.crash(id);
    }
  }

  /** Ends all faults, but for the nodes that stay down for ever. */
  endFaults(staysDown: ReadonlySet<NodeId>): void {
    this.trace('--- the faults end');
    this.cluster.partitions.clear();
    this.stalledDisks.clear();
    this.paused.clear();
    const inForce = configurationsInForce(this.cluster);
    for (const id of this.ids) {
      const runs = this.cluster.node(id).raft !== null;
      if (staysDown.has(id) && runs) this.crash(id);
      if (staysDown.has(id)) continue;
      const isWanted = inForce.some((configuration) => isMember(configuration, id)) || this.random.chance(0.5);
      if (!runs && isWanted) this.cluster.start(id);
      this.findCluster(id);
      if (this.cluster.node(id).core?.diskFull === true) this.cluster.step(id, { kind: 'diskFull', full: false });
    }
    for (const link of [...this.linksDown]) {
      const [a = 0, b = 0] = endsOf(link);
      if (!staysDown.has(a) && !staysDown.has(b)) this.linkUp(a, b);
    }
    while (this.notices.length > 0) this.notice();
  }

  deliverOne(): void {
    const { cluster, random } = this;
    if (cluster.wire.length === 0) return;
    let place = random.below(cluster.wire.length);
    const message = cluster.wire[place];
    if (message === undefined || this.paused.has(message.to)) return;
    if (this.inOrder) place = cluster.wire.findIndex(({ from, to }) => from === message.from && to === message.to);
    if (random.chance(this.duplicateChance)) cluster.wire.push(message);
    this.past.push(message);
    if (this.past.length > PAST_MESSAGES_MAX) this.past.splice(random.below(PAST_MESSAGES_MAX), 1);
    cluster.deliver(place);
    if (cluster.wire.length > WIRE_MESSAGES_MAX) cluster.wire.splice(0, WIRE_MESSAGES_MAX / 2);
  }

  /** Who was told of its removal, and added again meanwhile, is started again by the operator. */
  startAddedAgain(): void {
    const configuration = this.cluster.leader()?.configurations.current;
    for (const id of this.ids) {
      const { isRemoved, raft } = this.cluster.node(id);
      if (isRemoved && raft === null && configuration !== undefined && isMember(configuration, id)) this.start(id);
    }
  }

  /** An uninitialized node learns that there is a cluster. */
  private findCluster(id: NodeId): void {
    const { core, disk } = this.cluster.node(id);
    if (core?.rights.lifecycle !== 'uninitialized') return;
    this.cluster.step(id, { kind: 'lifecycle', lifecycle: 'recovering', directoryId: disk.directoryId });
  }

  private changeMembers(): void {
    const leader = this.someLeader();
    if (leader === undefined || this.paused.has(leader)) return;
    const { cluster, random } = this;
    const change = drawChange(cluster, leader, random);
    if (change.op === 'remove' && !mayRemove(cluster, leader, change.id)) return;
    if (change.op === 'add' && cluster.node(change.id).raft === null) {
      if (random.chance(0.3)) this.loseDisk(change.id);
      this.start(change.id);
    }
    if (cluster.change(leader, change)?.refusal === null) this.counts.changes++;
  }

  /** Never of so many that no majority of intact directories is left. */
  private loseDisk(id: NodeId): void {
    const { cluster, random } = this;
    if (!survives(cluster, (other) => other !== id)) return;
    this.crash(id);
    cluster.wipe(id, random.chance(0.5) ? 'uninitialized' : 'recovering');
    this.forgetPast(id);
    this.counts.wipes++;
    if (random.chance(0.7)) this.start(id);
  }

  /** A disk that was lost is there again, just as it was: its volume had not been mounted. The present one is lost. */
  private putBackDisk(id: NodeId, ghost: SimulatedDisk | undefined, starts = this.random.chance(0.8)): void {
    const { cluster } = this;
    if (ghost === undefined || !survives(cluster, (other) => other !== id)) return;
    this.crash(id);
    cluster.putBack(id, ghost);
    this.forgetPast(id);
    this.counts.putBack++;
    if (starts) this.start(id);
  }

  private swapDisks(id: NodeId): void {
    const { ghosts } = this.cluster.node(id).disk;
    if (ghosts.length > 0) this.putBackDisk(id, this.random.pick(ghosts));
  }

  /** Links carry nothing from one directory to another. */
  private forgetPast(id: NodeId): void {
    const kept = this.past.filter(({ from, to }) => from !== id && to !== id);
    this.past.splice(0, this.past.length, ...kept);
  }

  /**
   * A voter loses its disk and earns its vote with another, which helps to commit what most do not have; then it comes
   * back with the old one. Whether the leader stays or goes, the others must not count it.
   */
  private swapBack(): void {
    const { cluster, random } = this;
    const leader = this.someLeader();
    const voters = leader === undefined ? [] : (cluster.node(leader).core?.configurations.current.voters ?? []);
    const others = voters.filter((id) => id !== leader && cluster.node(id).raft !== null && !this.paused.has(id));
    if (leader === undefined || others.length < 2 || this.paused.has(leader)) return;
    const swapped = random.pick(others);
    const lost = cluster.node(swapped).disk.ghosts.length;
    cluster.partitions.clear();
    this.loseDisk(swapped);
    if (cluster.node(swapped).disk.ghosts.length === lost) return;
    if (cluster.node(swapped).raft === null) this.start(swapped);
    this.findCluster(swapped);
    this.runAmong(this.ids, 40);
    // The least that decides with it, and the rest, which decides with it, too.
    const helpers = others.filter((id) => id !== swapped).slice(0, Math.max(0, Math.ceil((voters.length - 3) / 2)));
    const rest = this.ids.filter((id) => id !== leader && id !== swapped && !helpers.includes(id));
    const [old, ghost] = [[leader, ...helpers], cluster.node(swapped).disk.ghosts[lost]];
    if (random.chance(0.5)) {
      this.decideWith(swapped, old, rest);
      this.putBackDisk(swapped, ghost, true);
      this.separate(old, [swapped, ...rest]);
      this.elect([swapped, ...rest], random.pick([swapped, ...rest]));
    } else {
      this.separate(old, [swapped, ...rest]);
      this.elect([swapped, ...rest], random.pick(rest));
      this.putBackDisk(swapped, ghost, true);
      this.decideWith(swapped, old, rest);
    }
    this.read(swapped);
    this.read(leader);
    this.moveAmong([swapped, ...old], 20);
  }

  /** The leader goes on with `id` and its old followers, out of reach of the rest. */
  private decideWith(id: NodeId, old: readonly NodeId[], rest: readonly NodeId[]): void {
    const { cluster } = this;
    const [leader = 0] = old;
    this.separate([id, ...old], rest);
    cluster.propose(leader, `w${++this.counts.proposals}`);
    for (let i = 0; i < ELECTION_TIMEOUT_TICKS / 2; i++) {
      cluster.step(leader, { kind: 'tick' });
      this.moveAmong([id, ...old], 6 * old.length);
      if (this.random.chance(0.2)) this.read(this.random.pick([id, leader]));
    }
  }

  /** `side` loses patience, `candidate` first, and is asked to write something. */
  private elect(side: readonly NodeId[], candidate: NodeId): void {
    const { cluster } = this;
    for (const id of side) {
      const patience = id === candidate ? 2 * ELECTION_TIMEOUT_TICKS : ELECTION_TIMEOUT_TICKS;
      for (let i = 0; i < patience && !this.paused.has(id); i++) cluster.step(id, { kind: 'tick' });
    }
    this.moveAmong(side, 60);
    if (cluster.node(candidate).core?.role === 'leader') cluster.propose(candidate, `w${++this.counts.proposals}`);
    this.moveAmong(side, 40);
  }

  /** Time passes for `side`, and what lies on its wires and disks moves. */
  private runAmong(side: readonly NodeId[], ticks: number): void {
    for (let i = 0; i < ticks; i++) {
      for (const id of side) this.tick(id);
      this.moveAmong(side, 5 * side.length);
      for (const id of side) {
        if (this.paused.has(id) || this.stalledDisks.has(id)) continue;
        this.serveReadBack(id);
        this.moveTransfer(id);
        this.cluster.apply(id);
        this.cluster.remember(id);
      }
    }
  }

  /**
   * A voter helps to elect a new leader and to commit under it, then loses its disk, and wakes among those who still
   * follow the old one: whatever it says now must not count.
   */
  private forget(): void {
    const { cluster, random } = this;
    const leader = this.someLeader();
    const voters = leader === undefined ? [] : (cluster.node(leader).core?.configurations.current.voters ?? []);
    const others = voters.filter((id) => id !== leader && cluster.node(id).raft !== null && !this.paused.has(id));
    if (leader === undefined || others.length < 2 || this.paused.has(leader)) return;
    const forgetful = random.pick(others);
    const candidate = random.pick(others.filter((id) => id !== forgetful));
    this.separate([leader], others);
    for (const id of others) {
      const patience = id === candidate ? 2 * ELECTION_TIMEOUT_TICKS : ELECTION_TIMEOUT_TICKS;
      for (let i = 0; i < patience; i++) cluster.step(id, { kind: 'tick' });
    }
    this.moveAmong(others, 60);
    if (cluster.node(candidate).core?.role === 'leader') cluster.propose(candidate, `w${++this.counts.proposals}`);
    this.moveAmong(others, 30);
    this.loseDisk(forgetful);
    if (cluster.node(forgetful).raft === null) this.start(forgetful);
    const rest = this.ids.filter((id) => id !== leader && id !== forgetful);
    this.separate([leader, forgetful], rest);
    for (let i = 0; i < ELECTION_TIMEOUT_TICKS / 2; i++) {
      cluster.step(leader, { kind: 'tick' });
      this.moveAmong([leader, forgetful], 4);
    }
    if (random.chance(0.3)) cluster.propose(leader, `w${++this.counts.proposals}`);
    this.read(forgetful);
    this.read(leader);
    this.moveAmong([leader, forgetful], 20);
  }

  /** From now on nothing gets from one side to the other; everything else does. */
  private separate(some: readonly NodeId[], others: readonly NodeId[]): void {
    const { partitions } = this.cluster;
    partitions.clear();
    for (const a of some) for (const b of others) partitions.add(`${a}->${b}`).add(`${b}->${a}`);
  }

  private fillDisk(id: NodeId): void {
    const { core } = this.cluster.node(id);
    if (core !== null) this.cluster.step(id, { kind: 'diskFull', full: !core.diskFull });
  }

  serveReadBack(id: NodeId): boolean {
    const served = this.cluster.serveReadBack(id);
    if (served) this.counts.readBacks++;
    return served;
  }

  read(id: NodeId): number {
    const node = this.cluster.node(id);
    const { raft } = node;
    if (raft === null) return 0;
    const leads = raft.core.role === 'leader';
    const read = this.cluster.read(id);
    this.counts.reads++;
    if (leads) this.owed.push({ id, node, raft, read });
    return read;
  }

  private drawActions(): Action[] {
    const { random } = this;
    const sometimes = (probability: number, weight: number) =>
      random.chance(probability) ? weight * (0.3 + random.next()) : 0;
    return [
      [50 + random.below(60), () => this.deliverOne()],
      [5 + random.below(40), () => this.tickSome()],
      [15 + random.below(30), () => this.diskWork(this.anyone())],
      [3 + random.below(5), () => this.applySome()],
      [3, () => this.notice()],
      [sometimes(0.9, 6), () => this.propose()],
      [sometimes(0.8, 5), () => this.readSomewhere()],
      [sometimes(0.4, 4), () => this.drop()],
      [this.inOrder ? 0 : sometimes(0.6, 3), () => this.replay()],
      [sometimes(0.6, 0.5), () => this.crash(this.anyone())],
      [sometimes(0.9, 1.5), () => this.restart()],
      [sometimes(0.5, 0.4), () => this.isolate(this.anyone(), 0.8)],
      [sometimes(0.5, 0.4), () => this.split()],
      [sometimes(0.5, 0.4), () => this.isolateLeader()],
      [sometimes(0.95, 2), () => this.heal()],
      [sometimes(0.5, 0.8), () => this.breakLink()],
      [sometimes(0.95, 3), () => this.mendLink()],
      [sometimes(0.4, 0.3), () => this.stalledDisks.add(this.anyone())],
      [sometimes(0.95, 0.5), () => this.mendDisk()],
      [sometimes(0.5, 0.6), () => this.pause()],
      [sometimes(0.95, 0.6), () => this.resume()],
      [sometimes(0.4, 0.8), () => this.transfer()],
      [sometimes(0.3, 0.4), () => this.loseAllMessages()],
      [sometimes(0.5, 0.6), () => this.race()],
      [sometimes(0.35, 4), () => this.reign()],
      [this.changesMembers ? sometimes(0.8, 6) : 0, () => this.changeMembers()],
      [this.changesMembers ? sometimes(0.6, 1) : 0, () => this.loseDisk(this.anyone())],
      [this.changesMembers ? sometimes(0.5, 1) : 0, () => this.forget()],
      [this.changesMembers ? sometimes(0.5, 1) : 0, () => this.swapDisks(this.anyone())],
      [this.changesMembers ? sometimes(0.5, 4) : 0, () => this.swapBack()],
      [this.changesMembers ? 1 : 0, () => this.findCluster(this.anyone())],
      [2, () => this.rememberSome()],
      [sometimes(0.2, 0.5), () => this.fillDisk(this.anyone())],
      [sometimes(0.75, 4), () => this.snapshotWork(this.anyone())],
      [sometimes(0.75, 4), () => this.compact(this.anyone())],
      [sometimes(0.6, 3), () => this.overtake()],
      [1 + random.below(20), () => this.moveTransfer(this.anyone())],
      [sometimes(0.5, 2), () => this.loseTransfer(this.anyone())],
    ];
  }

  private anyone(): NodeId {
    return this.random.pick(this.ids);
  }

  /** A node that believes it leads, be it right or not. */
  private someLeader(): NodeId | undefined {
    const leaders = this.ids.filter((id) => this.cluster.node(id).core?.role === 'leader');
    return leaders.length === 0 ? undefined : this.random.pick(leaders);
  }

  private tickSome(): void {
    if (this.random.chance(0.5)) this.tick(this.anyone());
    else for (const id of this.ids) this.tick(id);
  }

  private tick(id: NodeId): void {
    if (this.paused.has(id)) return;
    const rate = this.tickRates.get(id) ?? 1;
    const times = Math.floor(rate) + (this.random.chance(rate % 1) ? 1 : 0);
    for (let i = 0; i < times; i++) this.cluster.step(id, { kind: 'tick' });
  }

  private diskWork(id: NodeId): void {
    if (this.stalledDisks.has(id)) return;
    switch (this.random.below(this.paused.has(id) ? 1 : 4)) {
      case 0:
        this.cluster.persist(id);
        return;
      case 1:
        this.cluster.complete(id);
        return;
      case 2:
        this.cluster.flushDisk(id);
        return;
      default:
        this.serveReadBack(id);
    }
  }

  private snapshotWork(id: NodeId): void {
    if (this.paused.has(id)) return;
    if (this.random.chance(0.5)) {
      this.cluster.beginSnapshot(id);
      return;
    }
    if (this.stalledDisks.has(id)) return;
    const isTold = this.random.chance(0.9);
    if (this.cluster.finishSnapshot(id, isTold) && !isTold) this.crash(id);
  }

  private compact(id: NodeId): void {
    const log = this.cluster.node(id).core?.log;
    if (log === undefined || this.paused.has(id)) return;
    const before = log.snapshotIndex;
    // Any index will do: what may not go yet must stay.
    this.cluster.compact(id, this.random.below(log.lastIndex + 5));
    if (log.snapshotIndex > before) this.counts.compactions++;
  }

  moveTransfer(id: NodeId): boolean {
    if (this.paused.has(id) || this.stalledDisks.has(id)) return false;
    return this.cluster.moveTransfer(id);
  }

  /** A leader that has more than a follower writes some, and compacts its log as far as it may. */
  private overtake(): void {
    const leader = this.someLeader();
    if (leader === undefined || this.paused.has(leader)) return;
    if (this.random.chance(0.5)) this.propose();
    this.cluster.apply(leader);
    this.cluster.snapshot(leader);
    this.compact(leader);
  }

  /** What was fetched is lost with it; or the sender gives up on a follower that has not asked for long. */
  private loseTransfer(id: NodeId): void {
    const { cluster, random } = this;
    if (random.chance(0.7)) cluster.node(id).transfer = null;
    const leader = this.someLeader();
    if (leader !== undefined && random.chance(0.5)) cluster.step(leader, { kind: 'snapshotStalled', peer: id });
  }

  private applySome(): void {
    const id = this.anyone();
    if (!this.paused.has(id)) this.cluster.apply(id);
  }

  private rememberSome(): void {
    const id = this.anyone();
    if (!this.paused.has(id) && !this.stalledDisks.has(id)) this.cluster.remember(id);
  }

  private propose(): void {
    const leader = this.someLeader();
    if (leader === undefined || this.paused.has(leader)) return;
    const payloads = Array.from({ length: 1 + this.random.below(3) }, () => `w${++this.counts.proposals}`);
    this.cluster.propose(leader, ...payloads);
  }

  private readSomewhere(): void {
    const id = this.random.chance(0.4) ? this.someLeader() : this.anyone();
    if (id !== undefined && !this.paused.has(id)) this.read(id);
  }

  private drop(): void {
    const { wire } = this.cluster;
    if (wire.length > 0) wire.splice(this.random.below(wire.length), 1);
  }

  private replay(): void {
    if (this.past.length > 0) this.cluster.wire.push(this.random.pick(this.past));
  }

  private loseAllMessages(): void {
    this.cluster.wire = [];
  }

  /** Several nodes lose patience at the same time. */
  private race(): void {
    const racers = this.ids.filter((id) => this.random.chance(0.5) && !this.paused.has(id));
    for (let i = 0; i < 2 * ELECTION_TIMEOUT_TICKS; i++) {
      for (const id of racers) this.cluster.step(id, { kind: 'tick' });
    }
  }

  /**
   * One side of a split elects a leader while the other stands still and keeps its own; what the new leader is then asked
   * to write gets anywhere or nowhere. A few of these in a row make the paper's figure 8.
   */
  private reign(): void {
    const { cluster, random } = this;
    this.restart();
    const candidate = this.anyone();
    const side = this.ids.filter((id) => id === candidate || random.chance(0.6));
    cluster.partitions.clear();
    for (const a of side) {
      for (const b of this.ids) if (!side.includes(b)) cluster.partitions.add(`${a}->${b}`).add(`${b}->${a}`);
    }
    // Long enough for all of the side to give up their leader, and for the candidate to campaign.
    for (const id of side) {
      const patience = id === candidate ? 2 * ELECTION_TIMEOUT_TICKS : ELECTION_TIMEOUT_TICKS;
      for (let i = 0; i < patience; i++) cluster.step(id, { kind: 'tick' });
    }
    this.moveAmong(side, 20 + random.below(60));
    if (cluster.node(candidate).core?.role === 'leader') cluster.propose(candidate, `w${++this.counts.proposals}`);
    this.moveAmong(side, random.below(20));
    if (random.chance(0.5)) this.crash(candidate);
  }

  private moveAmong(side: readonly NodeId[], steps: number): void {
    const { cluster, random } = this;
    for (let i = 0; i < steps; i++) {
      const id = random.pick(side);
      if (random.chance(0.4) && !this.stalledDisks.has(id)) cluster.flushDisk(id);
      const near = cluster.wire.filter(({ from, to }) => side.includes(from) && side.includes(to));
      if (near.length > 0) cluster.deliver(cluster.wire.indexOf(random.pick(near)));
    }
  }

  private pause(): void {
    const id = this.random.chance(0.6) ? this.someLeader() : this.anyone();
    if (id !== undefined) this.paused.add(id);
  }

  /** A node wakes, and may be asked for a read before it sees what has piled up. */
  private resume(): void {
    if (this.paused.size === 0) return;
    const id = this.random.pick([...this.paused]);
    this.paused.delete(id);
    if (this.random.chance(0.7)) this.read(id);
  }

  crash(id: NodeId): void {
    if (this.cluster.node(id).raft === null) return;
    this.cluster.crash(id, this.random.below(4));
    for (const { transfer } of this.cluster.nodes.values()) {
      // What is not here in full by now never will be.
      if (transfer?.from === id && !transfer.stored) transfer.source = null;
    }
    this.paused.delete(id);
    for (const peer of this.ids) if (peer !== id) this.linkDown(id, peer);
    this.notices = this.notices.filter(({ at }) => at !== id);
  }

  private restart(): void {
    const down = this.ids.filter((id) => this.cluster.node(id).raft === null);
    if (down.length === 0) return;
    this.start(this.random.pick(down));
  }

  private start(id: NodeId): void {
    this.cluster.start(id);
    for (const peer of this.ids) {
      if (peer !== id && this.cluster.node(peer).raft !== null) this.linkUp(id, peer);
    }
  }

  /** Isolates one node, wholly or from some, in one direction or both. */
  private isolate(isolated: NodeId, eachWay: number): void {
    const { partitions } = this.cluster;
    const towards = this.random.chance(eachWay);
    const away = this.random.chance(eachWay);
    const all = this.random.chance(0.5);
    for (const peer of this.ids) {
      if (peer === isolated || (!all && this.random.chance(0.5))) continue;
      if (towards) partitions.add(`${peer}->${isolated}`);
      if (away) partitions.add(`${isolated}->${peer}`);
    }
  }

  /** Isolates a leader just after it appended what no other node will hold. */
  private isolateLeader(): void {
    const leader = this.someLeader();
    if (leader === undefined) return;
    this.isolate(leader, 0.9);
    this.propose();
  }

  private split(): void {
    const side = new Set(this.ids.filter(() => this.random.chance(0.5)));
    for (const from of this.ids) {
      for (const to of this.ids) if (side.has(from) !== side.has(to)) this.cluster.partitions.add(`${from}->${to}`);
    }
  }

  private heal(): void {
    const { partitions } = this.cluster;
    if (this.random.chance(0.5)) partitions.clear();
    else if (partitions.size > 0) partitions.delete(this.random.pick([...partitions]));
  }

  private breakLink(): void {
    const a = this.anyone();
    const b = this.anyone();
    if (a !== b) this.linkDown(a, b);
  }

  private mendLink(): void {
    if (this.linksDown.size === 0) return;
    const [a = 0, b = 0] = endsOf(this.random.pick([...this.linksDown]));
    if (this.cluster.node(a).raft !== null && this.cluster.node(b).raft !== null) this.linkUp(a, b);
  }

  private linkDown(a: NodeId, b: NodeId): void {
    if (this.linksDown.has(linkOf(a, b))) return;
    this.linksDown.add(linkOf(a, b));
    this.cluster.wire = this.cluster.wire.filter(({ from, to }) => linkOf(from, to) !== linkOf(a, b));
    this.notices.push({ at: a, peer: b, kind: 'linkLost' }, { at: b, peer: a, kind: 'linkLost' });
  }

  private linkUp(a: NodeId, b: NodeId): void {
    if (!this.linksDown.delete(linkOf(a, b))) return;
    this.notices.push({ at: a, peer: b, kind: 'linkUp' }, { at: b, peer: a, kind: 'linkUp' });
  }

  private notice(): void {
    const notice = this.notices.shift();
    if (notice !== undefined) this.cluster.step(notice.at, { kind: notice.kind, peer: notice.peer });
  }

  private mendDisk(): void {
    if (this.stalledDisks.size > 0) this.stalledDisks.delete(this.random.pick([...this.stalledDisks]));
  }

  private transfer(): void {
    const leader = this.someLeader();
    if (leader === undefined) return;
    this.cluster.step(leader, { kind: 'transferLeadership', to: this.random.chance(0.5) ? 0 : this.anyone() });
  }
}

function linkOf(a: NodeId, b: NodeId): string {
  return a < b ? `${a}-${b}` : `${b}-${a}`;
}

function endsOf(link: string): number[] {
  return link.split('-').map(Number);
}
