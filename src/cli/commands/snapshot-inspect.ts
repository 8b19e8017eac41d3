import { readBackup } from '../../offline/backup.ts';

/** `raftkv snapshot inspect`: what a backup holds, after all of it was verified. */

export interface SnapshotInspectOptions {
  readonly json: boolean;
}

/** @throws RaftkvError as `readBackup`. */
export async function snapshotInspectCommand(file: string, { json }: SnapshotInspectOptions): Promise<void> {
  const { head, configuration, state } = await readBackup(file);
  const { clusterId, index, term, byteLength, chunks } = head;
  const { voters, learners } = configuration;
  const { items, storeBytes, timeMs } = state;
  const facts = { cluster: clusterId, index, term, byteLength, chunks, items, storeBytes, timeMs, voters, learners };
  if (json) {
    process.stdout.write(`${JSON.stringify(facts, null, 2)}\n`);
    return;
  }
  const lines = [
    ['cluster', clusterId],
    ['up to', `entry ${index} of term ${term}`],
    [
      'taken at',
      timeMs === 0 ? 'unknown: there was no write before' : `${new Date(timeMs).toISOString()} (the cluster's time)`,
    ],
    ['items', `${items}, which take ${storeBytes} bytes in memory`],
    ['file', `${byteLength} bytes in ${chunks} chunks`],
    ['voters', voters.join(', ')],
    ...(learners.length > 0 ? [['learners', learners.join(', ')]] : []),
  ];
  const text = lines.map(([name = '', value]) => `${name.padEnd(9)} ${value}`).join('\n');
  process.stdout.write(`${text}\n\nThe file is intact.\n`);
}
