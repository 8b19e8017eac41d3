import { RaftkvError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/logger.ts';
import type { Core } from '../../src/raft/state/core.ts';
import type { NodeAddress, NodeId } from '../../src/raft/state/types.ts';
import type { NodeReplica } from '../../src/replica/loop/node-replica.ts';
import { type InitialCluster, openReplica } from '../../src/replica/loop/open-replica.ts';
import type { ReplicaView } from '../../src/replica/observer.ts';
import type { MemoryDisk } from '../support/memory-disk.ts';
import type { Random } from '../support/random.ts';
import { CheckedReads } from './checked-reads.ts';
import type { ClusterChecks } from './checks.ts';
import { type ClientDoor, openClientDoor } from './client-door.ts';
import { SimDisk } from './disk.ts';
import { describe, Incarnation } from './incarnation.ts';
import type { Network } from './network.ts';
import { ObservedReplica } from './observed-replica.ts';
import type { Plan } from './plan.ts';
import { type ClientSide, NodeSocket } from './socket.ts';
import type { World } from './world.ts';

/**
 * A machine with its disk, and the incarnations of the node on it. A node comes up through `openReplica`, as the program's does;
 * only disk, clock, links and sockets are simulated.
 */

/** 2026-01-01, so that Unix times above memcached's 30 days are times. */
const WALL_START_MS = 1_767_225_600_000;

interface Running {
  readonly replica: NodeReplica;
  readonly view: ReplicaView;
  readonly door: ClientDoor;
  readonly close: () => Promise<void>;
}

export class SimNode {
  readonly id: number;
  readonly disk: SimDisk;
  readonly isSpare: boolean;
  incarnation: Incarnation | null = null;
  running: Running | null = null;
  /** Of its latest incarnation; null if its disk was harmed since, so that it is not known what it still holds. */
  core: Core | null = null;
  /** Its disk was damaged on purpose, at one time or another. */
  rotten = false;
  /** False for a spare machine that is not set up yet. */
  begun: boolean;
  /** It was removed from the cluster, said so, and its process has ended. */
  ended = false;
  starts = 0;
  readonly #world: World;
  readonly #plan: Plan;
  readonly #random: Random;
  readonly #network: Network;
  readonly #checks: ClusterChecks;
  /**
   * Disks that were taken out, each as its process left it, by the directory that is on it. Only the newest state of each:
   * no cluster could survive one that had promised more since, and lost it.
   */
  readonly #oldDisks = new Map<number, MemoryDisk>();
  #initial: InitialCluster;
  #wallOffsetMs = WALL_START_MS;
  #sockets: NodeSocket[] = [];
  #nextPort = 1;

  constructor(id: number, world: World, plan: Plan, random: Random, network: Network, checks: ClusterChecks) {
    this.id = id;
    this.#world = world;
    this.#plan = plan;
    this.#random = random;
    this.#network = network;
    this.#checks = checks;
    this.#wallOffsetMs += random.between(-2000, 2000);
    this.disk = new SimDisk(random.fork(2), plan.disk);
    this.isSpare = plan.spareIds.includes(id);
    this.begun = !this.isSpare;
    this.#initial = {
      kind: 'bootstrap',
      nodes: placesOf(plan.oddFile?.node === id ? plan.oddFile.lists : plan.nodeIds),
    };
  }

  /** Nothing that this node has accepted from its clients, in this incarnation, waits to be applied. */
  get isDrained(): boolean {
    return this.running?.view.proposer.unapplied === 0;
  }

  /** Set up to join a cluster that has these members, and started. */
  join(members: readonly NodeId[]): void {
    if (this.incarnation !== null) return;
    this.#initial = { kind: 'join', nodes: placesOf(members) };
    this.begun = true;
    this.ended = false;
    this.start();
  }

  /** `rm -rf` of its data directory. */
  loseData(): void {
    this.#end('is wiped', false);
    this.disk.processEnded();
    this.#keepDisk();
    this.disk.wipe();
    this.core = null;
  }

  /** The same. Who sets it up again names the members, where it could take itself for all. */
  wipe(members: readonly NodeId[] = []): void {
    this.loseData();
    if (this.#initial.nodes.length === 1) this.#initial = { kind: 'join', nodes: placesOf(members) };
  }

  get hasOldDisk(): boolean {
    this.#forgetCurrent();
    return this.#oldDisks.size > 0;
  }

  /** What another incarnation has gone on with. */
  #forgetCurrent(): void {
    if (this.core !== null && this.core.rights.lifecycle !== 'uninitialized')
      this.#oldDisks.delete(this.core.rights.directoryId);
  }

  /** A disk that it had in an earlier incarnation takes the place of the one that it has. */
  swapBack(): void {
    this.#end('gets an old disk back', false);
    this.disk.processEnded();
    const directoryId = this.#random.pick([...this.#oldDisks.keys()]);
    const old = this.#oldDisks.get(directoryId);
    if (old === undefined) return;
    this.#keepDisk();
    this.#oldDisks.delete(directoryId);
    this.#world.say(() => `${this.id}: that of directory ${directoryId}`);
    this.disk.exchange(old);
    this.core = null;
  }

  /** To be called while no process runs. */
  #keepDisk(): void {
    if (this.core === null || this.core.rights.lifecycle === 'uninitialized') return;
    this.#oldDisks.set(this.core.rights.directoryId, this.disk.memory.clone());
  }

  /** The nodes that its configuration file lists. */
  get listed(): readonly NodeId[] {
    return this.#initial.nodes.map(({ id }) => id);
  }

  /** The operator puts its configuration file right, and starts it again. */
  correctFile(lists: readonly NodeId[]): void {
    this.#world.say(() => `${this.id}: has its file corrected: it lists ${lists.join(', ')}`);
    this.#initial = { kind: this.#initial.kind, nodes: placesOf(lists) };
    this.kill();
    this.start();
  }

  /** Damages what is on its disk, while its process is down. False if there is nothing to damage. */
  rot(): boolean {
    this.kill();
    this.#keepDisk();
    if (!this.disk.rot((what) => this.#world.say(() => `${this.id}: ${what}`))) return false;
    this.rotten = true;
    this.core = null;
    return true;
  }

  start(): void {
    if (this.incarnation !== null || !this.begun) return;
    const { drifts, turnMs } = this.#plan;
    const habits = { drift: drifts[this.id - 1] ?? 0, random: this.#random.fork(3), turnMs };
    const incarnation = new Incarnation(this.#world, this.id, this.#wallOffsetMs, habits);
    this.incarnation = incarnation;
    this.starts++;
    this.#world.say(() => `${this.id}: starts`);
    this.#world.hash(this.id);
    incarnation.call(() => {
      this.#assemble(incarnation).then(
        (running) => this.#started(incarnation, running),
        (error: unknown) => this.#fatal(incarnation, error),
      );
    });
  }

  /** The process ends at once; its machine stays. */
  kill(): void {
    if (this.#end('is killed', false)) this.disk.processEnded();
  }

  /** Process and machine end at once, with all that was only in memory. */
  powerLoss(): void {
    if (this.#end('loses power', true)) this.disk.powerLoss();
  }

  pause(): void {
    if (this.incarnation === null || this.incarnation.paused) return;
    this.#world.say(() => `${this.id}: is paused`);
    this.incarnation.pause();
  }

  goOn(): void {
    if (this.incarnation?.paused !== true) return;
    this.#world.say(() => `${this.id}: goes on`);
    this.incarnation.goOn();
  }

  jumpWallTime(byMs: number): void {
    this.#wallOffsetMs += byMs;
    if (this.incarnation !== null) this.incarnation.wallOffsetMs += byMs;
    this.#world.say(() => `${this.id}: wall time jumps by ${Math.round(byMs)} ms`);
  }

  /** As on SIGTERM: hands over, answers what is in flight, closes from the clients downwards. `begun` is called if it can. */
  stop(begun: () => void): void {
    const { incarnation, running } = this;
    if (incarnation === null || running === null || incarnation.paused) return;
    begun();
    this.#world.say(() => `${this.id}: stops`);
    const { replica, door, close } = running;
    const stop = async () => {
      await replica.handOver();
      await new Promise<void>((resolve) => door.stop(resolve));
      await close();
    };
    incarnation.call(() => {
      stop().then(
        () => {
          this.kill();
          this.#world.after(this.#plan.timing.electionTimeoutMs, () => this.start());
        },
        (error: unknown) => this.#fatal(incarnation, error),
      );
    });
  }

  /** A client's connection; null if the port is closed. */
  connect(client: ClientSide): NodeSocket | null {
    const { incarnation, running } = this;
    if (incarnation === null || running === null) return null;
    const socket = new NodeSocket(incarnation, this.#random, this.#plan.sockets, client, this.#nextPort++);
    this.#sockets.push(socket);
    incarnation.post(0, () => running.door.accept(socket));
    return socket;
  }

  async #assemble(incarnation: Incarnation): Promise<Running> {
    const { seed, timing, proposerLimits, walLimits, logCacheBytesMax, sending } = this.#plan;
    const { snapshotLimits, transferLimits } = this.#plan;
    const random = this.#random.fork(incarnation.nodeId);
    const initial = this.#initial;
    const peers = initial.nodes.map(({ id }) => id);
    const observer = new ObservedReplica(incarnation, this.disk, this.#checks, ({ core }) => {
      this.core = core;
      this.#checkDamage();
    });
    const { replica, close } = await openReplica({
      nodeId: this.id,
      clusterName: `sim-${seed}`,
      directory: '/data/node',
      initial,
      timing,
      limits: proposerLimits,
      sendLimits: sending,
      walLimits,
      snapshotLimits,
      transferLimits,
      logCacheBytesMax,
      disk: this.disk.openFor(incarnation),
      clock: incarnation.clock,
      random: () => random.next(),
      logger: silentLogger,
      createTransport: (_number, clusterId) => this.#network.transportOf(incarnation, peers, clusterId),
      observer,
      onFatal: (error) => this.#fatal(incarnation, error),
      onRemoved: () => this.#removed(incarnation),
      onLeaderChanged: (leader, term) => this.#world.say(() => `${this.id}: sees leader ${leader} of term ${term}`),
    });
    const { itemBytesMax } = proposerLimits;
    const reads = new CheckedReads(replica, incarnation, this.#world, () => this.#checks.lastCommitted);
    const door = openClientDoor(incarnation.clock, reads, { itemBytesMax, drainMsMax: timing.electionTimeoutMs * 4 });
    return { replica, view: observer.view, door, close };
  }

  /** Whatever a node dies of, its next start must not take for damage what is none. */
  #checkDamage(): void {
    if (this.rotten) return;
    const aside = this.disk.memory.paths().filter((path) => path.includes('/damaged/'));
    if (aside.length === 0) return;
    const message = `node ${this.id} took for damaged what was not harmed: ${aside.join(', ')}`;
    this.#world.fail('damage is found where it was done', message);
  }

  #started(incarnation: Incarnation, running: Running): void {
    if (this.incarnation !== incarnation) return;
    this.running = running;
    this.#world.say(() => {
      const { term, log, rights } = running.replica.raft.core;
      const { lifecycle, directoryId } = rights;
      return `${this.id}: runs, ${lifecycle} ${directoryId}, term ${term}, log to ${log.lastIndex}, committed ${log.commitIndex}`;
    });
  }

  /** The node says that it can't go on. It may, where its disk failed; then its supervisor starts it again. */
  #fatal(incarnation: Incarnation, error: unknown): void {
    if (!incarnation.alive) return;
    this.#world.say(() => `${this.id}: gives up: ${error instanceof Error ? error.message : String(error)}`);
    const isExpected = this.rotten && error instanceof RaftkvError && isDamage(error);
    if (!isExpected && !isLostCount(error) && (this.disk.failuresMet === 0 || !isDiskFailure(error))) {
      this.#world.fail('a node fails only where its disk does', `node ${this.id}: ${describe(error)}`);
    }
    if (this.running !== null && isFull(error)) {
      this.#world.fail('a node outlives a full disk', `node ${this.id}: ${describe(error)}`);
    }
    this.kill();
    this.#world.after(this.#plan.timing.electionTimeoutMs, () => this.start());
  }

  /** The node says that it was removed: its process ends and is not started again. */
  #removed(incarnation: Incarnation): void {
    if (!incarnation.alive) return;
    this.#checks.members.checkEnded(this.id);
    this.kill();
    this.ended = true;
  }

  #end(how: string, quietly: boolean): boolean {
    const { incarnation } = this;
    if (incarnation === null) return false;
    this.#world.say(() => `${this.id}: ${how}`);
    this.#world.hash(-this.id);
    incarnation.alive = false;
    this.incarnation = null;
    this.running = null;
    this.#network.lifeEnded(incarnation, quietly);
    for (const socket of this.#sockets) socket.nodeDied();
    this.#sockets = [];
    return true;
  }
}

const DAMAGE: readonly string[] = ['WAL_DAMAGED', 'META_DAMAGED', 'SNAPSHOT_DAMAGED'];

function isDamage({ code }: RaftkvError): boolean {
  return DAMAGE.includes(code);
}

/** A wiped node has to start once more where its clock went back so far that it would use a session again. */
function isLostCount(error: unknown): boolean {
  return error instanceof RaftkvError && error.code === 'SESSION_BEHIND';
}

function isDiskFailure(error: unknown): boolean {
  const { code, cause } = error as { code?: unknown; cause?: unknown };
  if (code === 'EIO' || code === 'ENOSPC' || code === 'WAL_WRITE_FAILED') return true;
  return cause !== undefined && isDiskFailure(cause);
}

/** What a node is, and that it has started, must be on disk before it goes on; all else waits for room. */
function isFull(error: unknown): boolean {
  const { code, cause, message } = error as { code?: unknown; cause?: unknown; message?: string };
  if (code === 'ENOSPC') return message?.includes('/meta') !== true;
  return cause !== undefined && isFull(cause);
}

export function addressOf(id: NodeId): NodeAddress {
  return { host: `node-${id}`, clientPort: 11211, peerPort: 12211, adminPort: 13211 };
}

function placesOf(ids: readonly NodeId[]): InitialCluster['nodes'] {
  return ids.map((id) => ({ id, address: addressOf(id) }));
}
