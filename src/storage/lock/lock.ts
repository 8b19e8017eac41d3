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
 * Keeps all processes but one off a data directory, also processes of other containers and hosts that share its volume. What
 * this folder promises, under the assumptions of ADR 15:
 *
 * - Two processes never both act as the holder. One that finds that it has lost the lock is told at once, and must end.
 * - The lock of a process that has died is free at once for processes of the same kernel and pid namespace.
 * - Any other process watches the holder's heartbeat. It is refused when the record changes, and takes over when the record
 *   did not change for `PATIENCE_MS`.
 *
 * ```
 *   record.ts        what a holder says about itself, and what that proves
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
  /** The system's own, unless a test says otherwise. */
  readonly facts?: SystemFacts;
}

export interface DataDirLock {
  /** See `HeldLock`. */
  check(): boolean;
  /** Lets another process have the directory. The end of the process does it as well, though not for all others at once. */
  release(): Promise<void>;
  /**
   * Ends the lock of a directory that the caller is about to replace by `successor`, which it must fill before. See
   * `HeldLock.continueIn`.
   */
  continueIn(successor: string): Promise<void>;
}

/**
 * Takes the directory for this process. It must exist.
 * @throws RaftkvError DATA_DIR_LOCKED if another process holds it.
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
