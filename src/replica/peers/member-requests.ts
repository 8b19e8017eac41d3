import type { Clock } from '../../base/clock.ts';
import { RaftkvError } from '../../base/errors.ts';
import { members } from '../../raft/state/configuration.ts';
import type { Core } from '../../raft/state/core.ts';
import {
  type MemberChange,
  type MemberChangeOutcome,
  type MemberRefusal,
  NO_NODE,
  type NodeId,
} from '../../raft/state/types.ts';
import type { ReplicaInput } from '../input-queue.ts';
import type { MembersView, MemberView } from '../types.ts';
import type { MemberReply, MemberRequest } from './wire.ts';

/**
 * What operators ask about members, on any node: answered by the leader, to which other nodes pass the question on.
 *
 *   changeMembers ─┬─ this node leads ─▶ core ─▶ in the log ─▶ committed ─▶ done
 *                  └─ another leads ───▶ its link ─▶ the same there ─▶ back
 */
export interface MemberRequestsContext {
  readonly clock: Clock;
  readonly core: Core;
  readonly timeoutMs: number;
  readonly put: (input: ReplicaInput) => void;
  /** False where the message was dropped. */
  readonly send: (to: NodeId, message: MemberRequest | MemberReply) => boolean;
  readonly isLinked: (peer: NodeId) => boolean;
}

type Question = { readonly ask: 'view' } | { readonly ask: 'change'; readonly change: MemberChange };
type Answer = { readonly ok: MembersView | null } | { readonly code: string; readonly text: string };

interface Waiting {
  readonly resolve: (answer: Answer) => void;
  readonly cancelTimer: () => void;
}
/** A change that is in this leader's log and not yet committed, and the question that it answers. */
interface Begun {
  readonly id: number;
  readonly index: number;
  readonly term: number;
}

/** Questions that wait for their answers; an operator or two, not a service. */
const WAITING_MAX = 64;

export class MemberRequests {
  readonly #context: MemberRequestsContext;
  #nextId = 1;
  /** Asked of the core, or of the leader. */
  readonly #waiting = new Map<number, Waiting>();
  #begun: Begun[] = [];

  constructor(context: MemberRequestsContext) {
    this.#context = context;
  }

  async change(change: MemberChange): Promise<void> {
    unwrap(await this.#ask({ ask: 'change', change }));
  }

  async view(): Promise<MembersView> {
    const view = unwrap(await this.#ask({ ask: 'view' }));
    if (view === null) throw refused('NOT_LEADER', 'the leader answered something else');
    return view;
  }

  #ask(question: Question): Promise<Answer> {
    const { core, send } = this.#context;
    if (core.leading !== null) return this.#answer(question);
    return this.#wait((id) => {
      const body = Buffer.from(JSON.stringify(question));
      if (core.leader === NO_NODE) return refusal('NOT_LEADER', 'no leader is known');
      if (send(core.leader, { kind: 'memberRequest', id, body })) return null;
      return refusal('NOT_LEADER', `there is no link to the leader, node ${core.leader}`);
    });
  }

  #answer(question: Question): Promise<Answer> {
    if (question.ask === 'view') return Promise.resolve({ ok: this.#describe() });
    const { change } = question;
    return this.#wait((id) => {
      this.#context.put({ kind: 'changeMembers', id, change });
      return null;
    });
  }

  /** `begin` gives an answer at once, or null where one will come under the id. */
  #wait(begin: (id: number) => Answer | null): Promise<Answer> {
    const { clock, timeoutMs } = this.#context;
    if (this.#waiting.size >= WAITING_MAX)
      return Promise.resolve(refusal('BUSY', 'too many member requests are pending on this node'));
    const id = this.#nextId++;
    return new Promise((resolve) => {
      const late = refusal('TIMEOUT', `no answer within ${timeoutMs} ms; whether the change took place is unknown`);
      const cancelTimer = clock.after(timeoutMs, () => this.#resolve(id, late));
      this.#waiting.set(id, { resolve, cancelTimer });
      const answer = begin(id);
      if (answer !== null) this.#resolve(id, answer);
    });
  }

  #resolve(id: number, answer: Answer): void {
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return;
    this.#waiting.delete(id);
    waiting.cancelTimer();
    waiting.resolve(answer);
  }

  /** What the core made of a change. */
  outcome({ id, refusal: code, text }: MemberChangeOutcome): void {
    if (code !== null) {
      this.#resolve(id, refusal(code, text));
      return;
    }
    const { core } = this.#context;
    this.#begun.push({ id, index: core.configurations.newest.index, term: core.term });
  }

  /** To be called when the commit index or the leader may have changed. */
  progress(): void {
    if (this.#begun.length === 0) return;
    const { core } = this.#context;
    const open: Begun[] = [];
    for (const each of this.#begun) {
      if (core.log.commitIndex >= each.index && core.log.termAt(each.index) === each.term) {
        this.#resolve(each.id, { ok: null });
      } else if (core.leading === null || core.term !== each.term) {
        this.#resolve(
          each.id,
          refusal('NOT_LEADER', 'leadership has changed; whether the change takes place is unknown'),
        );
      } else {
        open.push(each);
      }
    }
    this.#begun = open;
  }

  /** Answers all pending requests of a node that stops. */
  stop(): void {
    const late = refusal('STOPPING', 'this node is stopping; whether a change took place is unknown');
    for (const id of [...this.#waiting.keys()]) this.#resolve(id, late);
  }

  receiveRequest(from: NodeId, { id, body }: MemberRequest): void {
    const reply = (answer: Answer) => {
      this.#context.send(from, { kind: 'memberReply', id, body: Buffer.from(JSON.stringify(answer)) });
    };
    if (this.#context.core.leading === null) {
      reply(refusal('NOT_LEADER', `node ${this.#context.core.id} is not the leader`));
      return;
    }
    void this.#answer(parse<Question>(body)).then(reply);
  }

  receiveReply({ id, body }: MemberReply): void {
    this.#resolve(id, parse<Answer>(body));
  }

  #describe(): MembersView {
    const { core } = this.#context;
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

  #describeMember(id: NodeId): MemberView {
    const { core, isLinked } = this.#context;
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
      state: isSelf ? 'leader' : isLinked(id) ? (progress?.state ?? 'probe') : 'unreachable',
      hasRights: isSelf || progress?.hasRights === true,
    };
  }
}

function refusal(code: MemberRefusal | 'TIMEOUT' | 'BUSY' | 'STOPPING', text: string): Answer {
  return { code, text };
}

/** Peers are nodes of this cluster that speak the same protocol version, which the handshake has made sure of. */
function parse<T>(body: Buffer): T {
  try {
    return JSON.parse(body.toString('utf8')) as T;
  } catch (cause) {
    throw new RaftkvError('MESSAGE_INVALID', 'a member request is not valid JSON', '', cause);
  }
}

function unwrap(answer: Answer): MembersView | null {
  if ('ok' in answer) return answer.ok;
  throw refused(answer.code, answer.text);
}

const REMEDIES: Record<string, string> = {
  NOT_LEADER: 'Try again in a moment; `raftkv member list` shows whether a change took place.',
  LEADER_NOT_READY: 'Try again in a moment.',
  CHANGE_RUNNING: 'Wait until the running change is complete; `raftkv member list` shows it.',
  MEMBER_UNKNOWN: '`raftkv member list` shows the members.',
  MEMBER_EXISTS: 'Choose an id that no member has, or remove that member first.',
  WOULD_LOSE_QUORUM: 'Bring the unreachable members back first, or remove them.',
  NOT_CAUGHT_UP: 'Wait until it has caught up; `raftkv member list` shows its progress.',
  STOPPING: 'Ask another node; `raftkv member list` shows whether a change took place.',
  TIMEOUT: '`raftkv member list` shows whether the change took place.',
};

function refused(code: string, text: string): RaftkvError {
  return new RaftkvError('MEMBER_CHANGE_REFUSED', `${text} (${code})`, REMEDIES[code] ?? 'Try again in a moment.');
}
