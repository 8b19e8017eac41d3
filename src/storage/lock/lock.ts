import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import type { RaftkvError } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import { HeldLock, runSteps } from './held-lock.ts';
import { acquire, HEARTBEAT_MS, PATIENCE_MS } from './protocol.ts';
import { describeHolder, type Identity } from './record.ts';
import { lockFiles, type SystemFacts, systemFacts } from './system.ts';

/**
 * Makes sure that only one process uses a data directory, also among processes of other containers and hosts that share
 * its volume. What this folder promises, under the assumptions of ADR 15:
 *
 * - Two processes never act as the holder at the same time. A process that has lost the lock learns it by `onLost` and
 *   must end.
 * - When the holder has died, processes of the same kernel and pid namespace can take the lock at once.
 * - Any other process watches the holder's record. It is refused if the record changes, and takes the lock if the
 *   record doesn't change for `PATIENCE_MS`.
 *
 * ```
 *   record.ts        what a process writes about itself, and what others conclude from it
 *   protocol.ts      taking and renewing the lock, as single file operations
 *   held-lock.ts     the heartbeat of the holder, and whether it may still act
 *   system.ts        the files and processes of this machine
 *   lock.ts          takes the lock of a directory
 *   guarded-disk.ts  a disk that changes nothing once the lock is lost
 * ```
 */

/** The folder in a data directory that holds its lock. */
export const LOCK_FOLDER = 'LOCK';

export interface LockOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  /** See `HolderOptions`. */
  readonly onLost: (error: RaftkvError) => void;
  /** The facts of this system by default. Tests pass others. */
  readonly facts?: SystemFacts;
}

export interface DataDirLock {
  /** See `HeldLock`. */
  check(): boolean;
  /**
   * Releases the lock, so that any process can take it at once. Without it, a process of another kernel or pid
   * namespace must first watch the record.
   */
  release(): Promise<void>;
  /**
   * Releases the lock of a directory that the caller is about to replace by `successor`. The caller must have filled
   * `successor` before. See `HeldLock.continueIn`.
   */
  continueIn(successor: string): Promise<void>;
}

/**
 * Takes the lock of a directory, which must exist.
 * @throws RaftkvError DATA_DIR_LOCKED if another process holds it
 */
export async function lockDataDir(directory: string, options: LockOptions): Promise<DataDirLock> {
  const { clock, logger, onLost, facts = systemFacts() } = options;
  const folder = join(directory, LOCK_FOLDER);
  const files = lockFiles(folder);
  const { pid, host, place, started } = facts;
  const since = new Date(clock.wallMs()).toISOString();
  const identity: Identity = { pid, host, since, id: randomUUID(), place, started };
  const contender = {
    folder,
    identity,
    clock,
    stateOf: facts.stateOf,
    watching(record: Parameters<typeof describeHolder>[0]) {
      logger.warn(
        { holder: record?.holder ?? null, heartbeatMs: HEARTBEAT_MS },
        `the data directory was last used by ${describeHolder(record)}; waiting up to ${PATIENCE_MS / 1000} s to see whether that process is alive`,
      );
    },
  };
  const wait = (ms: number) => new Promise<void>((resolve) => void clock.after(ms, resolve));
  const acquired = await runSteps(acquire(contender), files, wait);
  const held = new HeldLock({ directory, files, clock, logger, identity, onLost }, acquired);
  return {
    check: () => held.check(),
    release: () => held.release(),
    continueIn: (successor) => held.continueIn(lockFiles(join(successor, LOCK_FOLDER))),
  };
}
