/** How far one origin has come. */
export interface SessionProgress {
  /** The newest boot count of the origin from which a batch was applied. */
  readonly session: number;
  /** The last sequence applied of that session. */
  readonly lastSequence: number;
}

interface Progress extends SessionProgress {
  session: number;
  lastSequence: number;
}

/**
 * Exactly once (dissertation §6.3): a batch takes effect if and only if it is the next of its origin's newest session.
 * An origin sends again whatever it has not yet seen applied, oldest first, so skipping duplicates and gaps loses
 * nothing.
 */
export class Sessions {
  readonly #byOrigin = new Map<number, Progress>();

  /** Decides about a batch, and counts it where it is the next. */
  admit(origin: number, session: number, sequence: number): 'applied' | 'duplicate' | 'gap' | 'staleSession' {
    const progress = this.#byOrigin.get(origin);
    if (progress === undefined || session > progress.session) {
      if (sequence !== 1) return 'gap';
      this.#byOrigin.set(origin, { session, lastSequence: 1 });
      return 'applied';
    }
    if (session < progress.session) return 'staleSession';
    if (sequence <= progress.lastSequence) return 'duplicate';
    if (sequence > progress.lastSequence + 1) return 'gap';
    progress.lastSequence = sequence;
    return 'applied';
  }

  get(origin: number): SessionProgress | undefined {
    return this.#byOrigin.get(origin);
  }

  get size(): number {
    return this.#byOrigin.size;
  }

  /** Takes in one of a snapshot. */
  load(origin: number, session: number, lastSequence: number): void {
    this.#byOrigin.set(origin, { session, lastSequence });
  }

  entries(): IterableIterator<[number, SessionProgress]> {
    return this.#byOrigin.entries();
  }
}
