import type { WriteCommand } from '../../kv/batch.ts';
import type { ChangeObserver } from '../../kv/changes.ts';
import type { StateMachine } from '../../kv/state-machine.ts';
import type { Item } from '../../kv/types.ts';
import { Raft } from '../../raft/raft.ts';
import { readEntry } from '../../raft/state/entry.ts';
import type { RaftLog } from '../../raft/state/log.ts';
import {
  type ClusterId,
  type Effects,
  type MemberChange,
  NO_NODE,
  type NodeId,
  type ReadBack,
} from '../../raft/state/types.ts';
import type { TransportEvents } from '../../transport/types.ts';
import { NodeLifecycle } from '../lifecycle/node-lifecycle.ts';
import { type Persisted, Persister } from '../log/persister.ts';
import { NodeLoop, type ReplicaInput } from '../node-loop.ts';
import { MemberRequests } from '../peers/member-requests.ts';
import { Sender } from '../peers/sender.ts';
import { decodeMessage, type PeerMessage } from '../peers/wire.ts';
import { ReadPath } from '../reads/read-path.ts';
import { SnapshotExchange } from '../snapshots/exchange.ts';
import { noQuorumForBackup } from '../snapshots/snapshotter.ts';
import type { Backup, MembersView, ReadCompletion, Replica, ReplicaStatus, WriteCompletion } from '../types.ts';
import { checkProposal } from '../writes/proposals.ts';
import { WritePath } from '../writes/write-path.ts';
import type { NodeReplicaOptions } from './node-options.ts';
import { describeStatus } from './status.ts';

/**
 * One node of the cluster: the loop in which the Raft core, the log file, the links to the peers and the state machine
 * meet. This folder promises that a write is answered only once it is durable on a majority and applied, and that it is
 * applied exactly once; and that a read sees every write that had been answered when it came.
 *
 *   clients ─ write ─▶ write-path.ts ──┐                                   ┌─▶ persister.ts ─▶ log file ─▶ input "persisted"
 *   clients ─ read ──▶ read-path.ts ───┼─▶ node-loop.ts ─ Raft.step ─▶ effects ─▶ sender.ts ─▶ peers
 *   peers ─── frames ─▶ wire.ts ───────┘                                   └─▶ commit ─▶ write-path.ts ─▶ state machine
 *                                                                                        ─▶ results, in the order asked
 *   node-lifecycle.ts decides what this node may do, exchange.ts does all work with snapshots.
 */

/** The core's unit of time: fine enough for an election within tens of milliseconds, coarse enough to cost nothing. */
const DEFAULT_TICK_MS = 10;

export class NodeReplica implements Replica, TransportEvents {
  /** For status, tests and the simulator to look at. Only the loop steps it. */
  readonly raft: Raft;
  /** To be looked at: only committed entries change it. */
  readonly stateMachine: StateMachine;
  readonly #options: NodeReplicaOptions;
  readonly #log: RaftLog;
  readonly #loop: NodeLoop;
  readonly #persister: Persister;
  readonly #sender: Sender;
  readonly #writes: WritePath;
  readonly #reads: ReadPath;
  readonly #lifecycle: NodeLifecycle;
  readonly #requests: MemberRequests;
  readonly #snapshots: SnapshotExchange;
  /** Entries up to here have been given to the state machine, or wait for the end of the turn. */
  #commitIndex: number;
  #knownLeader: NodeId = NO_NODE;
  #knownTerm = -1;
  #waitingForLeaderChange: (() => void)[] = [];

  constructor(options: NodeReplicaOptions) {
    const { wal, observer, transport, logReset } = options;
    const { log, hardState, stateMachine } = options.recovered;
    const tickMs = options.timing.tickMs ?? DEFAULT_TICK_MS;
    this.#options = options;
    this.#log = log;
    this.#commitIndex = log.commitIndex;
    this.stateMachine = stateMachine;
    this.raft = createCore(options, tickMs);
    const { clock, onFatal } = options;
    const loop = new NodeLoop(
      this.raft,
      { clock, tickMs, observer, onFatal },
      {
        carryOut: (input, effects) => this.#carryOut(input, effects),
        tick: (count, nowMs) => this.#tick(count, nowMs),
        endTurn: () => this.#endTurn(),
        refuseAll: () => this.#refuseAll(),
      },
    );
    this.#loop = loop;
    this.#persister = new Persister(wal, (persisted) => loop.run(() => this.#onPersisted(persisted)), observer);
    this.#sender = new Sender(transport, () => loop.scheduleTurn());
    this.#writes = new WritePath(options, loop, this.#sender, () => this.#lifecycle.sessionUsed());
    this.#reads = new ReadPath(options, loop);
    this.#lifecycle = new NodeLifecycle(options, loop, this.#sender, this.#writes, this.#reads);
    this.#requests = new MemberRequests(options, loop);
    this.#snapshots = new SnapshotExchange(options, loop, this.#writes.applier);
    observer?.opened({ core: this.raft.core, stateMachine, wal, proposer: this.#writes.proposer });
    if (logReset !== null) this.#persister.resetLog(logReset, hardState, []);
  }

  /** To be called once the transport has started. */
  begin(): void {
    this.#loop.run(() => this.#lifecycle.begin());
  }

  propose(command: WriteCommand, completion: WriteCompletion): void {
    this.#writes.propose(command, completion);
  }

  read(completion: ReadCompletion): void {
    this.#reads.read(completion);
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
    return this.#writes.accepting();
  }

  onceAccepting(callback: () => void): void {
    this.#writes.onceAccepting(callback);
  }

  status(): ReplicaStatus {
    return {
      ...describeStatus(this.raft.core, this.#options, this.stateMachine),
      appliedIndex: this.#writes.applier.appliedIndex,
      pendingWrites: this.#writes.proposer.pendingCommands,
      pendingReads: this.#reads.pending,
      clusterId: this.#lifecycle.clusterId,
      snapshotting: this.#snapshots.isWriting,
      healthProblem: this.#lifecycle.healthProblem(),
    };
  }

  changeMembers(change: MemberChange): Promise<void> {
    return this.#requests.change(change);
  }

  members(): MembersView {
    return this.#requests.view();
  }

  async backup(): Promise<Backup> {
    await new Promise<void>((resolve, reject) => {
      this.read({ readable: resolve, readFailed: () => reject(noQuorumForBackup()) });
    });
    return this.#snapshots.backup();
  }

  /** The log file has, or no longer has, room to go on. */
  diskFull(full: boolean): void {
    this.#loop.run(() => this.#loop.put({ kind: 'diskFull', full }));
  }

  /** Transfers leadership to another node if this one leads. Resolves when it has, or when no node could take it. */
  handOver(): Promise<void> {
    const { role, configurations } = this.raft.core;
    if (role !== 'leader' || configurations.current.voters.length === 1) return Promise.resolve();
    return new Promise((resolve) => {
      const cancel = this.#options.clock.after(this.#options.timing.electionTimeoutMs, resolve);
      this.#waitingForLeaderChange.push(() => {
        cancel();
        resolve();
      });
      this.#loop.run(() => this.#loop.put({ kind: 'transferLeadership', to: NO_NODE }));
    });
  }

  /** Ends the loop. Pending requests are told that their outcome is unknown. The caller closes the log file. */
  stop(): void {
    if (!this.#loop.isRunning) return;
    const { core } = this.raft;
    this.#loop.stop();
    this.#requests.stop();
    this.#persister.record({ term: core.term, vote: core.vote, commitIndex: this.#log.commitIndex });
  }

  /** Resolves once nothing of this replica touches its files any more, but the log's. After `stop`. */
  whenIdle(): Promise<void> {
    return this.#snapshots.stop();
  }

  onFrame(peer: NodeId, frame: Buffer): void {
    if (!this.#loop.isRunning) return;
    // Only these may throw to the transport: that a frame makes no sense is the peer's fault, all else is this node's.
    const message = decodeMessage(frame, peer, this.#options.nodeId);
    if (message.kind === 'proposal') checkProposal(peer, message);
    this.#loop.run(() => this.#receive(peer, message));
  }

  #receive(peer: NodeId, message: PeerMessage): void {
    switch (message.kind) {
      case 'proposal':
      case 'proposalRefused':
        this.#writes.receive(peer, message);
        return;
      case 'lifecycle':
      case 'membersNews':
        this.#lifecycle.receive(peer, message);
        return;
      default:
        if (this.#lifecycle.hear(message)) this.#loop.put({ kind: 'receive', message });
    }
  }

  onLinkUp(peer: NodeId, clusterId: ClusterId): void {
    this.#loop.run(() => {
      this.#lifecycle.linkUp(peer, clusterId);
      this.#loop.put({ kind: 'linkUp', peer });
    });
  }

  onLinkLost(peer: NodeId): void {
    this.#loop.run(() => {
      this.#lifecycle.linkLost(peer);
      this.#loop.put({ kind: 'linkLost', peer });
    });
  }

  onBulkFrame(peer: NodeId, frame: Buffer): void {
    if (!this.#loop.isRunning) return;
    const message = this.#snapshots.decode(peer, frame);
    this.#loop.run(() => this.#snapshots.receive(peer, message));
  }

  onBulkUp(peer: NodeId): void {
    this.#loop.run(() => this.#snapshots.linkUp(peer));
  }

  onBulkLost(): void {
    // Pieces that were on their way are lost. They are asked for again once the link is up.
  }

  onRemoved(peer: NodeId): void {
    this.#loop.run(() => this.#lifecycle.removedSays(peer));
  }

  onUnknownPeer(peer: NodeId): void {
    this.#loop.run(() => this.#lifecycle.unknownPeer(peer));
  }

  onForeignPeer(peer: NodeId, text: string): void {
    this.#loop.run(() => this.#lifecycle.foreignPeer(peer, text));
  }

  #carryOut(input: ReplicaInput, effects: Effects): void {
    const { core } = this.raft;
    const { commitIndex } = this.#log;
    this.#persister.persist(effects, { term: core.term, vote: core.vote, commitIndex });
    for (const message of effects.sendNow) this.#sender.send(message);
    for (const each of effects.readBacks) this.#readBack(each);
    this.#reads.carryOut(effects);
    if (isRare(effects)) this.#carryOutRare(input, effects);
    if (core.leader !== this.#knownLeader || core.term !== this.#knownTerm) this.#leaderChanged();
    // Applies one slice. The rest follows at the end of the turn; otherwise a long catch-up would be one turn.
    if (commitIndex > this.#commitIndex) {
      this.#commitIndex = commitIndex;
      this.#writes.applier.applyCommitted();
    }
    if (effects.reads.length > 0) this.#reads.serve(this.#writes.applier.appliedIndex);
    if (input.kind === 'applied') this.#applied();
    else if (input.kind === 'compact') this.#snapshots.compacted();
  }

  #carryOutRare(input: ReplicaInput, effects: Effects): void {
    if (effects.install !== null && input.kind === 'snapshotReceived')
      this.#install(effects.install.index, input.state);
    if (effects.configuration !== null) this.#lifecycle.configured();
    for (const outcome of effects.memberChanges) this.#requests.outcome(outcome);
    if (effects.wantSnapshot !== null) this.#snapshots.want(effects.wantSnapshot);
    if (effects.recovered) this.#lifecycle.recovered();
  }

  /** The core has decided to replace the state by that of a snapshot. */
  #install(index: number, state: StateMachine): void {
    this.#snapshots.install(index, state);
    this.#writes.installed();
    this.#loop.put({ kind: 'applied', index });
  }

  /** The core knows what is applied. Now everything that waited for these entries goes on. */
  #applied(): void {
    const { appliedIndex } = this.#writes.applier;
    this.#snapshots.consider();
    this.#requests.progress();
    this.#lifecycle.applied(appliedIndex);
    this.#reads.serve(appliedIndex);
    if (this.#log.commitIndex > appliedIndex) this.#loop.scheduleTurn();
    this.#writes.applied();
  }

  #onPersisted({ term, index, hardState, messages }: Persisted): void {
    for (const message of messages) this.#sender.send(message);
    if (index > 0 || hardState !== null) this.#loop.put({ kind: 'persisted', term, index, hardState });
  }

  /** Reads entries for a lagging follower from the log file. */
  #readBack({ peer, fromIndex, bytesMax }: ReadBack): void {
    const last = this.#log.firstCachedIndex - 1;
    const put = (records: readonly Buffer[]) => {
      const entries = records.map((record) => readEntry(record, 0));
      this.#loop.put({ kind: 'readBack', peer, entries });
    };
    this.#options.wal.read(fromIndex, last, bytesMax).then(
      (records) => this.#loop.run(() => put(records)),
      (error) => {
        // Entries that were compacted meanwhile are not needed any more: the follower gets a snapshot.
        if (fromIndex > this.#log.snapshotIndex) this.#loop.fail(error);
        else this.#loop.run(() => put([]));
      },
    );
  }

  #leaderChanged(): void {
    const { leader, term } = this.raft.core;
    const isNews = leader !== this.#knownLeader;
    this.#knownLeader = leader;
    this.#knownTerm = term;
    this.#writes.leaderChanged();
    if (leader !== NO_NODE) this.#reads.leaderChanged();
    this.#requests.progress();
    if (!isNews) return;
    this.#options.onLeaderChanged(leader, term);
    if (leader === NO_NODE || leader === this.#options.nodeId) return;
    const waiting = this.#waitingForLeaderChange;
    this.#waitingForLeaderChange = [];
    for (const callback of waiting) callback();
  }

  /** Sends everything that this turn of the event loop has gathered. */
  #endTurn(): void {
    const nowMs = this.#options.clock.monotonicMs();
    this.#reads.closeTurn(nowMs);
    this.#writes.endTurn(nowMs);
    this.#sender.endTurn();
    if (this.#log.commitIndex > this.#writes.applier.appliedIndex) this.#writes.applier.applyCommitted();
    this.#reads.begin(nowMs);
  }

  #tick(count: number, nowMs: number): void {
    for (let i = 0; i < count; i++) this.#loop.put({ kind: 'tick' });
    this.#lifecycle.tick(nowMs);
    this.#snapshots.tick();
    this.#requests.progress();
    this.#writes.tick(nowMs);
    this.#reads.tick(nowMs);
    // Tries again what an earlier turn could not do, because a link was full, no leader was known, or a read was unanswered.
    this.#loop.scheduleTurn();
  }

  #refuseAll(): void {
    this.#writes.failAll('stopping');
    this.#reads.failAll('stopping');
  }
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

function isRare(effects: Effects): boolean {
  const { install, configuration, wantSnapshot, memberChanges, recovered } = effects;
  if (install !== null || configuration !== null || wantSnapshot !== null) return true;
  return memberChanges.length > 0 || recovered;
}
