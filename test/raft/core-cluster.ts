import { type CoreSummary, summarize } from '../../src/raft/invariants.ts';
import { Raft } from '../../src/raft/raft.ts';
import { EMPTY_CONFIGURATION, members } from '../../src/raft/state/configuration.ts';
import type { Core, CoreOptions } from '../../src/raft/state/core.ts';
import { ENTRY_HEADER_BYTES } from '../../src/raft/state/entry.ts';
import type {
  Configuration,
  Effects,
  Entry,
  Input,
  MemberChange,
  MemberChangeOutcome,
  Message,
  NodeId,
  ReadBack,
  WantSnapshot,
} from '../../src/raft/state/types.ts';
import { type CheckedNode, ClusterChecks } from './cluster-checks.ts';
import { describeInput, describeMessage } from './describe.ts';
import { SimulatedDisk, type StoredSnapshot } from './simulated-disk.ts';

/**
 * A cluster of pure cores, moved by hand: nothing happens unless it is called for, and after every step everything is
 * checked. What is under way lies open: messages in `wire`, writes in each node's `disk`, reads from disk in `readBacks`,
 * snapshots being written in `saving` and being fetched in `transfer`.
 *
 *   step(node, input) ─▶ Raft.step ─▶ checks ─▶ disk.pending, wire, readBacks, reads
 */
export interface ClusterOptions extends Omit<CoreOptions, 'random'> {
  readonly configuration: Configuration;
  /** Nodes that are no members yet. They don't run until they are started. */
  readonly newcomers?: readonly NodeId[];
  readonly cacheBytesMax: number;
  readonly randomOf: (id: NodeId) => () => number;
  /** Gets every input and every message sent, as text. */
  readonly trace?: (line: string) => void;
  /** Sees every step once its effects are known, before anything comes of them. */
  readonly observe?: (core: Core, before: CoreSummary, effects: Effects) => void;
}

export interface ClusterNode extends CheckedNode {
  readonly id: NodeId;
  readonly disk: SimulatedDisk;
  raft: Raft | null;
  /** What it takes the cluster for while its log and snapshots say nothing. */
  initial: Configuration;
  /** It was told that it is no member any more. */
  isRemoved: boolean;
  readBacks: ReadBack[];
  /** A snapshot of its own state, which is not durable yet. */
  saving: StoredSnapshot | null;
  transfer: Transfer | null;
  /** It is to remember that it is a member now: that is on its way to the disk, or there and the core has not heard. */
  remembering: 'pending' | 'durable' | null;
  /** Reads that were answered, newest last: the index, or -1 for a refusal. */
  readonly answers: Map<number, number>;
}

/** A snapshot on its way to a node. */
export interface Transfer extends WantSnapshot {
  /** What is fetched, once the sender has begun to give it. */
  source: StoredSnapshot | null;
  /** All of it is here and durable, but the core has not heard of it. */
  stored: boolean;
}

export class CoreCluster {
  readonly nodes: ReadonlyMap<NodeId, ClusterNode>;
  readonly checks: ClusterChecks;
  /** Messages under way, oldest first. */
  wire: Message[] = [];
  /** Directions in which messages are lost, as "from->to". */
  readonly partitions = new Set<string>();
  /** Links that are down lose what is sent over them, too. */
  lostOnLink: (from: NodeId, to: NodeId) => boolean = () => false;
  private readonly options: ClusterOptions;
  private lastReadId = 0;
  private lastChangeId = 0;
  private lastDirectoryId = 0;

  constructor(options: ClusterOptions) {
    this.options = options;
    const { configuration, newcomers = [] } = options;
    this.nodes = new Map([
      ...members(configuration).map((id) => [id, makeNode(id, configuration)] as const),
      ...newcomers.map((id) => [id, makeNode(id, EMPTY_CONFIGURATION)] as const),
    ]);
    for (const id of newcomers)
      Object.assign(this.node(id).disk, { lifecycle: 'recovering', directoryId: ++this.lastDirectoryId });
    this.checks = new ClusterChecks([...this.nodes.values()]);
    for (const id of members(configuration)) this.start(id);
  }

  node(id: NodeId): ClusterNode {
    const node = this.nodes.get(id);
    if (node === undefined) throw new Error(`there is no node ${id}`);
    return node;
  }

  /** The node that leads in the newest term, if one does. */
  leader(): Core | undefined {
    const leaders = [...this.nodes.values()].flatMap(({ core }) => (core?.role === 'leader' ? [core] : []));
    return leaders.sort((a, b) => b.term - a.term)[0];
  }

  start(id: NodeId): void {
    const node = this.node(id);
    const log = node.disk.recover(this.options.cacheBytesMax);
    const { snapshot, hardState, lifecycle, directoryId } = node.disk;
    node.isRemoved = false;
    node.raft = new Raft({
      ...this.options,
      id,
      configurations: node.disk.configurations(node.initial),
      log,
      snapshot,
      hardState,
      lifecycle,
      directoryId,
      random: this.options.randomOf(id),
    });
    this.options.trace?.(`${id} starts with ${log.lastIndex}@${log.lastTerm}, term ${node.disk.hardState.term}`);
    this.checks.afterStart(node, node.raft.core);
  }

  /** The disk of `id`, which does not run, is lost; it starts again with an empty one. */
  wipe(id: NodeId, lifecycle: 'uninitialized' | 'recovering' = 'recovering'): void {
    const node = this.node(id);
    node.disk.wipe(++this.lastDirectoryId, lifecycle);
    // Links carry nothing from one incarnation of a node to another.
    this.wire = this.wire.filter(({ from, to }) => from !== id && to !== id);
    this.options.trace?.(`${id} has lost its disk and begins directory ${this.lastDirectoryId}, ${lifecycle}`);
  }

  /** The disk of `id`, which does not run, gives way to one that it had before. */
  putBack(id: NodeId, ghost: SimulatedDisk): void {
    const node = this.node(id);
    node.disk.putBack(ghost);
    this.wire = this.wire.filter(({ from, to }) => from !== id && to !== id);
    this.options.trace?.(`${id} has its old disk back, of directory ${node.disk.directoryId}`);
  }

  /** Asks `id` for a change of members. */
  change(id: NodeId, change: MemberChange): MemberChangeOutcome | undefined {
    const changeId = ++this.lastChangeId;
    return this.step(id, { kind: 'changeMembers', id: changeId, change })?.memberChanges[0];
  }

  /** Ends the node's process; see `SimulatedDisk.crash` for `recordsKept`. What it had sent is still under way. */
  crash(id: NodeId, recordsKept = 0): void {
    const node = this.node(id);
    node.raft = null;
    node.readBacks = [];
    node.saving = null;
    node.transfer = null;
    node.remembering = null;
    node.disk.crash(recordsKept);
    this.options.trace?.(`${id} crashes, its disk holds ${node.disk.lastIndex} entries`);
  }

  step(id: NodeId, input: Input): Effects | null {
    const node = this.node(id);
    if (node.raft === null) return null;
    this.options.trace?.(`${id} ${describeInput(input)}`);
    return this.carryOut(node, node.raft, input);
  }

  private carryOut(node: ClusterNode, raft: Raft, input: Input): Effects {
    const before = summarize(raft.core);
    const effects = raft.step(input);
    this.checks.afterStep(node, raft.core, before, effects);
    this.options.observe?.(raft.core, before, effects);
    if (input.kind === 'lifecycle')
      Object.assign(node.disk, { lifecycle: input.lifecycle, directoryId: input.directoryId });
    if (effects.recovered) node.remembering = 'pending';
    this.refuseRemoved();
    for (const message of node.disk.submit(effects)) this.send(node, message);
    for (const message of effects.sendNow) this.send(node, message);
    node.readBacks.push(...effects.readBacks);
    for (const read of effects.reads) node.answers.set(read.id, read.index);
    for (const read of effects.readsRejected) node.answers.set(read, -1);
    // A transfer that has begun goes to its end, whatever else is offered meanwhile.
    const { wantSnapshot } = effects;
    if (wantSnapshot !== null && (node.transfer?.source ?? null) === null) {
      node.transfer = { ...wantSnapshot, source: null, stored: false };
    }
    return effects;
  }

  propose(id: NodeId, ...payloads: readonly string[]): boolean {
    const accepts = this.node(id).raft?.acceptsProposals === true;
    this.step(id, { kind: 'propose', batches: payloads.map(batchOf) });
    return accepts;
  }

  /** Asks `id` for a read; the answer comes into the node's `answers` under the number returned. */
  read(id: NodeId): number {
    const readId = ++this.lastReadId;
    this.checks.readAsked(readId);
    this.step(id, { kind: 'read', id: readId });
    return readId;
  }

  /** Takes the message at `place` off the wire and hands it to its receiver. */
  deliver(place: number): void {
    const [message] = this.wire.splice(place, 1);
    if (message !== undefined) this.step(message.to, { kind: 'receive', message });
  }

  /** The oldest write of `id` becomes durable. */
  persist(id: NodeId): boolean {
    return this.node(id).disk.persistNext();
  }

  /** The core of `id` hears of its oldest durable write, and what waited for it goes out. */
  complete(id: NodeId): boolean {
    const node = this.node(id);
    const write = node.disk.completed.shift();
    if (write === undefined) return false;
    const last = write.entries.at(-1);
    const { hardState } = write;
    const input: Input = { kind: 'persisted', term: last?.term ?? 0, index: last?.index ?? 0, hardState };
    // Printed first, because the messages leave for this reason.
    this.options.trace?.(`${id} ${describeInput(input)}`);
    for (const message of write.messages) this.send(node, message);
    // A log reset to a snapshot is nothing that the core must hear of: the snapshot is durable.
    if (node.raft !== null && (last !== undefined || hardState !== null)) this.carryOut(node, node.raft, input);
    return true;
  }

  /** All of the node's writes become durable, and those that come of it. True where there were any. */
  flushDisk(id: NodeId): boolean {
    let moved = false;
    while (this.persist(id) || this.complete(id)) moved = true;
    return moved;
  }

  /** The oldest read from the disk of `id` is done. */
  serveReadBack(id: NodeId): boolean {
    const node = this.node(id);
    const readBack = node.readBacks.shift();
    const log = node.raft?.core.log;
    if (readBack === undefined || log === undefined) return false;
    const entries = node.disk.read(readBack.fromIndex, log.firstCachedIndex - 1, readBack.bytesMax);
    this.step(id, { kind: 'readBack', peer: readBack.peer, entries });
    return true;
  }

  /** That `id` is a member now gets one step on: it is durable, its core hears of it. False where nothing moves. */
  remember(id: NodeId): boolean {
    const node = this.node(id);
    const { remembering, disk } = node;
    if (remembering === null) return false;
    node.remembering = remembering === 'pending' ? 'durable' : null;
    if (remembering === 'pending') disk.lifecycle = 'normal';
    else this.step(id, { kind: 'lifecycle', lifecycle: 'normal', directoryId: disk.directoryId });
    return true;
  }

  /** The state machine of `id` applies all that is committed. */
  apply(id: NodeId): boolean {
    const node = this.node(id);
    const log = node.raft?.core.log;
    if (log === undefined || log.appliedIndex === log.commitIndex) return false;
    for (let index = log.appliedIndex + 1; index <= log.commitIndex; index++) {
      this.checks.applied(node, this.entryAt(node, index));
    }
    this.step(id, { kind: 'applied', index: log.commitIndex });
    return true;
  }

  /** A snapshot of all that `id` has applied begins to be written, unless it is no news. */
  beginSnapshot(id: NodeId): boolean {
    const node = this.node(id);
    const { core } = node;
    if (core === null || node.saving !== null) return false;
    const index = core.log.appliedIndex;
    if (index <= (node.disk.snapshot?.index ?? 0)) return false;
    node.saving = { index, term: core.log.termAt(index), configuration: core.configurations.asOf(index) };
    this.options.trace?.(`${id} begins a snapshot of ${index}@${node.saving.term}`);
    return true;
  }

  /** The snapshot that `id` is writing becomes durable, and its core may hear of it. */
  finishSnapshot(id: NodeId, isTold = true): boolean {
    const node = this.node(id);
    const { saving } = node;
    if (saving === null) return false;
    node.saving = null;
    this.store(node, saving);
    if (isTold) this.step(id, { kind: 'snapshotStored', index: saving.index, term: saving.term });
    return true;
  }

  /** `id` takes a snapshot and lets its log go up to `index`. */
  snapshot(id: NodeId, compactTo = 0): void {
    this.beginSnapshot(id);
    this.finishSnapshot(id);
    this.compact(id, compactTo);
  }

  /** `id` compacts its log up to `index`, as far as it may; what the core no longer has, the disk need not keep. */
  compact(id: NodeId, index: number): void {
    const node = this.node(id);
    this.step(id, { kind: 'compact', index });
    node.disk.compact(node.core?.log.snapshotIndex ?? 0);
  }

  /** The transfer to `id` goes one step on: it begins, is all here, is told. False where nothing moves. */
  moveTransfer(id: NodeId): boolean {
    const node = this.node(id);
    const { transfer } = node;
    if (transfer === null || node.core === null) return false;
    if (transfer.source === null) return this.beginTransfer(node, transfer);
    if (!transfer.stored) {
      transfer.stored = true;
      this.store(node, transfer.source);
      return true;
    }
    node.transfer = null;
    this.step(id, { kind: 'snapshotReceived', ...transfer.source });
    return true;
  }

  private beginTransfer(node: ClusterNode, transfer: Transfer): boolean {
    const { from, index, term } = transfer;
    const sender = this.node(from);
    if (sender.core === null || this.isLost(from, node.id) || this.isLost(node.id, from)) {
      node.transfer = null;
      return false;
    }
    const newest = sender.disk.snapshot;
    if (newest?.index === index && newest.term === term) {
      transfer.source = newest;
      this.options.trace?.(`${node.id} fetches the snapshot of ${index}@${term} from ${from}`);
      return true;
    }
    node.transfer = null;
    this.step(from, { kind: 'snapshotStalled', peer: node.id });
    return true;
  }

  private store(node: ClusterNode, snapshot: StoredSnapshot): void {
    this.options.trace?.(`${node.id} has the snapshot of ${snapshot.index}@${snapshot.term} on disk`);
    this.checks.snapshotStored(node, snapshot);
    node.disk.storeSnapshot(snapshot);
  }

  /** The entry at `index` as the node itself would find it: in memory, or else on its disk. */
  entryAt(node: ClusterNode, index: number): Entry {
    const entry = node.core?.log.cached(index) ?? node.disk.entryAt(index);
    if (entry === undefined) throw new Error(`node ${node.id} has lost entry ${index}`);
    return entry;
  }

  /**
   * Refuses the links of removed nodes, as the transport does: a node learns of its removal when a majority of the voters
   * that it knows refuse it.
   */
  private refuseRemoved(): void {
    for (const node of this.nodes.values()) {
      const { id, core } = node;
      if (core === null || node.isRemoved) continue;
      if (core.rights.lifecycle !== 'normal') continue;
      const others = core.configurations.current.voters.filter((voter) => voter !== id);
      const refusing = others.filter((other) => {
        const known = this.nodes.get(other)?.core?.configurations;
        const isRemoved = known?.committed.configuration.removed.includes(id) && !known.possibleMembers().has(id);
        return isRemoved && !this.partitions.has(`${id}->${other}`) && !this.partitions.has(`${other}->${id}`);
      });
      if (refusing.length * 2 <= others.length) continue;
      node.isRemoved = true;
      this.options.trace?.(`${id} is refused by ${refusing.join(', ')}: it was removed`);
    }
  }

  private send(node: ClusterNode, message: Message): void {
    this.checks.released(message, node.disk);
    const { from, to } = message;
    const lost = this.isLost(from, to);
    this.options.trace?.(`  ${describeMessage(message)}${lost ? ' (lost)' : ''}`);
    if (!lost) this.wire.push(message);
  }

  private isLost(from: NodeId, to: NodeId): boolean {
    return !this.nodes.has(to) || this.partitions.has(`${from}->${to}`) || this.lostOnLink(from, to);
  }
}

function makeNode(id: NodeId, initial: Configuration): ClusterNode {
  return {
    id,
    initial,
    isRemoved: false,
    disk: new SimulatedDisk(),
    raft: null,
    readBacks: [],
    saving: null,
    transfer: null,
    remembering: null,
    answers: new Map(),
    get core() {
      return this.raft?.core ?? null;
    },
  };
}

/** A payload as a proposer hands it over: with room for the header. */
export function batchOf(payload: string): Buffer {
  const bytes = Buffer.alloc(ENTRY_HEADER_BYTES + payload.length);
  bytes.write(payload, ENTRY_HEADER_BYTES, 'latin1');
  return bytes;
}
