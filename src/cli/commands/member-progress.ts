import type { MembersView, MemberView } from '../../replica/types.ts';

/** Describes the progress of a change of members, from the leader's view of the members. */

export type Goal =
  /** `id` votes, and `replaces` (0: none) is gone. */
  | { readonly kind: 'voter'; readonly id: number; readonly replaces: number }
  /** `id` is a learner that holds the log up to `upTo`. */
  | { readonly kind: 'learner'; readonly id: number; readonly upTo: number }
  | { readonly kind: 'gone'; readonly id: number };

export interface Phase {
  /** `undone`: it will not come about any more. */
  readonly state: 'running' | 'done' | 'undone';
  /** Stays the same while only numbers move. */
  readonly name: string;
  readonly text: string;
}

export type ProgressView = Pick<MembersView, 'lastIndex' | 'changing' | 'members'>;

export function phaseOf(view: ProgressView, goal: Goal): Phase {
  const member = view.members.find(({ id }) => id === goal.id);
  switch (goal.kind) {
    case 'gone':
      if (member !== undefined || view.changing) return running('leaving', `node ${goal.id} leaves`);
      return done(`node ${goal.id} is no longer a member`);
    case 'learner':
      if (member === undefined) return undone(goal.id);
      if (member.matchIndex < goal.upTo) return copying(view, member);
      return done(`node ${goal.id} is a learner and has caught up`);
    case 'voter':
      if (member === undefined) return undone(goal.id);
      if (member.role === 'learner') return copying(view, member);
      return joining(view, goal);
  }
}

function joining(view: ProgressView, { id, replaces }: Extract<Goal, { kind: 'voter' }>): Phase {
  const isOldThere = replaces !== 0 && view.members.some((member) => member.id === replaces);
  if (isOldThere)
    return running('replacing', `node ${id} has caught up; it becomes a voter and node ${replaces} is removed`);
  if (view.changing) return running('promoting', `node ${id} has caught up and becomes a voter`);
  return done(`node ${id} is a voter${replaces === 0 ? '' : ` and replaced node ${replaces}`}`);
}

function copying({ lastIndex }: ProgressView, { id, state, matchIndex }: MemberView): Phase {
  switch (state) {
    case 'unreachable':
      return running('unreachable', `waiting for node ${id}: start it with \`raftkv node --id ${id} --join\``);
    case 'snapshot':
      return running('snapshot', `node ${id} receives a snapshot`);
    default:
      return running('copying', `node ${id} receives the log: entry ${matchIndex} of ${lastIndex}`);
  }
}

function running(name: string, text: string): Phase {
  return { state: 'running', name, text };
}

function done(text: string): Phase {
  return { state: 'done', name: 'done', text };
}

function undone(id: number): Phase {
  return {
    state: 'undone',
    name: 'undone',
    text: `node ${id} is no longer a member: another command removed it`,
  };
}

/** Shows how something fares: on a terminal in one line that changes, else a line for each new phase and now and then. */

/** For who reads a file: often enough to see that it moves. */
const REPEAT_MS = 5_000;
/** Back to the first column, and nothing to the right of it. */
const CLEAR_LINE = '\r\u001b[K';

export interface ProgressLine {
  /** `name` identifies the step; `text` also tells its progress. */
  show(name: string, text: string): void;
  /** Whatever is written next begins on a line of its own. */
  end(): void;
}

export const SILENT: ProgressLine = { show() {}, end() {} };

export function createProgressLine(
  stream: Pick<NodeJS.WriteStream, 'write'> & { readonly isTTY?: boolean },
): ProgressLine {
  let shownName = '';
  let shownAtMs = 0;
  return {
    show(name, text) {
      if (stream.isTTY === true) {
        stream.write(`${CLEAR_LINE}${text}`);
        shownName = name;
        return;
      }
      const nowMs = performance.now();
      if (name === shownName && nowMs - shownAtMs < REPEAT_MS) return;
      stream.write(`${text}\n`);
      shownName = name;
      shownAtMs = nowMs;
    },
    end() {
      if (stream.isTTY === true && shownName !== '') stream.write(CLEAR_LINE);
      shownName = '';
    },
  };
}
