import { silentLogger } from '../../src/base/logger.ts';
import { Op } from '../../src/kv/types.ts';
import type { NodeAddress } from '../../src/raft/state/types.ts';
import { LOG_CACHE_BYTES_MAX } from '../../src/replica/log/recovery.ts';
import type { NodeReplica } from '../../src/replica/loop/node-replica.ts';
import { openReplica } from '../../src/replica/loop/open-replica.ts';
import type { TransferLimits } from '../../src/replica/snapshots/exchange.ts';
import type { SnapshotLimits } from '../../src/replica/snapshots/snapshotter.ts';
import type { Replica } from '../../src/replica/types.ts';
import type { ProposerLimits } from '../../src/replica/writes/proposer.ts';
import type { WalLimits } from '../../src/storage/wal/wal.ts';
import type { PeerAddress, Transport, TransportEvents } from '../../src/transport/types.ts';
import { MemoryDisk } from '../support/memory-disk.ts';
import { commandOf } from '../support/write-command.ts';
import { LIMITS, ManualClock, microtasks, Request } from './support.ts';

/**
 * Whole replicas in one process, moved by hand: nothing happens until a test lets time pass or asks for what is ready
 * to happen. Time is the same on all nodes; links deliver in order and can be partitioned; each node has the real log on a
 * disk in memory.
 */

/** Small enough that a test log has several segments, and cheap to fill with zeros. */
const SMALL_WAL: Partial<WalLimits> = {
  walSegmentBytes: 256 * 1024,
  walBlockBytesMax: 64 * 1024,
  walEntryBytesMax: 128 * 1024,
  walFirstFillBytes: 16 * 1024,
  walFillAheadBytes: 64 * 1024,
  walFillStepBytes: 16 * 1024,
};

export const TIMING = { heartbeatIntervalMs: 50, electionTimeoutMs: 300, requestTimeoutMs: 2000 };
/** Longer than any election among nodes of `TIMING` takes, whichever node is partitioned. */
export const ELECTION_MS = 1500;

const DIRECTORY = '/data/node';

export function addressOf(id: number): NodeAddress {
  return { host: '127.0.0.1', clientPort: 11_000 + id, peerPort: 12_000 + id, adminPort: 13_000 + id };
}

/** The first bytes of frames. */
export const FRAME_KIND = { append: 5, commit: 9, timeoutNow: 10, readIndex: 11, proposal: 13 };

interface Frame {
  readonly parts: readonly Buffer[];
  readonly bytes: Buffer;
}

/** Whom a node keeps links with, and whom it knows to be removed. */
interface Wanted {
  readonly ids: ReadonlySet<number>;
  readonly removed: ReadonlySet<number>;
}

/** How often a node whose link was refused asks again. */
const ASK_AGAIN_MS = 500;

/**
 * Links that deliver whole frames in order. A partition loses what is on its way; both ends hear of it. Beside each stands a
 * bulk link, which is lost with it and can be partitioned by itself; its frames come one at a time, when no others are to come.
 * A pair is linked while both run and hold each other for peers. What `setPeers` changes happens when nothing is on its
 * way any more.
 */
class MemoryNetwork {
  readonly handlers = new Map<number, TransportEvents>();
  /** Frames of these directions, as "1>2", wait until they are let go. */
  readonly held = new Set<string>();
  readonly heldBulk = new Set<string>();
  /** Sees every frame as it is sent; where it says no, the frame is refused as by a full buffer. */
  admits: (from: number, to: number, bytes: Buffer) => boolean = () => true;
  admitsBulk: (from: number, to: number, bytes: Buffer) => boolean = () => true;
  private readonly queues = new Map<string, Frame[]>();
  private readonly bulkQueues = new Map<string, Frame[]>();
  private readonly links = new Set<string>();
  private readonly bulkLinks = new Set<string>();
  /** Links that stay down until they are healed. */
  private readonly partitions = new Set<string>();
  private readonly bulkPartitions = new Set<string>();
  /** By node that runs. */
  private readonly wanted = new Map<number, Wanted>();
  /** Who has told whom that it was removed, or that it is not known, as "teller>told". */
  private readonly told = new Set<string>();
  private peersChanged = false;
  private readonly clusterIds = new Map<number, string>();
  /** Nodes that got a cluster id, so that their links are to be made again. */
  private readonly remade = new Set<number>();

  isUp(a: number, b: number): boolean {
    return this.links.has(linkName(a, b));
  }

  isBulkUp(a: number, b: number): boolean {
    return this.bulkLinks.has(linkName(a, b));
  }

  /** The node runs, on this transport. */
  attach(id: number, handler: TransportEvents, peers: readonly { readonly id: number }[], clusterId: string): void {
    this.handlers.set(id, handler);
    this.clusterIds.set(id, clusterId);
    this.wanted.set(id, { ids: new Set(peers.map((peer) => peer.id)), removed: new Set() });
    this.joinAll();
  }

  detach(id: number): void {
    this.handlers.delete(id);
    this.wanted.delete(id);
    for (const told of [...this.told]) if (told.split('>').map(Number).includes(id)) this.told.delete(told);
    for (const other of [...this.handlers.keys()]) this.lose(id, other);
  }

  setPeers(id: number, peers: readonly PeerAddress[], removedIds: readonly number[]): void {
    this.wanted.set(id, { ids: new Set(peers.map((peer) => peer.id)), removed: new Set(removedIds) });
    this.peersChanged = true;
  }

  setClusterId(id: number, clusterId: string): void {
    this.clusterIds.set(id, clusterId);
    this.remade.add(id);
    this.peersChanged = true;
  }

  /** A node whose link the other end refused asks again. */
  askAgain(): void {
    this.told.clear();
    this.joinAll();
  }

  partition(a: number, b: number): void {
    this.partitions.add(linkName(a, b));
    this.lose(a, b);
  }

  heal(a: number, b: number): void {
    this.partitions.delete(linkName(a, b));
    this.joinAll();
  }

  partitionBulk(a: number, b: number): void {
    this.bulkPartitions.add(linkName(a, b));
    this.loseBulk(a, b);
  }

  healBulk(a: number, b: number): void {
    this.bulkPartitions.delete(linkName(a, b));
    this.joinBulk(a, b);
  }

  send(from: number, to: number, parts: readonly Buffer[]): boolean {
    const bytes = Buffer.concat(parts);
    if (!this.isUp(from, to) || !this.wants(from, to) || !this.admits(from, to, bytes)) return false;
    enqueue(this.queues, from, to, { parts, bytes });
    return true;
  }

  sendBulk(from: number, to: number, parts: readonly Buffer[]): boolean {
    const bytes = Buffer.concat(parts);
    if (!this.isBulkUp(from, to) || !this.wants(from, to) || !this.admitsBulk(from, to, bytes)) return false;
    enqueue(this.bulkQueues, from, to, { parts, bytes });
    return true;
  }

  /** Delivers what is on its way now. True where anything was. */
  deliver(): boolean {
    return this.deliverMain() || this.deliverBulk() || this.applyPeers();
  }

  private deliverMain(): boolean {
    let delivered = false;
    for (const [direction, queue] of [...this.queues]) {
      if (this.held.has(direction) || queue.length === 0) continue;
      const [from, to] = endsOf(direction);
      for (const frame of queue.splice(0)) this.handlers.get(to)?.onFrame(from, arrived(direction, frame));
      delivered = true;
    }
    return delivered;
  }

  private deliverBulk(): boolean {
    let delivered = false;
    for (const [direction, queue] of [...this.bulkQueues]) {
      const frame = this.heldBulk.has(direction) ? undefined : queue.shift();
      if (frame === undefined) continue;
      const [from, to] = endsOf(direction);
      this.handlers.get(to)?.onBulkFrame(from, arrived(direction, frame));
      delivered = true;
    }
    return delivered;
  }

  private applyPeers(): boolean {
    if (!this.peersChanged) return false;
    this.peersChanged = false;
    for (const name of [...this.links]) {
      const [a, b] = endsOf(name);
      if (!this.wants(a, b) || !this.wants(b, a) || this.remade.has(a) || this.remade.has(b)) this.lose(a, b);
    }
    this.remade.clear();
    this.joinAll();
    return true;
  }

  private wants(a: number, b: number): boolean {
    return this.wanted.get(a)?.ids.has(b) ?? true;
  }

  private joinAll(): void {
    for (const a of [...this.handlers.keys()]) for (const b of [...this.handlers.keys()]) this.join(a, b);
  }

  /** Links two nodes, unless something is in the way: where `b` was removed, it hears so; where `a` never knew it, `a` hears of it. */
  private join(a: number, b: number): void {
    const handlerA = this.handlers.get(a);
    const handlerB = this.handlers.get(b);
    if (a === b || handlerA === undefined || handlerB === undefined) return;
    if (this.isUp(a, b) || this.partitions.has(linkName(a, b)) || !this.wants(b, a)) return;
    if (!this.wants(a, b)) {
      const told = `${a}>${b}`;
      if (this.told.has(told)) return;
      this.told.add(told);
      if (this.wanted.get(a)?.removed.has(b) === true) handlerB.onRemoved(a);
      else handlerA.onUnknownPeer(b);
      return;
    }
    const [idA, idB] = [this.clusterIdOf(a), this.clusterIdOf(b)];
    if (idA !== '' && idB !== '' && idA !== idB) {
      handlerA.onForeignPeer(b, `cluster id ${idA} here, ${idB} there`);
      return;
    }
    this.links.add(linkName(a, b));
    handlerA.onLinkUp(b, idB);
    handlerB.onLinkUp(a, idA);
    this.joinBulk(a, b);
  }

  private clusterIdOf(id: number): string {
    return this.clusterIds.get(id) ?? '';
  }

  private joinBulk(a: number, b: number): void {
    const name = linkName(a, b);
    if (!this.isUp(a, b) || this.isBulkUp(a, b) || this.bulkPartitions.has(name)) return;
    this.bulkLinks.add(name);
    this.handlers.get(a)?.onBulkUp(b);
    this.handlers.get(b)?.onBulkUp(a);
  }

  private lose(a: number, b: number): void {
    this.loseBulk(a, b);
    this.queues.delete(`${a}>${b}`);
    this.queues.delete(`${b}>${a}`);
    if (!this.links.delete(linkName(a, b))) return;
    this.handlers.get(a)?.onLinkLost(b);
    this.handlers.get(b)?.onLinkLost(a);
  }

  private loseBulk(a: number, b: number): void {
    this.bulkQueues.delete(`${a}>${b}`);
    this.bulkQueues.delete(`${b}>${a}`);
    if (!this.bulkLinks.delete(linkName(a, b))) return;
    this.handlers.get(a)?.onBulkLost(b);
    this.handlers.get(b)?.onBulkLost(a);
  }
}

function enqueue(queues: Map<string, Frame[]>, from: number, to: number, frame: Frame): void {
  const queue = queues.get(`${from}>${to}`) ?? [];
  queues.set(`${from}>${to}`, queue);
  queue.push(frame);
}

function arrived(direction: string, { parts, bytes }: Frame): Buffer {
  // A real link may still be reading the sender's memory at this moment.
  if (!Buffer.concat(parts).equals(bytes)) throw new Error(`a frame ${direction} changed on its way`);
  return bytes;
}

function linkName(a: number, b: number): string {
  return `${Math.min(a, b)}-${Math.max(a, b)}`;
}

/** Of a direction, or of a link. */
function endsOf(name: string): [number, number] {
  return name.split(/[>-]/).map(Number) as [number, number];
}

interface Proposer {
  readonly proposeOn: (op: Op, key: string, value: string, exptimeSeconds: number, arg: number) => Request;
}

function proposer(propose: Replica['propose']): Proposer {
  return {
    proposeOn(op, key, value, exptimeSeconds, arg) {
      const request = new Request();
      const command = commandOf(op, key, value, { exptimeSeconds, low: arg });
      propose(command, request);
      // As a connection does: its input is used again.
      command.source.fill(0xff);
      return request;
    },
  };
}

export interface ClusterOptions {
  readonly nodes?: number;
  readonly cacheBytesMax?: number;
  readonly limits?: Partial<ProposerLimits>;
  readonly snapshotLimits?: Partial<SnapshotLimits>;
  readonly transferLimits?: Partial<TransferLimits>;
}

/** A disk that can be made to finish nothing for a while. */
class StallingDisk extends MemoryDisk {
  private readonly valve: { stalled: boolean; waiting: (() => void)[] };

  constructor() {
    const valve = { stalled: false, waiting: [] as (() => void)[] };
    super({
      schedule: (_, complete) => {
        if (valve.stalled) valve.waiting.push(complete);
        else queueMicrotask(complete);
      },
    });
    this.valve = valve;
  }

  stall(): void {
    this.valve.stalled = true;
  }

  resume(): void {
    this.valve.stalled = false;
    for (const complete of this.valve.waiting.splice(0)) complete();
  }
}

/** What stays of a node when its process ends. */
interface Machine {
  readonly id: number;
  readonly disk: StallingDisk;
  incarnations: number;
  alive: boolean;
  removed: boolean;
  readonly fatal: unknown[];
}

export interface ClusterNode extends Machine {
  readonly replica: NodeReplica;
  readonly close: () => Promise<void>;
}

/**
 * Node 1 has the shortest election timeout and the last node the longest, so node 1 leads at first, and of two
 * followers that lose it the lower campaigns first.
 */
export class Cluster {
  readonly clock = new ManualClock();
  readonly network = new MemoryNetwork();
  private readonly nodes = new Map<number, ClusterNode>();
  private readonly newcomers: number[] = [];
  /** What the configuration file of a node lists, where that is not the initial members. */
  private readonly files = new Map<number, readonly number[]>();
  private boots = 0;
  private readonly options: Required<ClusterOptions>;

  private constructor(options: ClusterOptions) {
    const defaults = {
      nodes: 3,
      cacheBytesMax: LOG_CACHE_BYTES_MAX,
      limits: {},
      snapshotLimits: {},
      transferLimits: {},
    };
    this.options = { ...defaults, ...options };
  }

  /** No node is started yet. */
  static empty(options: ClusterOptions = {}): Cluster {
    return new Cluster(options);
  }

  /** Starts the nodes and lets them elect node 1. */
  static async start(options: ClusterOptions = {}): Promise<Cluster> {
    const cluster = new Cluster(options);
    for (const id of cluster.ids) {
      // The last listens longest: when it has, the next election timeout to pass is that of node 1.
      if (id > 1 && id === cluster.ids.length) await cluster.run(200);
      await cluster.startEmpty(id);
    }
    await cluster.run(ELECTION_MS);
    if (cluster.leader() !== 1) throw new Error(`node ${cluster.leader()} was elected at the start`);
    return cluster;
  }

  get ids(): number[] {
    return [...Array.from({ length: this.options.nodes }, (_, i) => i + 1), ...this.newcomers];
  }

  node(id: number): ClusterNode {
    const node = this.nodes.get(id);
    if (node === undefined) throw new Error(`there is no node ${id}`);
    return node;
  }

  replica(id: number): NodeReplica {
    return this.node(id).replica;
  }

  /** The leader of the newest term among the nodes that run; 0 where there is none. */
  leader(): number {
    const leaders = this.ids
      .filter((id) => this.nodes.get(id)?.alive === true && this.replica(id).status().role === 'leader')
      .sort((a, b) => this.replica(b).status().term - this.replica(a).status().term);
    return leaders[0] ?? 0;
  }

  set(id: number, key: string, value: string, exptimeSeconds = 0): Request {
    return this.proposer(id).proposeOn(Op.set, key, value, exptimeSeconds, 0);
  }

  incr(id: number, key: string): Request {
    return this.proposer(id).proposeOn(Op.incr, key, '', 0, 1);
  }

  append(id: number, key: string, value: string): Request {
    return this.proposer(id).proposeOn(Op.append, key, value, 0, 0);
  }

  /** A linearizable read of `key` through node `id`: its outcome is the value, or `none`. */
  read(id: number, key: string): Request {
    const { replica } = this.node(id);
    const request = new Request(() => replica.get(key)?.value ?? 'none');
    replica.read(request);
    return request;
  }

  /** What node `id` holds under `key` now, linearizable or not. */
  value(id: number, key: string): string | undefined {
    return this.replica(id).get(key)?.value;
  }

  private proposer(id: number): Proposer {
    const { replica } = this.node(id);
    return proposer((...args) => replica.propose(...args));
  }

  /** Lets `durationMs` pass, and all that can happen in it. */
  async run(durationMs: number): Promise<void> {
    const endMs = this.clock.nowMs + durationMs;
    let askedAtMs = this.clock.nowMs;
    this.network.askAgain();
    await this.waitUntilIdle();
    for (let nextMs = this.clock.nextTimerMs(); nextMs <= endMs; nextMs = this.clock.nextTimerMs()) {
      this.clock.moveTo(nextMs);
      if (nextMs - askedAtMs >= ASK_AGAIN_MS) {
        askedAtMs = nextMs;
        this.network.askAgain();
      }
      await this.waitUntilIdle();
    }
    this.clock.moveTo(endMs);
    await this.waitUntilIdle();
  }

  /** Lets all happen that needs no time. */
  async waitUntilIdle(): Promise<void> {
    do await microtasks();
    while (this.clock.endTurns() || this.network.deliver());
  }

  partition(a: number, b: number): void {
    this.network.partition(a, b);
  }

  heal(a: number, b: number): void {
    this.network.heal(a, b);
  }

  isolate(id: number): void {
    for (const other of this.ids) if (other !== id) this.partition(id, other);
  }

  rejoin(id: number): void {
    for (const other of this.ids) if (other !== id) this.heal(id, other);
  }

  /** Ends a node as `kill -9` does. */
  kill(id: number): void {
    const node = this.node(id);
    node.alive = false;
    node.disk.kill(() => 0);
    this.network.detach(id);
  }

  /** Ends a node in good order. */
  async stop(id: number): Promise<void> {
    const node = this.node(id);
    await node.close();
    node.alive = false;
    this.network.detach(id);
  }

  /** Starts a node on the disk that it left. */
  async restart(id: number): Promise<void> {
    await this.boot(this.node(id));
  }

  /** Starts a node on an empty disk under an id that it may have had before, or a newcomer. */
  async startEmpty(id: number): Promise<void> {
    if (!this.ids.includes(id)) this.newcomers.push(id);
    await this.boot({ id, disk: new StallingDisk(), incarnations: 0, alive: false, fatal: [], removed: false });
  }

  /** From its next start on, the configuration file of node `id` lists these nodes. */
  list(id: number, ids: readonly number[]): void {
    this.files.set(id, ids);
  }

  private async boot(machine: Machine): Promise<void> {
    const { id, disk, fatal } = machine;
    const incarnation = ++machine.incarnations;
    const clock = this.clock.forProcess(() => machine.alive && machine.incarnations === incarnation);
    const { nodes } = this.options;
    const isInitialMember = id <= nodes;
    // Newcomers wait longest.
    const place = isInitialMember ? (id - 1) / nodes : 1 - 0.5 / nodes + (id - nodes) / 100;
    // Directories are told apart by what they draw.
    const share = place + ++this.boots / 1e6;
    machine.alive = true;
    const { replica, close } = await openReplica({
      nodeId: id,
      clusterName: 'test',
      directory: DIRECTORY,
      initial: { kind: isInitialMember ? 'bootstrap' : 'join', nodes: this.listedBy(id) },
      timing: TIMING,
      limits: { ...LIMITS, ...this.options.limits },
      walLimits: SMALL_WAL,
      snapshotLimits: this.options.snapshotLimits,
      transferLimits: this.options.transferLimits,
      logCacheBytesMax: this.options.cacheBytesMax,
      disk,
      clock,
      random: () => share,
      logger: silentLogger,
      createTransport: (_incarnation, clusterId) => this.transportOf(id, clusterId),
      onFatal: (error) => fatal.push(error),
      onLeaderChanged: () => {},
      onRemoved: () => {
        machine.removed = true;
      },
    });
    this.nodes.set(id, Object.assign(machine, { replica, close }));
  }

  private listedBy(node: number): { id: number; address: NodeAddress }[] {
    const ids = this.files.get(node) ?? Array.from({ length: this.options.nodes }, (_, i) => i + 1);
    return ids.map((id) => ({ id, address: addressOf(id) }));
  }

  private transportOf(id: number, clusterId: string): Transport {
    return {
      start: async (events) => this.network.attach(id, events, this.listedBy(id), clusterId),
      send: (to, parts) => this.network.send(id, to, parts),
      isUp: (to) => this.network.isUp(id, to),
      sendBulk: (to, parts) => this.network.sendBulk(id, to, parts),
      setPeers: (peers, removedIds) => this.network.setPeers(id, peers, removedIds),
      setClusterId: (now) => this.network.setClusterId(id, now),
      stop: () => Promise.resolve(),
    };
  }
}
