import { RaftkvError } from '../base/errors.ts';
import { EMPTY_CONFIGURATION } from './configuration.ts';
import {
  becomeFollower,
  type Core,
  type CoreOptions,
  emptyEffects,
  type IndexedConfiguration,
  isQuorum,
  type Leadership,
  resetElectionTimer,
  send,
} from './core.ts';
import { diskFullChanged, tickDiskFull, updateClusterFull } from './disk-room.ts';
import {
  handlePreVote,
  handlePreVoteReply,
  handleVote,
  handleVoteReply,
  ignoresVote,
  leaderLinkLost,
  ownVotePersisted,
  tickElection,
} from './election.ts';
import { sealEntry } from './entry.ts';
import type { RaftLog } from './log.ts';
import {
  changeMembers,
  configurationsRecovered,
  continueChange,
  handleRecovering,
  tickLearners,
  tickMembership,
} from './membership.ts';
import { confirmReads, handleReadIndex, handleReadIndexReply, readLocally, releaseHeldReads } from './reads.ts';
import {
  advanceCommit,
  appendAsLeader,
  broadcastAppends,
  broadcastHeartbeat,
  followLeader,
  handleAppend,
  handleAppendReply,
  handleCommit,
  handleHeartbeat,
  handleHeartbeatReply,
  handleReadBack,
  recheckLaggards,
  sendAppends,
} from './replication.ts';
import { reportRecovery, setLifecycle, withoutRights } from './rights.ts';
import {
  compact,
  handleSnapshotOffer,
  type SnapshotMark,
  snapshotReceived,
  snapshotStalled,
  snapshotStored,
  tickCatchUps,
} from './snapshot.ts';
import { continueTransfer, handleTimeoutNow, startTransfer, tickStalledDisk, tickTransfer } from './transfer.ts';
import { type Effects, type HardState, type Input, type LifecycleStatus, type Message, NO_NODE } from './types.ts';

/** What a node begins with: what it remembers, or nothing. */
export interface RaftStart extends CoreOptions {
  readonly id: number;
  readonly log: RaftLog;
  /**
   * By index, ascending, at least one: that of the newest snapshot, under its index, or without one that of a new
   * cluster, or the empty one of a newcomer, under 0; then those that the log holds behind it.
   */
  readonly configurations: readonly IndexedConfiguration[];
  /** The newest durable one. */
  readonly snapshot: SnapshotMark | null;
  readonly hardState: HardState;
  readonly lifecycle: LifecycleStatus;
  /** See `MemberDetail.directoryId`. */
  readonly directoryId: number;
}

/**
 * The Raft algorithm, pure: this folder promises that the same start, inputs and random numbers give the same effects,
 * and that it touches no clock, timer, socket, file or other source of chance. Sections (§) are those of Ongaro's
 * dissertation, "Consensus: Bridging Theory and Practice".
 *
 *   tick, message, proposal, read, "the disk has caught up" ──▶ step ──▶ hard state and entries for the disk,
 *                                                                       messages now, messages after the disk,
 *                                                                       commit index, reads that may be served
 *
 * election.ts    who leads            replication.ts  entries and commitment
 * reads.ts       linearizable reads   transfer.ts     handing over
 * log.ts         one node's log       progress.ts     what the leader knows of one follower
 * snapshot.ts    what the log leaves  quorum.ts       majorities
 * membership.ts  changing the voters  configuration.ts  who they are
 * rights.ts      who has rights       disk-room.ts    full disks
 * invariants.ts  what must always be true
 */
export class Raft {
  /** For invariants, status and tests: to be looked at, never changed. */
  readonly core: Core;

  constructor(options: RaftStart) {
    const { id, log, hardState, lifecycle, directoryId } = options;
    this.core = {
      id,
      options,
      log,
      snapshot: options.snapshot,
      configurations: [...options.configurations],
      configuration: EMPTY_CONFIGURATION,
      committedConfigurationIndex: 0,
      lifecycle,
      directoryId,
      isSuperseded: false,
      recoveringElapsed: 0,
      heardCommitIndex: 0,
      removalReported: false,
      recoveryReported: false,
      diskFull: false,
      clusterFull: false,
      role: 'follower',
      term: hardState.term,
      vote: hardState.vote,
      leader: NO_NODE,
      emitted: hardState,
      persistedTerm: hardState.term,
      persistedVote: hardState.vote,
      electionElapsed: 0,
      electionDeadline: 0,
      quickCampaignsLeft: 0,
      votes: new Map(),
      round: 0,
      leading: null,
      effects: emptyEffects(),
    };
    log.commitIndex = Math.max(log.commitIndex, Math.min(hardState.commitIndex, log.lastIndex));
    configurationsRecovered(this.core);
    resetElectionTimer(this.core);
  }

  /** Whether a `propose` would be taken now. */
  get acceptsProposals(): boolean {
    return this.core.leading !== null && this.core.leading.transfer === null;
  }

  /** The one way in. The effects are the caller's to carry out, in the order of their fields, before the next step. */
  step(input: Input): Effects {
    const { core } = this;
    core.effects = emptyEffects();
    if (input.kind === 'applied') {
      // Nothing comes of it. A snapshot may have been put in place of what was being applied.
      core.log.appliedIndex = Math.max(core.log.appliedIndex, input.index);
      return core.effects;
    }
    const committedBefore = core.log.commitIndex;
    const configurationBefore = core.configuration;
    dispatch(core, input, this.acceptsProposals);
    if (core.leading !== null) continueChange(core, core.leading);
    if (core.lifecycle === 'recovering') reportRecovery(core);
    if (core.configuration !== configurationBefore) configurationChanged(core);
    if (core.term !== core.emitted.term || core.vote !== core.emitted.vote) {
      // Written ahead of this step's entries and of the truncation that makes room for them, the hint may rest on neither.
      core.emitted = { term: core.term, vote: core.vote, commitIndex: committedBefore };
      core.effects.hardState = core.emitted;
    }
    return core.effects;
  }
}

/** The new quorum may be smaller and may have answered already, so that no further answer would trigger these checks. */
function configurationChanged(core: Core): void {
  core.effects.configuration = core.configuration;
  if (core.leading === null) return;
  advanceCommit(core);
  releaseHeldReads(core);
  confirmReads(core);
}

function dispatch(core: Core, input: Exclude<Input, { kind: 'applied' }>, acceptsProposals: boolean): void {
  switch (input.kind) {
    case 'tick':
      if (core.leading === null) tickElection(core);
      else tickLeader(core, core.leading);
      return;
    case 'receive':
      receive(core, input.message);
      return;
    case 'propose':
      if (acceptsProposals) propose(core, input.batches);
      else core.effects.proposeRejected = true;
      return;
    case 'read':
      readLocally(core, input.id);
      return;
    case 'persisted':
      persisted(core, input.term, input.index, input.hardState);
      return;
    case 'readBack':
      handleReadBack(core, input.peer, input.entries);
      return;
    case 'linkLost':
      if (core.leading !== null) core.leading.progress.get(input.peer)?.linkLost(core.log.snapshotIndex);
      else if (core.leader === input.peer) leaderLinkLost(core);
      return;
    case 'linkUp':
      linkUp(core, input.peer);
      return;
    case 'transferLeadership':
      startTransfer(core, input.to);
      return;
    case 'snapshotStored':
      snapshotStored(core, input.index, input.term);
      return;
    case 'compact':
      compact(core, input.index);
      return;
    case 'snapshotReceived':
      snapshotReceived(core, input.index, input.term, input.configuration);
      return;
    case 'snapshotStalled':
      snapshotStalled(core, input.peer);
      return;
    case 'changeMembers':
      changeMembers(core, input.id, input.change);
      return;
    case 'lifecycle':
      setLifecycle(core, input.lifecycle, input.directoryId);
      return;
    case 'diskFull':
      diskFullChanged(core, input.full);
      return;
  }
}

function propose(core: Core, batches: readonly Buffer[]): void {
  for (const bytes of batches) {
    appendAsLeader(core, sealEntry(bytes, 'data', core.term, core.log.lastIndex + 1));
  }
  broadcastAppends(core);
}

/** Completions name the term as well: an entry of that index may have been replaced since (ra 637). */
function persisted(core: Core, term: number, index: number, hardState: HardState | null): void {
  const { log } = core;
  if (hardState !== null && hardState.term >= core.persistedTerm) {
    core.persistedTerm = hardState.term;
    core.persistedVote = hardState.vote;
    ownVotePersisted(core);
  }
  if (index > log.persistedIndex && log.termAt(index) === term) {
    log.persistedIndex = index;
    log.evict();
    advanceCommit(core);
    releaseHeldReads(core);
  }
}

function linkUp(core: Core, peer: number): void {
  const progress = core.leading?.progress.get(peer);
  if (progress === undefined) return;
  progress.linkUp(core.log.snapshotIndex);
  sendAppends(core, peer, progress);
}

function tickLeader(core: Core, leading: Leadership): void {
  leading.ticks++;
  leading.quorumCheckElapsed++;
  if (leading.quorumCheckElapsed >= core.options.electionTimeoutTicks) {
    leading.quorumCheckElapsed = 0;
    // CheckQuorum (§6.2): a leader that a quorum no longer answers makes room, and its clients look elsewhere.
    if (!isQuorum(core, (id) => id === core.id || isActive(leading, id))) {
      becomeFollower(core, core.term, NO_NODE);
      return;
    }
    for (const progress of leading.progress.values()) progress.recentActive = false;
  }
  tickTransfer(core, leading);
  tickStalledDisk(core, leading);
  tickDiskFull(core, leading);
  tickMembership(core, leading);
  leading.heartbeatElapsed++;
  if (leading.heartbeatElapsed < core.options.heartbeatIntervalTicks) return;
  // Rounds begun by reads do not put this off: however many there are, what was lost must be found.
  leading.heartbeatElapsed = 0;
  updateClusterFull(core, leading);
  broadcastHeartbeat(core);
  recheckLaggards(core, leading);
  tickCatchUps(core, leading);
  continueTransfer(core);
  tickLearners(core, leading);
}

function isActive(leading: Leadership, id: number): boolean {
  const progress = leading.progress.get(id);
  return progress?.hasRights === true && progress.recentActive;
}

function receive(core: Core, message: Message): void {
  if (message.to !== core.id) return;
  if (message.term > core.term && !meetHigherTerm(core, message)) return;
  if (message.term < core.term) {
    answerOlderTerm(core, message);
    return;
  }
  handle(core, message);
}

/** Takes up the higher term, unless the message only speaks of one. False where it is to be ignored. */
function meetHigherTerm(core: Core, message: Message): boolean {
  switch (message.kind) {
    case 'preVote':
      return true;
    case 'preVoteReply':
      if (!message.granted) becomeFollower(core, message.term, NO_NODE);
      return true;
    case 'vote':
      if (ignoresVote(core, message)) return false;
      becomeFollower(core, message.term, NO_NODE);
      return true;
    case 'append':
    case 'heartbeat':
    case 'commit':
    case 'snapshotOffer':
      becomeFollower(core, message.term, message.from);
      return true;
    case 'voteReply':
    case 'appendReply':
    case 'heartbeatReply':
    case 'timeoutNow':
    case 'readIndex':
    case 'readIndexReply':
    case 'recovering':
      becomeFollower(core, message.term, NO_NODE);
      return true;
  }
}

/** Tells the sender of an older term of ours, where that helps it to step down or to catch up. */
function answerOlderTerm(core: Core, message: Message): void {
  const { id: from, term } = core;
  const to = message.from;
  switch (message.kind) {
    case 'preVote':
    case 'vote':
      handle(core, message);
      return;
    case 'append':
    case 'heartbeat':
    case 'snapshotOffer':
      // A leader that was partitioned in an old term, whose peers all know a newer one, must learn of it (etcd 8243).
      refuseAppend(core, to);
      return;
    case 'readIndex':
      send(core, { kind: 'readIndexReply', from, to, term, id: message.id, index: -1 });
      return;
    case 'readIndexReply':
      // What the leader of that term confirmed was asked for before, so it still holds; and a refusal is one.
      handle(core, message);
      return;
    case 'preVoteReply':
    case 'voteReply':
    case 'appendReply':
    case 'heartbeatReply':
    case 'commit':
    case 'timeoutNow':
    case 'recovering':
      return;
  }
}

function refuseAppend(core: Core, to: number): void {
  const { id: from, term, directoryId, diskFull } = core;
  const nothing = { success: false, index: 0, hintIndex: 0, hintTerm: 0 };
  send(core, {
    kind: 'appendReply',
    from,
    to,
    term,
    ...nothing,
    directoryId,
    withoutRights: withoutRights(core),
    diskFull,
  });
}

function handle(core: Core, message: Message): void {
  switch (message.kind) {
    case 'preVote':
      handlePreVote(core, message);
      return;
    case 'preVoteReply':
      handlePreVoteReply(core, message);
      return;
    case 'vote':
      handleVote(core, message);
      return;
    case 'voteReply':
      handleVoteReply(core, message);
      return;
    case 'append':
    case 'heartbeat':
    case 'commit':
    case 'snapshotOffer':
      handleFromLeader(core, message);
      return;
    case 'appendReply':
      handleAppendReply(core, message);
      releaseHeldReads(core);
      continueTransfer(core);
      return;
    case 'heartbeatReply':
      handleHeartbeatReply(core, message);
      confirmReads(core);
      return;
    case 'timeoutNow':
      handleTimeoutNow(core, message);
      return;
    case 'readIndex':
      handleReadIndex(core, message);
      return;
    case 'readIndexReply':
      handleReadIndexReply(core, message);
      return;
    case 'recovering':
      handleRecovering(core, message);
      return;
  }
}

type FromLeader = Extract<Message, { kind: 'append' | 'heartbeat' | 'commit' | 'snapshotOffer' }>;

function handleFromLeader(core: Core, message: FromLeader): void {
  if (core.leading !== null) {
    throw new RaftkvError('INVARIANT_BROKEN', `nodes ${core.id} and ${message.from} both lead in term ${core.term}`);
  }
  followLeader(core, message.from);
  if ('commitIndex' in message) core.heardCommitIndex = Math.max(core.heardCommitIndex, message.commitIndex);
  switch (message.kind) {
    case 'append':
      handleAppend(core, message);
      return;
    case 'heartbeat':
      handleHeartbeat(core, message);
      return;
    case 'commit':
      handleCommit(core, message);
      return;
    case 'snapshotOffer':
      handleSnapshotOffer(core, message);
      return;
  }
}
