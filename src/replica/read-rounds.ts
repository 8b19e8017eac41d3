import type { Failure, ReadOwner } from './types.ts';

/**
 * The reads of this node's clients. All that gather while one round of ReadIndex is on its way go together in the next,
 * so the cost of confirming does not grow with their number.
 *
 *   add ──▶ gathering ──(end of turn, no round on its way)──▶ asked(id) ──▶ confirmed(index) ──(applied)──▶ readable
 */
interface Gathered {
  readonly owners: ReadOwner[];
  /** When the oldest of them came. */
  readonly sinceMs: number;
}
interface Confirmed extends Gathered {
  readonly index: number;
}

export class ReadRounds {
  private gathering: ReadOwner[] = [];
  private gatheringSinceMs = 0;
  private asked: Gathered | null = null;
  private askedId = 0;
  private askedAtMs = 0;
  private readonly confirmed: Confirmed[] = [];
  private nextId: number;

  /** Ids are unique through the life of the node: the boot count is their upper half. */
  constructor(bootCount: number) {
    this.nextId = bootCount * 2 ** 32 + 1;
  }

  get pending(): number {
    const waiting = this.confirmed.reduce((sum, round) => sum + round.owners.length, 0);
    return this.gathering.length + (this.asked?.owners.length ?? 0) + waiting;
  }

  add(owner: ReadOwner, nowMs: number): void {
    if (this.gathering.length === 0) this.gatheringSinceMs = nowMs;
    this.gathering.push(owner);
  }

  /** Begins a round where reads wait and none is on its way. The id to ask for, or 0. */
  begin(nowMs: number): number {
    if (this.asked !== null || this.gathering.length === 0) return 0;
    this.asked = { owners: this.gathering, sinceMs: this.gatheringSinceMs };
    this.gathering = [];
    return this.ask(nowMs);
  }

  /** Asks again for the round on its way, under a new id: an answer to the old one no longer counts. Its id, or 0. */
  beginAgain(nowMs: number): number {
    return this.asked === null ? 0 : this.ask(nowMs);
  }

  private ask(nowMs: number): number {
    this.askedAtMs = nowMs;
    this.askedId = this.nextId++;
    return this.askedId;
  }

  /** Whether the round on its way has had no answer since `askedBeforeMs`. */
  isOverdue(askedBeforeMs: number): boolean {
    return this.asked !== null && this.askedAtMs <= askedBeforeMs;
  }

  /** The round `id` could not be confirmed: it is overdue at once. */
  reject(id: number): void {
    if (this.askedId === id) this.rejectAny();
  }

  /** Whoever was asked no longer leads: the round on its way, if any, is overdue at once. */
  rejectAny(): void {
    this.askedAtMs = Number.NEGATIVE_INFINITY;
  }

  /** Reads wait for the next round. */
  get hasGathered(): boolean {
    return this.gathering.length > 0;
  }

  /** The round `id` may be served once `index` is applied. */
  confirm(id: number, index: number): void {
    if (this.asked === null || this.askedId !== id) return;
    this.confirmed.push({ ...this.asked, index });
    this.asked = null;
  }

  /** Serves what is confirmed and applied. */
  serve(appliedIndex: number): void {
    let served = 0;
    while (served < this.confirmed.length) {
      const round = this.confirmed[served] as Confirmed;
      // Indexes never fall from one round to the next, so what comes first is served first.
      if (round.index > appliedIndex) break;
      served++;
      for (const owner of round.owners) owner.readable();
    }
    if (served > 0) this.confirmed.splice(0, served);
  }

  /** Gives up on the reads that came before `cameBeforeMs`. */
  failOlderThan(cameBeforeMs: number, failure: Failure): void {
    while (this.confirmed[0] !== undefined && this.confirmed[0].sinceMs <= cameBeforeMs) {
      fail(this.confirmed.shift()?.owners, failure);
    }
    if (this.asked !== null && this.asked.sinceMs <= cameBeforeMs) {
      const { owners } = this.asked;
      this.asked = null;
      fail(owners, failure);
    }
    if (this.gathering.length > 0 && this.gatheringSinceMs <= cameBeforeMs) {
      const owners = this.gathering;
      this.gathering = [];
      fail(owners, failure);
    }
  }
}

function fail(owners: readonly ReadOwner[] | undefined, failure: Failure): void {
  for (const owner of owners ?? []) owner.readFailed(failure);
}
