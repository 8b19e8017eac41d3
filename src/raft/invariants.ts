import { RaftkvError } from '../base/errors.ts';
import type { Core } from './core.ts';
import { NOBODY, type NodeId, type Role } from './types.ts';

/**
 * What must be true of one core at any time, and between two steps of it. The simulator and the unit tests check it
 * after every step; the shipped node does not pay for it.
 */
export interface CoreSummary {
  readonly term: number;
  readonly vote: NodeId;
  readonly role: Role;
  readonly leader: NodeId;
  readonly lastIndex: number;
  readonly lastTerm: number;
  readonly commitIndex: number;
  readonly commitTerm: number;
  readonly appliedIndex: number;
  readonly round: number;
}

export function summarize(core: Core): CoreSummary {
  const { term, vote, role, leader, log, round } = core;
  return {
    term,
    vote,
    role,
    leader,
    lastIndex: log.lastIndex,
    lastTerm: log.lastTerm,
    commitIndex: log.commitIndex,
    commitTerm: log.termAt(log.commitIndex),
    appliedIndex: log.appliedIndex,
    round,
  };
}

/** @throws RaftkvError INVARIANT_BROKEN with what is wrong. */
export function checkCore(core: Core): void {
  const { log, role, leading } = core;
  check(log.snapshotIndex <= log.appliedIndex, core, 'applied nothing before the snapshot');
  check(log.appliedIndex <= log.commitIndex, core, 'applies only what is committed');
  check(log.commitIndex <= log.lastIndex, core, 'commits only what it has');
  check(log.persistedIndex <= log.lastIndex, core, 'has persisted only what it has');
  check(log.firstCachedIndex <= log.persistedIndex + 1, core, 'has on disk what has left memory');
  check(log.lastTerm <= core.term, core, 'has no entry of a later term than its own');
  check((role === 'leader') === (leading !== null), core, 'has a leadership exactly while it leads');
  check(role !== 'leader' || core.leader === core.id, core, 'leads under its own name');
  check(role === 'leader' || core.leader !== core.id, core, 'names itself leader only while it leads');
  check(role !== 'candidate' || core.vote === core.id, core, 'votes for itself while it campaigns');
  check(role !== 'leader' || core.vote === core.id, core, 'leads only with its own vote');
  if (leading === null) return;
  check(log.lastTerm === core.term, core, 'opens its term with an entry of its own');
  for (const [peer, progress] of leading.progress) {
    check(progress.matchIndex < progress.nextIndex, core, `sends node ${peer} nothing that it has acknowledged`);
    check(progress.matchIndex <= log.lastIndex, core, `knows all that node ${peer} has acknowledged`);
    check(progress.ackedRound <= core.round, core, `has begun every round that node ${peer} has answered`);
  }
}

/** @throws RaftkvError INVARIANT_BROKEN with what is wrong. */
export function checkStep(before: CoreSummary, core: Core): void {
  check(core.term >= before.term, core, 'never goes back to an earlier term');
  if (core.term === before.term) {
    check(before.vote === NOBODY || core.vote === before.vote, core, 'changes no vote within a term');
    check(before.leader === NOBODY || core.leader === NOBODY || core.leader === before.leader, core, 'sees one leader');
  }
  check(core.log.commitIndex >= before.commitIndex, core, 'never takes a commit back');
  check(core.log.appliedIndex >= before.appliedIndex, core, 'never takes back what it applied');
  check(core.round >= before.round, core, 'never uses a round again');
  const commitTerm = core.log.termAt(before.commitIndex);
  check(commitTerm === -1 || commitTerm === before.commitTerm, core, 'never changes a committed entry');
  if (before.role === 'leader' && core.role === 'leader' && core.term === before.term) {
    check(core.log.lastIndex >= before.lastIndex, core, 'only appends to its log while it leads');
    check(core.log.termAt(before.lastIndex) === before.lastTerm, core, 'never changes its log while it leads');
  }
}

function check(holds: boolean, core: Core, promise: string): void {
  if (holds) return;
  const { log } = core;
  throw new RaftkvError(
    'INVARIANT_BROKEN',
    `node ${core.id} broke its promise that it ${promise}: ${core.role} of term ${core.term}, log ` +
      `${log.snapshotIndex} < applied ${log.appliedIndex} ≤ committed ${log.commitIndex} ≤ last ${log.lastIndex}`,
  );
}
