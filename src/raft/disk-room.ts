import { type Core, isQuorum, type Leadership } from './core.ts';
import { mostAdvancedVoter } from './replication.ts';
import { startTransfer } from './transfer.ts';

/**
 * Full disks. Every node says in its answers whether its own is full. The leader tells all, in its heartbeats, when no
 * quorum has room: then writes could only wait, and are better refused. A leader that is full itself hands over.
 */
export function diskFullChanged(core: Core, full: boolean): void {
  core.diskFull = full;
  if (core.leading === null) return;
  core.leading.diskFullElapsed = core.options.electionTimeoutTicks;
  updateClusterFull(core, core.leading);
}

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
  leading.diskFullElapsed++;
  if (leading.diskFullElapsed < core.options.electionTimeoutTicks || leading.transfer !== null) return;
  const target = mostAdvancedVoter(core, leading);
  const progress = leading.progress.get(target);
  // Only to one that has said so to this leader: else leaders whose disks are all full pass it around.
  const saysThatItHasRoom = progress !== undefined && progress.answeredTick >= 0 && !progress.diskFull;
  if (!saysThatItHasRoom || !progress.linked) return;
  leading.diskFullElapsed = 0;
  startTransfer(core, target);
}
