import type { Clock } from '../../base/clock.ts';
import { clockBatch, stampBatchTime, type WriteCommand } from '../../kv/batch.ts';
import type { StateMachine } from '../../kv/state-machine.ts';
import { ENTRY_HEADER_BYTES } from '../../raft/state/entry.ts';
import { NO_NODE, type NodeId } from '../../raft/state/types.ts';
import type { Wal } from '../../storage/wal/types.ts';
import type { NodeLoop } from '../node-loop.ts';
import type { ReplicaObserver } from '../observer.ts';
import type { Sender } from '../peers/sender.ts';
import type { Proposal, ProposalRefused } from '../peers/wire.ts';
import type { Failure, WriteCompletion } from '../types.ts';
import { Applier } from './applier.ts';
import { LeaderBalancer } from './leader-balancer.ts';
import { Proposals } from './proposals.ts';
import { Proposer, type ProposerLimits } from './proposer.ts';

export interface WriteOptions {
  readonly nodeId: NodeId;
  /** The number of this incarnation of the node: its session id to begin with. */
  readonly incarnation: number;
  readonly clock: Clock;
  readonly limits: ProposerLimits;
  readonly timing: { readonly electionTimeoutMs: number; readonly requestTimeoutMs: number };
  readonly wal: Wal;
  readonly recovered: { readonly stateMachine: StateMachine };
  readonly observer: ReplicaObserver | null;
}

/**
 * The path of a write through this node, from the client to its result:
 *
 *   propose ─▶ proposer.ts ─▶ proposals.ts ─▶ leader's log ─ ─ committed ─ ─▶ applier.ts ─▶ state machine ─▶ completion
 */
export class WritePath {
  readonly proposer: Proposer;
  /**
   * True once no earlier incarnation of this node can have used our session id, that is, after we applied everything
   * that was committed before we started. Until then we must not propose: the directory may be a restored backup.
   */
  mayPropose = false;
  readonly applier: Applier;
  readonly #options: WriteOptions;
  readonly #loop: NodeLoop;
  readonly #proposals: Proposals;
  readonly #balancer: LeaderBalancer;
  /** Writes refused in this turn: completions are not called from within `propose`. */
  #refused: WriteCompletion[] = [];
  #waitingForRoom: (() => void)[] = [];
  /** The newest entry that only advances time, while it is not applied. */
  #clockEntryIndex = 0;

  /** `onSessionUsed`: see `ApplierContext`. */
  constructor(options: WriteOptions, loop: NodeLoop, sender: Sender, onSessionUsed: () => void) {
    const { nodeId, incarnation, limits, wal, observer } = options;
    const { stateMachine } = options.recovered;
    this.#options = options;
    this.#loop = loop;
    this.#balancer = new LeaderBalancer(nodeId);
    this.proposer = new Proposer(nodeId, incarnation, limits);
    this.#proposals = new Proposals(loop, sender, this.proposer, this.#balancer);
    this.applier = new Applier({ wal, observer, stateMachine, proposer: this.proposer, onSessionUsed }, loop);
  }

  get sessionId(): number {
    return this.proposer.sessionId;
  }

  get appliedSessionId(): number {
    return this.#options.recovered.stateMachine.session(this.#options.nodeId)?.sessionId ?? 0;
  }

  changeSessionId(sessionId: number): void {
    this.proposer.changeSessionId(sessionId);
  }

  startProposing(): void {
    this.mayPropose = true;
    this.#loop.scheduleTurn();
  }

  propose(command: WriteCommand, completion: WriteCompletion): void {
    this.#loop.scheduleTurn();
    if (this.#loop.core.clusterFull) {
      this.#refused.push(completion);
      return;
    }
    this.proposer.add(command, completion);
    // The clock is asked once a batch: asking it costs about as much as encoding a command.
    if (this.proposer.batchIsFull) this.proposer.closeBatch(this.#options.clock.monotonicMs());
  }

  accepting(): boolean {
    return this.proposer.hasRoom;
  }

  onceAccepting(callback: () => void): void {
    this.#waitingForRoom.push(callback);
  }

  receive(peer: NodeId, message: Proposal | ProposalRefused): void {
    if (message.kind === 'proposal') this.#proposals.receive(peer, message);
    else this.#proposals.receiveRefusal(peer, message);
  }

  /** Sends the writes of this turn to the leader, or gives them to the core if this node leads. */
  endTurn(nowMs: number): void {
    this.#refuse();
    this.proposer.closeBatch(nowMs);
    if (this.mayPropose) this.#proposals.sendNew();
    // While leadership is being handed over, batches that were taken wait.
    if (!this.#proposals.waiting || !this.#loop.acceptsProposals) return;
    this.#loop.put({ kind: 'propose', batches: this.#proposals.drain(this.#options.clock.wallMs()) });
  }

  #refuse(): void {
    if (this.#refused.length === 0) return;
    const refused = this.#refused;
    this.#refused = [];
    for (const completion of refused) completion.writeFailed('diskFull');
  }

  /** The core knows what is applied: connections that waited for room may go on. */
  applied(): void {
    if (this.#waitingForRoom.length === 0 || !this.proposer.hasRoom) return;
    const waiting = this.#waitingForRoom;
    this.#waitingForRoom = [];
    for (const callback of waiting) callback();
  }

  /** The state was replaced by that of a snapshot, which may contain batches of this node. */
  installed(): void {
    const own = this.#options.recovered.stateMachine.session(this.#options.nodeId);
    if (this.mayPropose && own !== undefined) this.proposer.overtaken(own);
  }

  /** The term or the leader is another. */
  leaderChanged(): void {
    const { role, leader } = this.#loop.core;
    this.#clockEntryIndex = 0;
    if (role === 'leader') this.#balancer.begin(this.#options.clock.monotonicMs());
    else this.#proposals.forget();
    if (leader !== NO_NODE) this.#proposals.sendAllAgain();
  }

  tick(nowMs: number): void {
    const { electionTimeoutMs, requestTimeoutMs } = this.#options.timing;
    if (this.#loop.acceptsProposals) {
      this.#letTimePass(this.#options.clock.wallMs());
      const to = this.#balancer.successor(nowMs);
      if (to !== NO_NODE) this.#loop.put({ kind: 'transferLeadership', to });
    }
    if (this.mayPropose && this.#loop.core.leader !== NO_NODE)
      this.#proposals.sendAgainIfStuck(nowMs, electionTimeoutMs);
    this.proposer.failOlderThan(nowMs - requestTimeoutMs, 'timeout');
  }

  /** If an item is due to expire and there are no writes, the leader appends an entry that only advances time. */
  #letTimePass(wallMs: number): void {
    const { log } = this.#loop.core;
    const isOnItsWay = this.#clockEntryIndex > log.appliedIndex;
    if (isOnItsWay || this.#options.recovered.stateMachine.nextEventMs() > wallMs) return;
    const batch = clockBatch(ENTRY_HEADER_BYTES);
    stampBatchTime(batch, ENTRY_HEADER_BYTES, wallMs);
    this.#clockEntryIndex = log.lastIndex + 1;
    this.#loop.put({ kind: 'propose', batches: [batch] });
  }

  failAll(failure: Failure): void {
    this.#refuse();
    this.proposer.closeBatch(0);
    this.proposer.failOlderThan(Number.POSITIVE_INFINITY, failure);
  }
}
