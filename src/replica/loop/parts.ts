import { Raft } from '../../raft/raft.ts';
import type { NodeId } from '../../raft/state/types.ts';
import type { ReplicaInput } from '../input-queue.ts';
import { NodeLifecycle } from '../lifecycle/node-lifecycle.ts';
import { Applier } from '../log/applier.ts';
import { MemberRequests } from '../peers/member-requests.ts';
import { Peers } from '../peers/peers.ts';
import type { PeerMessage } from '../peers/wire.ts';
import { SnapshotExchange } from '../snapshots/exchange.ts';
import type { ReadCompletion } from '../types.ts';
import type { LeaderBalancer } from '../writes/leader-balancer.ts';
import { Proposals } from '../writes/proposals.ts';
import type { Proposer } from '../writes/proposer.ts';
import { type NodeReplicaOptions, newDirectoryId } from './node-options.ts';

/** Puts the parts of a replica together around the core; the loop in `node-replica.ts` makes them work. */

/** What the parts ask of the loop. */
export interface PartsHost {
  readonly options: NodeReplicaOptions;
  readonly tickMs: number;
  readonly proposer: Proposer;
  readonly balancer: LeaderBalancer;
  readonly put: (input: ReplicaInput) => void;
  readonly guard: (action: () => void) => void;
  /** False where the message was dropped. */
  readonly tell: (to: NodeId, message: PeerMessage) => boolean;
  readonly scheduleTurn: () => void;
  readonly read: (completion: ReadCompletion) => void;
  readonly isRunning: () => boolean;
  readonly onFatal: (error: unknown) => void;
}

export interface Parts {
  readonly raft: Raft;
  readonly proposals: Proposals;
  readonly applier: Applier;
  readonly peers: Peers;
  readonly requests: MemberRequests;
  readonly nodeLifecycle: NodeLifecycle;
  readonly exchange: SnapshotExchange;
}

export function createParts(host: PartsHost): Parts {
  const { options, proposer, balancer, put, guard, tell, scheduleTurn, onFatal } = host;
  const { timing, clock, wal, nodeId, recovered, transport, observer } = options;
  const { log, stateMachine } = recovered;
  const { electionTimeoutMs, requestTimeoutMs } = timing;
  const raft = createCore(options, host.tickMs);
  const { core } = raft;
  const onApplied = (index: number) => put({ kind: 'applied', index });
  const isLinked = (peer: NodeId) => transport.isUp(peer);
  const nodeLifecycle = new NodeLifecycle({
    ...options,
    ...{ core, electionTimeoutMs, isLinked, put, guard, onFatal },
    sessionId: () => proposer.sessionId,
    knownMember: options.lifecycle === 'normal',
    onceCurrent: (callback) => onceReadable(host.read, callback),
    newDirectoryId: () => newDirectoryId(options.random),
    send: tell,
    appliedSessionId: () => stateMachine.session(nodeId)?.sessionId ?? 0,
    changeSessionId: (sessionId) => proposer.changeSessionId(sessionId),
    onMayPropose: scheduleTurn,
    onRemoved: () => {
      if (host.isRunning()) options.onRemoved();
    },
  });
  const onSessionUsed = () => nodeLifecycle.sessionUsed();
  const applier = new Applier(
    { log, wal, stateMachine, proposer, observer, scheduleMore: scheduleTurn, onApplied, onSessionUsed, onFatal },
    log.appliedIndex,
  );
  return {
    raft,
    applier,
    proposals: new Proposals({ nodeId, balancer, core, proposer, send: tell, scheduleTurn }),
    peers: new Peers({
      core,
      transport,
      peerAddresses: options.peerAddresses,
      isLost: () => nodeLifecycle.isLost,
      send: tell,
    }),
    requests: new MemberRequests({ clock, core, timeoutMs: requestTimeoutMs, put, isLinked }),
    nodeLifecycle,
    exchange: new SnapshotExchange({
      ...options,
      ...{ core, stateMachine, applier, put, onFatal, electionTimeoutMs },
      limits: options.snapshotLimits,
      bytesBehind: recovered.bytesBehindBase,
    }),
  };
}

function onceReadable(read: PartsHost['read'], callback: () => void): void {
  read({
    readable: callback,
    readFailed: (failure) => {
      // It was held for a whole request timeout, so asking again at once is no busy loop.
      if (failure === 'timeout') onceReadable(read, callback);
    },
  });
}

function createCore(options: NodeReplicaOptions, tickMs: number): Raft {
  const { timing, recovered } = options;
  return new Raft({
    id: options.nodeId,
    configurations: recovered.configurations,
    lifecycle: options.lifecycle,
    directoryId: options.directoryId,
    snapshot: options.snapshots.newest,
    log: recovered.log,
    hardState: recovered.hardState,
    electionTimeoutTicks: Math.max(1, Math.round(timing.electionTimeoutMs / tickMs)),
    heartbeatIntervalTicks: Math.max(1, Math.round(timing.heartbeatIntervalMs / tickMs)),
    ...options.sendLimits,
    random: options.random,
  });
}
