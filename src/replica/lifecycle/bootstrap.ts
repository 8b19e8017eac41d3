import type { Clock } from '../../base/clock.ts';
import { configurationOf, detailOf } from '../../raft/state/configuration.ts';
import type { Core } from '../../raft/state/core.ts';
import { type ClusterId, type Configuration, NO_NODE, type NodeAddress, type NodeId } from '../../raft/state/types.ts';
import type { LifecycleMessage } from '../peers/wire.ts';
import { listed } from './health.ts';

/**
 * How a cluster begins, and how a node with an empty data directory finds out whether to begin one (ADR 0014).
 *
 *   link up ─▶ lifecycle status, directory id and list of nodes to each other
 *     lowest id, once all of its list are linked, uninitialized and name the same list ─▶ draws the first configuration (durable)
 *     named by a first configuration that another node tells, with this directory's id ─▶ the same, as a member of it (durable)
 *     anything else ─▶ waits for a leader (see `NodeLifecycle`)
 *
 * The first configuration names directories, not only nodes. So a node that was wiped since cannot come in by it, and
 * begin again in a cluster in which it has forgotten its promises.
 *
 * The configuration file of a wiped node may be older than its cluster and name too few nodes. Two things keep the node
 * from bootstrapping a second cluster. It listens for a while, because members that it does not know keep dialing it.
 * And initial members tell each other which nodes they know. While a node of this cluster's name that is on
 * no list asks for links, or the lists differ, no node bootstraps.
 */
export interface BootstrapContext {
  readonly core: Core;
  /** The nodes with which a new cluster begins. Null for a node that waits to be added to one. */
  readonly initialMembers: readonly InitialMember[] | null;
  /** The first configuration of the cluster, if this directory came in by it; durable. */
  readonly first: () => Configuration | null;
  readonly clock: Pick<Clock, 'monotonicMs'>;
  readonly electionTimeoutMs: number;
  readonly newClusterId: () => ClusterId;
  /** No leader has been heard of for long. */
  readonly isLost: () => boolean;
  /** That this node belongs to a cluster is being made durable, or is: it must not pass for uninitialized any more. */
  readonly isJoining: () => boolean;
  readonly send: (to: NodeId, message: LifecycleMessage) => void;
  /** Makes this directory a member by the first configuration, durably. `isJoining` from then on, so this is called once. */
  readonly begin: (first: Configuration) => void;
}

export interface InitialMember {
  readonly id: NodeId;
  readonly address: NodeAddress;
}

/**
 * For how long an uninitialized node listens before it tells anything. Members that know it dial it at least every 250 ms while
 * it is down; those that wait to be dialed by it, or that it has refused, ask within 800 ms.
 */
const LISTEN_ELECTION_TIMEOUTS = 1;
/** The same for a node whose file lists no other node: no other initial member could report a node that the file lacks. */
const ALONE_ELECTION_TIMEOUTS = 3;
/**
 * An unknown node that has not asked for a link for so long no longer keeps a cluster from being bootstrapped. Much longer
 * than the network is usually cut, because members that are only cut off would be forgotten; short enough that a stray
 * connection does not stop a new cluster for good.
 */
const UNKNOWN_ELECTION_TIMEOUTS = 100;

export const NODES_DIFFER_REMEDY =
  'List all nodes of the cluster in the configuration file, on each node the same, and start this node again.';

export class Bootstrap {
  readonly #context: BootstrapContext;
  readonly #listenMs: number;
  /** The last lifecycle message of each linked node. */
  readonly #heard = new Map<NodeId, LifecycleMessage>();
  readonly #linked = new Set<NodeId>();
  /** When nodes that this one does not know last asked for a link. */
  readonly #unknownPeers = new Map<NodeId, number>();
  #listensSinceMs: number | null = null;
  #hasListened = false;

  constructor(context: BootstrapContext) {
    this.#context = context;
    const isAlone = context.initialMembers?.length === 1;
    this.#listenMs = context.electionTimeoutMs * (isAlone ? ALONE_ELECTION_TIMEOUTS : LISTEN_ELECTION_TIMEOUTS);
  }

  /** To be called again and again. */
  tick(nowMs: number): void {
    this.#forgetUnknownPeers(nowMs);
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

  receive(peer: NodeId, message: LifecycleMessage): void {
    this.#heard.set(peer, message);
    this.#consider();
  }

  /**
   * A node of this cluster's name that is no peer asked for a link: a member that this node's file lacks, or a node whose file
   * lists this one, but not the other way round.
   */
  unknownPeer(id: NodeId): void {
    if (this.#isInCluster()) return;
    const isNews = !this.#unknownPeers.has(id);
    this.#unknownPeers.set(id, this.#context.clock.monotonicMs());
    if (isNews) this.announce();
  }

  #forgetUnknownPeers(nowMs: number): void {
    const count = this.#unknownPeers.size;
    const forgottenMs = nowMs - UNKNOWN_ELECTION_TIMEOUTS * this.#context.electionTimeoutMs;
    for (const [id, askedAtMs] of this.#unknownPeers)
      if (askedAtMs < forgottenMs || this.#isInCluster()) this.#unknownPeers.delete(id);
    if (this.#unknownPeers.size === count) return;
    this.announce();
    this.#consider();
  }

  /** The lifecycle status, or what this node knows of others, has changed. */
  announce(): void {
    this.#tell(this.#linked);
  }

  /**
   * A node that still listens tells nothing; otherwise another could bootstrap before this one has heard of all members.
   *
   * How the cluster began is told only by members in term 0. Once there is a term, a majority has come in by it, so the
   * others can wait for a leader. And an old copy of a directory, from before it came in, must not come in a second time: it
   * would have forgotten its promises.
   */
  #tell(peers: Iterable<NodeId>): void {
    const { term, log, rights } = this.#context.core;
    const { lifecycle, directoryId } = rights;
    if (lifecycle === 'uninitialized' && (!this.#hasListened || this.#context.isJoining())) return;
    const message: LifecycleMessage = {
      kind: 'lifecycle',
      lifecycle,
      directoryId,
      nodes: this.#known(),
      first: term === 0 && log.lastIndex === 0 ? this.#context.first() : null,
    };
    for (const peer of peers) this.#context.send(peer, message);
  }

  #known(): NodeId[] {
    const initial = this.#context.initialMembers?.map(({ id }) => id) ?? [];
    return [...new Set([...initial, ...this.#unknownPeers.keys()])].sort((a, b) => a - b);
  }

  #consider(): void {
    const { core, initialMembers, isJoining, begin } = this.#context;
    if (core.rights.lifecycle !== 'uninitialized' || isJoining()) return;
    const told = [...this.#heard.values()].find(({ first }) => first !== null && this.#isNamedBy(first))?.first;
    if (told) begin(told);
    else if (initialMembers !== null && this.#mayBootstrap(initialMembers)) begin(this.#draw(initialMembers));
  }

  #isNamedBy(first: Configuration): boolean {
    const { id, rights } = this.#context.core;
    return detailOf(first, id)?.directoryId === rights.directoryId;
  }

  #mayBootstrap(initialMembers: readonly InitialMember[]): boolean {
    const { core } = this.#context;
    if (!this.#hasListened || this.#contradiction() !== '') return false;
    return initialMembers.every(
      ({ id }) => id === core.id || (id > core.id && this.#heard.get(id)?.lifecycle === 'uninitialized'),
    );
  }

  /** The first configuration: all initial members are voters, from the directories that they have told. */
  #draw(initialMembers: readonly InitialMember[]): Configuration {
    const { core, newClusterId } = this.#context;
    const details = initialMembers.map(({ id, address }) => {
      const directoryId = this.#heard.get(id)?.directoryId ?? core.rights.directoryId;
      return { id, address, directoryId, joins: false, replaces: NO_NODE };
    });
    const ids = initialMembers.map(({ id }) => id);
    return configurationOf(ids, details, newClusterId());
  }

  /** Why what this node's file lists can't be the whole cluster; empty while nothing speaks against it. */
  #contradiction(): string {
    const { core, initialMembers } = this.#context;
    if (this.#unknownPeers.size > 0) {
      const unknown = listed([...this.#unknownPeers.keys()].sort((a, b) => a - b));
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

  /** The contradiction to show to an operator: none once there is a leader. */
  difference(): string {
    const { core } = this.#context;
    return this.#isInCluster() || core.leader !== NO_NODE ? '' : this.#contradiction();
  }

  /** Why an uninitialized node waits, for the operator; empty for any other node. */
  waiting(): string {
    const { core, initialMembers } = this.#context;
    if (core.rights.lifecycle !== 'uninitialized') return '';
    if (initialMembers === null)
      return `this node is not a member of a cluster yet; to add it: raftkv member add ${core.id}`;
    const missing = initialMembers.map(({ id }) => id).filter((id) => id !== core.id && !this.#linked.has(id));
    if (missing.length > 0)
      return `a new cluster is bootstrapped once all its initial members are connected; missing: ${listed(missing)}`;
    const begun = [...this.#heard].filter(([, { lifecycle }]) => lifecycle !== 'uninitialized').map(([id]) => id);
    if (begun.length > 0)
      return `${listed(begun)} ${begun.length > 1 ? 'belong' : 'belongs'} to a cluster: this node waits for its leader`;
    return 'the initial members of this new cluster are about to bootstrap it';
  }

  #isInCluster(): boolean {
    return this.#context.core.rights.lifecycle === 'normal' && !this.#context.isLost();
  }
}

function isSame(a: readonly NodeId[], b: readonly NodeId[]): boolean {
  return a.length === b.length && a.every((id, i) => id === b[i]);
}
