import { existsSync } from 'node:fs';
import { RaftkvError } from '../base/errors.ts';
import { SnapshotLoader } from '../kv/snapshot.ts';
import type { StateMachine } from '../kv/state-machine.ts';
import { decodeConfiguration } from '../raft/state/configuration.ts';
import type { Configuration } from '../raft/state/types.ts';
import { readSnapshotFile, type SnapshotFileHead } from '../storage/snapshots/reader.ts';
import { readOnlyDisk } from './read-only-disk.ts';

/** Backup files: a snapshot as a node has it, byte by byte. */

export interface ReadBackup {
  readonly head: SnapshotFileHead;
  readonly configuration: Configuration;
  readonly state: StateMachine;
}

/** Reads and verifies all of a file. @throws RaftkvError BACKUP_INVALID, SNAPSHOT_DAMAGED, FORMAT_UNSUPPORTED. */
export async function readBackup(file: string): Promise<ReadBackup> {
  if (!existsSync(file)) {
    throw new RaftkvError(
      'BACKUP_INVALID',
      `${file} does not exist`,
      'Pass a file that `raftkv snapshot save` has written.',
    );
  }
  const loader = new SnapshotLoader();
  const head = await readSnapshotFile(readOnlyDisk, file, (chunk) => loader.push(chunk));
  return { head, configuration: decodeConfiguration(head.configuration, 0), state: loader.finish() };
}
