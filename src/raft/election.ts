import { detailOf, isMember, NO_DIRECTORY } from './configuration.ts';
import { becomeFollower, type Core, hardStateIsPending, resetElectionTimer, send, sendAfterPersist } from './core.ts';
import { ENTRY_HEADER_BYTES, sealEntry } from './entry.ts';
import { peersOf } from './membership.ts';
import { Progress } from './progress.ts';
import { jointVoteResult } from './quorum.ts';
import { advanceCommit, appendAsLeader, broadcastAppends, broadcastHeartbeat } from './replication.ts';
import { configuredDirectoryOf, mayCampaign, withoutRights } from './rights.ts';
import { NO_NODE, type NodeId, type PreVote, type PreVoteReply, type Vote, type VoteReply } from './types.ts';

/**
 * Elections: who leads (§3.4), without disturbing a leader that works (§9.6 PreVote, §4.2.3 stickiness).
 *
 *   follower ─ silence ─▶ preCandidate ─ quorum would vote ─▶ candidate ─ quorum voted, own vote on disk ─▶ leader
 *       ▲                      │                                  │                                           │
 *       └──────────────────────┴────────── a leader, or a higher term, is seen ───────────────────────────────┘
 */

/** How often a follower whose link to the leader broke may campaign quickly before it falls back to the timeout. */
const QUICK_CAMPAIGNS_MAX = 10;
/** The jitter before the first quick campaign: a few milliseconds keep two followers from asking at once. */
const QUICK_JITTER_TICKS = 2;
/** Between two quick campaigns of one node: long enough for the first to be decided, drawn so that they don't collide. */
const QUICK_RETRY_TICKS = 4;
const QUICK_RETRY_JITTER_TICKS = 6;

export function tickElection(core: Core): void {
  core.recoveringElapsed++;
  core.electionElapsed++;
  if (core.electionElapsed < core.electionDeadline) return;
  // While term or vote wait for the disk, a campaign could say nothing; a new one would only make it wait for more.
  if (hardStateIsPending(core)) return;
  if (!mayCampaign(core)) {
    // Nor may a learner go on vouching for a leader that is silent, or send it reads.
    core.leader = NO_NODE;
    resetElectionTimer(core);
    return;
  }
  startPreVote(core);
}

/**
 * The link to the leader broke: its process has most likely died, so start a pre-vote at once. If other nodes still hear
 * the leader, they refuse, and no term has changed.
 */
export function leaderLinkLost(core: Core): void {
  core.leader = NO_NODE;
  core.quickCampaignsLeft = QUICK_CAMPAIGNS_MAX;
  core.electionElapsed = 0;
  core.electionDeadline = 1 + Math.floor(core.options.random() * QUICK_JITTER_TICKS);
}

function startPreVote(core: Core): void {
  // Forget the leader: a node that campaigns must not go on vouching for it (hashicorp/raft 605).
  becomeFollowerWithoutLeader(core, core.term);
  core.role = 'preCandidate';
  core.votes.set(core.id, core.directoryId);
  if (tally(core) === 'won') {
    startElection(core, false);
    return;
  }
  const { lastIndex, lastTerm } = core.log;
  for (const to of otherVoters(core)) {
    send(core, { kind: 'preVote', from: core.id, to, term: core.term + 1, lastIndex, lastTerm });
  }
}

/** Campaigns for a new term. The node's own vote counts once it is on disk (`ownVotePersisted`). */
export function startElection(core: Core, transfer: boolean): void {
  becomeFollowerWithoutLeader(core, core.term + 1);
  core.role = 'candidate';
  core.vote = core.id;
  const { lastIndex, lastTerm } = core.log;
  for (const to of otherVoters(core)) {
    send(core, { kind: 'vote', from: core.id, to, term: core.term, lastIndex, lastTerm, transfer });
  }
}

/** Becomes a follower of no leader in `term`. If the leader's link was lost, the next campaign starts after a short delay. */
function becomeFollowerWithoutLeader(core: Core, term: number): void {
  const quickLeft = core.quickCampaignsLeft;
  becomeFollower(core, term, NO_NODE);
  if (quickLeft === 0) return;
  core.quickCampaignsLeft = quickLeft - 1;
  core.electionDeadline = QUICK_RETRY_TICKS + Math.floor(core.options.random() * QUICK_RETRY_JITTER_TICKS);
}

/** The disk has caught up with term and vote. */
export function ownVotePersisted(core: Core): void {
  if (core.role !== 'candidate' || hardStateIsPending(core)) return;
  // Its requests leave only now, so the answers get their time from now.
  core.electionElapsed = 0;
  core.votes.set(core.id, core.directoryId);
  countVotes(core);
}

export function handlePreVote(core: Core, message: PreVote): void {
  const granted =
    !withoutRights(core) &&
    !hearsLeader(core) &&
    (message.term > core.term || (message.term === core.term && mayVoteFor(core, message.from))) &&
    core.log.isUpToDate(message.lastIndex, message.lastTerm);
  // A refusal carries this node's term, so that a candidate of an older one learns of it (openraft 1796).
  const term = granted ? message.term : core.term;
  const { id: from, directoryId } = core;
  const to = message.from;
  send(core, { kind: 'preVoteReply', from, to, term, granted, directoryId, withoutRights: withoutRights(core) });
  if (granted && yieldsTo(core, message)) becomeFollowerWithoutLeader(core, core.term);
}

/**
 * Two followers that lose the leader at once ask each other at once; if both went on, they would split the vote. The
 * one with the shorter log, or else the higher id, lets the other go first.
 */
function yieldsTo(core: Core, message: PreVote): boolean {
  if (core.role !== 'preCandidate') return false;
  const differs = message.lastTerm !== core.log.lastTerm || message.lastIndex !== core.log.lastIndex;
  return differs || message.from < core.id;
}

export function handlePreVoteReply(core: Core, message: PreVoteReply): void {
  if (core.role !== 'preCandidate') return;
  if (message.granted ? message.term !== core.term + 1 : message.term !== core.term) return;
  recordVote(core, message);
  const result = tally(core);
  if (result === 'won') startElection(core, false);
  else if (result === 'lost') becomeFollowerWithoutLeader(core, core.term);
}

/** Whether a vote request of a higher term is ignored because this node hears a leader (§4.2.3). */
export function ignoresVote(core: Core, message: Vote): boolean {
  return !message.transfer && hearsLeader(core);
}

export function handleVote(core: Core, message: Vote): void {
  const granted =
    !withoutRights(core) &&
    message.term === core.term &&
    mayVoteFor(core, message.from) &&
    core.log.isUpToDate(message.lastIndex, message.lastTerm);
  if (granted) {
    // A node that has voted waits for the outcome and does not campaign meanwhile.
    if (core.role === 'preCandidate') core.role = 'follower';
    core.vote = message.from;
    resetElectionTimer(core);
  }
  const { id: from, term, directoryId } = core;
  const to = message.from;
  sendAfterPersist(core, {
    kind: 'voteReply',
    from,
    to,
    term,
    granted,
    directoryId,
    withoutRights: withoutRights(core),
  });
}

export function handleVoteReply(core: Core, message: VoteReply): void {
  if (core.role !== 'candidate' || message.term !== core.term) return;
  recordVote(core, message);
  countVotes(core);
}

function recordVote(core: Core, { from, granted, withoutRights, directoryId }: PreVoteReply | VoteReply): void {
  core.votes.set(from, granted && !withoutRights ? directoryId : NO_DIRECTORY);
}

function countVotes(core: Core): void {
  const result = tally(core);
  if (result === 'won') becomeLeader(core);
  else if (result === 'lost') becomeFollowerWithoutLeader(core, core.term);
}

function becomeLeader(core: Core): void {
  const { log } = core;
  core.role = 'leader';
  core.leader = core.id;
  core.quickCampaignsLeft = 0;
  core.electionElapsed = 0;
  core.leading = {
    progress: new Map(peersOf(core).map((id) => [id, progressOf(core, id)])),
    ticks: 0,
    firstIndex: log.lastIndex + 1,
    heartbeatElapsed: 0,
    quorumCheckElapsed: 0,
    reads: [],
    persistStalledTicks: 0,
    lastPersistedIndex: log.persistedIndex,
    transfer: null,
    handOverElapsed: 0,
    diskFullElapsed: core.options.electionTimeoutTicks,
  };
  // The no-op commits what earlier terms left behind, which counting copies of old entries may not do (§5.4.2).
  appendAsLeader(core, sealEntry(Buffer.alloc(ENTRY_HEADER_BYTES), 'noop', core.term, log.lastIndex + 1));
  broadcastAppends(core);
  broadcastHeartbeat(core);
  advanceCommit(core);
}

function progressOf(core: Core, id: NodeId): Progress {
  const progress = new Progress(core.log.lastIndex + 1, core.options.flow, configuredDirectoryOf(core, id));
  progress.leaving = !isMember(core.configuration, id);
  return progress;
}

/** This node leads, or has heard the leader within the shortest election timeout. */
function hearsLeader(core: Core): boolean {
  if (core.leader === NO_NODE) return false;
  return core.role === 'leader' || core.electionElapsed < core.options.electionTimeoutTicks;
}

function mayVoteFor(core: Core, candidate: number): boolean {
  return core.vote === candidate || (core.vote === NO_NODE && core.leader === NO_NODE);
}

/** A vote counts where the configuration that is in force now names the directory that gave it. */
function tally({ configuration, votes }: Core): 'won' | 'lost' | 'pending' {
  const counted = new Map<NodeId, boolean>();
  for (const [id, directoryId] of votes) counted.set(id, detailOf(configuration, id)?.directoryId === directoryId);
  return jointVoteResult(configuration.voters, configuration.votersOutgoing, counted);
}

function otherVoters(core: Core): number[] {
  const { voters, votersOutgoing } = core.configuration;
  return [...new Set([...voters, ...votersOutgoing])].filter((id) => id !== core.id);
}
