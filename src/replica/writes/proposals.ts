import { RaftkvError } from '../../base/errors.ts';
import { stampBatchTime, validateBatch } from '../../kv/batch.ts';
import { ENTRY_HEADER_BYTES } from '../../raft/state/entry.ts';
import { NO_NODE, type NodeId } from '../../raft/state/types.ts';
import type { NodeLoop } from '../node-loop.ts';
import type { Sender } from '../peers/sender.ts';
import type { Proposal, ProposalRefused } from '../peers/wire.ts';
import type { LeaderBalancer } from './leader-balancer.ts';
import type { Proposer } from './proposer.ts';

interface Expected {
  readonly sessionId: number;
  next: number;
}

/**
 * The leader's side of proposals: takes the batches of every proposer in their order, each once. The state machine skips
 * duplicates and gaps too; refusing them here keeps them out of the log.
 */
export class ProposalSequencer {
  /** The next batch of each proposer for the log of this term; meaningless in any other term. */
  readonly #expected = new Map<NodeId, Expected>();
  #term = 0;

  /** 'take' it, 'ignore' a duplicate, or refuse it: then the proposer is told where to go on. */
  judge(proposer: NodeId, proposal: Proposal, term: number, leads: boolean): 'take' | 'ignore' | ProposalRefused {
    const { sessionId, sequence, oldestSequence } = proposal;
    if (!leads || proposal.term !== term) return { kind: 'proposalRefused', term, sessionId, expectedSequence: 0 };
    if (this.#term !== term) {
      this.#expected.clear();
      this.#term = term;
    }
    const known = this.#expected.get(proposer);
    if (known === undefined || known.sessionId !== sessionId) {
      if (known !== undefined && known.sessionId > sessionId) return 'ignore';
      // All before the proposer's oldest is applied, so in this log: no gap can come of beginning there.
      if (sequence !== oldestSequence) {
        return { kind: 'proposalRefused', term, sessionId, expectedSequence: oldestSequence };
      }
      this.#expected.set(proposer, { sessionId, next: sequence + 1 });
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

/** How much is sent again if no batch is applied: as much as one append carries. */
const RESENT_BYTES_MAX = 1024 * 1024;

/**
 * The way of batches from their proposer into the leader's log.
 *
 *   this node's proposer ──┬── this node leads ──▶ sequencer ──▶ taken, for the log at the end of this turn
 *                          └── another leads ────▶ its link  ▲
 *   another node's proposer ── its link ─────────────────────┘
 *
 * A proposer sends its batches in order, each once; all again, from the oldest that is not applied, to a new leader or
 * over a new link. What is not taken is refused, never forwarded (RedisRaft 13).
 */
export class Proposals {
  readonly #loop: Pick<NodeLoop, 'core' | 'scheduleTurn'>;
  readonly #sender: Pick<Sender, 'tell'>;
  readonly #proposer: Proposer;
  readonly #balancer: LeaderBalancer;
  readonly #sequencer = new ProposalSequencer();
  /** Held for longer than a turn only while leadership is being handed over. */
  #taken: Buffer[] = [];
  /** The last of this node's batches that was sent to the present leader. */
  #sentSequence = 0;
  #checkedAtMs = 0;
  #oldestWhenChecked = 0;

  constructor(
    loop: Pick<NodeLoop, 'core' | 'scheduleTurn'>,
    sender: Pick<Sender, 'tell'>,
    proposer: Proposer,
    balancer: LeaderBalancer,
  ) {
    this.#loop = loop;
    this.#sender = sender;
    this.#proposer = proposer;
    this.#balancer = balancer;
  }

  get waiting(): boolean {
    return this.#taken.length > 0;
  }

  /** Sends the batches that the leader has not been sent yet. */
  sendNew(): void {
    if (this.#loop.core.leader === NO_NODE) return;
    let sequence = Math.max(this.#sentSequence + 1, this.#proposer.oldestSequence);
    while (this.#sendBatch(sequence) > 0) this.#sentSequence = sequence++;
  }

  /** Returns how many bytes were sent: 0 if there is no such batch or the link takes no more. */
  #sendBatch(sequence: number): number {
    const { id, leader, term } = this.#loop.core;
    const batch = this.#proposer.batch(sequence);
    if (batch === undefined) return 0;
    const { oldestSequence, sessionId } = this.#proposer;
    const { bytes } = batch;
    const proposal: Proposal = { kind: 'proposal', term, sessionId, sequence, oldestSequence, bytes };
    if (leader === id) this.receive(id, proposal, batch.sent);
    else if (!this.#sender.tell(leader, proposal)) return 0;
    batch.sent = true;
    return bytes.length;
  }

  /** Whatever was sent may be lost: begin again with the oldest batch that is not applied. */
  sendAllAgain(): void {
    this.#sentSequence = this.#proposer.oldestSequence - 1;
    this.#loop.scheduleTurn();
  }

  /**
   * Links deliver all or break, and a broken one is noticed; this is for what a leader dropped on purpose, and for
   * transports that lose single frames. Where nothing has moved for `stuckMs`, the oldest batches go out again: few
   * enough to be no burden if the leader is only slow, and if it lacks them it says where to go on.
   */
  sendAgainIfStuck(nowMs: number, stuckMs: number): void {
    if (nowMs - this.#checkedAtMs < stuckMs) return;
    const { unapplied, oldestSequence } = this.#proposer;
    const isStuck = unapplied > 0 && oldestSequence === this.#oldestWhenChecked;
    this.#checkedAtMs = nowMs;
    this.#oldestWhenChecked = oldestSequence;
    if (!isStuck) return;
    let bytesSent = 0;
    for (let sequence = oldestSequence; sequence <= this.#sentSequence && bytesSent < RESENT_BYTES_MAX; sequence++) {
      const bytes = this.#sendBatch(sequence);
      if (bytes === 0) return;
      bytesSent += bytes;
    }
  }

  /**
   * A batch from this node's own proposer, or from another, which `checkProposal` has passed. The leader writes the
   * entry's header and time into the bytes, so they may enter its log only while they are not in use elsewhere: in an older
   * entry of this log, or in a link that has not sent them yet.
   */
  receive(from: NodeId, proposal: Proposal, sent = false): void {
    const { id, term, role } = this.#loop.core;
    const verdict = this.#sequencer.judge(from, proposal, term, role === 'leader');
    if (verdict === 'ignore') return;
    if (verdict === 'take') {
      this.#balancer.count(from);
      this.#taken.push(sent ? Buffer.from(proposal.bytes) : proposal.bytes);
      this.#loop.scheduleTurn();
      return;
    }
    if (from === id) this.receiveRefusal(from, verdict);
    else this.#sender.tell(from, verdict);
  }

  receiveRefusal(from: NodeId, refusal: ProposalRefused): void {
    const { leader, term } = this.#loop.core;
    if (from !== leader || refusal.term !== term || refusal.sessionId !== this.#proposer.sessionId) return;
    // "Does not lead" (0) needs no action: once the new leader is known, everything is sent again.
    if (refusal.expectedSequence < this.#proposer.oldestSequence) return;
    this.#sentSequence = Math.min(this.#sentSequence, refusal.expectedSequence - 1);
    this.#loop.scheduleTurn();
  }

  /** Returns the accepted batches for the log, with the leader's time in each. */
  drain(timeMs: number): Buffer[] {
    const batches = this.#taken;
    this.#taken = [];
    for (const bytes of batches) stampBatchTime(bytes, ENTRY_HEADER_BYTES, timeMs);
    return batches;
  }

  /** This node no longer leads. The proposers will send these batches to the new leader. */
  forget(): void {
    this.#taken = [];
  }
}

/** @throws RaftkvError MESSAGE_INVALID where what `from` proposes is no batch, or not its own. */
export function checkProposal(from: NodeId, proposal: Proposal): void {
  const { proposer, sessionId, sequence } = validateBatch(proposal.bytes, ENTRY_HEADER_BYTES);
  if (proposer === from && sessionId === proposal.sessionId && sequence === proposal.sequence) return;
  throw new RaftkvError(
    'MESSAGE_INVALID',
    `node ${from} proposed batch ${sequence}, whose header names node ${proposer} or another session or sequence`,
  );
}
