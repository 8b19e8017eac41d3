import { NO_NODE, type NodeId } from '../../raft/state/types.ts';

/**
 * Proposes a transfer of leadership to the follower that proposes nearly all writes (ADR 0007), because a write at the
 * leader is answered two messages sooner than one at a follower. A transfer pauses writes for a few milliseconds, so it
 * takes several windows that agree, and is not repeated for a while.
 */

/** The length of one window in which batches are counted per proposer. */
const WINDOW_MS = 500;
/** So many windows in a row must agree on the proposer. */
const WINDOWS_AGREEING = 2;
/** A window with fewer batches is not decisive. */
const BATCHES_PER_WINDOW_MIN = 50;
/** The share of all batches that one proposer must reach. */
const SHARE_MIN = 0.9;
/** No further transfer for so long after one, successful or not: otherwise two busy clients could move leadership back and forth. */
const PAUSE_MS = 10_000;

export class LeaderBalancer {
  readonly #nodeId: NodeId;
  readonly #batches = new Map<NodeId, number>();
  #windowEndsMs = 0;
  #dominant: NodeId = NO_NODE;
  #windowsWon = 0;
  #quietUntilMs = 0;

  constructor(nodeId: NodeId) {
    this.#nodeId = nodeId;
  }

  /** The leader took a batch of `proposer`. */
  count(proposer: NodeId): void {
    this.#batches.set(proposer, (this.#batches.get(proposer) ?? 0) + 1);
  }

  /** This node has become leader: starts counting from zero. */
  begin(nowMs: number): void {
    this.#dominant = NO_NODE;
    this.#startWindow(nowMs);
  }

  /** The node that should lead instead of this one, or `NO_NODE`. */
  successor(nowMs: number): NodeId {
    if (nowMs < this.#windowEndsMs) return NO_NODE;
    const winner = this.#winner();
    this.#windowsWon = winner === this.#dominant ? this.#windowsWon + 1 : 1;
    this.#dominant = winner;
    this.#startWindow(nowMs);
    if (winner === NO_NODE || winner === this.#nodeId) return NO_NODE;
    if (this.#windowsWon < WINDOWS_AGREEING || nowMs < this.#quietUntilMs) return NO_NODE;
    this.#quietUntilMs = nowMs + PAUSE_MS;
    return winner;
  }

  #startWindow(nowMs: number): void {
    this.#batches.clear();
    this.#windowEndsMs = nowMs + WINDOW_MS;
  }

  #winner(): NodeId {
    let all = 0;
    let most = 0;
    let winner: NodeId = NO_NODE;
    for (const [proposer, batches] of this.#batches) {
      all += batches;
      if (batches <= most) continue;
      most = batches;
      winner = proposer;
    }
    return all >= BATCHES_PER_WINDOW_MIN && most >= all * SHARE_MIN ? winner : NO_NODE;
  }
}
