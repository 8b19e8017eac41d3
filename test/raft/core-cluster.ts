import { type Core, type CoreOptions, members } from '../../src/raft/core.ts';
import { ENTRY_HEADER_BYTES } from '../../src/raft/entry.ts';
import { type CoreSummary, summarize } from '../../src/raft/invariants.ts';
import { Raft } from '../../src/raft/raft.ts';
import type { Configuration, Effects, Entry, Fetch, Input, Message, NodeId } from '../../src/raft/types.ts';
import { type CheckedNode, ClusterChecks } from './cluster-checks.ts';
import { describeInput, describeMessage } from './describe.ts';
import { SimulatedDisk } from './simulated-disk.ts';

/**
 * A cluster of pure cores, moved by hand: nothing happens unless it is called for, and after every step everything is
 * checked. What is under way lies open: messages in `wire`, writes in each node's `disk`, reads from disk in `fetches`.
 *
 *   step(node, input) ─▶ Raft.step ─▶ checks ─▶ disk.pending, wire, fetches, reads
 */
export interface ClusterOptions extends Omit<CoreOptions, 'random'> {
  readonly configuration: Configuration;
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
  fetches: Fetch[];
  /** Reads that were answered, newest last: the index, or -1 for a refusal. */
  readonly answers: Map<number, number>;
}

export class CoreCluster {
  readonly nodes: ReadonlyMap<NodeId, ClusterNode>;
  readonly checks: ClusterChecks;
  /** Messages under way, oldest first. */
  wire: Message[] = [];
  /** Directions in which messages are lost, as "from->to". */
  readonly cuts = new Set<string>();
  /** Links that are down lose what is sent over them, too. */
  lostOnLink: (from: NodeId, to: NodeId) => boolean = () => false;
  private readonly options: ClusterOptions;
  private lastReadId = 0;

  constructor(options: ClusterOptions) {
    this.options = options;
    this.nodes = new Map(members(options.configuration).map((id) => [id, makeNode(id)]));
    this.checks = new ClusterChecks([...this.nodes.values()], options.configuration);
    for (const id of this.nodes.keys()) this.start(id);
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
    const { configuration, randomOf } = this.options;
    node.raft = new Raft({
      ...this.options,
      id,
      configuration,
      log,
      hardState: node.disk.hardState,
      random: randomOf(id),
    });
    this.options.trace?.(`${id} starts with ${log.lastIndex}@${log.lastTerm}, term ${node.disk.hardState.term}`);
    this.checks.afterStart(node, node.raft.core);
  }

  /** Ends the node's process; see `SimulatedDisk.crash` for `recordsKept`. What it had sent is still under way. */
  crash(id: NodeId, recordsKept = 0): void {
    const node = this.node(id);
    node.raft = null;
    node.fetches = [];
    node.disk.crash(recordsKept);
    this.options.trace?.(`${id} crashes, its disk holds ${node.disk.entries.length} entries`);
  }

  step(id: NodeId, input: Input): Effects | null {
    const node = this.node(id);
    if (node.raft === null) return null;
    this.options.trace?.(`${id} ${describeInput(input)}`);
    const before = summarize(node.raft.core);
    const effects = node.raft.step(input);
    this.checks.afterStep(node, node.raft.core, before, effects);
    this.options.observe?.(node.raft.core, before, effects);
    for (const message of node.disk.submit(effects)) this.send(node, message);
    for (const message of effects.sendNow) this.send(node, message);
    node.fetches.push(...effects.fetch);
    for (const read of effects.reads) node.answers.set(read.id, read.index);
    for (const read of effects.readsRejected) node.answers.set(read, -1);
    return effects;
  }

  propose(id: NodeId, ...payloads: readonly string[]): boolean {
    const effects = this.step(id, { kind: 'propose', batches: payloads.map(batchOf) });
    return effects !== null && !effects.proposeRejected;
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
    for (const message of write.messages) this.send(node, message);
    const last = write.entries.at(-1);
    const { hardState } = write;
    this.step(id, { kind: 'persisted', term: last?.term ?? 0, index: last?.index ?? 0, hardState });
    return true;
  }

  /** All of the node's writes become durable, and those that come of it. True where there were any. */
  settleDisk(id: NodeId): boolean {
    let moved = false;
    while (this.persist(id) || this.complete(id)) moved = true;
    return moved;
  }

  /** The oldest read from the disk of `id` is done. */
  serveFetch(id: NodeId): boolean {
    const node = this.node(id);
    const fetch = node.fetches.shift();
    const log = node.raft?.core.log;
    if (fetch === undefined || log === undefined) return false;
    const entries = node.disk.read(fetch.fromIndex, log.firstCachedIndex - 1, fetch.bytesMax);
    this.step(id, { kind: 'fetched', peer: fetch.peer, entries });
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

  /** The entry at `index` as the node itself would find it: in memory, or else on its disk. */
  entryAt(node: ClusterNode, index: number): Entry {
    const entry = node.core?.log.cached(index) ?? node.disk.entries[index - 1];
    if (entry === undefined) throw new Error(`node ${node.id} has lost entry ${index}`);
    return entry;
  }

  private send(node: ClusterNode, message: Message): void {
    this.checks.released(message, node.disk);
    const { from, to } = message;
    const lost = !this.nodes.has(to) || this.cuts.has(`${from}->${to}`) || this.lostOnLink(from, to);
    this.options.trace?.(`  ${describeMessage(message)}${lost ? ' (lost)' : ''}`);
    if (!lost) this.wire.push(message);
  }
}

function makeNode(id: NodeId): ClusterNode {
  return {
    id,
    disk: new SimulatedDisk(),
    raft: null,
    fetches: [],
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
