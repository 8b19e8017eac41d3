import type { Core } from '../../raft/state/core.ts';
import { type LifecycleStatus, NO_NODE, type NodeId } from '../../raft/state/types.ts';
import type { LifecycleMessage } from '../peers/wire.ts';
import { listed } from './health.ts';

/**
 * How a node with an empty data directory finds out whether to bootstrap a cluster or to recover into an existing one.
 * A new cluster is bootstrapped when all its initial members are connected and uninitialized. If any of them has
 * belonged to a cluster, that cluster exists and this node has lost its data or is new: it recovers. So a wiped node
 * never votes as if it remembered its promises, and nodes that are wiped while the others are away don't bootstrap a
 * second, empty cluster.
 *
 *   link up ─▶ exchange lifecycle status ─▶ all initial members linked and uninitialized ─▶ ready, and says so
 *                                       └─▶ another is initialized ─▶ recovering (durable), asks the leader
 *   ready ─▶ all others are ready, or another is initialized ─▶ normal (durable), may vote
 *
 * Why two phases? With one, the first majority to find each other would bootstrap, and the remaining initial members
 * would look like wiped nodes: a cluster that has lost nothing could then tolerate no further loss. A ready node knows
 * that no earlier incarnation of it has made a promise that still binds it: each of the others reported that it had not
 * begun its first term, after that incarnation had ended.
 *
 * The configuration file of a wiped node may be older than its cluster and name too few nodes. Two things keep the node
 * from bootstrapping a second cluster. It listens for a while, because members that it does not know keep dialing it.
 * And initial members tell each other which nodes they know. While an unknown node has dialed, or the lists differ, no
 * node bootstraps.
 *
 * A member that was away while all members it knows were replaced is dialed by unknown nodes only, too. They are its
 * members now.
 */
export interface BootstrapContext {
  readonly core: Core;
  /** The nodes with which the cluster is bootstrapped. Null for a newcomer, which waits to be added. */
  readonly initialMembers: readonly NodeId[] | null;
  readonly electionTimeoutMs: number;
  /** No leader has been heard of for long. */
  readonly isLost: () => boolean;
  readonly send: (to: NodeId, news: LifecycleMessage) => void;
  /** Makes it durable, then tells the core. Called once. */
  readonly become: (lifecycle: 'recovering' | 'normal') => void;
}

/**
 * For how long an uninitialized node listens before it bootstraps a cluster. Members that know it dial it at least every 250 ms while
 * it is down; those that wait to be dialed by it, or that it has refused, ask within 800 ms.
 */
const LISTEN_ELECTION_TIMEOUTS = 1;
/** The same if its file names no other node: no other initial member could then report what it misses. */
const ALONE_ELECTION_TIMEOUTS = 3;
/**
 * How long a ready node waits for initial members that are not ready. Links need less if nothing is wrong; if two nodes
 * cannot reach each other, a majority bootstraps without them, and they recover through its leader.
 */
const READY_ELECTION_TIMEOUTS = 10;

export const NODES_DIFFER_REMEDY =
  'List all nodes of the cluster in the configuration file, on each node the same, and start this node again.';

export class Bootstrap {
  readonly #context: BootstrapContext;
  readonly #listenMs: number;
  /** What those whose links stand have said. */
  readonly #heard = new Map<NodeId, LifecycleMessage>();
  readonly #linked = new Set<NodeId>();
  /** Nodes of this cluster that this node does not know. While it is no member, only another start, with another file, forgets them. */
  readonly #unknownPeers = new Set<NodeId>();
  #listensSinceMs: number | null = null;
  #hasListened = false;
  /** In this incarnation, while uninitialized: every other initial member was linked and uninitialized. */
  #isReady = false;
  #readySinceMs: number | null = null;
  #hasWaited = false;
  #decided = false;

  constructor(context: BootstrapContext) {
    this.#context = context;
    const isAlone = context.initialMembers?.length === 1;
    this.#listenMs = context.electionTimeoutMs * (isAlone ? ALONE_ELECTION_TIMEOUTS : LISTEN_ELECTION_TIMEOUTS);
  }

  /** To be called when the replica starts. */
  begin(): void {
    if (this.#context.core.rights.lifecycle === 'uninitialized' && this.#context.initialMembers === null)
      this.#decide('recovering');
  }

  /** To be called again and again from then on. */
  tick(nowMs: number): void {
    if (this.#isInCluster()) this.#unknownPeers.clear();
    this.#listen(nowMs);
    if (!this.#isReady || this.#hasWaited) return;
    this.#readySinceMs ??= nowMs;
    if (nowMs - this.#readySinceMs < this.#context.electionTimeoutMs * READY_ELECTION_TIMEOUTS) return;
    this.#hasWaited = true;
    this.#consider();
  }

  #listen(nowMs: number): void {
    if (this.#hasListened) return;
    this.#listensSinceMs ??= nowMs;
    if (nowMs - this.#listensSinceMs < this.#listenMs) return;
    this.#hasListened = true;
    this.announce();
    this.#consider();
  }

  linkUp(peer: NodeId): void {
    this.#linked.add(peer);
    this.#tell([peer]);
  }

  linkLost(peer: NodeId): void {
    this.#linked.delete(peer);
    this.#heard.delete(peer);
  }

  receive(peer: NodeId, news: LifecycleMessage): void {
    this.#heard.set(peer, news);
    this.#consider();
  }

  /** A node of this cluster that is no peer asked for a link. Where this node belongs to a cluster that it hears of, that is no news. */
  unknownPeer(id: NodeId): void {
    if (this.#isInCluster() || this.#unknownPeers.has(id)) return;
    this.#unknownPeers.add(id);
    this.announce();
  }

  /** The lifecycle status, or what a node has done that shows it, has changed. */
  announce(): void {
    this.#tell(this.#linked);
  }

  /** A node that still listens sends nothing; otherwise the others could bootstrap without it, and it would have to join. */
  #tell(peers: Iterable<NodeId>): void {
    if (this.#context.core.rights.lifecycle === 'uninitialized' && !this.#hasListened) return;
    const lifecycle = this.#announced();
    const ready = this.#isReady || this.#context.core.rights.lifecycle === 'normal';
    const news: LifecycleMessage = { kind: 'lifecycle', lifecycle, ready, nodes: this.#known() };
    for (const peer of peers) this.#context.send(peer, news);
  }

  #known(): NodeId[] {
    return [...new Set([...(this.#context.initialMembers ?? []), ...this.#unknownPeers])].sort((a, b) => a - b);
  }

  /**
   * A member in term 0 with an empty log still reports `uninitialized`: another initial member may have died before it
   * persisted the bootstrap, and must not be taken for wiped. (Once a term has begun, a quorum has persisted it.)
   */
  #announced(): LifecycleStatus {
    const { core } = this.#context;
    const { term, log } = core;
    const { lifecycle } = core.rights;
    return lifecycle === 'normal' && term === 0 && log.lastIndex === 0 ? 'uninitialized' : lifecycle;
  }

  #consider(): void {
    const { core, initialMembers } = this.#context;
    if (core.rights.lifecycle !== 'uninitialized' || this.#decided || initialMembers === null) return;
    const agrees = this.#contradiction() === '';
    const heard = [...this.#heard.values()];
    const isBegun = heard.some(({ lifecycle }) => lifecycle !== 'uninitialized');
    if (isBegun) this.#decide(this.#isReady && agrees ? 'normal' : 'recovering');
    else if (this.#hasListened && agrees) this.#prepare(initialMembers);
  }

  /** All nodes heard from are uninitialized. */
  #prepare(initialMembers: readonly NodeId[]): void {
    const others = initialMembers.filter((id) => id !== this.#context.core.id);
    if (!this.#isReady && others.every((id) => this.#heard.has(id))) {
      this.#isReady = true;
      this.announce();
    }
    const allAreReady = others.every((id) => this.#heard.get(id)?.ready === true);
    if (this.#isReady && (allAreReady || this.#hasWaited)) this.#decide('normal');
  }

  #decide(lifecycle: 'recovering' | 'normal'): void {
    if (this.#decided) return;
    this.#decided = true;
    this.#context.become(lifecycle);
  }

  /** Why what this node's file lists can't be the whole cluster; empty while nothing speaks against it. */
  #contradiction(): string {
    const { core, initialMembers } = this.#context;
    if (this.#unknownPeers.size > 0) {
      const unknown = listed([...this.#unknownPeers].sort((a, b) => a - b));
      return `${unknown} of this cluster ${this.#unknownPeers.size > 1 ? 'are' : 'is'} not in the configuration file`;
    }
    if (core.rights.lifecycle !== 'uninitialized' || initialMembers === null) return '';
    const own = this.#known();
    for (const [peer, { lifecycle, nodes }] of this.#heard) {
      if (lifecycle !== 'uninitialized' || isSame(nodes, own)) continue;
      const theirs = nodes.length === 0 ? 'no nodes' : listed(nodes);
      return `the configuration files differ: node ${peer} knows of ${theirs}, this node of ${listed(own)}`;
    }
    return '';
  }

  /** The same for the operator, to whom it matters no more once there is a leader. */
  difference(): string {
    const { core } = this.#context;
    return this.#isInCluster() || core.leader !== NO_NODE ? '' : this.#contradiction();
  }

  #isInCluster(): boolean {
    return this.#context.core.rights.lifecycle === 'normal' && !this.#context.isLost();
  }
}

function isSame(a: readonly NodeId[], b: readonly NodeId[]): boolean {
  return a.length === b.length && a.every((id, i) => id === b[i]);
}
