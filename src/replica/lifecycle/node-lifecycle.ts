import { RaftkvError } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import type { Core } from '../../raft/core.ts';
import { type Input, type Message, NO_NODE, type NodeId } from '../../raft/types.ts';
import type { LifecycleMessage } from '../peers/wire.ts';
import { Bootstrap, NODES_DIFFER_REMEDY } from './bootstrap.ts';
import { healthProblemOf, lostQuorum } from './health.ts';

/**
 * What this node's data directory is good for, and what the others say of theirs (ADR 0008): bootstraps a new cluster, finds
 * its way into one that is there, and names who has lost data where that stops the cluster.
 */
export interface NodeLifecycleContext {
  readonly core: Core;
  readonly logger: Logger;
  /** The nodes that bootstrap the cluster if there is none yet; null if this node joins an existing one. */
  readonly initialMembers: readonly NodeId[] | null;
  /** The number under which this life proposes: its boot count, unless another life has used that. */
  readonly session: () => number;
  readonly knownMember: boolean;
  /** Calls back once a read that was asked for now may be served. */
  readonly onceCurrent: (callback: () => void) => void;
  readonly electionTimeoutMs: number;
  readonly newDirectoryId: () => number;
  readonly isLinked: (peer: NodeId) => boolean;
  readonly send: (to: NodeId, news: LifecycleMessage) => void;
  readonly step: (input: Input) => void;
  /** The newest session of this node from which the state machine has applied anything; 0 for none. */
  readonly appliedSession: () => number;
  /** Gives this life another session, before it has proposed anything. */
  readonly beginSession: (session: number) => void;
  /** These resolve once it is durable. */
  readonly persistBootstrapped: () => Promise<void>;
  readonly persistLifecycle: (lifecycle: 'recovering' | 'normal', directoryId: number) => Promise<void>;
  readonly raiseBootCount: (bootCount: number) => Promise<void>;
  /** Whether no other node could give back what this one loses. */
  readonly persistAlone: (alone: boolean) => Promise<void>;
  /** Runs what follows a promise within the loop's own guard. */
  readonly guard: (action: () => void) => void;
  readonly onMayPropose: () => void;
  readonly onRemoved: () => void;
  readonly onFatal: (error: unknown) => void;
}

/**
 * A member that has heard of no leader for so long asks whom else it can. Longer than elections take that are contested
 * several times, so that no link is opened for the sake of one.
 */
const LOST_ELECTION_TIMEOUTS = 10;

export class NodeLifecycle {
  /** No leader has been heard of for long: the members may be others than this node knows. */
  isLost = false;
  /**
   * No batch of another life of this node can have the session of this one. Known once all that other lives have left in
   * the log is applied: also where the data directory has counted its starts, since it may be an old one that was put
   * back. Nothing is proposed before.
   */
  mayPropose = false;
  private readonly context: NodeLifecycleContext;
  private readonly bootstrap: Bootstrap;
  /** Nodes that say that they have no rights. */
  private readonly withoutRights = new Set<NodeId>();
  /** Who says that this node was removed. */
  private readonly removedBy = new Set<NodeId>();
  /** All that earlier lives have left is applied from here on; 0 while that is not known. */
  private earlierLivesEndAt = 0;
  private announcedAtMs = 0;
  private leaderlessSinceMs: number | null = null;
  private countsOn = false;
  private removalTold = false;
  private quorumLossTold = false;
  private differenceTold = '';
  /** What was persisted last; null if that is still pending. */
  private alone: boolean | null = null;
  private notedAtMs = 0;

  constructor(context: NodeLifecycleContext) {
    this.context = context;
    this.bootstrap = new Bootstrap({
      ...context,
      isLost: () => this.isLost,
      become: (lifecycle) => this.become(lifecycle),
    });
  }

  begin(): void {
    this.bootstrap.begin();
    this.configured();
    if (this.context.knownMember) this.context.onceCurrent(() => this.caughtUp());
  }

  /** All that had been acknowledged when this life began is applied. */
  private caughtUp(): void {
    this.onceUnused(() => {
      this.mayPropose = true;
      this.context.onMayPropose();
    });
  }

  /**
   * Calls back once no other life can have used this one's session, as far as this node has applied; with a later session
   * where one has. Nothing has been proposed yet, so that the session can be changed; durably first, because the next
   * start must count on from there.
   */
  private onceUnused(callback: () => void): void {
    const { logger, session, appliedSession, raiseBootCount, beginSession, guard, onFatal } = this.context;
    const known = appliedSession();
    if (known < session()) {
      callback();
      return;
    }
    const next = known + 1;
    logger.warn({ session: session(), known }, 'lost count of its starts; counts on from what it wrote');
    raiseBootCount(next).then(
      () =>
        guard(() => {
          beginSession(next);
          this.onceUnused(callback);
        }),
      onFatal,
    );
  }

  linkUp(peer: NodeId): void {
    this.bootstrap.linkUp(peer);
  }

  linkLost(peer: NodeId): void {
    this.withoutRights.delete(peer);
    this.bootstrap.linkLost(peer);
  }

  receive(peer: NodeId, news: LifecycleMessage): void {
    this.rememberRights(peer, news.lifecycle === 'recovering');
    this.bootstrap.receive(peer, news);
  }

  /** To be called with every message of another core, before it is stepped. */
  hear(message: Message): void {
    if (message.kind === 'preVoteReply' || message.kind === 'voteReply') {
      this.rememberRights(message.from, message.withoutRights);
    } else if (comesFromLeader(message) && this.context.core.lifecycle === 'uninitialized') {
      // Whoever hears a leader has found a cluster, whatever was lost on the way.
      this.bootstrap.receive(message.from, { kind: 'lifecycle', lifecycle: 'normal', ready: true, nodes: [] });
    }
  }

  private rememberRights(peer: NodeId, withoutRights: boolean): void {
    if (withoutRights) this.withoutRights.add(peer);
    else this.withoutRights.delete(peer);
  }

  /** What an uninitialized node has turned out to be. */
  private become(lifecycle: 'recovering' | 'normal'): void {
    const { newDirectoryId, logger, persistBootstrapped, persistLifecycle, guard, step, onMayPropose, onFatal } =
      this.context;
    const directoryId = lifecycle === 'normal' ? 0 : newDirectoryId();
    const what =
      lifecycle === 'normal' ? 'bootstrapped a new cluster' : 'joining an existing cluster, without a vote yet';
    logger.info({ lifecycle }, what);
    const persisted = lifecycle === 'normal' ? persistBootstrapped() : persistLifecycle(lifecycle, directoryId);
    persisted.then(
      () =>
        guard(() => {
          if (lifecycle === 'normal') this.mayPropose = true;
          step({ kind: 'lifecycle', lifecycle, directoryId });
          this.configured();
          this.bootstrap.announce();
          if (lifecycle === 'normal') onMayPropose();
        }),
      onFatal,
    );
  }

  /**
   * A committed configuration names this directory, so it may become a member. What earlier lives with this directory had proposed
   * comes before that entry in every log, or never will be in one.
   */
  recovered(): void {
    const { core, logger } = this.context;
    logger.info({ directoryId: core.directoryId }, 'this data directory is in the committed configuration');
    this.earlierLivesEndAt = core.log.commitIndex;
    this.applied(core.log.appliedIndex);
  }

  /** To be called when entries have been applied. */
  applied(appliedIndex: number): void {
    const { core, session, appliedSession } = this.context;
    const known = appliedSession();
    // An old disk that was put back has counted fewer starts than the one that was there meanwhile.
    if (this.mayPropose && known > session()) this.countOn(known);
    if (this.mayPropose || this.earlierLivesEndAt === 0 || appliedIndex < this.earlierLivesEndAt) return;
    this.earlierLivesEndAt = 0;
    this.onceUnused(() => this.becomeMember(core.directoryId));
  }

  /** A batch that is not this life's own has used its session: from then on, what this one proposes has no effect. */
  sessionUsed(): void {
    const { session, appliedSession } = this.context;
    if (this.mayPropose) this.countOn(Math.max(session(), appliedSession()));
  }

  /** What this life proposed has no effect, or is taken for what another proposed: the next one does better. */
  private countOn(known: number): void {
    const { core, session, raiseBootCount, onFatal } = this.context;
    if (this.countsOn) return;
    this.countsOn = true;
    raiseBootCount(known).then(() => onFatal(sessionBehind(core.id, session(), known)), onFatal);
  }

  /** Only what is durable may count: a crash must not leave a voter that says that it is none. */
  private becomeMember(directoryId: number): void {
    const { persistLifecycle, guard, step, onceCurrent, onFatal } = this.context;
    persistLifecycle('normal', directoryId).then(
      () =>
        guard(() => {
          step({ kind: 'lifecycle', lifecycle: 'normal', directoryId });
          this.configured();
          this.bootstrap.announce();
          // An old disk may have been named before another took its place, whose batches come only now.
          onceCurrent(() => this.caughtUp());
        }),
      onFatal,
    );
  }

  /** A node of this cluster that is no peer asked for a link. */
  stranger(peer: NodeId): void {
    this.bootstrap.stranger(peer);
  }

  /**
   * To be called when another configuration is in force. A member remembers whether it is the only voter, be it on one
   * side of a joint configuration only: what it loses then nobody can give back.
   */
  configured(): void {
    const { core, persistAlone, onFatal } = this.context;
    // What a node that has lost its part of the cluster takes for the members may be long out of date.
    if (core.lifecycle !== 'normal') return;
    const { voters, votersOutgoing } = core.configuration;
    const alone = [voters, votersOutgoing].some((group) => group.length === 1 && group[0] === core.id);
    if (alone === this.alone) return;
    this.alone = alone;
    persistAlone(alone).catch((error: NodeJS.ErrnoException) => {
      // A node outlives a full disk; it tries again.
      if (error.code === 'ENOSPC') this.alone = null;
      else onFatal(error);
    });
  }

  /** Its peers know better than a node that was away; but one of them alone may be the one that is behind. */
  removedSays(peer: NodeId): void {
    const { core } = this.context;
    // A newcomer under an id that was used before waits to be added.
    if (core.lifecycle !== 'normal') return;
    this.removedBy.add(peer);
    const others = core.configuration.voters.filter((id) => id !== core.id);
    const agreeing = others.filter((id) => this.removedBy.has(id));
    if (agreeing.length * 2 > others.length) this.removed();
  }

  removed(): void {
    if (this.removalTold) return;
    this.removalTold = true;
    this.context.onRemoved();
  }

  tick(nowMs: number): void {
    const { core, electionTimeoutMs } = this.context;
    this.lookForLeader(nowMs);
    this.bootstrap.tick(nowMs);
    if (this.alone === null && nowMs - this.notedAtMs >= electionTimeoutMs) {
      this.notedAtMs = nowMs;
      this.configured();
    }
    // Where no leader is heard, the others may know of members that this node does not, and say so in answer.
    const seeksOthers = core.lifecycle === 'uninitialized' || core.term === 0 || core.leader === NO_NODE;
    if (seeksOthers && nowMs - this.announcedAtMs >= electionTimeoutMs) {
      this.announcedAtMs = nowMs;
      this.bootstrap.announce();
    }
    this.reportQuorumLoss();
    this.reportDifference();
  }

  private lookForLeader(nowMs: number): void {
    const { core, electionTimeoutMs } = this.context;
    this.leaderlessSinceMs = core.leader === NO_NODE ? (this.leaderlessSinceMs ?? nowMs) : null;
    const sinceMs = this.leaderlessSinceMs;
    this.isLost = sinceMs !== null && nowMs - sinceMs >= LOST_ELECTION_TIMEOUTS * electionTimeoutMs;
  }

  private reportQuorumLoss(): void {
    const { core, logger } = this.context;
    const lost = core.leader === NO_NODE ? lostQuorum(core, this.withoutRights) : '';
    if (lost !== '' && !this.quorumLossTold) logger.error({ code: 'QUORUM_LOST', remedy: QUORUM_LOST_REMEDY }, lost);
    this.quorumLossTold = lost !== '';
  }

  private reportDifference(): void {
    const difference = this.bootstrap.difference();
    const isNews = difference !== '' && difference !== this.differenceTold;
    if (isNews) this.context.logger.error({ code: 'CONFIG_INVALID', remedy: NODES_DIFFER_REMEDY }, difference);
    this.differenceTold = difference;
  }

  healthProblem(): string {
    const difference = this.bootstrap.difference();
    const nodesDiffer = difference === '' ? '' : `${difference}. ${NODES_DIFFER_REMEDY}`;
    return healthProblemOf(this.context.core, this.withoutRights, this.context.isLinked, nodesDiffer);
  }
}

function comesFromLeader({ kind }: Message): boolean {
  return kind === 'append' || kind === 'heartbeat' || kind === 'commit' || kind === 'snapshotOffer';
}

const QUORUM_LOST_REMEDY =
  'Bring back the disks of these nodes, as they were when they last stopped; an older copy of one must not come back. ' +
  '`raftkv recover --force-new-cluster` goes on with what is left, `raftkv snapshot restore` with a backup.';

function sessionBehind(id: NodeId, session: number, known: number): RaftkvError {
  return new RaftkvError(
    'SESSION_BEHIND',
    `node ${id} lost count of its starts: this is number ${session}, and number ${known} has written already`,
    'Start it again: it now counts on from there.',
  );
}
