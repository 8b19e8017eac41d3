import { diskFullChanged, tickDiskFull, updateClusterFull } from './disk-room.ts';
import { leaderLinkLost, ownVotePersisted, tickElection } from './election.ts';
import { changeMembers, continueChange, promoteCaughtUp } from './membership.ts';
import { receive } from './messages.ts';
import { appendToLog } from './own-log.ts';
import { confirmReads, readLocally, releaseHeldReads } from './reads.ts';
import {
  advanceCommit,
  broadcastAppends,
  broadcastHeartbeat,
  handleReadBack,
  recheckLaggards,
  sendAppends,
} from './replication.ts';
import { beginCluster, reportRecovery, setLifecycle, updateRights } from './rights.ts';
import { compact, snapshotReceived, snapshotStalled, snapshotStored, tickCatchUps } from './snapshot.ts';
import { ConfigurationTracker, type IndexedConfiguration } from './state/configuration-tracker.ts';
import {
  becomeFollower,
  type Core,
  type CoreOptions,
  emptyEffects,
  isQuorum,
  type Leadership,
  resetElectionTimer,
} from './state/core.ts';
import { sealEntry } from './state/entry.ts';
import type { RaftLog } from './state/log.ts';
import {
  type Effects,
  type HardState,
  type Input,
  type LifecycleStatus,
  NO_NODE,
  type SnapshotMark,
} from './state/types.ts';
import { continueTransfer, startTransfer, tickStalledDisk, tickTransfer } from './transfer.ts';

/** Initial state: recovered from disk, or empty. */
export interface RaftStart extends CoreOptions {
  readonly id: number;
  readonly log: RaftLog;
  /**
   * By index, ascending, at least one. First that of the newest snapshot, under its index; without a snapshot that of a
   * new cluster, or the empty one of a node that joins, under index 0. Then those that the log holds behind it.
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
 * The Raft algorithm, pure. This folder promises that the same start, inputs and random numbers give the same effects, and
 * that it touches no clock, timer, socket, file or other source of chance. Sections (§) are those of Ongaro's
 * dissertation, "Consensus: Bridging Theory and Practice"; docs/raft-tour.md has a table of the paper's sections. Names
 * with a number, as "(etcd 8243)", are issues of other implementations that had the bug which the code avoids. To see
 * what a guard is for, look for its line in test/sim/mutants: each deliberate fault there removes one.
 *
 *   tick, message, proposal, read, "the disk has caught up" ──▶ step ──▶ hard state and entries for the disk,
 *                                                                       messages now, messages after the disk,
 *                                                                       reads that may be served
 *
 * How far the log is committed is no effect: the caller reads `RaftLog.commitIndex` after the step.
 *
 * Files in the order in which to read them; each imports only from those above it:
 *
 *   state/types.ts            messages, inputs and effects: the paper's RPCs
 *   state/quorum.ts           what a majority decided            state/entry.ts  one log entry and its bytes
 *   state/configuration.ts    who the members are                state/configuration-tracker.ts  and since which entry
 *   state/log.ts              one node's log
 *   state/inflights.ts, state/catch-up.ts, state/progress.ts     what the leader knows of one follower
 *   state/core.ts             everything that one node knows: the paper's "State"
 *   rights.ts                 whose words count
 *   followers.ts, own-log.ts  changes of the leader's followers and of the node's own log
 *   replication.ts            the leader's side                  following.ts  the follower's side
 *   election.ts               who leads                          reads.ts      linearizable reads
 *   snapshot.ts               compaction                         transfer.ts   handing over leadership
 *   membership.ts             changing the members               disk-room.ts  full disks
 *   messages.ts               one table: each kind of message, each relation of terms
 *   raft.ts                   one step                           invariants.ts what must always be true
 */
export class Raft {
  /** For invariants, status and tests: to be read, never changed. */
  readonly core: Core;

  constructor(options: RaftStart) {
    const { id, log, hardState, lifecycle, directoryId } = options;
    // So that a node can apply what it knew to be committed before it hears a leader. The hint may be beyond the log: an
    // entry can be committed by the others' disks before it is on this one.
    log.commitIndex = Math.max(log.commitIndex, Math.min(hardState.commitIndex, log.lastIndex));
    this.core = {
      id,
      options,
      role: 'follower',
      term: hardState.term,
      vote: hardState.vote,
      leader: NO_NODE,
      log,
      configurations: new ConfigurationTracker(options.configurations, log.commitIndex, log.snapshotIndex),
      leading: null,
      snapshot: options.snapshot,
      now: 0,
      timerStartedAt: 0,
      electionTimeout: 0,
      quickCampaignsLeft: 0,
      votes: new Map(),
      emitted: hardState,
      persisted: hardState,
      round: 0,
      rights: { lifecycle, directoryId, isSuperseded: false, askAgainAt: 0, recoveryReported: false },
      diskFull: false,
      clusterFull: false,
      effects: emptyEffects(),
    };
    updateRights(this.core);
    resetElectionTimer(this.core);
  }

  /**
   * Whether a `propose` would be taken now. Not while leadership is being handed over: the target must hold the whole log
   * before it may campaign, and would never do so while the log grows.
   */
  get acceptsProposals(): boolean {
    return this.core.leading !== null && this.core.leading.transfer === null;
  }

  /**
   * The one way in: takes one input and returns what the caller must do before the next step. The caller may do it in any
   * order that keeps two rules: `sendAfterPersist` waits until `hardState`, `append` and everything emitted before are on
   * disk; and `install` comes before anything is applied.
   */
  step(input: Input): Effects {
    const { core } = this;
    core.effects = emptyEffects();
    if (input.kind === 'applied') {
      // Has no effects. A snapshot may have replaced what was being applied, so the index must not go back.
      core.log.appliedIndex = Math.max(core.log.appliedIndex, input.index);
      return core.effects;
    }
    const committedBefore = core.log.commitIndex;
    const configurationBefore = core.configurations.current;
    dispatch(core, input, this.acceptsProposals);
    if (core.leading !== null) continueChange(core, core.leading);
    if (core.rights.lifecycle === 'recovering') reportRecovery(core);
    if (core.configurations.current !== configurationBefore) configurationChanged(core);
    if (core.term !== core.emitted.term || core.vote !== core.emitted.vote) {
      // The hint is what was committed before this step. The hard state may reach the disk before this step's entries, and
      // before a truncation that makes room for them. A crash in between would apply entries that are being replaced.
      core.emitted = { term: core.term, vote: core.vote, commitIndex: committedBefore };
      core.effects.hardState = core.emitted;
    }
    return core.effects;
  }
}

/**
 * Another configuration is in force. The new quorum may be smaller and may have answered already, so commitment and reads
 * are looked at now; there may be no further answer that would do it.
 */
function configurationChanged(core: Core): void {
  core.effects.configuration = core.configurations.current;
  if (core.leading === null) return;
  advanceCommit(core);
  releaseHeldReads(core);
  confirmReads(core);
}

function dispatch(core: Core, input: Exclude<Input, { kind: 'applied' }>, acceptsProposals: boolean): void {
  switch (input.kind) {
    case 'tick':
      core.now++;
      if (core.leading === null) tickElection(core);
      else tickLeader(core, core.leading);
      return;
    case 'receive':
      receive(core, input.message);
      return;
    case 'propose':
      if (acceptsProposals) propose(core, input.batches);
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
    case 'begin':
      beginCluster(core, input.first);
      return;
    case 'lifecycle':
      setLifecycle(core, input.lifecycle, input.directoryId);
      return;
    case 'diskFull':
      diskFullChanged(core, input.full);
      return;
  }
}

/** One entry for each batch. All of them leave in one message per follower, as far as the window allows. */
function propose(core: Core, batches: readonly Buffer[]): void {
  for (const bytes of batches) appendToLog(core, sealEntry(bytes, 'data', core.term, core.log.lastIndex + 1));
  broadcastAppends(core);
}

/**
 * The disk has caught up. A completion names the term as well as the index: the entry that was written may have been
 * truncated and replaced since, and acknowledging its index would acknowledge an entry that is not on disk (ra 637):
 * entry 7@3 is being written, a new leader replaces it by 7@4, and now the write of 7@3 completes.
 */
function persisted(core: Core, term: number, index: number, hardState: HardState | null): void {
  const { log } = core;
  if (hardState !== null && hardState.term >= core.persisted.term) {
    core.persisted = hardState;
    ownVotePersisted(core);
  }
  if (index > log.persistedIndex && log.termAt(index) === term) {
    log.persistedIndex = index;
    log.evict();
    advanceCommit(core);
    releaseHeldReads(core);
  }
}

/** A link to a follower is up again: probe at once, instead of waiting for the next heartbeat. */
function linkUp(core: Core, peer: number): void {
  const progress = core.leading?.progress.get(peer);
  if (progress === undefined) return;
  progress.linkUp(core.log.snapshotIndex);
  sendAppends(core, peer, progress);
}

/** A tick on a leader: first whether it may still lead, then what is due. */
function tickLeader(core: Core, leading: Leadership): void {
  const { now, options } = core;
  if (now >= leading.quorumCheckDueAt) {
    leading.quorumCheckDueAt = now + options.electionTimeoutTicks;
    // CheckQuorum (§6.2): a leader that a quorum no longer answers steps down. Its clients then look for another leader,
    // and followers that still hear it, but cannot answer, no longer protect it from an election.
    if (!isQuorum(core, (id) => id === core.id || hasAnswered(core, leading, id))) {
      becomeFollower(core, core.term, NO_NODE);
      return;
    }
  }
  tickTransfer(core, leading);
  tickStalledDisk(core, leading);
  tickDiskFull(core, leading);
  // Rounds that reads begin do not put this off. However many there are, lost appends must be found.
  if (now < leading.heartbeatDueAt) return;
  leading.heartbeatDueAt = now + options.heartbeatIntervalTicks;
  updateClusterFull(core, leading);
  broadcastHeartbeat(core);
  recheckLaggards(core, leading);
  continueTransfer(core);
  tickCatchUps(core, leading);
  promoteCaughtUp(core, leading);
}

/** Whether a follower with rights answered within an election timeout. The leader may have had no reason to send it more. */
function hasAnswered({ now, options }: Core, leading: Leadership, id: number): boolean {
  const progress = leading.progress.get(id);
  return progress?.hasRights === true && progress.hasAnsweredWithin(options.electionTimeoutTicks, now);
}
