import { NO_NODE, type NodeId } from '../../raft/types.ts';

/**
 * Leadership follows the writes. A write that comes in at the leader is answered two messages sooner than one that
 * comes in at a follower, so where nearly all come in at one follower, it should lead. Handing over costs a pause of a
 * few milliseconds: it is done only when the picture has been clear for some time, and then not again for a while.
 */

/** How long writes are counted before anything is made of them. */
const WINDOW_MS = 500;
/** So many windows in a row must say the same. */
const WINDOWS_AGREEING = 2;
/** Fewer batches than this in a window say nothing. */
const BATCHES_PER_WINDOW_MIN = 50;
/** The share of one proposer's batches that makes the others not count. */
const SHARE_MIN = 0.9;
/** After one try, whether it came off or not. Keeps two busy clients from passing leadership to and fro. */
const PAUSE_MS = 10_000;

export class Placement {
  private readonly nodeId: NodeId;
  private readonly batches = new Map<NodeId, number>();
  private windowEndsMs = 0;
  private favourite: NodeId = NO_NODE;
  private windowsWon = 0;
  private quietUntilMs = 0;

  constructor(nodeId: NodeId) {
    this.nodeId = nodeId;
  }

  /** The leader took a batch of `proposer`. */
  count(proposer: NodeId): void {
    this.batches.set(proposer, (this.batches.get(proposer) ?? 0) + 1);
  }

  /** This node has just come to lead: what it counted before says nothing. */
  begin(nowMs: number): void {
    this.favourite = NO_NODE;
    this.startWindow(nowMs);
  }

  /** Who should lead instead of this node, by what was counted; NO_NODE nearly always. */
  successor(nowMs: number): NodeId {
    if (nowMs < this.windowEndsMs) return NO_NODE;
    const winner = this.winner();
    this.windowsWon = winner === this.favourite ? this.windowsWon + 1 : 1;
    this.favourite = winner;
    this.startWindow(nowMs);
    if (winner === NO_NODE || winner === this.nodeId) return NO_NODE;
    if (this.windowsWon < WINDOWS_AGREEING || nowMs < this.quietUntilMs) return NO_NODE;
    this.quietUntilMs = nowMs + PAUSE_MS;
    return winner;
  }

  private startWindow(nowMs: number): void {
    this.batches.clear();
    this.windowEndsMs = nowMs + WINDOW_MS;
  }

  private winner(): NodeId {
    let all = 0;
    let most = 0;
    let winner: NodeId = NO_NODE;
    for (const [proposer, batches] of this.batches) {
      all += batches;
      if (batches <= most) continue;
      most = batches;
      winner = proposer;
    }
    return all >= BATCHES_PER_WINDOW_MIN && most >= all * SHARE_MIN ? winner : NO_NODE;
  }
}
