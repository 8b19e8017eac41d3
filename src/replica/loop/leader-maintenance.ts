import { clockBatch, stampBatchTime } from '../../kv/batch.ts';
import type { StateMachine } from '../../kv/state-machine.ts';
import type { Raft } from '../../raft/raft.ts';
import { ENTRY_HEADER_BYTES } from '../../raft/state/entry.ts';
import { NO_NODE } from '../../raft/state/types.ts';
import type { ReplicaInput } from '../input-queue.ts';
import type { LeaderBalancer } from '../writes/leader-balancer.ts';

/** Work that only a leader does, besides replication: advancing the replicated time and balancing leadership. */
export class LeaderMaintenance {
  private readonly raft: Raft;
  private readonly stateMachine: StateMachine;
  private readonly balancer: LeaderBalancer;
  private readonly put: (input: ReplicaInput) => void;
  /** The newest entry that only advances time, while it is not applied. */
  private clockEntryIndex = 0;

  constructor(raft: Raft, stateMachine: StateMachine, balancer: LeaderBalancer, put: (input: ReplicaInput) => void) {
    this.raft = raft;
    this.stateMachine = stateMachine;
    this.balancer = balancer;
    this.put = put;
  }

  /** The term or the leader is another. */
  leaderChanged(nowMs: number): void {
    this.clockEntryIndex = 0;
    const { raft, balancer } = this;
    if (raft.core.role === 'leader') balancer.begin(nowMs);
  }

  tick(nowMs: number, wallMs: number): void {
    if (!this.raft.acceptsProposals) return;
    this.letTimePass(wallMs);
    const to = this.balancer.successor(nowMs);
    if (to !== NO_NODE) this.put({ kind: 'transferLeadership', to });
  }

  /** If an item is due to expire and there are no writes, the leader appends an entry that only advances time. */
  private letTimePass(wallMs: number): void {
    const { raft, stateMachine, put } = this;
    if (this.clockEntryIndex > raft.core.log.appliedIndex || stateMachine.nextEventMs() > wallMs) return;
    const batch = clockBatch(ENTRY_HEADER_BYTES);
    stampBatchTime(batch, ENTRY_HEADER_BYTES, wallMs);
    this.clockEntryIndex = raft.core.log.lastIndex + 1;
    put({ kind: 'propose', batches: [batch] });
  }
}
