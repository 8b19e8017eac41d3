/**
 * How well one follower keeps up with the log, measured in phases (§4.2.1). A phase lasts until the follower holds
 * everything that the log held when the phase began; the next phase begins at once.
 *
 *   offer of a snapshot ── fetched ─▶ phase ── reached its target ─▶ phase ── … ── in less than an election timeout ─▶ caught up
 *
 * Two readers:
 *
 *   isCaughtUp   may the leader promote this learner? Only if its last phase was shorter than an election timeout:
 *                otherwise writes could wait longer for the new voter than clients wait for an election.
 *   keepsLog     must the leader keep the log that this follower still needs? Only after a snapshot, until the follower
 *                has caught up. Without it the log could be compacted past the follower at the moment that it holds the
 *                snapshot, and it would need the next one, and so on for as long as there are writes.
 */
export class CatchUp {
  /** The index that ends the phase: the end of the log when it began; -1 if no phase runs. */
  #target = -1;
  /** The tick at which the phase, or the transfer of a snapshot, began. */
  #beganAt = 0;
  /** How many ticks the phase may last while the log is kept for it. */
  #ticksMax = 0;
  #isCaughtUp = false;
  #keepsLog = false;

  get isCaughtUp(): boolean {
    return this.#isCaughtUp;
  }

  get keepsLog(): boolean {
    return this.#keepsLog;
  }

  /** The follower is offered a snapshot. The time that it takes to fetch it bounds the first phase after it. */
  beginSnapshot(now: number): void {
    this.abandon();
    this.#beganAt = now;
    this.#keepsLog = true;
  }

  /** The follower cannot be measured now: its link is lost, or it is not known where its log stands. */
  abandon(): void {
    this.#target = -1;
    this.#isCaughtUp = false;
    this.#keepsLog = false;
  }

  /**
   * To be called with each periodic heartbeat. While the log is kept, each phase may last as long as the one before, but
   * at least an election timeout. A follower that does not gain on the writes would have the log kept for ever; it is
   * better served by another snapshot.
   */
  tick(now: number, matchIndex: number, lastIndex: number, electionTimeoutTicks: number): void {
    const lastedTicks = now - this.#beganAt;
    if (matchIndex < this.#target) {
      this.#isCaughtUp = false;
      if (lastedTicks > this.#ticksMax) this.#keepsLog = false;
      return;
    }
    if (this.#target >= 0) this.#isCaughtUp = lastedTicks < electionTimeoutTicks;
    if (this.#isCaughtUp) this.#keepsLog = false;
    this.#ticksMax = Math.max(lastedTicks, electionTimeoutTicks);
    this.#target = lastIndex;
    this.#beganAt = now;
  }
}
