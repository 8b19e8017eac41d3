import type { WriteCommand } from '../../kv/batch.ts';
import type { ChangeObserver } from '../../kv/changes.ts';
import type { StateMachine } from '../../kv/state-machine.ts';
import type { Item } from '../../kv/types.ts';
import type { Raft } from '../../raft/raft.ts';
import { readEntry } from '../../raft/state/entry.ts';
import type { RaftLog } from '../../raft/state/log.ts';
import { type Effects, type MemberChange, NO_NODE, type NodeId, type ReadBack } from '../../raft/state/types.ts';
import type { TransportEvents } from '../../transport/types.ts';
import { InputQueue, type ReplicaInput } from '../input-queue.ts';
import type { NodeLifecycle } from '../lifecycle/node-lifecycle.ts';
import type { Applier } from '../log/applier.ts';
import { type Persisted, Persister } from '../log/persister.ts';
import type { ReplicaObserver } from '../observer.ts';
import type { MemberRequests } from '../peers/member-requests.ts';
import type { Peers } from '../peers/peers.ts';
import { Sender } from '../peers/sender.ts';
import { decodeMessage, type PeerMessage } from '../peers/wire.ts';
import type { SnapshotExchange } from '../snapshots/exchange.ts';
import { noQuorumForBackup } from '../snapshots/snapshotter.ts';
import type { Backup, MembersView, ReadCompletion, Replica, ReplicaStatus, WriteCompletion } from '../types.ts';
import { LeaderBalancer } from '../writes/leader-balancer.ts';
import { checkProposal, type Proposals } from '../writes/proposals.ts';
import { Proposer } from '../writes/proposer.ts';
import { LeaderMaintenance } from './leader-maintenance.ts';
import type { NodeReplicaOptions } from './node-options.ts';
import { createParts } from './parts.ts';
import { ReadBatches } from './read-batches.ts';
import { describeStatus } from './status.ts';
import { Ticker } from './ticker.ts';

/**
 * One node of the cluster: the loop in which the Raft core, the log file, the links to the peers and the state machine
 * meet. This folder promises that a write is answered only once it is durable on a majority and applied, and that it is
 * applied exactly once; and that a read sees every write that had been answered when it came.
 *
 *   clients ─ propose ─▶ proposer.ts ─▶ proposals.ts ──┐                           ┌─▶ persister.ts ─▶ log file
 *                                                      ├─▶ input-queue.ts ─▶ Raft.step ─▶ effects ─▶ wire.ts ─▶ peers
 *   peers ──── frames ─▶ wire.ts ──────────────────────┤         ▲                 └─▶ commit ─▶ applier.ts ─▶ state machine
 *   clients ─ read ────▶ read-batches.ts ──────────────┘         └─────────────── applied ──────────┤
 *      ▲                                                                                            │
 *      └──────────────────────────── results, in the order asked ◀──────────────────────────────────┘
 */

/** The core's unit of time: fine enough for an election within tens of milliseconds, coarse enough to cost nothing. */
const DEFAULT_TICK_MS = 10;

export class NodeReplica implements Replica, TransportEvents {
  private readonly options: NodeReplicaOptions;
  private readonly observer: ReplicaObserver | null;
  /** For status, tests and the simulator to look at. Only this class steps it. */
  readonly raft: Raft;
  private readonly inputs = new InputQueue((input) => this.take(input));
  private readonly log: RaftLog;
  /** To be looked at: only committed entries change it. */
  readonly stateMachine: StateMachine;
  private readonly proposer: Proposer;
  private readonly proposals: Proposals;
  private readonly maintenance: LeaderMaintenance;
  private readonly readBatches: ReadBatches;
  private readonly persister: Persister;
  private readonly sender: Sender;
  private readonly applier: Applier;
  private readonly peers: Peers;
  private readonly requests: MemberRequests;
  private readonly lifecycle: NodeLifecycle;
  private readonly exchange: SnapshotExchange;
  /** Writes refused in this turn. */
  private refusedWrites: WriteCompletion[] = [];
  private knownLeader: NodeId = NO_NODE;
  private knownTerm = -1;
  private turnScheduled = false;
  private readonly ticker: Ticker;
  private waitingForRoom: (() => void)[] = [];
  private waitingForLeaderChange: (() => void)[] = [];
  /** `failed`: the process is about to end and sends nothing more. */
  private state: 'running' | 'stopped' | 'failed' = 'running';

  constructor(options: NodeReplicaOptions) {
    const { timing, clock, wal, nodeId, incarnation, recovered } = options;
    const { log, hardState, stateMachine } = recovered;
    this.options = options;
    const tickMs = timing.tickMs ?? DEFAULT_TICK_MS;
    this.log = log;
    this.stateMachine = stateMachine;
    this.proposer = new Proposer(nodeId, incarnation, options.limits);
    this.readBatches = new ReadBatches(options.random());
    this.observer = options.observer;
    this.persister = new Persister(wal, (persisted) => this.guard(() => this.onPersisted(persisted)), this.observer);
    this.sender = new Sender(options.transport, () => this.scheduleTurn());
    const balancer = new LeaderBalancer(nodeId);
    const parts = createParts({
      options,
      tickMs,
      proposer: this.proposer,
      balancer,
      put: (input) => this.put(input),
      guard: (action) => this.guard(action),
      tell: (to, message) => this.sender.tell(to, message),
      scheduleTurn: () => this.scheduleTurn(),
      read: (completion) => this.read(completion),
      isRunning: () => this.state === 'running',
      onFatal: (error) => this.fail(error),
    });
    this.raft = parts.raft;
    this.proposals = parts.proposals;
    this.applier = parts.applier;
    this.peers = parts.peers;
    this.requests = parts.requests;
    this.lifecycle = parts.nodeLifecycle;
    this.exchange = parts.exchange;
    this.maintenance = new LeaderMaintenance(this.raft, stateMachine, balancer, (input) => this.inputs.put(input));
    this.observer?.opened({ core: this.raft.core, stateMachine, wal, proposer: this.proposer });
    if (options.logReset !== null) this.persister.resetLog(options.logReset, hardState, []);
    this.ticker = new Ticker(clock, tickMs, (count, nowMs) => this.guard(() => this.tick(count, nowMs)));
  }

  /** To be called once the transport has started. */
  begin(): void {
    this.guard(() => {
      this.peers.update();
      this.lifecycle.begin();
    });
  }

  propose(command: WriteCommand, completion: WriteCompletion): void {
    if (this.raft.core.clusterFull) {
      this.refusedWrites.push(completion);
      this.scheduleTurn();
      return;
    }
    this.proposer.add(command, completion);
    // The clock is asked once a batch: asking it costs about as much as encoding a command.
    if (this.proposer.batchIsFull) this.proposer.closeBatch(this.options.clock.monotonicMs());
    this.scheduleTurn();
  }

  read(completion: ReadCompletion): void {
    this.readBatches.add(completion);
    this.scheduleTurn();
  }

  get(key: string): Item | undefined {
    return this.stateMachine.get(key);
  }

  entries(): IterableIterator<[string, Item]> {
    return this.stateMachine.entries();
  }

  observe(observer: ChangeObserver | null): void {
    this.stateMachine.observer = observer;
  }

  accepting(): boolean {
    return this.proposer.hasRoom;
  }

  onceAccepting(callback: () => void): void {
    this.waitingForRoom.push(callback);
  }

  status(): ReplicaStatus {
    const { raft, options, stateMachine } = this;
    return {
      ...describeStatus(raft.core, options, stateMachine),
      appliedIndex: this.applier.appliedIndex,
      pendingWrites: this.proposer.pendingCommands,
      pendingReads: this.readBatches.pending,
      snapshotting: this.exchange.isWriting,
      healthProblem: this.lifecycle.healthProblem(),
    };
  }

  changeMembers(change: MemberChange): Promise<void> {
    return this.requests.change(change);
  }

  members(): MembersView {
    return this.requests.view();
  }

  async backup(): Promise<Backup> {
    await new Promise<void>((resolve, reject) => {
      this.read({ readable: resolve, readFailed: () => reject(noQuorumForBackup()) });
    });
    return this.exchange.backup();
  }

  /** The log file has, or no longer has, room to go on. */
  diskFull(full: boolean): void {
    this.put({ kind: 'diskFull', full });
  }

  /** Transfers leadership to another node if this one leads. Resolves when it has, or when no node could take it. */
  handOver(): Promise<void> {
    const { role, configurations } = this.raft.core;
    if (role !== 'leader' || configurations.current.voters.length === 1) return Promise.resolve();
    return new Promise((resolve) => {
      const cancel = this.options.clock.after(this.options.timing.electionTimeoutMs, resolve);
      this.waitingForLeaderChange.push(() => {
        cancel();
        resolve();
      });
      this.put({ kind: 'transferLeadership', to: NO_NODE });
    });
  }

  /** Ends the loop. Pending requests are told that their outcome is unknown. The caller closes the log file. */
  stop(): void {
    if (this.state !== 'running') return;
    const { core } = this.raft;
    this.state = 'stopped';
    this.ticker.stop();
    this.tellWaiting();
    this.requests.stop();
    this.persister.record({ term: core.term, vote: core.vote, commitIndex: this.log.commitIndex });
  }

  /** Resolves once nothing of this replica touches its files any more, but the log's. After `stop`. */
  whenIdle(): Promise<void> {
    return this.exchange.stop();
  }

  private tellWaiting(): void {
    this.refuseWrites();
    this.proposer.closeBatch(0);
    this.readBatches.closeTurn(0);
    this.proposer.failOlderThan(Number.POSITIVE_INFINITY, 'stopping');
    this.readBatches.failOlderThan(Number.POSITIVE_INFINITY, 'stopping');
  }

  onFrame(peer: NodeId, frame: Buffer): void {
    if (this.state !== 'running') return;
    // Only these may throw to the transport: that a frame makes no sense is the peer's fault, all else is this node's.
    const message = decodeMessage(frame, peer, this.options.nodeId);
    if (message.kind === 'proposal') checkProposal(peer, message);
    this.guard(() => this.receive(peer, message));
  }

  private receive(peer: NodeId, message: PeerMessage): void {
    switch (message.kind) {
      case 'proposal':
        this.proposals.receive(peer, message);
        return;
      case 'proposalRefused':
        this.proposals.receiveRefusal(peer, message);
        return;
      case 'lifecycle':
        this.lifecycle.receive(peer, message);
        this.peers.tellMembers(peer);
        return;
      case 'membersNews':
        this.peers.receive(message);
        return;
      default:
        this.lifecycle.hear(message);
        this.inputs.put({ kind: 'receive', message });
    }
  }

  onLinkUp(peer: NodeId): void {
    this.guard(() => {
      this.lifecycle.linkUp(peer);
      this.inputs.put({ kind: 'linkUp', peer });
    });
  }

  onLinkLost(peer: NodeId): void {
    this.guard(() => {
      this.lifecycle.linkLost(peer);
      this.inputs.put({ kind: 'linkLost', peer });
    });
  }

  onBulkFrame(peer: NodeId, frame: Buffer): void {
    if (this.state !== 'running') return;
    const message = this.exchange.decode(peer, frame);
    this.guard(() => this.exchange.receive(peer, message));
  }

  onBulkUp(peer: NodeId): void {
    this.guard(() => this.exchange.linkUp(peer));
  }

  onBulkLost(): void {
    // What is on its way is lost; it is asked for again once the link stands.
  }

  onRemoved(peer: NodeId): void {
    this.guard(() => this.lifecycle.removedSays(peer));
  }

  onUnknownPeer(peer: NodeId): void {
    this.guard(() => this.lifecycle.unknownPeer(peer));
  }

  /** Gives the core an input, unless this node has stopped. To be called from anywhere. */
  private put(input: ReplicaInput): void {
    if (this.state !== 'running') return;
    try {
      this.inputs.put(input);
    } catch (error) {
      this.fail(error);
    }
  }

  /** Only `inputs` calls this: one input after the other, each with all of its effects. */
  private take(input: ReplicaInput): void {
    const { core } = this.raft;
    const committedBefore = this.log.commitIndex;
    this.observer?.stepping(input);
    const effects = this.raft.step(input);
    this.observer?.stepped(input, effects);
    this.persister.persist(effects, { term: core.term, vote: core.vote, commitIndex: this.log.commitIndex });
    for (const message of effects.sendNow) this.sender.send(message);
    for (const each of effects.readBacks) this.serveReadBack(each);
    for (const { id, index } of effects.reads) this.readBatches.confirm(id, index);
    for (const id of effects.readsRejected) this.readBatches.reject(id);
    if (isRare(effects)) this.carryOutRare(input, effects);
    if (core.leader !== this.knownLeader || core.term !== this.knownTerm) this.leaderChanged();
    // What a slice leaves over waits for the end of the turn; otherwise a long catch-up would be one turn.
    if (this.log.commitIndex > committedBefore) this.applyCommitted();
    if (effects.reads.length > 0) this.serveReads();
    if (input.kind === 'applied') this.afterApplying();
    else if (input.kind === 'compact') this.exchange.compacted();
  }

  private carryOutRare(input: ReplicaInput, effects: Effects): void {
    if (effects.install !== null && input.kind === 'snapshotReceived') this.install(effects.install.index, input.state);
    if (effects.configuration !== null) {
      this.peers.update();
      this.lifecycle.configured();
    }
    for (const outcome of effects.memberChanges) this.requests.outcome(outcome);
    if (effects.wantSnapshot !== null) this.exchange.want(effects.wantSnapshot);
    if (effects.recovered) this.lifecycle.recovered();
  }

  /** The core has decided to replace the state by that of a snapshot. */
  private install(index: number, state: StateMachine): void {
    this.exchange.install(index, state);
    const own = this.stateMachine.session(this.options.nodeId);
    if (this.lifecycle.mayPropose && own !== undefined) this.proposer.overtaken(own);
    this.put({ kind: 'applied', index });
  }

  private serveReads(): void {
    this.readBatches.serve(this.applier.appliedIndex);
    // The next batch begins at once if reads have gathered meanwhile.
    if (this.readBatches.hasGathered) this.scheduleTurn();
  }

  private applyCommitted(): void {
    if (this.applier.applyCommitted()) this.put({ kind: 'applied', index: this.applier.appliedIndex });
  }

  /** The core knows what is applied; so may all that waited for it. */
  private afterApplying(): void {
    this.exchange.consider();
    this.requests.progress();
    this.lifecycle.applied(this.applier.appliedIndex);
    this.serveReads();
    if (this.log.commitIndex > this.applier.appliedIndex) this.scheduleTurn();
    if (this.waitingForRoom.length === 0 || !this.proposer.hasRoom) return;
    const waiting = this.waitingForRoom;
    this.waitingForRoom = [];
    for (const callback of waiting) callback();
  }

  private onPersisted({ term, index, hardState, messages }: Persisted): void {
    for (const message of messages) this.sender.send(message);
    if (index > 0 || hardState !== null) this.inputs.put({ kind: 'persisted', term, index, hardState });
  }

  private serveReadBack({ peer, fromIndex, bytesMax }: ReadBack): void {
    const last = this.log.firstCachedIndex - 1;
    this.options.wal.read(fromIndex, last, bytesMax).then(
      (records) =>
        this.guard(() => {
          const entries = records.map((record) => readEntry(record, 0));
          this.inputs.put({ kind: 'readBack', peer, entries });
        }),
      (error) => {
        // What was compacted meanwhile is not wanted any more: the follower gets a snapshot.
        if (fromIndex > this.log.snapshotIndex) this.fail(error);
        else this.guard(() => this.inputs.put({ kind: 'readBack', peer, entries: [] }));
      },
    );
  }

  private leaderChanged(): void {
    const { core } = this.raft;
    const isNews = core.leader !== this.knownLeader;
    this.knownLeader = core.leader;
    this.knownTerm = core.term;
    this.maintenance.leaderChanged(this.options.clock.monotonicMs());
    if (core.role !== 'leader') this.proposals.forget();
    if (core.leader !== NO_NODE) {
      this.proposals.sendAllAgain();
      this.readBatches.rejectAny();
    }
    this.requests.progress();
    if (!isNews) return;
    this.options.onLeaderChanged(core.leader, core.term);
    if (core.leader === NO_NODE || core.leader === this.options.nodeId) return;
    const waiting = this.waitingForLeaderChange;
    this.waitingForLeaderChange = [];
    for (const callback of waiting) callback();
  }

  private scheduleTurn(): void {
    if (this.turnScheduled) return;
    this.turnScheduled = true;
    this.options.clock.endOfTurn(() => {
      this.turnScheduled = false;
      // A connection that is itself being closed may still have asked for something.
      if (this.state === 'stopped') this.tellWaiting();
      else this.guard(() => this.endTurn());
    });
  }

  /** All that this turn gathered goes out together. */
  private endTurn(): void {
    const nowMs = this.options.clock.monotonicMs();
    this.refuseWrites();
    this.proposer.closeBatch(nowMs);
    this.readBatches.closeTurn(nowMs);
    if (this.lifecycle.mayPropose) this.proposals.sendNew();
    this.flushProposals();
    this.sender.endTurn();
    if (this.log.commitIndex > this.applier.appliedIndex) this.applyCommitted();
    if (this.raft.core.leader === NO_NODE) return;
    const id = this.readBatches.begin(nowMs);
    if (id !== 0) this.inputs.put({ kind: 'read', id });
  }

  private refuseWrites(): void {
    if (this.refusedWrites.length === 0) return;
    const refused = this.refusedWrites;
    this.refusedWrites = [];
    for (const completion of refused) completion.writeFailed('diskFull');
  }

  /** Puts the batches of this turn into the log; while leadership is being handed over, they wait. */
  private flushProposals(): void {
    if (!this.proposals.waiting || !this.raft.acceptsProposals) return;
    this.inputs.put({ kind: 'propose', batches: this.proposals.drain(this.options.clock.wallMs()) });
  }

  private tick(count: number, nowMs: number): void {
    for (let i = 0; i < count; i++) this.inputs.put({ kind: 'tick' });
    this.maintenance.tick(nowMs, this.options.clock.wallMs());
    this.runPeriodicMaintenance(nowMs);
    this.retry(nowMs);
    this.proposer.failOlderThan(nowMs - this.options.timing.requestTimeoutMs, 'timeout');
    this.readBatches.failOlderThan(nowMs - this.options.timing.requestTimeoutMs, 'timeout');
    // What an earlier turn could not do, another may: a link was full, leadership was on its way, a read batch unanswered.
    this.scheduleTurn();
  }

  /** Work that is not urgent: peers, snapshot transfers, pending member requests, the lifecycle. */
  private runPeriodicMaintenance(nowMs: number): void {
    this.peers.update();
    this.exchange.tick();
    this.requests.progress();
    this.lifecycle.tick(nowMs);
  }

  /** Asks again for what a leader could not confirm, or was not able to take. */
  private retry(nowMs: number): void {
    if (this.raft.core.leader === NO_NODE) return;
    const retryMs = this.options.timing.electionTimeoutMs;
    if (this.readBatches.isOverdue(nowMs - retryMs))
      this.inputs.put({ kind: 'read', id: this.readBatches.beginAgain(nowMs) });
    if (this.lifecycle.mayPropose) this.proposals.sendAgainIfStuck(nowMs, retryMs);
  }

  private guard(action: () => void): void {
    if (this.state !== 'running') return;
    try {
      action();
    } catch (error) {
      this.fail(error);
    }
  }

  private fail(error: unknown): void {
    if (this.state !== 'running') return;
    this.state = 'failed';
    this.ticker.stop();
    this.options.onFatal(error);
  }
}

function isRare(effects: Effects): boolean {
  const { install, configuration, wantSnapshot, memberChanges, recovered } = effects;
  if (install !== null || configuration !== null || wantSnapshot !== null) return true;
  return memberChanges.length > 0 || recovered;
}
