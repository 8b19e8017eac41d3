import { RaftkvError } from '../base/errors.ts';
import { withoutRights } from './rights.ts';
import { detailOf, isMember, members } from './state/configuration.ts';
import type { Core } from './state/core.ts';
import { type Configuration, NO_NODE, type NodeId, type Role } from './state/types.ts';

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
  readonly snapshotIndex: number;
  readonly newestSnapshot: number;
  readonly round: number;
  readonly configuration: Configuration;
}

/** What `checkStep` compares the next state with. To be taken before a step. */
export function summarize(core: Core): CoreSummary {
  const { term, vote, role, leader, log, round, configurations } = core;
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
    snapshotIndex: log.snapshotIndex,
    newestSnapshot: core.snapshot?.index ?? 0,
    round,
    configuration: configurations.current,
  };
}

/**
 * What must be true of one core after every step: the order of the indexes of its log, that a role and its data go
 * together, and what a leader knows of each follower.
 * @throws RaftkvError INVARIANT_BROKEN with what is wrong.
 */
export function checkCore(core: Core): void {
  const { log, role, leading } = core;
  check(log.snapshotIndex <= log.appliedIndex, core, 'has applied what its log no longer has');
  check(log.snapshotIndex <= log.persistedIndex, core, 'has on disk where its log begins');
  check(log.snapshotIndex < log.firstCachedIndex, core, 'keeps nothing in memory that its log no longer has');
  check(log.snapshotIndex <= (core.snapshot?.index ?? 0), core, 'has a snapshot of what its log no longer has');
  check((core.snapshot?.index ?? 0) <= log.commitIndex, core, 'has snapshots only of what is committed');
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
  checkConfigurations(core);
  if (leading === null) return;
  check(log.lastTerm === core.term, core, 'opens its term with an entry of its own');
  for (const [peer, progress] of leading.progress) {
    check(progress.matchIndex < progress.nextIndex, core, `sends node ${peer} nothing that it has acknowledged`);
    check(progress.matchIndex <= log.lastIndex, core, `knows all that node ${peer} has acknowledged`);
    const { state, pendingSnapshot, nextIndex } = progress;
    check(
      (state === 'snapshot') === pendingSnapshot > 0,
      core,
      `has offered node ${peer} a snapshot exactly if it says so`,
    );
    check(progress.keepsLogFrom >= log.snapshotIndex, core, `keeps the log that node ${peer} needs after its snapshot`);
    if (state === 'snapshot') {
      check(nextIndex === pendingSnapshot + 1, core, `goes on with node ${peer} behind its snapshot`);
      check(!progress.maySend, core, `sends node ${peer} nothing but its snapshot`);
    }
    check(nextIndex <= log.lastIndex + 1, core, `has all that it goes on to send to node ${peer}`);
    check(progress.ackedRound <= core.round, core, `has begun every round that node ${peer} has answered`);
  }
}

/** Who decides (§4): one change at a time, and only by those who have a say. */
function checkConfigurations(core: Core): void {
  const { log, leading } = core;
  const { newest, entries, current } = core.configurations;
  check(newest.index <= log.lastIndex, core, 'has dropped configurations that were truncated from its log');
  check(
    entries.every(({ index }, i) => index > (entries[i - 1]?.index ?? -1)),
    core,
    'has them in order',
  );
  const committed = entries.findLast(({ index }) => index <= log.commitIndex);
  check(committed?.index === core.configurations.committed.index, core, 'knows which configuration is committed');
  check(core.role === 'follower' || !withoutRights(core), core, 'campaigns and leads only with a vote');
  for (const { configuration } of entries) {
    const { votersOutgoing, learnersNext, learners, voters, details, removed } = configuration;
    const ids = members(configuration);
    check(details.length === ids.length && details.every(({ id }) => ids.includes(id)), core, 'describes each member');
    check(
      !learners.some((id) => voters.includes(id) || votersOutgoing.includes(id)),
      core,
      'takes no voter for a learner',
    );
    check(
      learnersNext.every((id) => votersOutgoing.includes(id)),
      core,
      'lets only outgoing voters become learners',
    );
    check(!removed.some((id) => isMember(configuration, id)), core, 'has no member that was removed');
  }
  if (leading === null) return;
  const own = detailOf(current, core.id);
  check(
    own === undefined || own.directoryId === core.rights.directoryId,
    core,
    'leads with the directory that has its rights',
  );
  for (const [id, progress] of leading.progress) {
    const named = detailOf(current, id)?.directoryId ?? progress.configuredDirectoryId;
    check(progress.configuredDirectoryId === named, core, `knows which directory of node ${id} has its rights`);
  }
  const uncommitted = entries.filter(({ index }) => index > log.commitIndex);
  if (log.commitIndex >= leading.firstIndex) check(uncommitted.length <= 1, core, 'makes one change at a time');
  else check(newest.index < leading.firstIndex, core, 'changes no members before an entry of its term is committed');
  for (const id of members(current)) {
    check(id === core.id || leading.progress.has(id), core, `replicates to member ${id}`);
  }
}

/**
 * What must be true between two steps: terms, votes, commitment and snapshots never go back (figure 3 of the paper, as far
 * as one node can tell), and a leader only appends.
 * @throws RaftkvError INVARIANT_BROKEN with what is wrong.
 */
export function checkStep(before: CoreSummary, core: Core): void {
  check(core.term >= before.term, core, 'never goes back to an earlier term');
  if (core.term === before.term) {
    check(before.vote === NO_NODE || core.vote === before.vote, core, 'changes no vote within a term');
    check(
      before.leader === NO_NODE || core.leader === NO_NODE || core.leader === before.leader,
      core,
      'sees one leader',
    );
  }
  check(core.log.commitIndex >= before.commitIndex, core, 'never takes a commit back');
  check(core.log.appliedIndex >= before.appliedIndex, core, 'never takes back what it applied');
  check(core.log.snapshotIndex >= before.snapshotIndex, core, 'never lets its log begin earlier');
  check((core.snapshot?.index ?? 0) >= before.newestSnapshot, core, 'never goes back to an older snapshot');
  check(core.round >= before.round, core, 'never uses a round again');
  const commitTerm = core.log.termAt(before.commitIndex);
  check(commitTerm === -1 || commitTerm === before.commitTerm, core, 'never changes a committed entry');
  if (before.role === 'leader' && core.role === 'leader' && core.term === before.term) {
    check(core.log.lastIndex >= before.lastIndex, core, 'only appends to its log while it leads');
    const lastTerm = core.log.termAt(before.lastIndex);
    check(lastTerm === -1 || lastTerm === before.lastTerm, core, 'never changes its log while it leads');
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
