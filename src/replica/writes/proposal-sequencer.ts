import type { NodeId } from '../../raft/state/types.ts';
import type { Proposal, ProposalRefused } from '../peers/wire.ts';

/**
 * The leader's side of proposals: takes the batches of every proposer in their order, each once. The state machine skips
 * duplicates and gaps too; refusing them here keeps them out of the log.
 */
interface Expected {
  readonly sessionId: number;
  next: number;
}

export class ProposalSequencer {
  /** What the log of this term holds of each proposer; worthless in any other term. */
  private readonly expected = new Map<NodeId, Expected>();
  private term = 0;

  /** 'take' it, 'ignore' a duplicate, or refuse it: then the proposer is told where to go on. */
  judge(proposer: NodeId, proposal: Proposal, term: number, leads: boolean): 'take' | 'ignore' | ProposalRefused {
    const { sessionId, sequence, oldestSequence } = proposal;
    if (!leads || proposal.term !== term) return { kind: 'proposalRefused', term, sessionId, expectedSequence: 0 };
    if (this.term !== term) {
      this.expected.clear();
      this.term = term;
    }
    const known = this.expected.get(proposer);
    if (known === undefined || known.sessionId !== sessionId) {
      if (known !== undefined && known.sessionId > sessionId) return 'ignore';
      // All before the proposer's oldest is applied, so in this log: no gap can come of beginning there.
      if (sequence !== oldestSequence) {
        return { kind: 'proposalRefused', term, sessionId, expectedSequence: oldestSequence };
      }
      this.expected.set(proposer, { sessionId, next: sequence + 1 });
      return 'take';
    }
    // Copies in entries of an earlier term may have been applied since: what the proposer counts as done is not waited for.
    const next = Math.max(known.next, oldestSequence);
    if (sequence < next) return 'ignore';
    if (sequence > next) return { kind: 'proposalRefused', term, sessionId, expectedSequence: next };
    known.next = next + 1;
    return 'take';
  }
}
