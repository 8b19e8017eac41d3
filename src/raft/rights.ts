import { RaftkvError } from '../base/errors.ts';
import { detailOf, isVoter, NO_DIRECTORY } from './state/configuration.ts';
import { type Core, send } from './state/core.ts';
import { type Configuration, NO_NODE, type NodeId } from './state/types.ts';

/**
 * Which data directories have rights. A disk that was wiped or damaged may have forgotten votes and acknowledgements, so
 * rights belong to a directory, not to a node id. What a directory without rights says counts towards no quorum: not for
 * an election, a commitment, a read or CheckQuorum.
 *
 *   uninitialized ──▶ recovering ── asks the leader ──▶ a committed configuration names its directory ──▶ normal
 *         └── the first configuration of a new cluster names its directory ──────────────────────────────────┘
 *
 * That configuration makes a voter a learner, or is the joint one that begins to; a later one makes it a voter again.
 *
 * | word                   | set by                          | read by                                          |
 * | ---------------------- | ------------------------------- | ------------------------------------------------ |
 * | lifecycle              | the node itself, from its disk  | the node itself: `withoutRights`                 |
 * | directoryId            | drawn when the directory is made | every answer carries it; receivers compare it    |
 * | isSuperseded           | `updateRights`, from the log    | the node itself: `withoutRights`                 |
 * | withoutRights          | the sender of an answer         | the candidate or leader that receives the answer |
 * | configuredDirectoryId  | the leader, from its log        | `Progress.hasRights`                             |
 *
 * Why is it safe to name a new directory? Once the configuration that names it is committed, a majority of the voters
 * without the old directory holds that configuration. A node that still counts the old directory lacks it, so it can
 * neither be elected nor commit without one of them, and learns of it. The new directory votes when it is asked, because
 * only a candidate with that configuration has a log as complete as its own; it becomes a voter by another change.
 */

/** Whether this node knows that its votes, acknowledgements and reads must not count towards a quorum. */
export function withoutRights({ rights }: Core): boolean {
  return rights.lifecycle !== 'normal' || rights.isSuperseded;
}

/** The directory of `id` by the newest configuration that has it as a member. */
export function configuredDirectoryOf({ configurations }: Core, id: NodeId): number {
  const named = configurations.entries.findLast(({ configuration }) => detailOf(configuration, id) !== undefined);
  return (named && detailOf(named.configuration, id)?.directoryId) ?? NO_DIRECTORY;
}

/** To be called when configurations, the commit index or the directory id changed. */
export function updateRights(core: Core): void {
  const { configurations, id, rights } = core;
  rights.isSuperseded = false;
  for (const { index, configuration } of configurations.entries.toReversed()) {
    const detail = detailOf(configuration, id);
    // After a restart the commit index may be far behind, so an entry that names this directory may be committed though
    // this node does not know it. It proves that the directory had the rights after every older entry.
    if (detail?.directoryId === rights.directoryId) return;
    if (index > configurations.committed.index) continue;
    rights.isSuperseded = detail !== undefined;
    return;
  }
}

/**
 * Reports, once, that a committed configuration names this directory, so that its status can become normal. Both that
 * entry and the new status must be on this node's own disk before it votes. Otherwise a crash could take the status back
 * and leave the cluster with a voter that says it has no vote.
 */
export function reportRecovery(core: Core): void {
  const { configurations, id, rights, log } = core;
  const { committed } = configurations;
  if (rights.recoveryReported || committed.index > log.persistedIndex) return;
  if (detailOf(committed.configuration, id)?.directoryId !== rights.directoryId) return;
  rights.recoveryReported = true;
  core.effects.recovered = true;
}

/**
 * This directory becomes a member by the first configuration of its cluster, which names it. It begins as every server of a
 * new cluster does: without a term, a vote and a log. A directory that had promised anything could promise it twice.
 */
export function beginCluster(core: Core, first: Configuration): void {
  const { configurations, log, rights } = core;
  if (rights.lifecycle !== 'uninitialized' || core.term > 0 || log.lastIndex > 0)
    throw new RaftkvError('INVARIANT_BROKEN', `node ${core.id} was to begin a cluster, but is part of one`);
  configurations.install(0, first, 0);
  rights.lifecycle = 'normal';
  updateRights(core);
}

/** An uninitialized node learned what it is, or a recovering one has persisted that its status is normal. */
export function setLifecycle(core: Core, lifecycle: 'recovering' | 'normal', directoryId: number): void {
  core.rights.lifecycle = lifecycle;
  core.rights.directoryId = directoryId;
  updateRights(core);
  askToRecover(core);
}

/**
 * Asks the leader, if one is known, to make this directory a learner. Sent when a leader is first heard, and then once in
 * an election timeout until it has happened: the request or the change that follows may be lost.
 */
export function askToRecover(core: Core): void {
  const { rights, leader } = core;
  if (rights.lifecycle === 'uninitialized' || !withoutRights(core)) return;
  if (leader === NO_NODE || leader === core.id) return;
  rights.askAgainAt = core.now + core.options.electionTimeoutTicks;
  const { id: from, term } = core;
  send(core, { kind: 'recovering', from, to: leader, term, directoryId: rights.directoryId });
}

/**
 * Whether this node may try to lead: if it is a voter of a configuration that can be in force. That includes a node that
 * only an uncommitted entry of its own log removed, because its log may be the most complete one left (§4.2.2).
 */
export function mayCampaign(core: Core): boolean {
  if (withoutRights(core)) return false;
  const { configurations, id, rights } = core;
  // If the active configuration names another directory for this node, its own vote would not count. The others are a
  // quorum without it, or no quorum exists.
  const detail = detailOf(configurations.current, id);
  if (detail !== undefined && detail.directoryId !== rights.directoryId) return false;
  return configurations.entries.some(
    ({ index, configuration }) => index >= configurations.committed.index && isVoter(configuration, id),
  );
}
