/** The session of one proposer and the last of its batches that was applied. */
export interface SessionProgress {
  /** The newest session id of the proposer from which a batch was applied. */
  readonly sessionId: number;
  /** The last sequence applied of that session. */
  readonly lastSequence: number;
}

interface Progress extends SessionProgress {
  sessionId: number;
  lastSequence: number;
}

/**
 * Exactly once (dissertation §6.3): a batch takes effect if and only if it is the next of its proposer's newest session.
 * A proposer sends again whatever it has not yet seen applied, oldest first, so skipping duplicates and gaps loses
 * nothing.
 */
export class Sessions {
  readonly #byProposer = new Map<number, Progress>();

  /** Decides about a batch, and counts it where it is the next. */
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

  /** Takes in one of a snapshot. */
  load(proposer: number, sessionId: number, lastSequence: number): void {
    this.#byProposer.set(proposer, { sessionId, lastSequence });
  }

  entries(): IterableIterator<[number, SessionProgress]> {
    return this.#byProposer.entries();
  }
}
