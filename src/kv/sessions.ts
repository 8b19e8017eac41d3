/** Which batch of a proposer was applied last. */
export interface SessionProgress {
  /** The highest session id of the proposer's applied batches. */
  readonly sessionId: number;
  /** The sequence of the last batch of that session that was applied. */
  readonly lastSequence: number;
}

interface Progress extends SessionProgress {
  sessionId: number;
  lastSequence: number;
}

/**
 * Makes sure that each batch takes effect exactly once (dissertation §6.3). A batch is applied only if it is the next
 * one of its proposer's newest session. A proposer resends all batches that it has not applied yet, oldest first. So no
 * batch is lost when duplicates and batches after a gap are skipped.
 */
export class Sessions {
  readonly #byProposer = new Map<number, Progress>();

  /**
   * Returns `applied` and records the batch if it is the next one of its proposer: the next sequence of the newest
   * session, or sequence 1 of a newer one. Otherwise returns why the batch must be skipped.
   */
  admit(proposer: number, sessionId: number, sequence: number): 'applied' | 'duplicate' | 'gap' | 'staleSession' {
    const progress = this.#byProposer.get(proposer);
    if (progress === undefined || sessionId > progress.sessionId) {
      if (sequence !== 1) return 'gap';
      this.#byProposer.set(proposer, { sessionId, lastSequence: 1 });
      return 'applied';
    }
    if (sessionId < progress.sessionId) return 'staleSession';
    if (sequence <= progress.lastSequence) return 'duplicate';
    if (sequence > progress.lastSequence + 1) return 'gap';
    progress.lastSequence = sequence;
    return 'applied';
  }

  get(proposer: number): SessionProgress | undefined {
    return this.#byProposer.get(proposer);
  }

  get size(): number {
    return this.#byProposer.size;
  }

  /** Adds a session of a snapshot. */
  load(proposer: number, sessionId: number, lastSequence: number): void {
    this.#byProposer.set(proposer, { sessionId, lastSequence });
  }

  entries(): IterableIterator<[number, SessionProgress]> {
    return this.#byProposer.entries();
  }
}
