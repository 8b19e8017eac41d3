import { detailOf, isVoter, NO_DIRECTORY } from './configuration.ts';
import { type Core, type Leadership, send } from './core.ts';
import { Progress } from './progress.ts';
import { sendAppends } from './replication.ts';
import { NO_NODE, type NodeId } from './types.ts';

/**
 * Which data directories have rights. A disk that was wiped or damaged may have forgotten votes and acknowledgements, so
 * rights belong to a directory id, not to a node id. A message from a directory without rights counts towards no quorum:
 * not for an election, a commitment or a read, nor for CheckQuorum.
 *
 *   uninitialized ──▶ recovering ── asks the leader ──▶ a committed configuration names its directory, as a learner ──▶ normal
 *
 * Once that configuration is committed, the promises of the old directory no longer matter. A majority of the other voters
 * holds the configuration, and without that majority no leader that still counts the old directory can be elected or
 * commit. The new directory has rights as a learner from then on. It grants votes when asked, which is safe because only a
 * candidate that holds the configuration is up to date for it, and a second configuration makes it a voter.
 */

/** Whether this node knows that its votes, acknowledgements and reads must not count towards a quorum. */
export function withoutRights(core: Core): boolean {
  return core.lifecycle !== 'normal' || core.isSuperseded;
}

/** The directory of `id` that the newest configuration with it names. */
export function configuredDirectoryOf(core: Core, id: NodeId): number {
  for (let i = core.configurations.length - 1; i >= 0; i--) {
    const detail = detailOf(core.configurations[i]?.configuration ?? core.configuration, id);
    if (detail !== undefined) return detail.directoryId;
  }
  return NO_DIRECTORY;
}

/** To be called when configurations, the commit index or the directory changed. */
export function updateRights(core: Core): void {
  const { configurations, committedConfigurationIndex, id, directoryId } = core;
  let isSuperseded = false;
  for (let i = configurations.length - 1; i >= 0; i--) {
    const at = configurations[i];
    const detail = at === undefined ? undefined : detailOf(at.configuration, id);
    // After a restart the commit index may be far behind: a later entry that names this directory once was committed.
    if (detail?.directoryId === directoryId) break;
    if (at !== undefined && at.index > committedConfigurationIndex) continue;
    isSuperseded = detail !== undefined;
    break;
  }
  core.isSuperseded = isSuperseded;
}

/**
 * Reports that a committed configuration names this directory, once that configuration is on this node's own disk too;
 * otherwise a crash could undo it. The status becomes `normal` only when the caller has persisted that, because a crash
 * before would leave a cluster with a voter that says that it has no rights.
 */
export function reportRecovery(core: Core): void {
  const { configurations, committedConfigurationIndex, id, directoryId, log } = core;
  if (core.recoveryReported || committedConfigurationIndex > log.persistedIndex) return;
  const committed = configurations.findLast(({ index }) => index === committedConfigurationIndex)?.configuration;
  if (committed === undefined || detailOf(committed, id)?.directoryId !== directoryId) return;
  core.recoveryReported = true;
  core.effects.recovered = true;
}

/** An uninitialized node has learned what it is, or a recovering one has persisted that its status is normal. */
export function setLifecycle(core: Core, lifecycle: 'recovering' | 'normal', directoryId: number): void {
  core.lifecycle = lifecycle;
  core.directoryId = directoryId;
  updateRights(core);
  askToRecover(core);
}

/**
 * Asks the leader, where there is one, to make this directory a learner. Said when the leader is first heard, and then once
 * in an election timeout until it has happened.
 */
export function askToRecover(core: Core): void {
  if (core.lifecycle === 'uninitialized' || !withoutRights(core)) return;
  if (core.leader === NO_NODE || core.leader === core.id) return;
  core.recoveringElapsed = 0;
  send(core, { kind: 'recovering', from: core.id, to: core.leader, term: core.term, directoryId: core.directoryId });
}

/**
 * Whether this node may try to lead: as a voter of a configuration that may be in force. Also one that only an
 * uncommitted entry of its own log has removed, since that log may be the most complete one left (§4.2.2).
 */
export function mayCampaign(core: Core): boolean {
  if (withoutRights(core)) return false;
  // If the newest configuration names another directory, our own vote does not count, so the others must elect.
  const detail = detailOf(core.configuration, core.id);
  if (detail !== undefined && detail.directoryId !== core.directoryId) return false;
  return core.configurations.some(
    ({ index, configuration }) => index >= core.committedConfigurationIndex && isVoter(configuration, core.id),
  );
}

/**
 * A follower answered. If its directory id has changed, what we know of the old directory's log does not hold for the new
 * one. The same is true if it has lost or gained its rights, because an uninitialized directory still has id 0.
 */
export function recordReply(
  core: Core,
  leading: Leadership,
  from: NodeId,
  reply: { readonly directoryId: number; readonly withoutRights: boolean; readonly diskFull: boolean },
): Progress | undefined {
  let progress = leading.progress.get(from);
  if (progress === undefined) return undefined;
  if (progress.directoryId !== reply.directoryId || progress.withoutRights !== reply.withoutRights) {
    const { isAdmitted, leaving } = progress;
    progress = resetProgress(core, leading, from);
    Object.assign(progress, {
      isAdmitted,
      leaving,
      directoryId: reply.directoryId,
      withoutRights: reply.withoutRights,
    });
    sendAppends(core, from, progress);
  }
  progress.recentActive = true;
  progress.answeredTick = leading.ticks;
  progress.diskFull = reply.diskFull;
  return progress;
}

/** Forgets what is known of the log of `peer`; the next appends probe where it ends. */
export function resetProgress(core: Core, leading: Leadership, peer: NodeId): Progress {
  const old = leading.progress.get(peer);
  const progress = new Progress(core.log.lastIndex + 1, core.options.flow, configuredDirectoryOf(core, peer));
  progress.linked = old?.linked ?? true;
  leading.progress.set(peer, progress);
  return progress;
}
