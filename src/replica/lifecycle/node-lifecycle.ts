import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/logger.ts';
import { configuredDirectoryOf } from '../../raft/rights.ts';
import {
  type ClusterId,
  type Configuration,
  type Message,
  NO_CLUSTER,
  NO_NODE,
  type NodeId,
} from '../../raft/state/types.ts';
import type { Meta } from '../../storage/meta.ts';
import type { Transport } from '../../transport/types.ts';
import { type NodeLoop, onceDone } from '../node-loop.ts';
import { Peers, type PeersOptions } from '../peers/peers.ts';
import type { Sender } from '../peers/sender.ts';
import type { LifecycleMessage, MembersNews } from '../peers/wire.ts';
import type { ReadPath } from '../reads/read-path.ts';
import { Bootstrap, type InitialMember, NODES_DIFFER_REMEDY } from './bootstrap.ts';
import { healthProblemOf, lostQuorum } from './health.ts';
import { newClusterId, newDirectoryId } from './identity.ts';
import { type OwnSession, SessionStart } from './session-start.ts';

/**
 * The lifecycle of this node's data directory, beside what the other nodes say of theirs (ADR 0008): bootstraps a new cluster,
 * joins an existing one, and names the nodes that lost data if that stops the cluster.
 */
export interface LifecycleOptions extends PeersOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: () => number;
  readonly transport: Pick<Transport, 'isUp' | 'setPeers' | 'setClusterId'>;
  readonly timing: { readonly electionTimeoutMs: number };
  /** The nodes with which a new cluster begins; null if this node joins an existing one. */
  readonly initialMembers: readonly InitialMember[] | null;
  /** The meta file of the data directory. Changes are durable once `persist` has resolved. */
  readonly meta: Pick<Meta, 'clusterId' | 'first' | 'onlyVoter' | 'persist' | 'raiseIncarnation'>;
  /** The node is no longer a member: its process should say so and end. Called once. */
  readonly onRemoved: () => void;
}

/**
 * A member that has heard no leader for so long also asks the nodes of its configuration file. Longer than several
 * contested elections take, so that an election alone opens no links.
 */
const LOST_ELECTION_TIMEOUTS = 10;

export class NodeLifecycle {
  readonly #options: LifecycleOptions;
  readonly #loop: Pick<NodeLoop, 'core' | 'put' | 'run' | 'fail'>;
  readonly #session: SessionStart;
  readonly #reads: Pick<ReadPath, 'onceCurrent'>;
  readonly #peers: Peers;
  readonly #bootstrap: Bootstrap;
  /** The cluster ids of the directories at the other ends of the links; empty where one has none. */
  readonly #linkClusterIds = new Map<NodeId, ClusterId>();
  /** Which other nodes belong to another history, with the text that names both. */
  readonly #foreignPeers = new Map<NodeId, string>();
  /** The history that this directory belongs to; empty until that is durable. */
  #clusterId: ClusterId;
  /** A cluster id is being made durable, or was in this incarnation. */
  #isJoining = false;
  /** No leader has been heard of for long: the members may be others than this node knows. */
  #isLost = false;
  /** Nodes that say that they have no rights. */
  readonly #withoutRights = new Set<NodeId>();
  /** Members that say that this node was removed. */
  readonly #removedBy = new Set<NodeId>();
  /** Everything that earlier incarnations proposed is applied from this index on; 0 while the index is not known. */
  #earlierIncarnationsEndAt = 0;
  #announcedAtMs = 0;
  #leaderlessSinceMs: number | null = null;
  #removalReported = false;
  #quorumLossReported = false;
  #differenceReported = '';
  /** The value that was persisted last; null if it has yet to be persisted. */
  #onlyVoter: boolean | null;
  #triedAtMs = 0;

  constructor(
    options: LifecycleOptions,
    loop: Pick<NodeLoop, 'core' | 'put' | 'run' | 'fail'>,
    sender: Pick<Sender, 'tell'>,
    session: OwnSession,
    reads: Pick<ReadPath, 'onceCurrent'>,
  ) {
    this.#options = options;
    this.#loop = loop;
    this.#session = new SessionStart(options, loop, session);
    this.#reads = reads;
    this.#clusterId = options.meta.clusterId;
    this.#onlyVoter = options.meta.onlyVoter;
    this.#peers = new Peers(options, loop.core, sender);
    this.#bootstrap = new Bootstrap({
      core: loop.core,
      initialMembers: options.initialMembers,
      first: () => options.meta.first,
      clock: options.clock,
      electionTimeoutMs: options.timing.electionTimeoutMs,
      newClusterId: () => newClusterId(options.random),
      isLost: () => this.#isLost,
      isJoining: () => this.#isJoining,
      send: (to, message) => sender.tell(to, message),
      begin: (first) => this.#begin(first),
    });
  }

  /** The history that this node's directory belongs to; empty while it belongs to none. */
  get clusterId(): ClusterId {
    return this.#clusterId;
  }

  begin(): void {
    this.configured();
    if (this.#loop.core.rights.lifecycle === 'normal') this.#reads.onceCurrent(() => this.#session.begin());
  }

  linkUp(peer: NodeId, clusterId: ClusterId): void {
    this.#linkClusterIds.set(peer, clusterId);
    this.#foreignPeers.delete(peer);
    this.#bootstrap.linkUp(peer);
  }

  linkLost(peer: NodeId): void {
    this.#linkClusterIds.delete(peer);
    this.#withoutRights.delete(peer);
    this.#bootstrap.linkLost(peer);
  }

  receive(peer: NodeId, message: LifecycleMessage | MembersNews): void {
    if (message.kind === 'membersNews') {
      this.#peers.receive(message);
      return;
    }
    // An empty directory that the configuration does not name has lost what the node had.
    const isNamed = configuredDirectoryOf(this.#loop.core, peer) === message.directoryId;
    this.#rememberRights(
      peer,
      message.lifecycle === 'recovering' || (message.lifecycle === 'uninitialized' && !isNamed),
    );
    this.#bootstrap.receive(peer, message);
    this.#peers.tellMembers(peer);
  }

  /**
   * To be called with every message of another core. Returns whether the core may take it. A directory without a cluster id
   * belongs to no history, so it takes none; it becomes part of the history whose leader it hears.
   */
  hear(message: Message): boolean {
    if (message.kind === 'preVoteReply' || message.kind === 'voteReply')
      this.#rememberRights(message.from, message.withoutRights);
    if (this.#clusterId !== NO_CLUSTER) return true;
    const clusterId = this.#linkClusterIds.get(message.from) ?? NO_CLUSTER;
    if (clusterId !== NO_CLUSTER && comesFromLeader(message) && !this.#isJoining) this.#adopt(clusterId);
    return false;
  }

  #rememberRights(peer: NodeId, withoutRights: boolean): void {
    if (withoutRights) this.#withoutRights.add(peer);
    else this.#withoutRights.delete(peer);
  }

  /** A new cluster begins, with this directory among its first members. */
  #begin(first: Configuration): void {
    const { clusterId } = first;
    const { logger, meta } = this.#options;
    logger.info({ clusterId, voters: first.voters }, 'beginning a new cluster');
    this.#join(clusterId, meta.persist({ lifecycle: 'normal', clusterId, first }), () => {
      this.#loop.put({ kind: 'begin', first });
      // The cluster may have begun long ago, and another directory of this node may have been a member since.
      this.#reads.onceCurrent(() => this.#session.begin());
    });
  }

  /**
   * The leader of an existing cluster has this node as a member. The directory gets a new id: an old copy of it, from before it
   * belonged to the cluster, would otherwise pass for the directory that has made promises since.
   */
  #adopt(clusterId: ClusterId): void {
    const { logger, meta, random } = this.#options;
    logger.info({ clusterId }, 'joining an existing cluster, without a vote yet');
    const directoryId = newDirectoryId(random);
    this.#join(clusterId, meta.persist({ lifecycle: 'recovering', clusterId, directoryId }), () =>
      this.#loop.put({ kind: 'lifecycle', lifecycle: 'recovering', directoryId }),
    );
  }

  /** A directory belongs to one history in its life. Once that is durable, this node has links with nodes of that history only. */
  #join(clusterId: ClusterId, persisted: Promise<void>, begin: () => void): void {
    this.#isJoining = true;
    onceDone(this.#loop, persisted, () => {
      this.#clusterId = clusterId;
      this.#options.transport.setClusterId(clusterId);
      begin();
      this.configured();
    });
  }

  /**
   * A committed configuration names this directory id, so the node may become a member. Every batch that earlier
   * incarnations on this directory proposed comes before that entry in every log, or is lost.
   */
  recovered(): void {
    const { core } = this.#loop;
    this.#options.logger.info(
      { directoryId: core.rights.directoryId },
      'this data directory is in the committed configuration',
    );
    this.#earlierIncarnationsEndAt = core.log.commitIndex;
    this.applied(core.log.appliedIndex);
  }

  /** To be called when entries have been applied. */
  applied(appliedIndex: number): void {
    this.#session.applied();
    const isPending = this.#earlierIncarnationsEndAt > 0 && appliedIndex >= this.#earlierIncarnationsEndAt;
    if (this.#session.hasBegun || !isPending) return;
    this.#earlierIncarnationsEndAt = 0;
    this.#session.onceUnused(() => this.#becomeMember(this.#loop.core.rights.directoryId));
  }

  /** Another incarnation has used our session id: from then on our proposals have no effect. */
  sessionUsed(): void {
    this.#session.used();
  }

  /** Persisted first: otherwise a crash could leave a voter that says that it has no rights. */
  #becomeMember(directoryId: number): void {
    onceDone(this.#loop, this.#options.meta.persist({ lifecycle: 'normal', directoryId }), () => {
      this.#loop.put({ kind: 'lifecycle', lifecycle: 'normal', directoryId });
      this.configured();
      this.#bootstrap.announce();
      // An old disk may have been named before another took its place, whose batches come only now.
      this.#reads.onceCurrent(() => this.#session.begin());
    });
  }

  /** A node of this cluster that is no peer asked for a link. */
  unknownPeer(peer: NodeId): void {
    this.#bootstrap.unknownPeer(peer);
  }

  /** A peer's data directory belongs to another history. */
  foreignPeer(peer: NodeId, text: string): void {
    this.#foreignPeers.set(peer, text);
  }

  /** To be called when the configuration in force changes. */
  configured(): void {
    this.#peers.update(this.#isLost);
    this.#persistOnlyVoter();
  }

  /**
   * A member persists whether it is the only voter, also if on one side of a joint configuration only: then no other node
   * could restore what it loses.
   */
  #persistOnlyVoter(): void {
    const { core } = this.#loop;
    // A node without rights may have a configuration that is long out of date.
    if (core.rights.lifecycle !== 'normal') return;
    const { voters, votersOutgoing } = core.configurations.current;
    const onlyVoter = [voters, votersOutgoing].some((group) => group.length === 1 && group[0] === core.id);
    if (onlyVoter === this.#onlyVoter) return;
    this.#onlyVoter = onlyVoter;
    this.#options.meta.persist({ onlyVoter }).catch((error: NodeJS.ErrnoException) => {
      // A node outlives a full disk; it tries again.
      if (error.code === 'ENOSPC') this.#onlyVoter = null;
      else this.#loop.fail(error);
    });
  }

  /**
   * A peer refused a link because its committed configuration says that this node was removed. This is the only way in
   * which a node learns of its removal. It ends once a majority of the voters that it knows say so: a single one may have
   * an older configuration than this node, from before this node was added again.
   */
  removedSays(peer: NodeId): void {
    const { core } = this.#loop;
    // A node without rights may be a new one under an id that was used before, and wait to be added. The addition may be in
    // its own log already while the nodes that refuse it still lack that entry.
    if (core.rights.lifecycle !== 'normal') return;
    this.#removedBy.add(peer);
    const others = core.configurations.current.voters.filter((id) => id !== core.id);
    const agreeing = others.filter((id) => this.#removedBy.has(id));
    if (agreeing.length * 2 <= others.length || this.#removalReported) return;
    this.#removalReported = true;
    this.#options.onRemoved();
  }

  tick(nowMs: number): void {
    const { core } = this.#loop;
    const { electionTimeoutMs } = this.#options.timing;
    this.#lookForLeader(nowMs);
    this.#peers.update(this.#isLost);
    this.#bootstrap.tick(nowMs);
    if (this.#onlyVoter === null && nowMs - this.#triedAtMs >= electionTimeoutMs) {
      this.#triedAtMs = nowMs;
      this.#persistOnlyVoter();
    }
    // While no leader is known, the other nodes may know members that this node does not, and answer with them.
    const seeksOthers = core.rights.lifecycle === 'uninitialized' || core.term === 0 || core.leader === NO_NODE;
    if (seeksOthers && nowMs - this.#announcedAtMs >= electionTimeoutMs) {
      this.#announcedAtMs = nowMs;
      this.#bootstrap.announce();
    }
    this.#reportQuorumLoss();
    this.#reportDifference();
  }

  #lookForLeader(nowMs: number): void {
    const { core } = this.#loop;
    const { electionTimeoutMs } = this.#options.timing;
    this.#leaderlessSinceMs = core.leader === NO_NODE ? (this.#leaderlessSinceMs ?? nowMs) : null;
    const sinceMs = this.#leaderlessSinceMs;
    this.#isLost = sinceMs !== null && nowMs - sinceMs >= LOST_ELECTION_TIMEOUTS * electionTimeoutMs;
  }

  #reportQuorumLoss(): void {
    const { core } = this.#loop;
    const lost = core.leader === NO_NODE ? lostQuorum(core, this.#withoutRights) : '';
    if (lost !== '' && !this.#quorumLossReported)
      this.#options.logger.error({ code: 'QUORUM_LOST', remedy: QUORUM_LOST_REMEDY }, lost);
    this.#quorumLossReported = lost !== '';
  }

  #reportDifference(): void {
    const difference = this.#bootstrap.difference();
    const isNews = difference !== '' && difference !== this.#differenceReported;
    if (isNews) this.#options.logger.error({ code: 'CONFIG_INVALID', remedy: NODES_DIFFER_REMEDY }, difference);
    this.#differenceReported = difference;
  }

  healthProblem(): string {
    const { core } = this.#loop;
    const difference = this.#bootstrap.difference();
    if (difference !== '') return healthProblemOf(core, this.#withoutRights, `${difference}. ${NODES_DIFFER_REMEDY}`);
    const [foreign = ''] = this.#foreignPeers.values();
    return healthProblemOf(core, this.#withoutRights, foreign === '' ? this.#bootstrap.waiting() : foreign);
  }
}

function comesFromLeader({ kind }: Message): boolean {
  return kind === 'append' || kind === 'heartbeat' || kind === 'commit' || kind === 'snapshotOffer';
}

const QUORUM_LOST_REMEDY =
  'Bring back the disks of these nodes, as they were when they last stopped; an older copy of one must not come back. ' +
  '`raftkv recover --force-new-cluster` goes on with what is left, `raftkv snapshot restore` with a backup.';
