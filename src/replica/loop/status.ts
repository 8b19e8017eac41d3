import type { StateMachine } from '../../kv/state-machine.ts';
import type { Core } from '../../raft/state/core.ts';
import type { ReplicaStatus } from '../types.ts';
import type { NodeReplicaOptions } from './node-options.ts';

type OfTheLoop = 'appliedIndex' | 'pendingWrites' | 'pendingReads' | 'clusterId' | 'snapshotting' | 'healthProblem';

/** The part of a replica's status that comes from the core, the files and the state machine. The replica adds the rest. */
export function describeStatus(
  core: Core,
  { nodeId, transport, wal, snapshots }: NodeReplicaOptions,
  stateMachine: StateMachine,
): Omit<ReplicaStatus, OfTheLoop> {
  const { log, configurations } = core;
  const { voters, learners } = configurations.current;
  return {
    nodeId,
    role: core.role,
    term: core.term,
    leader: core.leader,
    commitIndex: log.commitIndex,
    lastLogIndex: log.lastIndex,
    logBytes: wal.byteLength,
    items: stateMachine.items,
    storeBytes: stateMachine.storeBytes,
    totalItems: stateMachine.totalItems,
    clusterTimeMs: stateMachine.timeMs,
    peersConnected: [...voters, ...learners].filter((id) => id !== nodeId && transport.isUp(id)),
    lifecycle: core.rights.lifecycle,
    voters,
    learners,
    snapshotIndex: snapshots.newest?.index ?? 0,
    snapshotBytes: snapshots.newest?.byteLength ?? 0,
    firstLogIndex: log.snapshotIndex + 1,
  };
}
