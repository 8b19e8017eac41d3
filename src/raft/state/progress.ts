import { CatchUp } from './catch-up.ts';
import { type FlowLimits, Inflights } from './inflights.ts';

/**
 * What the leader knows of one follower's log, and how much it may send to it: the paper's nextIndex and matchIndex with
 * three states around them.
 *
 *   probe     ── an append was acknowledged ──────────────────▶ replicate
 *   probe     ── it needs what is no longer in the log ───────▶ snapshot
 *   replicate ── an append was refused, or the link was lost ─▶ probe
 *   replicate ── it needs what is no longer in the log ───────▶ snapshot
 *   snapshot  ── it acknowledges as far as the log begins ────▶ replicate
 *   snapshot  ── the link was lost, or the transfer stalled ──▶ probe
 *
 * In `probe` one append at a time looks for the place where the logs agree. In `replicate` appends are sent ahead of
 * their acknowledgements (§10.2.2), bounded in number and bytes. In `snapshot` (§5) nothing is sent but heartbeats and
 * the offer of that snapshot. Only the methods of this class change the state.
 */
export class Progress {
  /** Known to be durable on the follower. Never goes back while the leader leads. */
  matchIndex = 0;
  /** The next entry to send. Invariant: `matchIndex < nextIndex`. */
  nextIndex: number;
  state: 'probe' | 'replicate' | 'snapshot' = 'probe';
  /** In `snapshot`: the last entry of the snapshot that the follower is to fetch. Otherwise 0. */
  pendingSnapshot = 0;
  /** False from when the link to the follower is lost until it is up again. */
  linked = true;
  /** The newest heartbeat round that the follower has answered. */
  ackedRound = 0;
  /** The leader's tick of the follower's last answer; -Infinity if it has not answered this leader. */
  answeredAt = Number.NEGATIVE_INFINITY;
  /** The directory whose log this object describes: the one that answered last, or before that the configured one. */
  directoryId: number;
  /** The directory that has the follower's rights by the leader's configuration. */
  configuredDirectoryId: number;
  /** The follower says that it has no rights. */
  withoutRights = false;
  /** The follower says that its disk is full. */
  diskFull = false;
  readonly #catchUp = new CatchUp();
  readonly #inflights: Inflights;
  /** The tick since when entries for this follower are being read back from disk; null if none are. */
  #readingBackSince: number | null = null;
  /** In `probe`: an append is on its way. The next one waits for its answer, or for the answer to a heartbeat. */
  #probeSent = false;

  constructor(nextIndex: number, limits: FlowLimits, configuredDirectoryId: number) {
    this.nextIndex = nextIndex;
    this.#inflights = new Inflights(limits);
    this.directoryId = configuredDirectoryId;
    this.configuredDirectoryId = configuredDirectoryId;
  }

  /** Whether the follower's answers count towards a quorum if it is a voter (see `rights.ts`). */
  get hasRights(): boolean {
    return !this.withoutRights && this.directoryId === this.configuredDirectoryId;
  }

  /** Whether the follower answered within the last `ticks`. */
  hasAnsweredWithin(ticks: number, now: number): boolean {
    return now - this.answeredAt <= ticks;
  }

  /** The leader must keep its log behind this entry for the follower; Infinity if it need not keep any. */
  get keepsLogFrom(): number {
    if (this.state === 'snapshot') return this.pendingSnapshot;
    return this.#catchUp.keepsLog ? this.matchIndex : Number.POSITIVE_INFINITY;
  }

  /** Whether a learner has caught up so well that it can be promoted (§4.2.1). */
  get isCaughtUp(): boolean {
    return this.linked && this.hasRights && this.state === 'replicate' && this.#catchUp.isCaughtUp;
  }

  /** Entries for this follower are being read back from disk; nothing is sent until they arrive. */
  get readingBack(): boolean {
    return this.#readingBackSince !== null;
  }

  /** Whether an append may be sent now. */
  get maySend(): boolean {
    if (this.readingBack) return false;
    if (this.state === 'replicate') return !this.#inflights.isFull;
    return this.state === 'probe' && !this.#probeSent;
  }

  /** An append with entries up to `lastIndex` was sent; with none, `lastIndex` is `nextIndex - 1`. */
  sent(lastIndex: number, bytes: number): void {
    if (this.state === 'probe') {
      this.#probeSent = true;
      return;
    }
    if (lastIndex < this.nextIndex) return;
    this.nextIndex = lastIndex + 1;
    this.#inflights.add(lastIndex, bytes);
  }

  /**
   * The follower holds everything up to `index`; the log begins after `logStart`. Returns whether that is news. An
   * acknowledgement may be late, and is none then: `matchIndex` never goes back, because entries were committed by it.
   */
  acknowledged(index: number, logStart: number): boolean {
    this.#inflights.freeUpTo(index);
    const isNews = index > this.matchIndex;
    if (isNews) this.matchIndex = index;
    if (this.nextIndex <= index) this.nextIndex = index + 1;
    // The follower holds the snapshot, or reached the start of the log in another way: it needs no snapshot any more.
    if (this.state === 'probe' || (this.state === 'snapshot' && index >= logStart)) {
      this.state = 'replicate';
      this.nextIndex = this.matchIndex + 1;
      this.pendingSnapshot = 0;
      this.#probeSent = false;
    }
    return isNews;
  }

  /** The follower needs what is no longer in the log: from now on it is offered the snapshot up to `index`. */
  needsSnapshot(index: number, now: number): void {
    this.#probeFrom(index + 1);
    this.state = 'snapshot';
    this.pendingSnapshot = index;
    this.#catchUp.beginSnapshot(now);
  }

  /**
   * The follower refused an append after `refusedIndex` and may agree up to `possibleMatch`. Returns false if the refusal
   * is an old one that no longer says anything: it must not move `nextIndex` back. That is so if the follower has
   * acknowledged the entry since; in `probe`, if the refusal answers an earlier probe than the one under way; and in
   * `replicate`, if it is about an append that was sent before the follower was last probed, further on than now.
   */
  refused(refusedIndex: number, possibleMatch: number): boolean {
    if (this.state === 'snapshot') return false;
    if (refusedIndex <= this.matchIndex) return false;
    if (this.state === 'probe' && refusedIndex !== this.nextIndex - 1) return false;
    if (this.state === 'replicate' && refusedIndex >= this.nextIndex) return false;
    this.#probeFrom(Math.max(this.matchIndex, Math.min(possibleMatch, refusedIndex - 1)) + 1);
    return true;
  }

  /** What was in flight is lost. The follower is probed again once the link is up; until then nothing is sent. */
  linkLost(logStart: number): void {
    this.linked = false;
    this.probeAgain(logStart);
    this.#probeSent = true;
  }

  /** Whatever was sent before the link broke may be lost, so the follower is probed again. */
  linkUp(logStart: number): void {
    this.linked = true;
    this.probeAgain(logStart);
  }

  /**
   * Probes from what is certain, `matchIndex`. If the log no longer reaches back so far, it probes from where the log
   * begins: a follower that has acknowledged little to this leader may still hold much.
   */
  probeAgain(logStart: number): void {
    this.#catchUp.abandon();
    this.#probeFrom(Math.max(this.matchIndex, logStart) + 1);
  }

  /** To be called with each periodic heartbeat: measures how the follower keeps up with a log that ends at `lastIndex`. */
  tickCatchUp(now: number, lastIndex: number, electionTimeoutTicks: number): void {
    // The transfer of the snapshot counts as a phase of its own; the first phase of the log begins when it is over.
    if (this.state === 'snapshot') return;
    if (this.state === 'probe' && !this.#catchUp.keepsLog) this.#catchUp.abandon();
    else this.#catchUp.tick(now, this.matchIndex, lastIndex, electionTimeoutTicks);
  }

  /** What the follower needs next is no longer in memory and is being read back from disk. */
  beginReadBack(now: number): void {
    this.#readingBackSince = now;
  }

  /** The entries arrived, or are not wanted any more. */
  endReadBack(): void {
    this.#readingBackSince = null;
  }

  /** For how many ticks the follower has waited for entries to be read back; 0 if none are. */
  readingBackTicks(now: number): number {
    return this.#readingBackSince === null ? 0 : now - this.#readingBackSince;
  }

  /** A heartbeat was answered, so the link works: a probe whose answer was lost may be sent again. */
  heartbeatAnswered(): void {
    this.#probeSent = false;
  }

  #probeFrom(nextIndex: number): void {
    this.state = 'probe';
    this.nextIndex = nextIndex;
    this.pendingSnapshot = 0;
    this.#probeSent = false;
    this.endReadBack();
    this.#inflights.clear();
  }
}
