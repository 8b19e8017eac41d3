import { mostAdvancedVoter } from './replication.ts';
import { type Core, isQuorum, type Leadership } from './state/core.ts';
import { startTransfer } from './transfer.ts';

/**
 * Full disks. Every node says in its answers whether its disk is full. When no quorum has room, the leader says so in its
 * heartbeats: then writes could only wait, and every node refuses them. A leader whose own disk is full hands over.
 */
export function diskFullChanged(core: Core, full: boolean): void {
  core.diskFull = full;
  if (core.leading === null) return;
  core.leading.offerLeadershipAt = core.now;
  updateClusterFull(core, core.leading);
}

/** Recomputes what the leader's heartbeats say. */
export function updateClusterFull(core: Core, leading: Leadership): void {
  let someAreFull = core.diskFull;
  for (const progress of leading.progress.values()) if (progress.diskFull) someAreFull = true;
  core.clusterFull =
    someAreFull &&
    !isQuorum(core, (id) => {
      if (id === core.id) return !core.diskFull;
      const progress = leading.progress.get(id);
      return progress?.linked === true && progress.hasRights && !progress.diskFull;
    });
}

/** Offers leadership to a voter that has room, once in an election timeout. */
export function tickDiskFull(core: Core, leading: Leadership): void {
  if (!core.diskFull) return;
  if (core.now < leading.offerLeadershipAt || leading.transfer !== null) return;
  const target = mostAdvancedVoter(core, leading);
  const progress = leading.progress.get(target);
  // Only to a node that has told this leader so. Otherwise leaders whose disks are all full pass leadership around.
  const hasAnswered = progress !== undefined && progress.answeredAt !== Number.NEGATIVE_INFINITY;
  if (!hasAnswered || progress.diskFull || !progress.linked) return;
  leading.offerLeadershipAt = core.now + core.options.electionTimeoutTicks;
  startTransfer(core, target);
}
