import { appendToLog } from './own-log.ts';
import { broadcastAppends, mostAdvancedVoter } from './replication.ts';
import {
  type ConfigurationStep,
  DIRECTORY_UNKNOWN,
  detailOf,
  encodeConfiguration,
  enterJoint,
  isJoint,
  isMember,
  isVoter,
  leaveJoint,
  MEMBERS_MAX,
  members,
  simple,
  withDetail,
} from './state/configuration.ts';
import { becomeFollower, type Core, isQuorumOf, type Leadership, send } from './state/core.ts';
import { ENTRY_HEADER_BYTES, sealEntry } from './state/entry.ts';
import type { Progress } from './state/progress.ts';
import {
  type Configuration,
  type MemberChange,
  type MemberRefusal,
  NO_NODE,
  type NodeId,
  type Recovering,
} from './state/types.ts';
import { startTransfer } from './transfer.ts';

/**
 * Changes of members (§4): how the leader brings about the next configuration.
 *
 *   add ──▶ learner ── caught up ──▶ joint: old and new voters ── committed, left automatically ──▶ voter
 *   a recovering directory ──▶ (joint, if it was a voter) ──▶ learner ── caught up ──▶ as above
 *   remove ──▶ (joint, if it was a voter) ──▶ committed without it; members refuse its links, and it ends
 *
 * One change at a time, and none before an entry of the leader's own term is committed. Otherwise two leaders could each
 * commit a change of the same configuration, with quorums that have no node in common.
 *
 * A node learns of its removal in one way only: the members refuse its links. A process that runs and one that was away
 * learn it alike, from the committed configuration of the others, and not from a log that may be incomplete.
 */

/** For how many election timeouts a leader that is no voter any more looks for a successor before it leaves. */
const HAND_OVER_ELECTION_TIMEOUTS = 2;

/**
 * An operator asks for a change. Either its entry is in the log after this step, or the outcome says why not. The caller
 * learns that it is committed from the commit index: the outcome comes back under the same `id`.
 */
export function changeMembers(core: Core, id: number, change: MemberChange): void {
  const refusal = obstacle(core) ?? begin(core, change);
  core.effects.memberChanges.push({ id, refusal: refusal?.code ?? null, text: refusal?.text ?? '' });
}

interface Refusal {
  readonly code: MemberRefusal;
  readonly text: string;
}

/**
 * Why no change at all can begin now, or null.
 *
 * The third check is the one that Raft's first description of single-server changes lacked. Leader 1 appends a change, is
 * cut off, and leader 2 commits another change with voters that leader 1 does not count. Back in office, leader 1 commits its
 * old change with voters that leader 2 does not count. An entry of the own term that is committed rules that out, because
 * a quorum of the latest configuration has then seen this leader (copycat 23).
 */
function obstacle(core: Core): Refusal | null {
  const { leading, log } = core;
  const configuration = core.configurations.current;
  if (leading === null) {
    const leader = core.leader === NO_NODE ? 'no leader is known' : `node ${core.leader} is`;
    return { code: 'NOT_LEADER', text: `node ${core.id} is not the leader; ${leader}` };
  }
  if (leading.transfer !== null) {
    return {
      code: 'LEADER_NOT_READY',
      text: `node ${core.id} is transferring leadership to node ${leading.transfer.to}`,
    };
  }
  if (log.commitIndex < leading.firstIndex) {
    return {
      code: 'LEADER_NOT_READY',
      text: `node ${core.id} has just become leader and has committed nothing in its term yet`,
    };
  }
  if (isJoint(configuration)) {
    const [from, to] = [configuration.votersOutgoing, configuration.voters].map(listOf);
    return { code: 'CHANGE_RUNNING', text: `a change of the voters from ${from} to ${to} is not finished` };
  }
  if (!core.configurations.isCommitted) {
    return {
      code: 'CHANGE_RUNNING',
      text: `the last change, entry ${core.configurations.newest.index}, is not committed`,
    };
  }
  return null;
}

function begin(core: Core, change: MemberChange): Refusal | null {
  switch (change.op) {
    case 'add':
      return add(core, change);
    case 'remove':
      return remove(core, change.id);
    case 'promote':
      return promoteByHand(core, change.id);
  }
}

/** A new member starts as a learner, with an unknown directory: it votes for nothing before it has caught up (§4.2.1). */
function add(core: Core, change: Extract<MemberChange, { op: 'add' }>): Refusal | null {
  const configuration = core.configurations.current;
  const { id, address, joins, replaces } = change;
  if (isMember(configuration, id)) {
    return {
      code: 'MEMBER_EXISTS',
      text: `node ${id} is a ${isVoter(configuration, id) ? 'voter' : 'learner'} already`,
    };
  }
  if (replaces !== 0 && !isMember(configuration, replaces)) return unknown(core, replaces);
  if (members(configuration).length >= MEMBERS_MAX) {
    return { code: 'TOO_MANY_MEMBERS', text: `there are ${MEMBERS_MAX} members, which is the maximum` };
  }
  const next = simple(configuration, [{ op: 'learner', id }]);
  // The node reports its directory id itself. It may be new, or a former member that has kept its data.
  appendConfiguration(core, withDetail(next, { id, address, directoryId: DIRECTORY_UNKNOWN, joins, replaces }));
  return null;
}

/** A learner leaves in one step; a voter leaves by a joint configuration, in which the others must agree without it. */
function remove(core: Core, id: NodeId): Refusal | null {
  const configuration = core.configurations.current;
  if (!isMember(configuration, id)) return unknown(core, id);
  const steps: ConfigurationStep[] = [{ op: 'remove', id }];
  if (!isVoter(configuration, id)) {
    appendConfiguration(core, simple(configuration, steps));
    return null;
  }
  if (configuration.voters.length === 1) {
    return { code: 'WOULD_LOSE_QUORUM', text: `node ${id} is the only voter` };
  }
  return appendUnlessQuorumIsLost(core, enterJoint(configuration, steps, true));
}

/** For a learner that was added without `joins`. The operator is told what it lacks, rather than made to wait. */
function promoteByHand(core: Core, id: NodeId): Refusal | null {
  const configuration = core.configurations.current;
  if (!isMember(configuration, id)) return unknown(core, id);
  if (isVoter(configuration, id)) return { code: 'MEMBER_EXISTS', text: `node ${id} is a voter already` };
  const progress = core.leading?.progress.get(id);
  if (progress === undefined || !progress.isCaughtUp || !isDirectoryKnown(core, id)) {
    return { code: 'NOT_CAUGHT_UP', text: `node ${id} ${whatItLacks(core, progress)}` };
  }
  return promote(core, id);
}

function whatItLacks(core: Core, progress: Progress | undefined): string {
  if (progress === undefined || !progress.linked) return 'cannot be reached';
  if (!progress.hasRights) return 'is recovering: the configuration does not name its data directory yet';
  if (progress.state === 'snapshot') return `is fetching the snapshot up to entry ${progress.pendingSnapshot}`;
  return `holds the log up to entry ${progress.matchIndex} of ${core.log.lastIndex}, and must keep up for a moment longer`;
}

/** A learner that was just added has not named its directory yet. */
function isDirectoryKnown(core: Core, id: NodeId): boolean {
  return detailOf(core.configurations.current, id)?.directoryId !== DIRECTORY_UNKNOWN;
}

/** The learner becomes a voter, and the member that it replaces leaves in the same change. */
function promote(core: Core, id: NodeId): Refusal | null {
  const configuration = core.configurations.current;
  const detail = detailOf(configuration, id);
  if (detail === undefined) return unknown(core, id);
  const steps: ConfigurationStep[] = [{ op: 'voter', id }];
  if (detail.replaces !== 0 && detail.replaces !== id) steps.push({ op: 'remove', id: detail.replaces });
  const next = enterJoint(configuration, steps, true);
  return appendUnlessQuorumIsLost(core, withDetail(next, { ...detail, joins: false, replaces: 0 }));
}

/**
 * Appends the configuration, unless its quorum cannot be reached now. It would be in force at once, so nothing could be
 * committed any more, not even the entry that takes it back. Of the voters 1, 2 and 3, node 3 is down: without node 2, node 1
 * would need node 3 for every entry.
 */
function appendUnlessQuorumIsLost(core: Core, next: Configuration): Refusal | null {
  if (!isQuorumOf(next, (id) => isThere(core, id))) {
    const absent = members(next).filter((id) => isVoter(next, id) && !isThere(core, id));
    const text = `the voters would be ${listOf(next.voters)}, but ${listOf(absent)} cannot be reached or has no vote`;
    return { code: 'WOULD_LOSE_QUORUM', text };
  }
  appendConfiguration(core, next);
  return null;
}

/** Whether `id` answered this leader within an election timeout, from a directory with rights. */
function isThere(core: Core, id: NodeId): boolean {
  if (id === core.id) return true;
  const { leading } = core;
  const progress = leading?.progress.get(id);
  if (leading === null || progress === undefined || !progress.linked || !progress.hasRights) return false;
  return progress.hasAnsweredWithin(core.options.electionTimeoutTicks, core.now);
}

function unknown(core: Core, id: NodeId): Refusal {
  return {
    code: 'MEMBER_UNKNOWN',
    text: `node ${id} is not a member; the members are ${listOf(members(core.configurations.current))}`,
  };
}

function listOf(ids: readonly NodeId[]): string {
  return ids.length === 0 ? 'none' : ids.join(', ');
}

/** In force from this moment, here; at a follower from the moment that it appends the entry (§4.1). */
function appendConfiguration(core: Core, configuration: Configuration): void {
  const bytes = encodeConfiguration(configuration, ENTRY_HEADER_BYTES);
  appendToLog(core, sealEntry(bytes, 'configuration', core.term, core.log.lastIndex + 1), configuration);
  broadcastAppends(core);
}

/**
 * A node without rights follows this leader and names its directory. The leader makes it a learner, so that it can earn
 * its vote again. It asks again until that is committed, so a request that comes at a bad moment is dropped.
 */
export function handleRecovering(core: Core, { from, directoryId }: Recovering): void {
  const configuration = core.configurations.current;
  const detail = detailOf(configuration, from);
  if (detail === undefined || detail.directoryId === directoryId || from === core.id || obstacle(core) !== null) return;
  const named = { ...detail, directoryId };
  if (!isVoter(configuration, from)) {
    appendConfiguration(core, withDetail(configuration, named));
    return;
  }
  if (configuration.voters.length === 1) return;
  const next = enterJoint(configuration, [{ op: 'learner', id: from }], true);
  appendUnlessQuorumIsLost(core, withDetail(next, { ...named, joins: true, replaces: 0 }));
}

/** With each periodic heartbeat, after `tickCatchUps`: promotes a learner that has caught up and wants to join. */
export function promoteCaughtUp(core: Core, leading: Leadership): void {
  const configuration = core.configurations.current;
  for (const id of configuration.learners) {
    const joins = detailOf(configuration, id)?.joins === true && isDirectoryKnown(core, id);
    if (!joins || leading.progress.get(id)?.isCaughtUp !== true || obstacle(core) !== null) continue;
    if (promote(core, id) === null) return;
  }
}

/**
 * What a committed change still asks of the leader. To be called after every step of a leader.
 *
 * A leader that is no voter of the new half of a joint configuration hands over before it leaves the joint configuration.
 * If no node takes over in time, it leaves it all the same and steps down when that is committed (§4.2.2).
 */
export function continueChange(core: Core, leading: Leadership): void {
  if (!core.configurations.isCommitted || core.log.commitIndex < leading.firstIndex) return;
  const configuration = core.configurations.current;
  const hasVote = configuration.voters.includes(core.id);
  if (!isJoint(configuration)) {
    if (!hasVote) stepDown(core, leading);
    return;
  }
  if (!configuration.autoLeave) return;
  if (hasVote || hasWaitedForSuccessor(core, leading)) {
    leading.transfer = null;
    appendConfiguration(core, leaveJoint(configuration));
  } else {
    startTransfer(core, NO_NODE);
  }
}

function hasWaitedForSuccessor(core: Core, leading: Leadership): boolean {
  leading.handOverSince ??= core.now;
  return core.now - leading.handOverSince >= HAND_OVER_ELECTION_TIMEOUTS * core.options.electionTimeoutTicks;
}

/** The committed configuration has this leader as a voter no more (§4.2.2): the most advanced voter campaigns at once. */
function stepDown(core: Core, leading: Leadership): void {
  const to = mostAdvancedVoter(core, leading);
  if (to !== NO_NODE) send(core, { kind: 'timeoutNow', from: core.id, to, term: core.term });
  becomeFollower(core, core.term, NO_NODE);
}
