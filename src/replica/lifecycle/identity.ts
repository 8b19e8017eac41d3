import type { ClusterId } from '../../raft/state/types.ts';

/** Directories are told apart by a random number below this, never 0. */
const DIRECTORY_IDS = 2 ** 48;

/** The id of a data directory that is made now or has lost something. `random` is uniform in [0, 1). */
export function newDirectoryId(random: () => number): number {
  return 1 + Math.floor(random() * (DIRECTORY_IDS - 2));
}

/** The id of a history that begins now. */
export function newClusterId(random: () => number): ClusterId {
  const word = () =>
    Math.floor(random() * 2 ** 32)
      .toString(16)
      .padStart(8, '0');
  return word() + word() + word() + word();
}
