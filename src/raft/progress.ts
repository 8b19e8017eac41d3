/**
 * What the leader knows of one follower's log, and how much it may have in flight to it.
 *
 *   probe ──── an append was acknowledged ───▶ replicate
 *     ▲                                            │
 *     └── refused, link lost, silent for too long ─┘
 *
 * In `probe` one append at a time looks for the place where the logs agree; in `replicate` appends are sent ahead of
 * their acknowledgements (§10.2.1), bounded in number and bytes. All changes of state are made here.
 */

export interface FlowLimits {
  /** Appends in flight to one follower. Bounds what a lost link costs to send again. */
  readonly inflightMessagesMax: number;
  /** Bytes of entries in flight to one follower. Bounds what the link must buffer. */
  readonly inflightBytesMax: number;
}

export class Progress {
  /** Known to be durable on the follower. Never goes back while the leader leads. */
  matchIndex = 0;
  /** The next entry to send. Invariant: `matchIndex < nextIndex`. */
  nextIndex: number;
  state: 'probe' | 'replicate' = 'probe';
  /** Heard from since the last check of the quorum. */
  recentActive = true;
  /** False from when its link is lost until it stands again. */
  linked = true;
  /** The newest heartbeat round that the follower has answered. */
  ackedRound = 0;
  /** Entries for this follower are being read back from disk; nothing is sent until they arrive. */
  fetching = false;
  /** In `probe`: an append is on its way and the next waits for its answer, or for a heartbeat's. */
  private probeSent = false;
  private readonly limits: FlowLimits;
  /** Appends in flight, oldest first: the last index of each, and its bytes. */
  private readonly inflightIndexes: number[] = [];
  private readonly inflightSizes: number[] = [];
  private inflightBytes = 0;

  constructor(nextIndex: number, limits: FlowLimits) {
    this.nextIndex = nextIndex;
    this.limits = limits;
  }

  /** Whether an append may be sent now. */
  get maySend(): boolean {
    if (this.fetching) return false;
    if (this.state === 'probe') return !this.probeSent;
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

  /** The follower holds everything up to `index`. True where that is news. */
  acknowledged(index: number): boolean {
    this.freeUpTo(index);
    const isNews = index > this.matchIndex;
    if (isNews) this.matchIndex = index;
    if (this.nextIndex <= index) this.nextIndex = index + 1;
    if (this.state === 'probe') {
      this.state = 'replicate';
      this.nextIndex = this.matchIndex + 1;
      this.probeSent = false;
    }
    return isNews;
  }

  /**
   * The follower refused an append after `refusedIndex` and may agree up to `possibleMatch`. False where the refusal is
   * an old one, of something that has been settled since.
   */
  refused(refusedIndex: number, possibleMatch: number): boolean {
    if (refusedIndex <= this.matchIndex) return false;
    if (this.state === 'probe' && refusedIndex !== this.nextIndex - 1) return false;
    if (this.state === 'replicate' && refusedIndex >= this.nextIndex) return false;
    this.probeFrom(Math.max(this.matchIndex, Math.min(possibleMatch, refusedIndex - 1)) + 1);
    return true;
  }

  /** What was in flight is gone: look again from what is certain, but only once there is somebody to answer. */
  linkLost(): void {
    this.linked = false;
    this.probeFrom(this.matchIndex + 1);
    this.probeSent = true;
  }

  linkUp(): void {
    this.linked = true;
    this.probeFrom(this.matchIndex + 1);
  }

  /** A heartbeat was answered: a probe whose answer was lost may be sent again. */
  heartbeatAnswered(): void {
    this.probeSent = false;
  }

  private probeFrom(nextIndex: number): void {
    this.state = 'probe';
    this.nextIndex = nextIndex;
    this.probeSent = false;
    this.fetching = false;
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
