import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/logger.ts';
import { clockBatch, stampBatchTime } from '../kv/batch.ts';
import type { ChangeObserver } from '../kv/changes.ts';
import type { StateMachine } from '../kv/state-machine.ts';
import type { Item, Op } from '../kv/types.ts';
import { ENTRY_HEADER_BYTES, readEntry } from '../raft/entry.ts';
import type { RaftLog } from '../raft/log.ts';
import { Raft } from '../raft/raft.ts';
import {
  type Effects,
  type Fetch,
  type Input,
  type MemberChange,
  type Message,
  NOBODY,
  type NodeId,
  type Standing,
} from '../raft/types.ts';
import type { Snapshots } from '../storage/snapshot-types.ts';
import type { LogStart, Wal } from '../storage/wal-types.ts';
import type { PeerAddress, Transport, TransportEvents } from '../transport/types.ts';
import { Applier } from './applier.ts';
import { MemberRequests } from './member-requests.ts';
import { Origin, type OriginLimits } from './origin.ts';
import { Peers } from './peers.ts';
import { type Persisted, Persister } from './persister.ts';
import { Placement } from './placement.ts';
import { checkProposal, Proposals } from './proposals.ts';
import { ReadRounds } from './read-rounds.ts';
import type { LogRecovery } from './recovery.ts';
import { SnapshotExchange, type TransferLimits } from './snapshot-exchange.ts';
import { noSnapshot, type SnapshotLimits } from './snapshotter.ts';
import { Standings } from './standings.ts';
import type { Backup, MembersView, ReadOwner, Replica, ReplicaStatus, WriteOwner } from './types.ts';
import { decodeMessage, encodeMessage, type PeerMessage } from './wire.ts';

/**
 * One node of the cluster: the loop in which the Raft core, the log file, the links to the peers and the state machine
 * meet. This folder promises that a write is answered only once it is durable on a majority and applied, and that it is
 * applied exactly once; and that a read sees every write that had been answered when it came.
 *
 *   clients ─ propose ─▶ origin.ts ─▶ proposals.ts ────────┐                  ┌─▶ persister.ts ─▶ log file
 *                                                          ├─▶ Raft.step ─▶ effects ─▶ wire.ts ─▶ peers
 *   peers ──── frames ─▶ wire.ts ──────────────────────────┤                  └─▶ commit ─▶ applier.ts ─▶ state machine
 *   clients ─ read ────▶ read-rounds.ts ───────────────────┘                                     │
 *      ▲                                                                                         │
 *      └──────────────────────────── results, in the order asked ◀───────────────────────────────┘
 */

export interface ReplicaTiming {
  readonly heartbeatIntervalMs: number;
  readonly electionTimeoutMs: number;
  readonly requestTimeoutMs: number;
  /** The core's unit of time. Other than the default only where time is simulated. */
  readonly tickMs?: number;
}

export interface NodeReplicaOptions {
  readonly nodeId: NodeId;
  /** This node's persisted boot count: its session. */
  readonly bootCount: number;
  /** What this node's data directory is good for, as its meta file says. */
  readonly standing: Standing;
  readonly copy: number;
  /** All nodes of the cluster to be formed where there is none yet; null for a newcomer, which waits to be added. */
  readonly founders: readonly NodeId[] | null;
  /** Where the nodes are that the configuration file lists. */
  readonly book: readonly PeerAddress[];
  readonly timing: ReplicaTiming;
  readonly limits: OriginLimits;
  readonly snapshotLimits: SnapshotLimits;
  readonly transfer: TransferLimits;
  readonly clock: Clock;
  readonly random: () => number;
  readonly logger: Logger;
  readonly transport: Transport;
  readonly wal: Wal;
  readonly snapshots: Snapshots;
  /** What snapshot and log file held, after `finish`. */
  readonly recovered: Pick<LogRecovery, 'log' | 'hardState' | 'stateMachine' | 'configurations' | 'bytesBehindBase'>;
  /** Where the log file has to begin anew before anything else is written to it; null where it is as it should be. */
  readonly logStart: LogStart | null;
  /** Remembers that the founders have met, so that this node is a member; resolves once that is durable. */
  readonly noteFounded: () => Promise<void>;
  /** Remembers the standing; resolves once that is durable. */
  readonly noteStanding: (standing: 'recovering' | 'member', copy: number) => Promise<void>;
  /** Makes the next start count on from `bootCount`; resolves once that is durable. */
  readonly raiseBootCount: (bootCount: number) => Promise<void>;
  /** The node can't go on: its process must end. Called once. */
  readonly onFatal: (error: unknown) => void;
  readonly onLeaderChanged: (leader: NodeId, term: number) => void;
  /** The node is no longer a member: its process should say so and end. Called once. */
  readonly onRemoved: () => void;
}

/** Copies are told apart by a random number below this, never 0. */
const COPY_NUMBERS = 2 ** 48;

/** The number of a copy that begins empty, or has lost something. */
export function newCopy(random: () => number): number {
  return 1 + Math.floor(random() * (COPY_NUMBERS - 1));
}

/** The core's unit of time: fine enough for an election within tens of milliseconds, coarse enough to cost nothing. */
const DEFAULT_TICK_MS = 10;
/** A process that was paused catches up on this many ticks at most: being away is no proof that the leader is. */
const TICKS_AT_ONCE_MAX = 3;
/** Appends of more than this are cut, so that a heartbeat behind one never waits long. */
const APPEND_BYTES_MAX = 1024 * 1024;
/** See `FlowLimits`: what may be in flight to one follower. */
const INFLIGHT_MESSAGES_MAX = 256;
const INFLIGHT_BYTES_MAX = 16 * 1024 * 1024;

export class NodeReplica implements Replica, TransportEvents {
  private readonly options: NodeReplicaOptions;
  private readonly tickMs: number;
  /** For status, tests and the simulator to look at. Only this class steps it. */
  readonly raft: Raft;
  private readonly log: RaftLog;
  /** To be looked at: only committed entries change it. */
  readonly stateMachine: StateMachine;
  private readonly origin: Origin;
  private readonly proposals: Proposals;
  private readonly placement: Placement;
  private readonly rounds: ReadRounds;
  private readonly persister: Persister;
  private readonly applier: Applier;
  private readonly peers: Peers;
  private readonly requests: MemberRequests;
  private readonly standings: Standings;
  private readonly exchange: SnapshotExchange;
  /** Writes refused in this turn. */
  private refusedWrites: WriteOwner[] = [];
  private knownLeader: NodeId = NOBODY;
  private knownTerm = -1;
  /** The newest for each follower, until the end of the turn. */
  private readonly commitNews = new Map<NodeId, Message>();
  /** The newest entry that only advances time, while it is not applied. */
  private clockEntryIndex = 0;
  private turnScheduled = false;
  private lastTickMs: number;
  private cancelTick: () => void = () => {};
  private waitingForRoom: (() => void)[] = [];
  private waitingForLeaderChange: (() => void)[] = [];
  /** `failed`: the process is about to end, and nobody is told anything more. */
  private state: 'running' | 'stopped' | 'failed' = 'running';

  constructor(options: NodeReplicaOptions) {
    const { timing, clock, wal, nodeId, bootCount, recovered, snapshots, transport } = options;
    const { log, hardState, stateMachine } = recovered;
    this.options = options;
    this.tickMs = timing.tickMs ?? DEFAULT_TICK_MS;
    this.log = log;
    this.stateMachine = stateMachine;
    this.origin = new Origin(nodeId, bootCount, options.limits);
    this.rounds = new ReadRounds(bootCount);
    this.persister = new Persister(wal, (persisted) => this.guard(() => this.onPersisted(persisted)));
    this.raft = new Raft({
      id: nodeId,
      configurations: recovered.configurations,
      standing: options.standing,
      copy: options.copy,
      snapshot: snapshots.newest,
      log,
      hardState,
      electionTimeoutTicks: Math.max(1, Math.round(timing.electionTimeoutMs / this.tickMs)),
      heartbeatIntervalTicks: Math.max(1, Math.round(timing.heartbeatIntervalMs / this.tickMs)),
      appendBytesMax: APPEND_BYTES_MAX,
      flow: { inflightMessagesMax: INFLIGHT_MESSAGES_MAX, inflightBytesMax: INFLIGHT_BYTES_MAX },
      random: options.random,
    });
    const { core } = this.raft;
    this.placement = new Placement(nodeId);
    this.proposals = new Proposals({
      nodeId,
      placement: this.placement,
      core,
      origin: this.origin,
      send: (to, message) => this.tell(to, message),
      scheduleTurn: () => this.scheduleTurn(),
    });
    const onFatal = (error: unknown) => this.fail(error);
    const context = {
      log,
      wal,
      stateMachine,
      origin: this.origin,
      scheduleMore: () => this.scheduleTurn(),
      onApplied: () => this.guard(() => this.afterApplying()),
      onFatal,
    };
    this.applier = new Applier(context, log.appliedIndex);
    this.peers = new Peers({ core, transport, book: options.book });
    const step = (input: Input) => this.guard(() => this.step(input));
    const isLinked = (peer: NodeId) => transport.isUp(peer);
    this.requests = new MemberRequests({
      clock,
      core,
      timeoutMs: timing.requestTimeoutMs,
      step,
      send: (to, message) => this.tell(to, message),
      isLinked,
    });
    this.standings = new Standings({
      ...options,
      core,
      session: bootCount,
      knownMember: options.standing === 'member',
      announceIntervalMs: timing.electionTimeoutMs,
      newCopy: () => newCopy(options.random),
      isLinked,
      send: (to, news) => this.tell(to, news),
      step,
      appliedSession: () => stateMachine.session(nodeId)?.session ?? 0,
      guard: (action) => this.guard(action),
      onMayPropose: () => this.scheduleTurn(),
      onRemoved: () => {
        if (this.state === 'running') options.onRemoved();
      },
      onFatal,
    });
    this.exchange = new SnapshotExchange({
      ...options,
      core,
      stateMachine,
      applier: this.applier,
      limits: options.snapshotLimits,
      bytesBehind: recovered.bytesBehindBase,
      electionTimeoutMs: timing.electionTimeoutMs,
      step,
      onInstalled: () => this.installed(),
      onFatal,
    });
    this.lastTickMs = clock.monotonicMs();
    if (options.logStart !== null) this.persister.begin(options.logStart, hardState, []);
    this.scheduleTick();
  }

  /** To be called once the transport has started. */
  begin(): void {
    this.guard(() => {
      this.peers.update();
      this.standings.begin();
    });
  }

  propose(
    op: Op,
    source: Buffer,
    keyStart: number,
    keyEnd: number,
    flags: number,
    exptimeSeconds: number,
    valueStart: number,
    valueEnd: number,
    argHigh: number,
    argLow: number,
    owner: WriteOwner,
  ): void {
    if (this.raft.core.clusterFull) {
      this.refusedWrites.push(owner);
      this.scheduleTurn();
      return;
    }
    // biome-ignore format: one line per group of arguments that belong together
    this.origin.add(
      op, source, keyStart, keyEnd,
      flags, exptimeSeconds, valueStart, valueEnd, argHigh, argLow,
      owner,
    );
    // The clock is asked once a batch: asking it costs about as much as encoding a command.
    if (this.origin.batchIsFull) this.origin.closeBatch(this.options.clock.monotonicMs());
    this.scheduleTurn();
  }

  read(owner: ReadOwner): void {
    this.rounds.add(owner);
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
    return this.origin.hasRoom;
  }

  onceAccepting(callback: () => void): void {
    this.waitingForRoom.push(callback);
  }

  status(): ReplicaStatus {
    const { core } = this.raft;
    const { transport, nodeId, wal, snapshots } = this.options;
    const { voters, learners } = core.configuration;
    return {
      nodeId,
      role: core.role,
      term: core.term,
      leader: core.leader,
      commitIndex: this.log.commitIndex,
      appliedIndex: this.applier.appliedIndex,
      lastLogIndex: this.log.lastIndex,
      logBytes: wal.byteLength,
      items: this.stateMachine.items,
      storeBytes: this.stateMachine.storeBytes,
      totalItems: this.stateMachine.totalItems,
      clusterTimeMs: this.stateMachine.timeMs,
      pendingWrites: this.origin.pendingCommands,
      pendingReads: this.rounds.pending,
      peersConnected: [...voters, ...learners].filter((id) => id !== nodeId && transport.isUp(id)),
      standing: core.standing,
      voters,
      learners,
      snapshotIndex: snapshots.newest?.index ?? 0,
      snapshotBytes: snapshots.newest?.byteLength ?? 0,
      snapshotting: this.exchange.isWriting,
      firstLogIndex: this.log.snapshotIndex + 1,
      trouble: this.standings.trouble(),
    };
  }

  changeMembers(change: MemberChange): Promise<void> {
    return this.requests.change(change);
  }

  members(): Promise<MembersView> {
    return this.requests.view();
  }

  async backup(): Promise<Backup> {
    await new Promise<void>((resolve, reject) => {
      this.read({ readable: resolve, readFailed: () => reject(noSnapshot()) });
    });
    return this.exchange.backup();
  }

  /** The log file has, or no longer has, room to go on. */
  diskFull(full: boolean): void {
    this.guard(() => this.step({ kind: 'diskFull', full }));
  }

  /** Hands leadership to another node where this one has it. Resolves when it is gone, or when nobody could take it. */
  handOver(): Promise<void> {
    const { role, configuration } = this.raft.core;
    if (role !== 'leader' || configuration.voters.length === 1) return Promise.resolve();
    return new Promise((resolve) => {
      const cancel = this.options.clock.after(this.options.timing.electionTimeoutMs, resolve);
      this.waitingForLeaderChange.push(() => {
        cancel();
        resolve();
      });
      this.guard(() => this.step({ kind: 'transferLeadership', to: NOBODY }));
    });
  }

  /** Ends the loop. What waits is told that its outcome is unknown; the log file is closed by whoever opened it. */
  stop(): void {
    if (this.state !== 'running') return;
    const { core } = this.raft;
    this.state = 'stopped';
    this.cancelTick();
    this.tellWaiting();
    this.persister.record({ term: core.term, vote: core.vote, commitIndex: this.log.commitIndex });
  }

  /** Resolves once nothing of this replica touches its files any more, but the log's. After `stop`. */
  settled(): Promise<void> {
    return this.exchange.stop();
  }

  private tellWaiting(): void {
    this.refuseWrites();
    this.origin.closeBatch(0);
    this.rounds.closeTurn(0);
    this.origin.failOlderThan(Number.POSITIVE_INFINITY, 'stopping');
    this.rounds.failOlderThan(Number.POSITIVE_INFINITY, 'stopping');
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
      case 'standing':
        this.standings.receive(peer, message);
        return;
      case 'memberRequest':
        this.requests.receiveRequest(peer, message);
        return;
      case 'memberReply':
        this.requests.receiveReply(message);
        return;
      default:
        this.standings.hear(message);
        this.step({ kind: 'receive', message });
    }
  }

  onLinkUp(peer: NodeId): void {
    this.guard(() => {
      this.standings.linkUp(peer);
      this.step({ kind: 'linkUp', peer });
    });
  }

  onLinkLost(peer: NodeId): void {
    this.guard(() => {
      this.standings.linkLost(peer);
      this.step({ kind: 'linkLost', peer });
    });
  }

  onBulkFrame(peer: NodeId, frame: Buffer): void {
    if (this.state !== 'running') return;
    const message = this.exchange.decode(peer, frame);
    this.guard(() => this.exchange.receive(peer, message));
  }

  onBulkUp(): void {
    this.guard(() => this.exchange.linkUp());
  }

  onBulkLost(): void {
    // What is on its way is lost; it is asked for again once the link stands.
  }

  onRemoved(peer: NodeId): void {
    this.guard(() => this.standings.removedSays(peer));
  }

  private step(input: Input): void {
    const effects = this.raft.step(input);
    const { core } = this.raft;
    this.persister.persist(effects, { term: core.term, vote: core.vote, commitIndex: this.log.commitIndex });
    for (const message of effects.sendNow) this.send(message);
    for (const fetch of effects.fetch) this.serveFetch(fetch);
    for (const { id, index } of effects.reads) this.rounds.confirm(id, index);
    for (const id of effects.readsRejected) this.rounds.reject(id);
    if (isRare(effects)) this.carryOutRare(effects);
    if (core.leader !== this.knownLeader || core.term !== this.knownTerm) this.leaderChanged();
    if (this.log.commitIndex > this.applier.appliedIndex) this.applyCommitted();
    if (effects.reads.length > 0) this.serveReads();
  }

  private carryOutRare(effects: Effects): void {
    if (effects.install !== null) this.exchange.install(effects.install.index);
    if (effects.configuration !== null) this.peers.update();
    for (const outcome of effects.memberChanges) this.requests.outcome(outcome);
    if (effects.wantSnapshot !== null) this.exchange.want(effects.wantSnapshot);
    if (effects.recovered) this.standings.recovered();
    if (effects.removed) this.standings.removed();
  }

  private installed(): void {
    const own = this.stateMachine.session(this.options.nodeId);
    if (own?.session === this.origin.session) this.origin.overtaken(own.lastSequence);
    this.afterApplying();
  }

  private serveReads(): void {
    this.rounds.serve(this.applier.appliedIndex);
    // The next round begins at once where reads have gathered meanwhile.
    if (this.rounds.hasGathered) this.scheduleTurn();
  }

  private applyCommitted(): void {
    if (this.applier.applyCommitted()) this.afterApplying();
  }

  private afterApplying(): void {
    this.raft.step({ kind: 'applied', index: this.applier.appliedIndex });
    this.exchange.consider();
    this.requests.progress();
    this.standings.applied(this.applier.appliedIndex);
    this.serveReads();
    if (this.log.commitIndex > this.applier.appliedIndex) this.scheduleTurn();
    if (this.waitingForRoom.length === 0 || !this.origin.hasRoom) return;
    const waiting = this.waitingForRoom;
    this.waitingForRoom = [];
    for (const callback of waiting) callback();
  }

  private onPersisted({ term, index, hardState, messages }: Persisted): void {
    for (const message of messages) this.send(message);
    if (index > 0 || hardState !== null) this.step({ kind: 'persisted', term, index, hardState });
  }

  private send(message: Message): void {
    if (message.kind === 'commit') {
      this.commitNews.set(message.to, message);
      this.scheduleTurn();
      return;
    }
    if (message.kind === 'append') this.commitNews.delete(message.to);
    this.options.transport.send(message.to, encodeMessage(message));
  }

  private tell(to: NodeId, message: PeerMessage): boolean {
    return this.options.transport.send(to, encodeMessage(message));
  }

  /** News of commitment goes by itself only where no append of this turn has carried it. */
  private sendCommitNews(): void {
    for (const [peer, message] of this.commitNews) this.options.transport.send(peer, encodeMessage(message));
    this.commitNews.clear();
  }

  private serveFetch({ peer, fromIndex, bytesMax }: Fetch): void {
    const last = this.log.firstCachedIndex - 1;
    this.options.wal.read(fromIndex, last, bytesMax).then(
      (records) =>
        this.guard(() => {
          const entries = records.map((record) => readEntry(record, 0));
          this.step({ kind: 'fetched', peer, entries });
        }),
      (error) => {
        // What was compacted meanwhile is not wanted any more: the follower gets a snapshot.
        if (fromIndex > this.log.snapshotIndex) this.fail(error);
        else this.guard(() => this.step({ kind: 'fetched', peer, entries: [] }));
      },
    );
  }

  private leaderChanged(): void {
    const { core } = this.raft;
    const isNews = core.leader !== this.knownLeader;
    this.knownLeader = core.leader;
    this.knownTerm = core.term;
    this.clockEntryIndex = 0;
    if (core.role === 'leader') this.placement.begin(this.options.clock.monotonicMs());
    else this.proposals.forget();
    if (core.leader !== NOBODY) {
      this.proposals.sendAllAgain();
      this.rounds.rejectAny();
    }
    this.requests.progress();
    if (!isNews) return;
    this.options.onLeaderChanged(core.leader, core.term);
    if (core.leader === NOBODY || core.leader === this.options.nodeId) return;
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
    this.origin.closeBatch(nowMs);
    this.rounds.closeTurn(nowMs);
    if (this.standings.mayPropose) this.proposals.sendNew();
    this.flushProposals();
    this.sendCommitNews();
    if (this.log.commitIndex > this.applier.appliedIndex) this.applyCommitted();
    if (this.raft.core.leader === NOBODY) return;
    const id = this.rounds.begin(nowMs);
    if (id !== 0) this.step({ kind: 'read', id });
  }

  private refuseWrites(): void {
    if (this.refusedWrites.length === 0) return;
    const refused = this.refusedWrites;
    this.refusedWrites = [];
    for (const owner of refused) owner.writeFailed('diskFull');
  }

  /** Puts the batches of this turn into the log; while leadership is being handed over, they wait. */
  private flushProposals(): void {
    if (!this.proposals.waiting || !this.raft.acceptsProposals) return;
    this.step({ kind: 'propose', batches: this.proposals.drain(this.options.clock.wallMs()) });
  }

  private scheduleTick(): void {
    this.cancelTick = this.options.clock.after(this.tickMs, () => {
      if (this.state !== 'running') return;
      this.guard(() => this.tick());
      this.scheduleTick();
    });
  }

  private tick(): void {
    const nowMs = this.options.clock.monotonicMs();
    const due = Math.floor((nowMs - this.lastTickMs) / this.tickMs);
    this.lastTickMs = due > TICKS_AT_ONCE_MAX ? nowMs : this.lastTickMs + due * this.tickMs;
    for (let i = 0; i < Math.min(due, TICKS_AT_ONCE_MAX); i++) this.step({ kind: 'tick' });
    this.letTimePass();
    this.followTheWrites(nowMs);
    this.keepHouse(nowMs);
    this.retry(nowMs);
    this.origin.failOlderThan(nowMs - this.options.timing.requestTimeoutMs, 'timeout');
    this.rounds.failOlderThan(nowMs - this.options.timing.requestTimeoutMs, 'timeout');
    // What an earlier turn could not do, another may: a link was full, leadership was on its way, a round unanswered.
    this.scheduleTurn();
  }

  /** What may take its time: members, snapshots and their transfers. */
  private keepHouse(nowMs: number): void {
    this.peers.update();
    this.exchange.tick();
    this.requests.progress();
    this.standings.tick(nowMs);
  }

  /** Where an item is due to expire and nobody writes, the leader appends an entry that only advances time. */
  private letTimePass(): void {
    if (!this.raft.acceptsProposals || this.clockEntryIndex > this.applier.appliedIndex) return;
    const timeMs = this.options.clock.wallMs();
    if (this.stateMachine.nextEventMs() > timeMs) return;
    const batch = clockBatch(ENTRY_HEADER_BYTES);
    stampBatchTime(batch, ENTRY_HEADER_BYTES, timeMs);
    this.step({ kind: 'propose', batches: [batch] });
    this.clockEntryIndex = this.log.lastIndex;
  }

  private followTheWrites(nowMs: number): void {
    if (!this.raft.acceptsProposals) return;
    const to = this.placement.successor(nowMs);
    if (to !== NOBODY) this.step({ kind: 'transferLeadership', to });
  }

  /** Asks again for what a leader could not confirm, or was not able to take. */
  private retry(nowMs: number): void {
    if (this.raft.core.leader === NOBODY) return;
    const retryMs = this.options.timing.electionTimeoutMs;
    if (this.rounds.isOverdue(nowMs - retryMs)) this.step({ kind: 'read', id: this.rounds.beginAgain(nowMs) });
    if (this.standings.mayPropose) this.proposals.sendAgainIfStuck(nowMs, retryMs);
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
    this.cancelTick();
    this.options.onFatal(error);
  }
}

function isRare({ install, configuration, memberChanges, wantSnapshot, recovered, removed }: Effects): boolean {
  return (
    install !== null ||
    configuration !== null ||
    memberChanges.length > 0 ||
    wantSnapshot !== null ||
    recovered ||
    removed
  );
}
