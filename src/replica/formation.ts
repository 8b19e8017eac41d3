import type { Core } from '../raft/core.ts';
import { type LifecycleStatus, NO_NODE, type NodeId } from '../raft/types.ts';
import { listed } from './health.ts';
import type { LifecycleMessage } from './wire.ts';

/**
 * How a node with an empty data directory learns what it is. A new cluster forms once all its configured members have
 * met and all are uninitialized. Where any of them has belonged to a cluster, there is one, and this node has lost its part of
 * it, or is a newcomer: it recovers. So a wiped disk never votes as if it remembered, and nodes that are wiped while
 * the others are away don't begin a second, empty cluster beside the first.
 *
 *   link up ─▶ tell each other the status ─▶ uninitialized, all others linked and uninitialized ─▶ has met all, and says so
 *                                          └─▶ uninitialized, another is no longer uninitialized ─▶ recovering, durable, asks the leader
 *   has met all ─▶ so have all others, or another is no longer uninitialized ─▶ member, durable, may vote
 *
 * Without the second step the first who has met all would begin with a majority, and take those for wiped who are still
 * about to meet: a cluster that has just begun, and has lost nothing, could then bear no other loss. A node that has met
 * all in this life knows that nothing binds it that an earlier life of it may have promised: each of the others had yet
 * to begin its first term when it said so, after that life had ended.
 *
 * The configuration file of a wiped node may be older than its cluster, and name too few. Two things keep it from founding
 * a second one: it listens for a while, since members that it does not know go on asking it for a link; and founders
 * tell each other which nodes they know of. Where a stranger has asked, or what they know differs, nobody founds.
 *
 * A member that was away while all whom it knows were replaced is asked by strangers only, too; they are its members now.
 */
export interface FormationContext {
  readonly core: Core;
  /** All nodes that the cluster begins with. Null for a newcomer, which waits to be added. */
  readonly founders: readonly NodeId[] | null;
  readonly electionTimeoutMs: number;
  /** No leader has been heard of for long. */
  readonly isLost: () => boolean;
  readonly send: (to: NodeId, news: LifecycleMessage) => void;
  /** Makes it durable, then tells the core. Called once. */
  readonly become: (lifecycle: 'recovering' | 'normal') => void;
}

/**
 * For how long an uninitialized node listens before it founds a cluster. Members that know it dial it at least every 250 ms while
 * it is down; those that wait to be dialed by it, or that it has refused, ask within 800 ms.
 */
const LISTEN_ELECTION_TIMEOUTS = 1;
/** The same where its file names nobody else: no other founder could have heard what it misses. */
const ALONE_ELECTION_TIMEOUTS = 3;
/**
 * For how long one that has met all waits for those that have not. Links take less where nothing is wrong; where two nodes
 * can't reach each other, a majority begins without them, and they recover through its leader.
 */
const GATHER_ELECTION_TIMEOUTS = 10;

export const NODES_DIFFER_REMEDY =
  'List all nodes of the cluster in the configuration file, on each node the same, and start this node again.';

export class Formation {
  private readonly context: FormationContext;
  private readonly listenMs: number;
  /** What those whose links stand have said. */
  private readonly heard = new Map<NodeId, LifecycleMessage>();
  private readonly linked = new Set<NodeId>();
  /** Nodes of this cluster that this node does not know. While it is no member, only another start, with another file, forgets them. */
  private readonly strangers = new Set<NodeId>();
  private listensSinceMs: number | null = null;
  private hasListened = false;
  /** In this life, while it was uninitialized. */
  private hasMet = false;
  private metSinceMs: number | null = null;
  private hasWaited = false;
  private decided = false;

  constructor(context: FormationContext) {
    this.context = context;
    const isAlone = context.founders?.length === 1;
    this.listenMs = context.electionTimeoutMs * (isAlone ? ALONE_ELECTION_TIMEOUTS : LISTEN_ELECTION_TIMEOUTS);
  }

  /** To be called when the replica starts. */
  begin(): void {
    if (this.context.core.lifecycle === 'uninitialized' && this.context.founders === null) this.decide('recovering');
  }

  /** To be called again and again from then on. */
  tick(nowMs: number): void {
    if (this.isSettled()) this.strangers.clear();
    this.listen(nowMs);
    if (!this.hasMet || this.hasWaited) return;
    this.metSinceMs ??= nowMs;
    if (nowMs - this.metSinceMs < this.context.electionTimeoutMs * GATHER_ELECTION_TIMEOUTS) return;
    this.hasWaited = true;
    this.consider();
  }

  private listen(nowMs: number): void {
    if (this.hasListened) return;
    this.listensSinceMs ??= nowMs;
    if (nowMs - this.listensSinceMs < this.listenMs) return;
    this.hasListened = true;
    this.announce();
    this.consider();
  }

  linkUp(peer: NodeId): void {
    this.linked.add(peer);
    this.tell([peer]);
  }

  linkLost(peer: NodeId): void {
    this.linked.delete(peer);
    this.heard.delete(peer);
  }

  receive(peer: NodeId, news: LifecycleMessage): void {
    this.heard.set(peer, news);
    this.consider();
  }

  /** A node of this cluster that is no peer asked for a link. Where this node belongs to a cluster that it hears of, that is no news. */
  stranger(id: NodeId): void {
    if (this.isSettled() || this.strangers.has(id)) return;
    this.strangers.add(id);
    this.announce();
  }

  /** The lifecycle status, or what a node has done that shows it, has changed. */
  announce(): void {
    this.tell(this.linked);
  }

  /** Who still listens says nothing, so that the others don't found without it what it would then have to join. */
  private tell(peers: Iterable<NodeId>): void {
    if (this.context.core.lifecycle === 'uninitialized' && !this.hasListened) return;
    const lifecycle = this.announced();
    const met = this.hasMet || this.context.core.lifecycle === 'normal';
    const news: LifecycleMessage = { kind: 'lifecycle', lifecycle, met, nodes: this.known() };
    for (const peer of peers) this.context.send(peer, news);
  }

  private known(): NodeId[] {
    return [...new Set([...(this.context.founders ?? []), ...this.strangers])].sort((a, b) => a - b);
  }

  /**
   * A member that has not done anything yet is as good as uninitialized: it met the others, but one of them may have died before
   * it could remember that, and must not be taken for wiped. (Once a term has begun, a quorum does remember.)
   */
  private announced(): LifecycleStatus {
    const { core } = this.context;
    const { lifecycle, term, log } = core;
    return lifecycle === 'normal' && term === 0 && log.lastIndex === 0 ? 'uninitialized' : lifecycle;
  }

  private consider(): void {
    const { core, founders } = this.context;
    if (core.lifecycle !== 'uninitialized' || this.decided || founders === null) return;
    const agrees = this.contradiction() === '';
    const heard = [...this.heard.values()];
    const isBegun = heard.some(({ lifecycle }) => lifecycle !== 'uninitialized');
    if (isBegun) this.decide(this.hasMet && agrees ? 'normal' : 'recovering');
    else if (this.hasListened && agrees) this.gather(founders);
  }

  /** All who are heard are uninitialized. */
  private gather(founders: readonly NodeId[]): void {
    const others = founders.filter((id) => id !== this.context.core.id);
    if (!this.hasMet && others.every((id) => this.heard.has(id))) {
      this.hasMet = true;
      this.announce();
    }
    const allHaveMet = others.every((id) => this.heard.get(id)?.met === true);
    if (this.hasMet && (allHaveMet || this.hasWaited)) this.decide('normal');
  }

  private decide(lifecycle: 'recovering' | 'normal'): void {
    if (this.decided) return;
    this.decided = true;
    this.context.become(lifecycle);
  }

  /** Why what this node's file lists can't be the whole cluster; empty while nothing speaks against it. */
  private contradiction(): string {
    const { core, founders } = this.context;
    if (this.strangers.size > 0) {
      const strangers = listed([...this.strangers].sort((a, b) => a - b));
      return `${strangers} of this cluster ${this.strangers.size > 1 ? 'are' : 'is'} not in the configuration file`;
    }
    if (core.lifecycle !== 'uninitialized' || founders === null) return '';
    const own = this.known();
    for (const [peer, { lifecycle, nodes }] of this.heard) {
      if (lifecycle !== 'uninitialized' || isSame(nodes, own)) continue;
      const theirs = nodes.length === 0 ? 'no nodes' : listed(nodes);
      return `the configuration files differ: node ${peer} knows of ${theirs}, this node of ${listed(own)}`;
    }
    return '';
  }

  /** The same for the operator, to whom it matters no more once there is a leader. */
  difference(): string {
    const { core } = this.context;
    return this.isSettled() || core.leader !== NO_NODE ? '' : this.contradiction();
  }

  private isSettled(): boolean {
    return this.context.core.lifecycle === 'normal' && !this.context.isLost();
  }
}

function isSame(a: readonly NodeId[], b: readonly NodeId[]): boolean {
  return a.length === b.length && a.every((id, i) => id === b[i]);
}
