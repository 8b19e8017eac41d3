import type { Clock } from '../../base/clock.ts';
import { RaftkvError } from '../../base/errors.ts';
import { members } from '../../raft/state/configuration.ts';
import type { Core } from '../../raft/state/core.ts';
import {
  type MemberChange,
  type MemberChangeOutcome,
  type MemberRefusal,
  NO_NODE,
  type NodeAddress,
  type NodeId,
} from '../../raft/state/types.ts';
import type { Transport } from '../../transport/types.ts';
import type { NodeLoop } from '../node-loop.ts';
import type { MembersView, MemberView } from '../types.ts';

/**
 * What operators ask about the members. Only the leader answers; any other node refuses with `NotLeaderError`, which says
 * who leads and where.
 *
 *   change ─▶ core ─▶ in the log ─▶ committed ─▶ done
 */
export interface MemberRequestOptions {
  readonly clock: Clock;
  readonly transport: Pick<Transport, 'isUp'>;
  readonly timing: { readonly requestTimeoutMs: number };
}

/** The leader, as a node that does not lead knows it. */
export interface LeaderHint {
  readonly id: NodeId;
  /** Its address in the newest configuration of this node's log; null if that has none. */
  readonly address: NodeAddress | null;
}

/** This node does not lead, so it did nothing: the request belongs to `leader`. */
export class NotLeaderError extends RaftkvError {
  /** Null if no leader is known. */
  readonly leader: LeaderHint | null;

  constructor({ id, leader, configurations }: Pick<Core, 'id' | 'leader' | 'configurations'>) {
    const isKnown = leader !== NO_NODE;
    const message = isKnown ? `node ${id} is not the leader; node ${leader} is` : 'no leader is known';
    super('NOT_LEADER', message, isKnown ? `Ask node ${leader}.` : 'Try again in a moment.');
    const detail = configurations.current.details.find((each) => each.id === leader);
    this.leader = isKnown ? { id: leader, address: detail?.address ?? null } : null;
  }
}

interface Pending {
  readonly resolve: () => void;
  readonly reject: (refusal: RaftkvError) => void;
  readonly cancelTimer: () => void;
}
/** A change that is in this leader's log and not yet committed, and the request that asked for it. */
interface Appended {
  readonly id: number;
  readonly index: number;
  readonly term: number;
}

/** Requests that wait for their outcome; an operator or two, not a service. */
const PENDING_MAX = 64;

export class MemberRequests {
  readonly #options: MemberRequestOptions;
  readonly #loop: Pick<NodeLoop, 'core' | 'put' | 'run'>;
  #nextId = 1;
  readonly #pending = new Map<number, Pending>();
  #appended: Appended[] = [];

  constructor(options: MemberRequestOptions, loop: Pick<NodeLoop, 'core' | 'put' | 'run'>) {
    this.#options = options;
    this.#loop = loop;
  }

  /** Resolves once the change is committed. @throws RaftkvError NOT_LEADER (`NotLeaderError`), MEMBER_CHANGE_REFUSED */
  change(change: MemberChange): Promise<void> {
    const { clock, timing } = this.#options;
    const { core } = this.#loop;
    const timeoutMs = timing.requestTimeoutMs;
    if (core.leading === null) return Promise.reject(new NotLeaderError(core));
    if (this.#pending.size >= PENDING_MAX)
      return Promise.reject(refusal('BUSY', 'too many member requests are pending on this node'));
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const late = refusal('TIMEOUT', `no answer within ${timeoutMs} ms; whether the change took place is unknown`);
      const cancelTimer = clock.after(timeoutMs, () => this.#take(id)?.reject(late));
      this.#pending.set(id, { resolve, reject, cancelTimer });
      this.#loop.run(() => this.#loop.put({ kind: 'changeMembers', id, change }));
    });
  }

  /** @throws NotLeaderError */
  view(): MembersView {
    const { core } = this.#loop;
    if (core.leading === null) throw new NotLeaderError(core);
    const { configurations, log } = core;
    const configuration = configurations.current;
    return {
      leader: core.id,
      term: core.term,
      lastIndex: log.lastIndex,
      configuration,
      changing: configuration.votersOutgoing.length > 0 || !configurations.isCommitted,
      members: members(configuration).map((id) => this.#describeMember(id)),
    };
  }

  /** The core has appended or refused a change. */
  outcome({ id, refusal: code, text }: MemberChangeOutcome): void {
    if (code !== null) {
      this.#take(id)?.reject(refusal(code, text));
      return;
    }
    const { core } = this.#loop;
    this.#appended.push({ id, index: core.configurations.newest.index, term: core.term });
  }

  /** To be called when the commit index or the leader may have changed. */
  progress(): void {
    if (this.#appended.length === 0) return;
    const { core } = this.#loop;
    const open: Appended[] = [];
    for (const each of this.#appended) {
      if (core.log.commitIndex >= each.index && core.log.termAt(each.index) === each.term) {
        this.#take(each.id)?.resolve();
      } else if (core.leading === null || core.term !== each.term) {
        const unknown = refusal('NOT_LEADER', 'leadership has changed; whether the change takes place is unknown');
        this.#take(each.id)?.reject(unknown);
      } else {
        open.push(each);
      }
    }
    this.#appended = open;
  }

  /** Refuses all pending requests, because this node stops. */
  stop(): void {
    const stopping = refusal('STOPPING', 'this node is stopping; whether a change took place is unknown');
    for (const id of [...this.#pending.keys()]) this.#take(id)?.reject(stopping);
  }

  /** The pending request of that id, which is no longer pending then; undefined if it has had its outcome. */
  #take(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    pending?.cancelTimer();
    this.#pending.delete(id);
    return pending;
  }

  #describeMember(id: NodeId): MemberView {
    const { core } = this.#loop;
    const { configurations, log, leading } = core;
    const configuration = configurations.current;
    const detail = configuration.details.find((each) => each.id === id);
    const progress = leading?.progress.get(id);
    const isSelf = id === core.id;
    const role = configuration.voters.includes(id)
      ? 'voter'
      : configuration.votersOutgoing.includes(id)
        ? 'leaving'
        : 'learner';
    return {
      id,
      role,
      address: detail?.address ?? null,
      joins: detail?.joins ?? false,
      replaces: detail?.replaces ?? NO_NODE,
      matchIndex: isSelf ? log.lastIndex : (progress?.matchIndex ?? 0),
      state: isSelf ? 'leader' : this.#options.transport.isUp(id) ? (progress?.state ?? 'probe') : 'unreachable',
      hasRights: isSelf || progress?.hasRights === true,
    };
  }
}

type RefusalCode = MemberRefusal | 'TIMEOUT' | 'BUSY' | 'STOPPING';

const DEFAULT_REMEDY = 'Try again in a moment.';
const REMEDIES: Partial<Record<RefusalCode, string>> = {
  NOT_LEADER: 'Try again in a moment; `raftkv member list` shows whether a change took place.',
  CHANGE_RUNNING: 'Wait until the running change is complete; `raftkv member list` shows it.',
  MEMBER_UNKNOWN: '`raftkv member list` shows the members.',
  MEMBER_EXISTS: 'Choose an id that no member has, or remove that member first.',
  WOULD_LOSE_QUORUM: 'Bring the unreachable members back first, or remove them.',
  NOT_CAUGHT_UP: 'Wait until it has caught up; `raftkv member list` shows its progress.',
  STOPPING: 'Ask another node; `raftkv member list` shows whether a change took place.',
  TIMEOUT: '`raftkv member list` shows whether the change took place.',
};

function refusal(code: RefusalCode, text: string): RaftkvError {
  return new RaftkvError('MEMBER_CHANGE_REFUSED', `${text} (${code})`, REMEDIES[code] ?? DEFAULT_REMEDY);
}
