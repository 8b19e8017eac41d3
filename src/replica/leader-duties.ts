import { clockBatch, stampBatchTime } from '../kv/batch.ts';
import type { StateMachine } from '../kv/state-machine.ts';
import { ENTRY_HEADER_BYTES } from '../raft/entry.ts';
import type { Raft } from '../raft/raft.ts';
import { type Input, NO_NODE } from '../raft/types.ts';
import type { Placement } from './placement.ts';

/** What a leader does of itself, beside leading. */
export interface LeaderDutiesContext {
  readonly raft: Raft;
  readonly stateMachine: StateMachine;
  readonly placement: Placement;
  readonly step: (input: Input) => void;
}

export class LeaderDuties {
  private readonly context: LeaderDutiesContext;
  /** The newest entry that only advances time, while it is not applied. */
  private clockEntryIndex = 0;

  constructor(context: LeaderDutiesContext) {
    this.context = context;
  }

  /** The term or the leader is another. */
  leaderChanged(nowMs: number): void {
    this.clockEntryIndex = 0;
    const { raft, placement } = this.context;
    if (raft.core.role === 'leader') placement.begin(nowMs);
  }

  tick(nowMs: number, wallMs: number): void {
    if (!this.context.raft.acceptsProposals) return;
    this.letTimePass(wallMs);
    const to = this.context.placement.successor(nowMs);
    if (to !== NO_NODE) this.context.step({ kind: 'transferLeadership', to });
  }

  /** Where an item is due to expire and nobody writes, the leader appends an entry that only advances time. */
  private letTimePass(wallMs: number): void {
    const { raft, stateMachine, step } = this.context;
    if (this.clockEntryIndex > raft.core.log.appliedIndex || stateMachine.nextEventMs() > wallMs) return;
    const batch = clockBatch(ENTRY_HEADER_BYTES);
    stampBatchTime(batch, ENTRY_HEADER_BYTES, wallMs);
    step({ kind: 'propose', batches: [batch] });
    this.clockEntryIndex = raft.core.log.lastIndex;
  }
}
