import { Raft } from '../../src/raft/raft.ts';
import { configurationOf } from '../../src/raft/state/configuration.ts';
import type { Core } from '../../src/raft/state/core.ts';
import { RaftLog } from '../../src/raft/state/log.ts';
import { type Configuration, type LifecycleStatus, NO_NODE } from '../../src/raft/state/types.ts';

/** The core of a node that has just started, for a test to put by hand where it wants it. */
export function coreOf(id: number, start: Partial<CoreStart> = {}): Core {
  return raftOf(id, start).core;
}

export function raftOf(
  id: number,
  { configuration = configurationOf([1, 2, 3]), lifecycle = 'normal', term = 4 }: Partial<CoreStart> = {},
): Raft {
  const log = new RaftLog({ snapshotIndex: 0, snapshotTerm: 0, cacheBytesMax: 1000 });
  return new Raft({
    id,
    configurations: [{ index: 0, configuration }],
    snapshot: null,
    lifecycle,
    directoryId: 0,
    log,
    hardState: { term, vote: NO_NODE, commitIndex: 0 },
    electionTimeoutTicks: 10,
    heartbeatIntervalTicks: 3,
    appendBytesMax: 1000,
    flow: { inflightMessagesMax: 10, inflightBytesMax: 1000 },
    random: () => 0,
  });
}

interface CoreStart {
  readonly configuration: Configuration;
  readonly lifecycle: LifecycleStatus;
  readonly term: number;
}
