import { followersOf, newProgress } from './followers.ts';
import { appendToLog } from './own-log.ts';
import { advanceCommit, broadcastAppends, broadcastHeartbeat } from './replication.ts';
import { mayCampaign, withoutRights } from './rights.ts';
import { detailOf, NO_DIRECTORY } from './state/configuration.ts';
import {
  becomeFollower,
  type Core,
  hardStateIsPending,
  resetElectionTimer,
  send,
  sendAfterPersist,
} from './state/core.ts';
import { ENTRY_HEADER_BYTES, sealEntry } from './state/entry.ts';
import { jointVoteResult } from './state/quorum.ts';
import { NO_NODE, type NodeId, type PreVote, type PreVoteReply, type Vote, type VoteReply } from './state/types.ts';

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

/** A tick on a node that does not lead: has the leader been silent for too long? */
export function tickElection(core: Core): void {
  if (core.now - core.timerStartedAt < core.electionTimeout) return;
  // While term or vote wait for the disk no request could leave, and a new campaign would add to what the disk must write.
  if (hardStateIsPending(core)) return;
  if (!mayCampaign(core)) {
    // A learner must forget a silent leader too. Otherwise it keeps refusing pre-votes and sending reads to a dead node.
    core.leader = NO_NODE;
    resetElectionTimer(core);
    return;
  }
  startPreVote(core);
}

/**
 * The link to the leader broke: its process has most likely died. Asks after a few ticks whether the others see the same.
 * This is only a pre-vote: nodes that still hear the leader refuse it, and nothing has changed.
 */
export function leaderLinkLost(core: Core): void {
  core.leader = NO_NODE;
  core.quickCampaignsLeft = QUICK_CAMPAIGNS_MAX;
  core.timerStartedAt = core.now;
  core.electionTimeout = 1 + Math.floor(core.options.random() * QUICK_JITTER_TICKS);
}

/** Asks whether a campaign could be won, without raising the term: a node that was partitioned would depose a good leader. */
function startPreVote(core: Core): void {
  // A node that campaigns forgets the leader. Otherwise it would refuse the pre-votes of others for ever, because it
  // believes in a leader that is dead (hashicorp/raft 605).
  becomeFollowerWithoutLeader(core, core.term);
  core.role = 'preCandidate';
  core.votes.set(core.id, core.rights.directoryId);
  if (tally(core) === 'won') {
    startElection(core, false);
    return;
  }
  const { lastIndex, lastTerm } = core.log;
  for (const to of otherVoters(core)) {
    send(core, { kind: 'preVote', from: core.id, to, term: core.term + 1, lastIndex, lastTerm });
  }
}

/** Campaigns for a new term. The requests leave, and the node's own vote counts, once term and vote are on disk. */
export function startElection(core: Core, transfer: boolean): void {
  becomeFollowerWithoutLeader(core, core.term + 1);
  core.role = 'candidate';
  core.vote = core.id;
  const { lastIndex, lastTerm } = core.log;
  for (const to of otherVoters(core)) {
    send(core, { kind: 'vote', from: core.id, to, term: core.term, lastIndex, lastTerm, transfer });
  }
}

/**
 * Becomes a follower of no leader in `term`: before a campaign, or when one is given up. If the leader is known to be
 * dead, the next campaign follows soon.
 */
function becomeFollowerWithoutLeader(core: Core, term: number): void {
  const quickLeft = core.quickCampaignsLeft;
  becomeFollower(core, term, NO_NODE);
  if (quickLeft === 0) return;
  core.quickCampaignsLeft = quickLeft - 1;
  core.electionTimeout = QUICK_RETRY_TICKS + Math.floor(core.options.random() * QUICK_RETRY_JITTER_TICKS);
}

/**
 * The disk holds term and vote now, so the node's own vote counts. If it counted earlier: node 1 leads term 5 by its own
 * vote and node 2's, crashes, comes back without its vote, and gives it to node 3. Then node 3 leads term 5 too.
 */
export function ownVotePersisted(core: Core): void {
  if (core.role !== 'candidate' || hardStateIsPending(core)) return;
  // The requests leave only now, so the answers get their time from now on.
  core.timerStartedAt = core.now;
  core.votes.set(core.id, core.rights.directoryId);
  countVotes(core);
}

/**
 * Would this node vote for the sender if it campaigned? `message.term` is the term that it would campaign for. That term
 * can equal this node's own: node 1 of term 4 asks for term 5, and this node reached term 5 with a candidate that lost.
 * It then says yes only if it still has its vote of term 5 to give.
 *
 * Why not while it hears a leader? Node 1 leads nodes 2 and 3, and only the link between 1 and 3 is cut. Node 3 hears no
 * leader and asks node 2. If node 2 said yes, node 3 would win a higher term and depose node 1, which then hears no leader,
 * asks node 2 and deposes node 3, and so on. The link of two nodes would leave the whole cluster without a lasting leader.
 */
export function handlePreVote(core: Core, message: PreVote): void {
  const granted =
    !withoutRights(core) &&
    !hearsLeader(core) &&
    (message.term > core.term || (message.term === core.term && mayVoteFor(core, message.from))) &&
    core.log.isUpToDate(message.lastIndex, message.lastTerm);
  // A refusal carries this node's term, so that a candidate of an older one learns of it. Otherwise a node with a longer
  // log of an older term and one with a shorter log of a newer term refuse each other for ever (openraft 1796).
  const term = granted ? message.term : core.term;
  const { id: from } = core;
  const { directoryId } = core.rights;
  const to = message.from;
  send(core, { kind: 'preVoteReply', from, to, term, granted, directoryId, withoutRights: withoutRights(core) });
  if (granted && yieldsTo(core, message)) becomeFollowerWithoutLeader(core, core.term);
}

/**
 * Two followers that lose the leader at once ask each other at once, and would split the vote if both went on. The one
 * with the shorter log gives way, or the one with the higher id. The logs differ only in the sender's favour here,
 * because the pre-vote was granted.
 */
function yieldsTo(core: Core, message: PreVote): boolean {
  if (core.role !== 'preCandidate') return false;
  const differs = message.lastTerm !== core.log.lastTerm || message.lastIndex !== core.log.lastIndex;
  return differs || message.from < core.id;
}

/** An answer to this node's pre-vote. Grants name the term asked for; refusals name the sender's own. */
export function handlePreVoteReply(core: Core, message: PreVoteReply): void {
  if (core.role !== 'preCandidate') return;
  if (message.granted ? message.term !== core.term + 1 : message.term !== core.term) return;
  recordVote(core, message);
  const result = tally(core);
  if (result === 'won') startElection(core, false);
  else if (result === 'lost') becomeFollowerWithoutLeader(core, core.term);
}

/**
 * Stickiness (§4.2.3): whether a vote request of a higher term is ignored because this node hears a leader. Otherwise a
 * removed node that hears no heartbeats any more would depose one leader after another.
 */
export function ignoresVote(core: Core, message: Vote): boolean {
  return !message.transfer && hearsLeader(core);
}

/**
 * RequestVote of the paper's figure 2. A learner votes too when it is asked: the candidate may know that it is a voter by
 * now, and if it refused, there could be no leader to tell it (etcd 10998). The candidate counts only its voters.
 *
 * A log that is not up to date gets no vote (§3.6.1). Nodes 1 and 2 hold the committed entry 7; the log of node 3 ends at
 * 6. If node 2 voted for node 3, a leader without entry 7 would overwrite it everywhere.
 *
 * A grant waits for the disk. Otherwise node 2 votes for node 1 in term 5, crashes, comes back without that vote, votes
 * for node 3, and term 5 has two leaders. Refusals wait for the disk like grants. They promise nothing and need not
 * wait; but nothing is lost if a candidate hears of a refusal a little later, and one path is easier to trust than two.
 */
export function handleVote(core: Core, message: Vote): void {
  const granted =
    !withoutRights(core) &&
    message.term === core.term &&
    mayVoteFor(core, message.from) &&
    core.log.isUpToDate(message.lastIndex, message.lastTerm);
  if (granted) {
    // A node that votes waits for the outcome and asks for no votes of its own meanwhile.
    if (core.role === 'preCandidate') core.role = 'follower';
    core.vote = message.from;
    resetElectionTimer(core);
  }
  const { id: from, term } = core;
  const { directoryId } = core.rights;
  const to = message.from;
  const reply = {
    kind: 'voteReply',
    from,
    to,
    term,
    granted,
    directoryId,
    withoutRights: withoutRights(core),
  } as const;
  sendAfterPersist(core, reply);
}

/** An answer to this node's vote request. */
export function handleVoteReply(core: Core, message: VoteReply): void {
  if (core.role !== 'candidate' || message.term !== core.term) return;
  recordVote(core, message);
  countVotes(core);
}

/**
 * Answers are kept by node, so that a duplicated one does not count twice: of five voters, the vote of node 2, delivered
 * twice, and the candidate's own would already be three.
 */
function recordVote(core: Core, { from, granted, withoutRights, directoryId }: PreVoteReply | VoteReply): void {
  core.votes.set(from, granted && !withoutRights ? directoryId : NO_DIRECTORY);
}

/** Won as soon as a quorum granted its vote; lost as soon as none can any more, which saves waiting for the timeout. */
function countVotes(core: Core): void {
  const result = tally(core);
  if (result === 'won') becomeLeader(core);
  else if (result === 'lost') becomeFollowerWithoutLeader(core, core.term);
}

/**
 * A quorum voted for this node. It knows that its log holds everything committed (§3.6.1), but not how far that goes, until
 * its no-op is committed.
 */
function becomeLeader(core: Core): void {
  const { log, now } = core;
  const { electionTimeoutTicks, heartbeatIntervalTicks } = core.options;
  core.role = 'leader';
  core.leader = core.id;
  core.quickCampaignsLeft = 0;
  core.leading = {
    progress: new Map([...followersOf(core)].map((id) => [id, newProgress(core, id)])),
    firstIndex: log.lastIndex + 1,
    reads: [],
    transfer: null,
    heartbeatDueAt: now + heartbeatIntervalTicks,
    // The followers have an election timeout to answer for the first time; only then is it checked who does.
    quorumCheckDueAt: now + 2 * electionTimeoutTicks,
    diskProgressAt: now,
    diskProgressIndex: log.persistedIndex,
    handOverSince: null,
    offerLeadershipAt: now,
  };
  // The no-op commits what earlier terms left behind; counting replicas of old entries must not do that (§3.6.2).
  appendToLog(core, sealEntry(Buffer.alloc(ENTRY_HEADER_BYTES), 'noop', core.term, log.lastIndex + 1));
  broadcastAppends(core);
  broadcastHeartbeat(core);
  advanceCommit(core);
}

/**
 * This node leads, or has heard the leader within the shortest election timeout. No timer is shorter than that. So when a
 * node campaigns because the leader is dead, most of the others no longer protect the leader.
 */
function hearsLeader(core: Core): boolean {
  if (core.leader === NO_NODE) return false;
  return core.role === 'leader' || core.now - core.timerStartedAt < core.options.electionTimeoutTicks;
}

/**
 * Whether this node has its vote of the current term to give to `candidate`.
 *
 * Why must `leader` be unknown? If it is known, the election of this term is decided. Node 3 was partitioned while node 1 won
 * term 5, and reached term 5 by node 1's append, without a vote. Now node 2's request for term 5 arrives late. A vote
 * could elect no one, but it would cost a disk write and restart node 3's election timer.
 */
function mayVoteFor(core: Core, candidate: NodeId): boolean {
  return core.vote === candidate || (core.vote === NO_NODE && core.leader === NO_NODE);
}

/** A vote counts if the configuration that is in force now names the directory that gave it. */
function tally({ configurations, votes }: Core): 'won' | 'lost' | 'pending' {
  const { current } = configurations;
  const counted = new Map<NodeId, boolean>();
  for (const [id, directoryId] of votes) counted.set(id, detailOf(current, id)?.directoryId === directoryId);
  return jointVoteResult(current.voters, current.votersOutgoing, counted);
}

/** Those of both halves of a joint configuration: each half must elect this node. */
function otherVoters(core: Core): NodeId[] {
  const { voters, votersOutgoing } = core.configurations.current;
  return [...new Set([...voters, ...votersOutgoing])].filter((id) => id !== core.id);
}
