import { RaftkvError } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import { type Message, NO_NODE, type NodeId } from '../../raft/state/types.ts';
import type { Transport } from '../../transport/types.ts';
import type { NodeLoop } from '../node-loop.ts';
import { Peers, type PeersOptions } from '../peers/peers.ts';
import type { Sender } from '../peers/sender.ts';
import type { LifecycleMessage, MembersNews } from '../peers/wire.ts';
import type { ReadPath } from '../reads/read-path.ts';
import { Bootstrap, NODES_DIFFER_REMEDY } from './bootstrap.ts';
import { healthProblemOf, lostQuorum } from './health.ts';

/**
 * The lifecycle of this node's data directory, beside what the other nodes say of theirs (ADR 0008): bootstraps a new cluster,
 * joins an existing one, and names the nodes that lost data if that stops the cluster.
 */
export interface LifecycleOptions extends PeersOptions {
  readonly logger: Logger;
  readonly random: () => number;
  readonly transport: Pick<Transport, 'isUp' | 'setPeers'>;
  readonly timing: { readonly electionTimeoutMs: number };
  /** The nodes that bootstrap the cluster if there is none yet; null if this node joins an existing one. */
  readonly initialMembers: readonly NodeId[] | null;
  /** Persists that this node has bootstrapped the cluster and is a member; resolves once that is durable, as the others do. */
  readonly persistBootstrapped: () => Promise<void>;
  readonly persistLifecycle: (lifecycle: 'recovering' | 'normal', directoryId: number) => Promise<void>;
  /** Makes the next incarnation's number higher than `incarnation`. */
  readonly raiseIncarnation: (incarnation: number) => Promise<void>;
  /** Remembers whether this node is the only voter, so that no other node could restore what it loses. */
  readonly persistAlone: (alone: boolean) => Promise<void>;
  /** The node is no longer a member: its process should say so and end. Called once. */
  readonly onRemoved: () => void;
}

/** The session under which this node proposes. Its lifecycle decides which one that is and when it begins. */
export interface OwnSession {
  readonly sessionId: number;
  /** The newest session id of this node from which the state machine has applied a batch; 0 for none. */
  readonly appliedSessionId: number;
  readonly mayPropose: boolean;
  /** Only before anything has been proposed. */
  changeSessionId(sessionId: number): void;
  startProposing(): void;
}

/**
 * A member that has heard no leader for so long also asks the nodes of its configuration file. Longer than several
 * contested elections take, so that an election alone opens no links.
 */
const LOST_ELECTION_TIMEOUTS = 10;

export class NodeLifecycle {
  readonly #options: LifecycleOptions;
  readonly #loop: Pick<NodeLoop, 'core' | 'put' | 'run' | 'fail'>;
  readonly #session: OwnSession;
  readonly #reads: Pick<ReadPath, 'onceCurrent'>;
  readonly #peers: Peers;
  readonly #bootstrap: Bootstrap;
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
  #isEnding = false;
  #removalReported = false;
  #quorumLossReported = false;
  #differenceReported = '';
  /** What was persisted last; null if that is still pending. */
  #alone: boolean | null = null;
  #notedAtMs = 0;

  constructor(
    options: LifecycleOptions,
    loop: Pick<NodeLoop, 'core' | 'put' | 'run' | 'fail'>,
    sender: Pick<Sender, 'tell'>,
    session: OwnSession,
    reads: Pick<ReadPath, 'onceCurrent'>,
  ) {
    this.#options = options;
    this.#loop = loop;
    this.#session = session;
    this.#reads = reads;
    this.#peers = new Peers(options, loop.core, sender);
    this.#bootstrap = new Bootstrap({
      core: loop.core,
      initialMembers: options.initialMembers,
      electionTimeoutMs: options.timing.electionTimeoutMs,
      isLost: () => this.#isLost,
      send: (to, news) => sender.tell(to, news),
      become: (lifecycle) => this.#become(lifecycle),
    });
  }

  begin(): void {
    const isMember = this.#loop.core.rights.lifecycle === 'normal';
    this.#bootstrap.begin();
    this.configured();
    if (isMember) this.#reads.onceCurrent(() => this.#caughtUp());
  }

  /** Everything acknowledged before this incarnation started is applied. */
  #caughtUp(): void {
    this.#onceSessionIdUnused(() => this.#session.startProposing());
  }

  /**
   * Calls back once the session id is above all that this node has applied. Takes a higher one if necessary, which is
   * possible because nothing has been proposed yet. It is persisted first, so that the next start continues above it.
   */
  #onceSessionIdUnused(callback: () => void): void {
    const { sessionId, appliedSessionId } = this.#session;
    if (appliedSessionId < sessionId) {
      callback();
      return;
    }
    const next = appliedSessionId + 1;
    this.#options.logger.warn(
      { sessionId, newestApplied: appliedSessionId },
      'session id already used: data directory wiped or restored, or clock set back; continuing with a higher one',
    );
    this.#oncePersisted(this.#options.raiseIncarnation(next), () => {
      this.#session.changeSessionId(next);
      this.#onceSessionIdUnused(callback);
    });
  }

  #oncePersisted(persisted: Promise<void>, action: () => void): void {
    persisted.then(
      () => this.#loop.run(action),
      (error) => this.#loop.fail(error),
    );
  }

  linkUp(peer: NodeId): void {
    this.#bootstrap.linkUp(peer);
  }

  linkLost(peer: NodeId): void {
    this.#withoutRights.delete(peer);
    this.#bootstrap.linkLost(peer);
  }

  receive(peer: NodeId, message: LifecycleMessage | MembersNews): void {
    if (message.kind === 'membersNews') {
      this.#peers.receive(message);
      return;
    }
    this.#rememberRights(peer, message.lifecycle === 'recovering');
    this.#bootstrap.receive(peer, message);
    this.#peers.tellMembers(peer);
  }

  /** To be called with every message of another core, before it is stepped. */
  hear(message: Message): void {
    if (message.kind === 'preVoteReply' || message.kind === 'voteReply') {
      this.#rememberRights(message.from, message.withoutRights);
    } else if (comesFromLeader(message) && this.#loop.core.rights.lifecycle === 'uninitialized') {
      // A node that hears a leader has found a cluster, even if all lifecycle messages were lost.
      this.#bootstrap.receive(message.from, { kind: 'lifecycle', lifecycle: 'normal', ready: true, nodes: [] });
    }
  }

  #rememberRights(peer: NodeId, withoutRights: boolean): void {
    if (withoutRights) this.#withoutRights.add(peer);
    else this.#withoutRights.delete(peer);
  }

  /** What an uninitialized node has turned out to be. */
  #become(lifecycle: 'recovering' | 'normal'): void {
    const { random, logger, persistBootstrapped, persistLifecycle } = this.#options;
    const directoryId = lifecycle === 'normal' ? 0 : newDirectoryId(random);
    const what =
      lifecycle === 'normal' ? 'bootstrapped a new cluster' : 'joining an existing cluster, without a vote yet';
    logger.info({ lifecycle }, what);
    const persisted = lifecycle === 'normal' ? persistBootstrapped() : persistLifecycle(lifecycle, directoryId);
    this.#oncePersisted(persisted, () => {
      this.#loop.put({ kind: 'lifecycle', lifecycle, directoryId });
      this.configured();
      this.#bootstrap.announce();
      if (lifecycle === 'normal') this.#session.startProposing();
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
    const { sessionId, appliedSessionId, mayPropose } = this.#session;
    // A restored disk has missed the starts of the disk that was in its place.
    if (mayPropose && appliedSessionId > sessionId) this.#endStaleSession(appliedSessionId);
    if (mayPropose || this.#earlierIncarnationsEndAt === 0 || appliedIndex < this.#earlierIncarnationsEndAt) return;
    this.#earlierIncarnationsEndAt = 0;
    this.#onceSessionIdUnused(() => this.#becomeMember(this.#loop.core.rights.directoryId));
  }

  /** Another incarnation has used our session id: from then on our proposals have no effect. */
  sessionUsed(): void {
    const { sessionId, appliedSessionId, mayPropose } = this.#session;
    if (mayPropose) this.#endStaleSession(Math.max(sessionId, appliedSessionId));
  }

  /** Our proposals have no effect, or are taken for another incarnation's. Persists a higher number and ends the process. */
  #endStaleSession(newestApplied: number): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    this.#oncePersisted(this.#options.raiseIncarnation(newestApplied), () =>
      this.#loop.fail(sessionBehind(this.#loop.core.id, this.#session.sessionId, newestApplied)),
    );
  }

  /** Persisted first: otherwise a crash could leave a voter that says that it has no rights. */
  #becomeMember(directoryId: number): void {
    this.#oncePersisted(this.#options.persistLifecycle('normal', directoryId), () => {
      this.#loop.put({ kind: 'lifecycle', lifecycle: 'normal', directoryId });
      this.configured();
      this.#bootstrap.announce();
      // An old disk may have been named before another took its place, whose batches come only now.
      this.#reads.onceCurrent(() => this.#caughtUp());
    });
  }

  /** A node of this cluster that is no peer asked for a link. */
  unknownPeer(peer: NodeId): void {
    this.#bootstrap.unknownPeer(peer);
  }

  /** To be called when the configuration in force changes. */
  configured(): void {
    this.#peers.update(this.#isLost);
    this.#persistAlone();
  }

  /**
   * A member persists whether it is the only voter, also if on one side of a joint configuration only: then no other node
   * could restore what it loses.
   */
  #persistAlone(): void {
    const { core } = this.#loop;
    // What a node that has lost its part of the cluster takes for the members may be long out of date.
    if (core.rights.lifecycle !== 'normal') return;
    const { voters, votersOutgoing } = core.configurations.current;
    const alone = [voters, votersOutgoing].some((group) => group.length === 1 && group[0] === core.id);
    if (alone === this.#alone) return;
    this.#alone = alone;
    this.#options.persistAlone(alone).catch((error: NodeJS.ErrnoException) => {
      // A node outlives a full disk; it tries again.
      if (error.code === 'ENOSPC') this.#alone = null;
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
    if (this.#alone === null && nowMs - this.#notedAtMs >= electionTimeoutMs) {
      this.#notedAtMs = nowMs;
      this.#persistAlone();
    }
    // Where no leader is heard, the others may know of members that this node does not, and say so in answer.
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
    const difference = this.#bootstrap.difference();
    const nodesDiffer = difference === '' ? '' : `${difference}. ${NODES_DIFFER_REMEDY}`;
    const { transport } = this.#options;
    return healthProblemOf(this.#loop.core, this.#withoutRights, (peer) => transport.isUp(peer), nodesDiffer);
  }
}

/** Directories are told apart by a random number below this, never 0. */
const DIRECTORY_IDS = 2 ** 48;

/** The id of a data directory that is empty or has lost something. */
export function newDirectoryId(random: () => number): number {
  return 1 + Math.floor(random() * (DIRECTORY_IDS - 1));
}

function comesFromLeader({ kind }: Message): boolean {
  return kind === 'append' || kind === 'heartbeat' || kind === 'commit' || kind === 'snapshotOffer';
}

const QUORUM_LOST_REMEDY =
  'Bring back the disks of these nodes, as they were when they last stopped; an older copy of one must not come back. ' +
  '`raftkv recover --force-new-cluster` goes on with what is left, `raftkv snapshot restore` with a backup.';

function sessionBehind(id: NodeId, sessionId: number, newestApplied: number): RaftkvError {
  return new RaftkvError(
    'SESSION_BEHIND',
    `node ${id} proposes under session id ${sessionId}, but session id ${newestApplied} is in the log already: its data directory is an older copy`,
    'Start the node again: it continues with a higher session id.',
  );
}
