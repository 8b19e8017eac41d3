/**
 * What the leader knows of one follower's log, and how much it may have in flight to it.
 *
 *            ┌──── an append was acknowledged ────▶ replicate
 *   probe ───┤                                       │  ▲  │
 *    ▲  ▲    └─ needs what is no longer in the log ─┐│  │  │
 *    │  │                                           ▼▼  │  │
 *    │  └── link lost, snapshot stalled ────────── snapshot (it holds where the log begins)
 *    └────── refused, link lost ───────────────────────────┘
 *
 * In `probe` one append at a time looks for the place where the logs agree; in `replicate` appends are sent ahead of
 * their acknowledgements (§10.2.1), bounded in number and bytes; in `snapshot` (§5) nothing is sent but heartbeats and
 * the offer of that snapshot. All changes of state are made here.
 */

export interface FlowLimits {
  /** Appends in flight to one follower. Bounds what a lost link costs to send again. */
  readonly inflightMessagesMax: number;
  /** Bytes of entries in flight to one follower. Bounds what the link must buffer. */
  readonly inflightBytesMax: number;
}

/**
 * A follower on its way from a snapshot to the end of the log, which leads it by what was written while it fetched.
 * First it fetches, then it receives the log in catch-up phases, each up to where the log ended when the phase began (§4.2.1).
 */
type CatchUp =
  | { readonly phase: 'fetch'; readonly sinceTick: number }
  | { readonly phase: 'log'; readonly sinceTick: number; readonly target: number; readonly ticksMax: number };

export class Progress {
  /** Known to be durable on the follower. Never goes back while the leader leads. */
  matchIndex = 0;
  /** The next entry to send. Invariant: `matchIndex < nextIndex`. */
  nextIndex: number;
  state: 'probe' | 'replicate' | 'snapshot' = 'probe';
  /** In `snapshot`: the last entry of the one that the follower is to fetch. The log behind it is kept; else 0. */
  pendingSnapshot = 0;
  /** From the offer of a snapshot on, until the follower has caught up behind it, or is too slow or lost. */
  private catchUp: CatchUp | null = null;
  /** Heard from since the last check of the quorum. */
  recentActive = true;
  /** False from when its link is lost until it stands again. */
  linked = true;
  /** The newest heartbeat round that the follower has answered. */
  ackedRound = 0;
  /** the directory of which this is known: the one that spoke last, and until it has spoken the one that should. */
  directoryId: number;
  /** It says that it has no vote. */
  withoutRights = false;
  /** The directory that the leader's configuration names. */
  configuredDirectoryId: number;
  /** The leader's tick of its last answer; far in the past where it has given none. */
  answeredTick = Number.NEGATIVE_INFINITY;
  diskFull = false;
  /**
   * False while the configuration that makes it a member is not committed. What is committed is not told to it before:
   * it may have been removed once, and would take itself for removed still.
   */
  isAdmitted = true;
  /** No member any more, but not yet told so. */
  leaving = false;
  leavingElapsed = 0;
  /** The round whose answer shows that a leaving node knows of it; 0 for none yet. */
  farewellRound = 0;
  /** A learner that has finished its last catch-up phase within an election timeout (§4.2.1). */
  caughtUp = false;
  /** The end of a learner's catch-up phase: the end of the log when it began; -1 if no phase runs. */
  private learnerPhaseTarget = -1;
  private learnerPhaseBegan = 0;
  /** The leader's tick since when entries for this follower are being read back from disk; null where none are. */
  private readingBackSinceTick: number | null = null;
  /** In `probe`: an append is on its way and the next waits for its answer, or for a heartbeat's. */
  private probeSent = false;
  private readonly limits: FlowLimits;
  /** Appends in flight, oldest first: the last index of each, and its bytes. */
  private readonly inflightIndexes: number[] = [];
  private readonly inflightSizes: number[] = [];
  private inflightBytes = 0;

  constructor(nextIndex: number, limits: FlowLimits, configuredDirectoryId: number) {
    this.nextIndex = nextIndex;
    this.limits = limits;
    this.directoryId = configuredDirectoryId;
    this.configuredDirectoryId = configuredDirectoryId;
  }

  /** Whether what this progress says counts towards a quorum (see `rights.ts`). A learner has rights too, but no vote. */
  get hasRights(): boolean {
    return !this.withoutRights && this.directoryId === this.configuredDirectoryId;
  }

  /** The log behind this entry is kept for the follower: it would need another snapshot at once; else infinite. */
  get keepsLogFrom(): number {
    if (this.state === 'snapshot') return this.pendingSnapshot;
    return this.catchUp === null ? Number.POSITIVE_INFINITY : this.matchIndex;
  }

  /** Entries for this follower are being read back from disk; nothing is sent until they arrive. */
  get readingBack(): boolean {
    return this.readingBackSinceTick !== null;
  }

  /** Whether an append may be sent now. */
  get maySend(): boolean {
    if (this.readingBack) return false;
    if (this.state !== 'replicate') return this.state === 'probe' && !this.probeSent;
    return (
      this.inflightIndexes.length < this.limits.inflightMessagesMax && this.inflightBytes < this.limits.inflightBytesMax
    );
  }

  /** An append with entries up to `lastIndex` was sent; with none, `lastIndex` is `nextIndex - 1`. */
  sent(lastIndex: number, bytes: number): void {
    if (this.state === 'probe') {
      this.probeSent = true;
      return;
    }
    if (lastIndex < this.nextIndex) return;
    this.nextIndex = lastIndex + 1;
    this.inflightIndexes.push(lastIndex);
    this.inflightSizes.push(bytes);
    this.inflightBytes += bytes;
  }

  /** The follower holds everything up to `index`; the log begins after `logStart`. True where that is news. */
  acknowledged(index: number, logStart: number): boolean {
    this.freeUpTo(index);
    const isNews = index > this.matchIndex;
    if (isNews) this.matchIndex = index;
    if (this.nextIndex <= index) this.nextIndex = index + 1;
    // Whether it has this snapshot, or came by another way to where the log can go on from: it needs no snapshot now.
    if (this.state === 'probe' || (this.state === 'snapshot' && index >= logStart)) {
      this.state = 'replicate';
      this.nextIndex = this.matchIndex + 1;
      this.pendingSnapshot = 0;
      this.probeSent = false;
    }
    return isNews;
  }

  /**
   * The follower needs what is no longer in the log: from now on it is offered the snapshot up to `index`. `tick` is the
   * leader's clock.
   */
  needsSnapshot(index: number, tick: number): void {
    this.probeFrom(index + 1);
    this.state = 'snapshot';
    this.pendingSnapshot = index;
    this.catchUp = { phase: 'fetch', sinceTick: tick };
  }

  /**
   * The follower refused an append after `refusedIndex` and may agree up to `possibleMatch`. False where the refusal is
   * an old one that later answers have overtaken.
   */
  refused(refusedIndex: number, possibleMatch: number): boolean {
    if (this.state === 'snapshot') return false;
    if (refusedIndex <= this.matchIndex) return false;
    if (this.state === 'probe' && refusedIndex !== this.nextIndex - 1) return false;
    if (this.state === 'replicate' && refusedIndex >= this.nextIndex) return false;
    this.probeFrom(Math.max(this.matchIndex, Math.min(possibleMatch, refusedIndex - 1)) + 1);
    return true;
  }

  /** What was in flight is gone: look again, but only once there is somebody to answer. */
  linkLost(logStart: number): void {
    this.linked = false;
    this.probeAgain(logStart);
    this.probeSent = true;
  }

  linkUp(logStart: number): void {
    this.linked = true;
    this.probeAgain(logStart);
  }

  /**
   * Looks again from what is certain; or, where the log no longer reaches back so far, from where it begins: that the
   * follower has acknowledged little to this leader does not mean that it has little.
   */
  probeAgain(logStart: number): void {
    this.catchUp = null;
    this.probeFrom(Math.max(this.matchIndex, logStart) + 1);
  }

  /** Checks a learner's catch-up phase; `ticks` is the leader's clock, `lastIndex` the end of its log. */
  tickLearner(ticks: number, lastIndex: number, electionTimeoutTicks: number): void {
    if (!this.linked || !this.hasRights || this.state !== 'replicate') {
      this.learnerPhaseTarget = -1;
      this.caughtUp = false;
      return;
    }
    const isFinished = this.learnerPhaseTarget >= 0 && this.matchIndex >= this.learnerPhaseTarget;
    if (this.learnerPhaseTarget >= 0)
      this.caughtUp = isFinished && ticks - this.learnerPhaseBegan < electionTimeoutTicks;
    if (this.learnerPhaseTarget >= 0 && !isFinished) return;
    this.learnerPhaseTarget = lastIndex;
    this.learnerPhaseBegan = ticks;
  }

  /**
   * Checks a follower that had a snapshot. It has caught up once a catch-up phase is shorter than an election
   * timeout. Each phase may take as long as the one before, the first as long as the snapshot: one that doesn't gain on
   * the writes would have the log kept for ever, and is better served by another snapshot.
   */
  tickCatchUp(tick: number, lastIndex: number, electionTimeoutTicks: number): void {
    const { catchUp } = this;
    if (catchUp === null || this.state === 'snapshot') return;
    const tookTicks = tick - catchUp.sinceTick;
    if (catchUp.phase === 'log') {
      const isReached = this.matchIndex >= catchUp.target;
      if (!isReached && tookTicks <= catchUp.ticksMax) return;
      if (!isReached || tookTicks < electionTimeoutTicks) {
        this.catchUp = null;
        return;
      }
    }
    const ticksMax = Math.max(tookTicks, electionTimeoutTicks);
    this.catchUp = { phase: 'log', sinceTick: tick, target: lastIndex, ticksMax };
  }

  /** What it needs next is no longer in memory, and is being read back from disk. */
  beginReadBack(tick: number): void {
    this.readingBackSinceTick = tick;
  }

  endReadBack(): void {
    this.readingBackSinceTick = null;
  }

  /** For how long it has waited for what is being read for it; 0 where nothing is. */
  readingBackTicks(tick: number): number {
    return this.readingBackSinceTick === null ? 0 : tick - this.readingBackSinceTick;
  }

  /** A heartbeat was answered: a probe whose answer was lost may be sent again. */
  heartbeatAnswered(): void {
    this.probeSent = false;
  }

  private probeFrom(nextIndex: number): void {
    this.state = 'probe';
    this.nextIndex = nextIndex;
    this.pendingSnapshot = 0;
    this.probeSent = false;
    this.endReadBack();
    this.inflightIndexes.length = 0;
    this.inflightSizes.length = 0;
    this.inflightBytes = 0;
  }

  private freeUpTo(index: number): void {
    let freed = 0;
    while (freed < this.inflightIndexes.length && (this.inflightIndexes[freed] as number) <= index) {
      this.inflightBytes -= this.inflightSizes[freed] as number;
      freed++;
    }
    if (freed === 0) return;
    this.inflightIndexes.splice(0, freed);
    this.inflightSizes.splice(0, freed);
  }
}
