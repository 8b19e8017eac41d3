import { RaftkvError } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import type { NodeId } from '../../raft/state/types.ts';
import type { Meta } from '../../storage/meta.ts';
import { type NodeLoop, onceDone } from '../node-loop.ts';

/** The session under which this node proposes. Its lifecycle decides which one that is and when it begins. */
export interface OwnSession {
  readonly sessionId: number;
  /** The newest session id of this node from which the state machine has applied a batch; 0 for none. */
  readonly appliedSessionId: number;
  readonly mayPropose: boolean;
  /** Only before anything has been proposed. */
  changeSessionId(sessionId: number): void;
  startProposing(): void;
}

export interface SessionOptions {
  readonly logger: Logger;
  readonly meta: Pick<Meta, 'raiseIncarnation'>;
}

/**
 * When this incarnation may propose, and under which session id: not under one that an earlier incarnation of the node, or
 * one on another disk, has used (ADR 0010).
 */
export class SessionStart {
  readonly #options: SessionOptions;
  readonly #loop: Pick<NodeLoop, 'core' | 'run' | 'fail'>;
  readonly #session: OwnSession;
  #isEnding = false;

  constructor(options: SessionOptions, loop: Pick<NodeLoop, 'core' | 'run' | 'fail'>, session: OwnSession) {
    this.#options = options;
    this.#loop = loop;
    this.#session = session;
  }

  get hasBegun(): boolean {
    return this.#session.mayPropose;
  }

  /** Everything acknowledged before this incarnation started is applied. */
  begin(): void {
    this.onceUnused(() => this.#session.startProposing());
  }

  /**
   * Calls back once the session id is above all that this node has applied. Takes a higher one if necessary, which is
   * possible because nothing has been proposed yet. It is persisted first, so that the next start continues above it.
   */
  onceUnused(callback: () => void): void {
    const { sessionId, appliedSessionId } = this.#session;
    if (appliedSessionId < sessionId) {
      callback();
      return;
    }
    const next = appliedSessionId + 1;
    this.#options.logger.warn(
      { sessionId, newestApplied: appliedSessionId },
      'session id already used: data directory wiped or restored, or clock set back; continuing with a higher one',
    );
    onceDone(this.#loop, this.#options.meta.raiseIncarnation(next), () => {
      this.#session.changeSessionId(next);
      this.onceUnused(callback);
    });
  }

  /** To be called when entries have been applied. A restored disk has missed the starts of the disk that was in its place. */
  applied(): void {
    const { sessionId, appliedSessionId, mayPropose } = this.#session;
    if (mayPropose && appliedSessionId > sessionId) this.#end(appliedSessionId);
  }

  /** A batch that is not this incarnation's has its session id. */
  used(): void {
    const { sessionId, appliedSessionId, mayPropose } = this.#session;
    if (mayPropose) this.#end(Math.max(sessionId, appliedSessionId));
  }

  /** Our proposals have no effect, or are taken for another incarnation's. Persists a higher number and ends the process. */
  #end(newestApplied: number): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    onceDone(this.#loop, this.#options.meta.raiseIncarnation(newestApplied), () =>
      this.#loop.fail(sessionBehind(this.#loop.core.id, this.#session.sessionId, newestApplied)),
    );
  }
}

function sessionBehind(id: NodeId, sessionId: number, newestApplied: number): RaftkvError {
  return new RaftkvError(
    'SESSION_BEHIND',
    `node ${id} proposes under session id ${sessionId}, but session id ${newestApplied} is in the log already: its data directory is an older copy`,
    'Start the node again: it continues with a higher session id.',
  );
}
