import { RaftkvError } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import type { Core } from '../../raft/state/core.ts';
import { type Message, NO_NODE, type NodeId } from '../../raft/state/types.ts';
import type { ReplicaInput } from '../input-queue.ts';
import type { LifecycleMessage } from '../peers/wire.ts';
import { Bootstrap, NODES_DIFFER_REMEDY } from './bootstrap.ts';
import { healthProblemOf, lostQuorum } from './health.ts';

/**
 * The lifecycle of this node's data directory, beside what the other nodes say of theirs (ADR 0008): bootstraps a new cluster,
 * joins an existing one, and names the nodes that lost data if that stops the cluster.
 */
export interface NodeLifecycleContext {
  readonly core: Core;
  readonly logger: Logger;
  /** The nodes that bootstrap the cluster if there is none yet; null if this node joins an existing one. */
  readonly initialMembers: readonly NodeId[] | null;
  /** The session id under which this node proposes: the number of its incarnation, or a higher one if that was used already. */
  readonly sessionId: () => number;
  readonly knownMember: boolean;
  /** Calls back once a read that was asked for now may be served. */
  readonly onceCurrent: (callback: () => void) => void;
  readonly electionTimeoutMs: number;
  readonly newDirectoryId: () => number;
  readonly isLinked: (peer: NodeId) => boolean;
  readonly send: (to: NodeId, news: LifecycleMessage) => void;
  readonly put: (input: ReplicaInput) => void;
  /** The newest session id of this node from which the state machine has applied a batch; 0 for none. */
  readonly appliedSessionId: () => number;
  /** Gives this incarnation another session id. Only before it has proposed anything. */
  readonly changeSessionId: (sessionId: number) => void;
  /** These resolve once it is durable. */
  readonly persistBootstrapped: () => Promise<void>;
  readonly persistLifecycle: (lifecycle: 'recovering' | 'normal', directoryId: number) => Promise<void>;
  readonly raiseIncarnation: (incarnation: number) => Promise<void>;
  /** Whether no other node could restore what this one loses. */
  readonly persistAlone: (alone: boolean) => Promise<void>;
  /** Runs what follows a promise within the loop's own guard. */
  readonly guard: (action: () => void) => void;
  readonly onMayPropose: () => void;
  readonly onRemoved: () => void;
  readonly onFatal: (error: unknown) => void;
}

/**
 * A member that has heard no leader for so long also asks the nodes of its configuration file. Longer than several
 * contested elections take, so that an election alone opens no links.
 */
const LOST_ELECTION_TIMEOUTS = 10;

export class NodeLifecycle {
  /** No leader has been heard of for long: the members may be others than this node knows. */
  isLost = false;
  /**
   * True once no earlier incarnation of this node can have used our session id, that is, after we applied everything
   * that was committed before we started. Until then we must not propose: the directory may be a restored backup.
   */
  mayPropose = false;
  readonly #context: NodeLifecycleContext;
  readonly #bootstrap: Bootstrap;
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

  constructor(context: NodeLifecycleContext) {
    this.#context = context;
    this.#bootstrap = new Bootstrap({
      ...context,
      isLost: () => this.isLost,
      become: (lifecycle) => this.#become(lifecycle),
    });
  }

  begin(): void {
    this.#bootstrap.begin();
    this.configured();
    if (this.#context.knownMember) this.#context.onceCurrent(() => this.#caughtUp());
  }

  /** Everything acknowledged before this incarnation started is applied. */
  #caughtUp(): void {
    this.#onceSessionIdUnused(() => {
      this.mayPropose = true;
      this.#context.onMayPropose();
    });
  }

  /**
   * Calls back once the session id is above all that this node has applied. Takes a higher one if necessary, which is
   * possible because nothing has been proposed yet. It is persisted first, so that the next start continues above it.
   */
  #onceSessionIdUnused(callback: () => void): void {
    const { logger, sessionId, appliedSessionId, raiseIncarnation, changeSessionId, guard, onFatal } = this.#context;
    const newestApplied = appliedSessionId();
    if (newestApplied < sessionId()) {
      callback();
      return;
    }
    const next = newestApplied + 1;
    logger.warn(
      { sessionId: sessionId(), newestApplied },
      'session id already used: data directory wiped or restored, or clock set back; continuing with a higher one',
    );
    raiseIncarnation(next).then(
      () =>
        guard(() => {
          changeSessionId(next);
          this.#onceSessionIdUnused(callback);
        }),
      onFatal,
    );
  }

  linkUp(peer: NodeId): void {
    this.#bootstrap.linkUp(peer);
  }

  linkLost(peer: NodeId): void {
    this.#withoutRights.delete(peer);
    this.#bootstrap.linkLost(peer);
  }

  receive(peer: NodeId, news: LifecycleMessage): void {
    this.#rememberRights(peer, news.lifecycle === 'recovering');
    this.#bootstrap.receive(peer, news);
  }

  /** To be called with every message of another core, before it is stepped. */
  hear(message: Message): void {
    if (message.kind === 'preVoteReply' || message.kind === 'voteReply') {
      this.#rememberRights(message.from, message.withoutRights);
    } else if (comesFromLeader(message) && this.#context.core.rights.lifecycle === 'uninitialized') {
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
    const { newDirectoryId, logger, persistBootstrapped, persistLifecycle, guard, put, onMayPropose, onFatal } =
      this.#context;
    const directoryId = lifecycle === 'normal' ? 0 : newDirectoryId();
    const what =
      lifecycle === 'normal' ? 'bootstrapped a new cluster' : 'joining an existing cluster, without a vote yet';
    logger.info({ lifecycle }, what);
    const persisted = lifecycle === 'normal' ? persistBootstrapped() : persistLifecycle(lifecycle, directoryId);
    persisted.then(
      () =>
        guard(() => {
          if (lifecycle === 'normal') this.mayPropose = true;
          put({ kind: 'lifecycle', lifecycle, directoryId });
          this.configured();
          this.#bootstrap.announce();
          if (lifecycle === 'normal') onMayPropose();
        }),
      onFatal,
    );
  }

  /**
   * A committed configuration names this directory id, so the node may become a member. Every batch that earlier
   * incarnations on this directory proposed comes before that entry in every log, or is lost.
   */
  recovered(): void {
    const { core, logger } = this.#context;
    logger.info({ directoryId: core.rights.directoryId }, 'this data directory is in the committed configuration');
    this.#earlierIncarnationsEndAt = core.log.commitIndex;
    this.applied(core.log.appliedIndex);
  }

  /** To be called when entries have been applied. */
  applied(appliedIndex: number): void {
    const { core, sessionId, appliedSessionId } = this.#context;
    const newestApplied = appliedSessionId();
    // A restored disk has missed the starts of the disk that was in its place.
    if (this.mayPropose && newestApplied > sessionId()) this.#endStaleSession(newestApplied);
    if (this.mayPropose || this.#earlierIncarnationsEndAt === 0 || appliedIndex < this.#earlierIncarnationsEndAt)
      return;
    this.#earlierIncarnationsEndAt = 0;
    this.#onceSessionIdUnused(() => this.#becomeMember(core.rights.directoryId));
  }

  /** Another incarnation has used our session id: from then on our proposals have no effect. */
  sessionUsed(): void {
    const { sessionId, appliedSessionId } = this.#context;
    if (this.mayPropose) this.#endStaleSession(Math.max(sessionId(), appliedSessionId()));
  }

  /** Our proposals have no effect, or are taken for another incarnation's. Persists a higher number and ends the process. */
  #endStaleSession(newestApplied: number): void {
    const { core, sessionId, raiseIncarnation, onFatal } = this.#context;
    if (this.#isEnding) return;
    this.#isEnding = true;
    raiseIncarnation(newestApplied).then(() => onFatal(sessionBehind(core.id, sessionId(), newestApplied)), onFatal);
  }

  /** Persisted first: otherwise a crash could leave a voter that says that it has no rights. */
  #becomeMember(directoryId: number): void {
    const { persistLifecycle, guard, put, onceCurrent, onFatal } = this.#context;
    persistLifecycle('normal', directoryId).then(
      () =>
        guard(() => {
          put({ kind: 'lifecycle', lifecycle: 'normal', directoryId });
          this.configured();
          this.#bootstrap.announce();
          // An old disk may have been named before another took its place, whose batches come only now.
          onceCurrent(() => this.#caughtUp());
        }),
      onFatal,
    );
  }

  /** A node of this cluster that is no peer asked for a link. */
  unknownPeer(peer: NodeId): void {
    this.#bootstrap.unknownPeer(peer);
  }

  /**
   * To be called when the configuration in force changes. A member persists whether it is the only voter, also if on one
   * side of a joint configuration only: then no other node could restore what it loses.
   */
  configured(): void {
    const { core, persistAlone, onFatal } = this.#context;
    // What a node that has lost its part of the cluster takes for the members may be long out of date.
    if (core.rights.lifecycle !== 'normal') return;
    const { voters, votersOutgoing } = core.configurations.current;
    const alone = [voters, votersOutgoing].some((group) => group.length === 1 && group[0] === core.id);
    if (alone === this.#alone) return;
    this.#alone = alone;
    persistAlone(alone).catch((error: NodeJS.ErrnoException) => {
      // A node outlives a full disk; it tries again.
      if (error.code === 'ENOSPC') this.#alone = null;
      else onFatal(error);
    });
  }

  /**
   * A peer refused a link because its committed configuration says that this node was removed. This is the only way in
   * which a node learns of its removal. It ends once a majority of the voters that it knows say so: a single one may have
   * an older configuration than this node, from before this node was added again.
   */
  removedSays(peer: NodeId): void {
    const { core } = this.#context;
    // A node without rights may be a new one under an id that was used before, and wait to be added. The addition may be in
    // its own log already while the nodes that refuse it still lack that entry.
    if (core.rights.lifecycle !== 'normal') return;
    this.#removedBy.add(peer);
    const others = core.configurations.current.voters.filter((id) => id !== core.id);
    const agreeing = others.filter((id) => this.#removedBy.has(id));
    if (agreeing.length * 2 <= others.length || this.#removalReported) return;
    this.#removalReported = true;
    this.#context.onRemoved();
  }

  tick(nowMs: number): void {
    const { core, electionTimeoutMs } = this.#context;
    this.#lookForLeader(nowMs);
    this.#bootstrap.tick(nowMs);
    if (this.#alone === null && nowMs - this.#notedAtMs >= electionTimeoutMs) {
      this.#notedAtMs = nowMs;
      this.configured();
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
    const { core, electionTimeoutMs } = this.#context;
    this.#leaderlessSinceMs = core.leader === NO_NODE ? (this.#leaderlessSinceMs ?? nowMs) : null;
    const sinceMs = this.#leaderlessSinceMs;
    this.isLost = sinceMs !== null && nowMs - sinceMs >= LOST_ELECTION_TIMEOUTS * electionTimeoutMs;
  }

  #reportQuorumLoss(): void {
    const { core, logger } = this.#context;
    const lost = core.leader === NO_NODE ? lostQuorum(core, this.#withoutRights) : '';
    if (lost !== '' && !this.#quorumLossReported)
      logger.error({ code: 'QUORUM_LOST', remedy: QUORUM_LOST_REMEDY }, lost);
    this.#quorumLossReported = lost !== '';
  }

  #reportDifference(): void {
    const difference = this.#bootstrap.difference();
    const isNews = difference !== '' && difference !== this.#differenceReported;
    if (isNews) this.#context.logger.error({ code: 'CONFIG_INVALID', remedy: NODES_DIFFER_REMEDY }, difference);
    this.#differenceReported = difference;
  }

  healthProblem(): string {
    const difference = this.#bootstrap.difference();
    const nodesDiffer = difference === '' ? '' : `${difference}. ${NODES_DIFFER_REMEDY}`;
    return healthProblemOf(this.#context.core, this.#withoutRights, this.#context.isLinked, nodesDiffer);
  }
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
