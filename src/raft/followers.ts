import { configuredDirectoryOf, updateRights } from './rights.ts';
import type { Core, Leadership } from './state/core.ts';
import { Progress } from './state/progress.ts';
import type { NodeId } from './state/types.ts';

/**
 * The leader's `Progress` objects: one for every other member of a configuration that can turn out to be in force. A member
 * whose removal is not committed yet keeps its object, so that it receives the entry that removes it.
 */

/** To be called whenever the configuration in force, or the committed one, changed. */
export function configurationsChanged(core: Core): void {
  updateRights(core);
  if (core.leading !== null) trackFollowers(core, core.leading);
}

/** Adds, updates and deletes `Progress` objects so that they match the configurations. */
function trackFollowers(core: Core, leading: Leadership): void {
  const ids = followersOf(core);
  for (const id of leading.progress.keys()) if (!ids.has(id)) leading.progress.delete(id);
  for (const id of ids) {
    const progress = leading.progress.get(id);
    if (progress === undefined) leading.progress.set(id, newProgress(core, id));
    else progress.configuredDirectoryId = configuredDirectoryOf(core, id);
  }
}

/** Whom a leader replicates to. */
export function followersOf(core: Core): Set<NodeId> {
  const ids = core.configurations.possibleMembers();
  ids.delete(core.id);
  return ids;
}

/** A new leader assumes that each follower's log is as long as its own, and probes downwards from there (§3.5). */
export function newProgress(core: Core, id: NodeId): Progress {
  return new Progress(core.log.lastIndex + 1, core.options.flow, configuredDirectoryOf(core, id));
}

/**
 * Records what every answer of a follower says beside its subject: that the follower lives, from which directory it
 * speaks, and whether its disk is full. Sends nothing. Returns undefined for a node that is no follower, and a new
 * `Progress` if another directory answers than before, or if the follower says for the first time that it has rights, or
 * that it has none: nothing that is known of the old log holds for the new one. The caller then probes it.
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
    const { linked } = progress;
    progress = newProgress(core, from);
    progress.linked = linked;
    progress.directoryId = reply.directoryId;
    progress.withoutRights = reply.withoutRights;
    leading.progress.set(from, progress);
  }
  progress.answeredAt = core.now;
  progress.diskFull = reply.diskFull;
  return progress;
}
