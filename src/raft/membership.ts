import { RaftkvError } from '../base/errors.ts';
import {
  type ConfigurationStep,
  DIRECTORY_UNKNOWN,
  decodeConfiguration,
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
} from './configuration.ts';
import { becomeFollower, type Core, isQuorumOf, type Leadership, send } from './core.ts';
import { ENTRY_HEADER_BYTES, sealEntry } from './entry.ts';
import type { Progress } from './progress.ts';
import { appendAsLeader, broadcastAppends, mostAdvancedVoter, sendCommit } from './replication.ts';
import { configuredDirectoryOf, resetProgress, updateRights } from './rights.ts';
import { startTransfer } from './transfer.ts';
import {
  type Configuration,
  type Entry,
  type MemberChange,
  type MemberRefusal,
  NO_NODE,
  type NodeId,
  type Recovering,
} from './types.ts';

/**
 * Changes of members (§4): which configuration is in force, and how the leader brings about the next.
 *
 *   add ──▶ learner ── caught up ──▶ joint: old and new voters ── committed, left by itself ──▶ voter
 *   a recovering directory ──▶ (joint, where it was a voter) ──▶ learner ── caught up ──▶ as above
 *   remove ──▶ (joint, where it was a voter) ──▶ told, then forgotten
 *
 * One change at a time, and none before an entry of the leader's own term is committed. Otherwise two leaders could each
 * commit a change of the same configuration, with quorums that do not intersect.
 */

/** How long nodes that have left are still told so, and how long a leader that leaves looks for a successor. */
const FAREWELL_ELECTION_TIMEOUTS = 2;

/** A configuration entry is in the log now, so it is in force. */
export function configurationAppended(core: Core, entry: Entry): void {
  const configuration = decodeConfiguration(entry.bytes, ENTRY_HEADER_BYTES);
  core.configurations.push({ index: entry.index, configuration });
  activateNewest(core);
}

/** The log was truncated: configurations of the removed entries are no longer in force. */
export function configurationsTruncated(core: Core, fromIndex: number): void {
  if ((core.configurations.at(-1)?.index ?? 0) < fromIndex) return;
  core.configurations = core.configurations.filter(({ index }) => index < fromIndex);
  activateNewest(core);
}

/** The commit index rose. */
export function configurationsCommitted(core: Core): void {
  if ((core.configurations.at(-1)?.index ?? 0) === core.committedConfigurationIndex) return;
  activateNewest(core);
}

/** A snapshot took the place of everything up to `index`, and of all the log where that did not agree (openraft 1808). */
export function configurationInstalled(core: Core, index: number, configuration: Configuration): void {
  const later = core.configurations.filter((at) => at.index > index && at.index <= core.log.lastIndex);
  core.configurations = [{ index, configuration }, ...later];
  activateNewest(core);
}

/** The log begins later now: of the configurations before it only the newest is needed. */
export function configurationsCompacted(core: Core): void {
  const base = core.configurations.findLastIndex(({ index }) => index <= core.log.snapshotIndex);
  if (base > 0) core.configurations = core.configurations.slice(base);
}

/** The configuration that was in force when the log ended at `index`. */
export function configurationAsOf(core: Core, index: number): Configuration {
  const at = core.configurations.findLast((each) => each.index <= index);
  if (at === undefined) throw new RaftkvError('INVARIANT_BROKEN', `no configuration is known as of entry ${index}`);
  return at.configuration;
}

/** To be called once, with the configurations that a node begins with. */
export function configurationsRecovered(core: Core): void {
  activateNewest(core);
  // A snapshot is newer than all that a log holds before it.
  configurationsCompacted(core);
}

function activateNewest(core: Core): void {
  const { configurations, log } = core;
  const newest = configurations.at(-1);
  if (newest === undefined) throw new RaftkvError('INVARIANT_BROKEN', `node ${core.id} has lost its configuration`);
  const before = core.configuration;
  core.configuration = newest.configuration;
  core.committedConfigurationIndex = configurations.findLast(({ index }) => index <= log.commitIndex)?.index ?? 0;
  updateRights(core);
  if (core.leading === null) return;
  if (before !== core.configuration) updateProgress(core, core.leading, before);
  if (core.committedConfigurationIndex !== newest.index) return;
  for (const progress of core.leading.progress.values()) progress.isAdmitted = true;
}

/** Whom a leader replicates to: the members of every configuration that may turn out to be in force. */
export function peersOf(core: Core): NodeId[] {
  const ids = new Set<NodeId>();
  for (const { index, configuration } of core.configurations) {
    if (index < core.committedConfigurationIndex) continue;
    for (const id of members(configuration)) ids.add(id);
  }
  ids.delete(core.id);
  return [...ids];
}

function updateProgress(core: Core, leading: Leadership, before: Configuration): void {
  for (const id of members(core.configuration)) {
    if (id === core.id) continue;
    const progress = leading.progress.get(id);
    if (progress === undefined || !isMember(before, id)) resetProgress(core, leading, id).isAdmitted = false;
    else progress.configuredDirectoryId = configuredDirectoryOf(core, id);
  }
  for (const [id, progress] of leading.progress) progress.leaving = !isMember(core.configuration, id);
}

/** An operator asks for a change. */
export function changeMembers(core: Core, id: number, change: MemberChange): void {
  const refusal = obstacle(core) ?? begin(core, change);
  core.effects.memberChanges.push({ id, refusal: refusal?.code ?? null, text: refusal?.text ?? '' });
}

interface Refusal {
  readonly code: MemberRefusal;
  readonly text: string;
}

/** Why no change at all can begin now, or null. */
function obstacle(core: Core): Refusal | null {
  const { leading, log, configuration } = core;
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
  if (core.committedConfigurationIndex !== core.configurations.at(-1)?.index) {
    return {
      code: 'CHANGE_RUNNING',
      text: `the last change, entry ${core.configurations.at(-1)?.index}, is not committed`,
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

function add(core: Core, change: Extract<MemberChange, { op: 'add' }>): Refusal | null {
  const { configuration } = core;
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
  // The node itself tells its directory id, be it new or a former member that has kept its data.
  appendConfiguration(core, withDetail(next, { id, address, directoryId: DIRECTORY_UNKNOWN, joins, replaces }));
  return null;
}

function remove(core: Core, id: NodeId): Refusal | null {
  const { configuration } = core;
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

function promoteByHand(core: Core, id: NodeId): Refusal | null {
  const { configuration } = core;
  if (!isMember(configuration, id)) return unknown(core, id);
  if (isVoter(configuration, id)) return { code: 'MEMBER_EXISTS', text: `node ${id} is a voter already` };
  const progress = core.leading?.progress.get(id);
  if (progress === undefined || !progress.caughtUp || !isDirectoryKnown(core, id)) {
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

function isDirectoryKnown(core: Core, id: NodeId): boolean {
  return detailOf(core.configuration, id)?.directoryId !== DIRECTORY_UNKNOWN;
}

/** The learner becomes a voter, and the member that it replaces leaves in the same change. */
function promote(core: Core, id: NodeId): Refusal | null {
  const { configuration } = core;
  const detail = detailOf(configuration, id);
  if (detail === undefined) return unknown(core, id);
  const steps: ConfigurationStep[] = [{ op: 'voter', id }];
  if (detail.replaces !== 0 && detail.replaces !== id) steps.push({ op: 'remove', id: detail.replaces });
  const next = enterJoint(configuration, steps, true);
  return appendUnlessQuorumIsLost(core, withDetail(next, { ...detail, joins: false, replaces: 0 }));
}

function appendUnlessQuorumIsLost(core: Core, next: Configuration): Refusal | null {
  if (!isQuorumOf(next, (id) => isThere(core, id))) {
    const absent = members(next).filter((id) => isVoter(next, id) && !isThere(core, id));
    const text = `the voters would be ${listOf(next.voters)}, but ${listOf(absent)} cannot be reached or has no vote`;
    return { code: 'WOULD_LOSE_QUORUM', text };
  }
  appendConfiguration(core, next);
  return null;
}

/** Whether this node has heard of `id` within an election timeout, from a directory with rights. */
function isThere(core: Core, id: NodeId): boolean {
  if (id === core.id) return true;
  const { leading } = core;
  const progress = leading?.progress.get(id);
  if (leading === null || progress === undefined || !progress.linked || !progress.hasRights) return false;
  return leading.ticks - progress.answeredTick <= core.options.electionTimeoutTicks;
}

function unknown(core: Core, id: NodeId): Refusal {
  return {
    code: 'MEMBER_UNKNOWN',
    text: `node ${id} is not a member; the members are ${listOf(members(core.configuration))}`,
  };
}

function listOf(ids: readonly NodeId[]): string {
  return ids.length === 0 ? 'none' : ids.join(', ');
}

function appendConfiguration(core: Core, configuration: Configuration): void {
  const bytes = encodeConfiguration(configuration, ENTRY_HEADER_BYTES);
  appendAsLeader(core, sealEntry(bytes, 'configuration', core.term, core.log.lastIndex + 1));
  broadcastAppends(core);
}

/** A directory without rights follows this leader: it becomes a learner, so that it can earn its vote. */
export function handleRecovering(core: Core, { from, directoryId }: Recovering): void {
  const { configuration } = core;
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

/** At each periodic heartbeat: which learners keep up (§4.2.1), and whether one of them is to be promoted. */
export function tickLearners(core: Core, leading: Leadership): void {
  for (const id of core.configuration.learners) {
    const progress = leading.progress.get(id);
    if (progress === undefined) continue;
    progress.tickLearner(leading.ticks, core.log.lastIndex, core.options.electionTimeoutTicks);
    if (
      !progress.caughtUp ||
      !isDirectoryKnown(core, id) ||
      detailOf(core.configuration, id)?.joins !== true ||
      obstacle(core) !== null
    )
      continue;
    if (promote(core, id) === null) return;
  }
}

/** What a change that is committed still asks of the leader; to be called after every step of one. */
export function continueChange(core: Core, leading: Leadership): void {
  const { configuration, log } = core;
  if (core.committedConfigurationIndex !== core.configurations.at(-1)?.index) return;
  if (log.commitIndex < leading.firstIndex) return;
  const hasVote = configuration.voters.includes(core.id);
  if (!isJoint(configuration)) {
    if (!hasVote) stepDown(core, leading);
    return;
  }
  if (!configuration.autoLeave) return;
  if (hasVote || leading.handOverElapsed >= FAREWELL_ELECTION_TIMEOUTS * core.options.electionTimeoutTicks) {
    leading.transfer = null;
    appendConfiguration(core, leaveJoint(configuration));
  } else {
    startTransfer(core, NO_NODE);
  }
}

/** This leader is no longer a voter, and that is committed (§4.2.2): the most advanced voter campaigns at once. */
function stepDown(core: Core, leading: Leadership): void {
  const to = mostAdvancedVoter(core, leading);
  if (to !== NO_NODE) send(core, { kind: 'timeoutNow', from: core.id, to, term: core.term });
  becomeFollower(core, core.term, NO_NODE);
  if (!isMember(core.configuration, core.id)) reportRemoval(core);
}

export function tickMembership(core: Core, leading: Leadership): void {
  const { configuration } = core;
  const isCommitted = core.committedConfigurationIndex === core.configurations.at(-1)?.index;
  if (!isCommitted) return;
  if (isJoint(configuration)) {
    if (!configuration.voters.includes(core.id)) leading.handOverElapsed++;
    return;
  }
  for (const [id, progress] of leading.progress) {
    if (progress.leaving && hasBeenTold(core, id, progress)) leading.progress.delete(id);
  }
}

/** Whether a node that has left knows it, or has had its time. */
function hasBeenTold(core: Core, id: NodeId, progress: Progress): boolean {
  progress.leavingElapsed++;
  if (progress.leavingElapsed >= FAREWELL_ELECTION_TIMEOUTS * core.options.electionTimeoutTicks) return true;
  if (progress.matchIndex < core.committedConfigurationIndex) return false;
  if (progress.farewellRound === 0) {
    sendCommit(core, id, progress);
    // A node that answers a later round has received this message before.
    progress.farewellRound = core.round + 1;
  }
  return progress.ackedRound >= progress.farewellRound;
}

/**
 * The leader sent its commit index. If this node holds everything up to it and was removed there, it is no member. A node
 * that is still behind may have been added again, and a leader's commit index is complete only once an entry of its own
 * term is committed.
 */
export function recordLeaderCommit(core: Core, commitIndex: number): void {
  const { log } = core;
  if (isMember(core.configuration, core.id)) return;
  if (log.commitIndex < core.heardCommitIndex || log.termAt(commitIndex) !== core.term) return;
  const isCommitted = core.committedConfigurationIndex === core.configurations.at(-1)?.index;
  if (isCommitted && !isJoint(core.configuration) && core.configuration.removed.includes(core.id)) reportRemoval(core);
}

function reportRemoval(core: Core): void {
  if (core.removalReported) return;
  core.removalReported = true;
  core.effects.removed = true;
}
