import type { Mutant } from './mutant.ts';

/** Faults of the algorithm itself: elections, log, commitment, reads, handing over. */
export const raftMutants: readonly Mutant[] = [
  {
    name: 'commit-old-term',
    fault: 'commits an entry of an earlier term by counting copies (logcabin 44; figure 8)',
    file: 'raft/replication.ts',
    within: 'advanceCommit',
    find: 'if (held <= log.commitIndex || log.termAt(held) !== core.term) return;',
    replace: 'if (held <= log.commitIndex) return;',
  },
  {
    name: 'commit-without-quorum',
    fault: 'counts one copy too few for a quorum',
    file: 'raft/quorum.ts',
    within: 'committedIndex',
    find: 'return descending[majorityOf(count) - 1] ?? 0;',
    replace: 'return descending[Math.max(0, majorityOf(count) - 2)] ?? 0;',
  },
  {
    name: 'vote-twice',
    fault: 'clears the vote when it steps down within a term (CCF 5891)',
    file: 'raft/core.ts',
    within: 'becomeFollower',
    find: `if (term > core.term) {
  core.term = term;
  core.vote = NO_NODE;
}`,
    replace: `if (term > core.term) core.term = term;
core.vote = NO_NODE;`,
  },
  {
    name: 'vote-for-anyone',
    fault: 'grants a vote though it has given one in this term',
    file: 'raft/election.ts',
    within: 'mayVoteFor',
    body: 'return candidate > 0;',
  },
  {
    name: 'vote-before-disk',
    fault: 'says its vote before it is on disk',
    file: 'raft/election.ts',
    within: 'handleVote',
    find: "sendAfterPersist(core, { kind: 'voteReply'",
    replace: "core.effects.sendNow.push({ kind: 'voteReply'",
  },
  {
    name: 'own-vote-before-disk',
    fault: 'counts its own vote before it is on disk',
    file: 'raft/election.ts',
    within: 'startElection',
    find: 'const { lastIndex, lastTerm } = core.log;',
    replace: `core.votes.set(core.id, true);
core.persistedTerm = core.term;
core.persistedVote = core.vote;
const { lastIndex, lastTerm } = core.log;`,
  },
  {
    name: 'vote-for-shorter-log',
    fault: 'votes without comparing logs',
    file: 'raft/election.ts',
    within: 'handleVote',
    find: `mayVoteFor(core, message.from) &&
core.log.isUpToDate(message.lastIndex, message.lastTerm);`,
    replace: 'mayVoteFor(core, message.from);',
  },
  {
    name: 'compare-length-only',
    fault: 'takes the longer log for the better one, whatever its last term',
    file: 'raft/log.ts',
    within: 'isUpToDate',
    body: 'return lastIndex >= this.lastIndex && lastTerm >= 0;',
  },
  {
    name: 'count-refusals',
    fault: 'counts every answer to its request for votes as a vote',
    file: 'raft/election.ts',
    within: 'recordVote',
    body: 'core.votes.set(from, granted || !withoutRights ? directoryId : NO_DIRECTORY);',
  },
  {
    name: 'count-old-votes',
    fault: 'counts votes of an earlier term',
    file: 'raft/raft.ts',
    within: 'receive',
    find: 'answerOlderTerm(core, message);',
    replace: `if (message.kind === 'voteReply') {
  handle(core, { ...message, term: core.term });
  return;
}
answerOlderTerm(core, message);`,
  },
  {
    name: 'truncate-on-stale-append',
    fault: 'truncates its log at every append, also a late and shorter one (openraft 9540c904)',
    file: 'raft/replication.ts',
    within: 'acceptEntry',
    find: 'if (log.termAt(entry.index) === entry.term) return;',
    replace: '',
  },
  {
    name: 'keep-conflicting-tail',
    fault: 'takes an entry for its own where the term differs',
    file: 'raft/replication.ts',
    within: 'acceptEntry',
    find: 'if (log.termAt(entry.index) === entry.term) return;',
    replace: 'if (log.termAt(entry.index) > 0) return;',
  },
  {
    name: 'no-previous-check',
    fault: 'appends without comparing the entry before',
    file: 'raft/replication.ts',
    within: 'handleAppend',
    find: 'const matches = prevIndex < log.commitIndex || log.termAt(prevIndex) === prevTerm;',
    replace: 'const matches = prevIndex <= log.lastIndex && prevTerm >= 0;',
  },
  {
    name: 'commit-beyond-verified',
    fault: 'commits beyond the prefix that the append has verified (scylla 9965)',
    file: 'raft/replication.ts',
    within: 'handleAppend',
    find: 'commitTo(core, Math.min(message.commitIndex, verified));',
    replace: 'commitTo(core, Math.min(message.commitIndex, log.lastIndex));',
  },
  {
    name: 'acknowledge-whole-log',
    fault: 'acknowledges all that it has, not what the append has verified',
    file: 'raft/replication.ts',
    within: 'handleAppend',
    find: 'acknowledge(core, message.from, Math.max(verified, log.commitIndex));',
    replace: 'acknowledge(core, message.from, log.lastIndex);',
  },
  {
    name: 'heartbeat-commits-unmatched',
    fault: 'lets a heartbeat commit what the follower may not hold',
    file: 'raft/replication.ts',
    within: 'broadcastHeartbeat',
    find: 'const commitIndex = progress.hasRights ? Math.min(progress.matchIndex, log.commitIndex) : 0;',
    replace: 'const commitIndex = progress.hasRights ? Math.max(progress.matchIndex, log.commitIndex) : 0;',
  },
  {
    name: 'commit-news-unchecked',
    fault: 'believes news of commitment without comparing its own entry',
    file: 'raft/replication.ts',
    within: 'handleCommit',
    find: `if (core.log.termAt(message.index) !== message.indexTerm) return;
commitTo(core, Math.min(message.commitIndex, message.index));`,
    replace: 'commitTo(core, Math.min(message.commitIndex, message.index, core.log.lastIndex));',
  },
  {
    name: 'acknowledge-before-disk',
    fault: 'a follower acknowledges entries before they are on disk',
    file: 'raft/replication.ts',
    within: 'acknowledge',
    find: 'sendAfterPersist(core, {',
    replace: 'send(core, {',
  },
  {
    name: 'leader-counts-unwritten',
    fault: 'a leader counts its own entries before they are on its disk (etcd 14370)',
    file: 'raft/replication.ts',
    within: 'advanceCommit',
    find: 'if (id === core.id) return log.persistedIndex;',
    replace: 'if (id === core.id) return log.lastIndex;',
  },
  {
    name: 'persisted-without-term',
    fault: 'takes a late completion of a replaced entry for one of its successor (ra 637)',
    file: 'raft/raft.ts',
    within: 'persisted',
    find: 'if (index > log.persistedIndex && log.termAt(index) === term) {',
    replace: 'if (index > log.persistedIndex && index <= log.lastIndex && term > 0) {',
  },
  {
    name: 'hint-after-step',
    fault: 'records as committed what the very same write replaces',
    file: 'replica/log/persister.ts',
    within: 'persist',
    find: 'const hardState = effects.hardState !== null || hint ? behindEntries(latest, append) : null;',
    replace: 'const hardState = effects.hardState !== null || hint ? latest : null;',
  },
  {
    name: 'match-goes-back',
    fault: 'lets a late acknowledgement take progress back and sends what was acknowledged',
    file: 'raft/progress.ts',
    within: 'acknowledged',
    find: 'if (isNews) this.matchIndex = index;',
    replace: 'this.matchIndex = index;',
  },
  {
    name: 'no-noop-for-reads',
    fault: 'serves reads before the first commit of its term (etcd 7331)',
    file: 'raft/reads.ts',
    within: 'readAsLeader',
    find: `if (core.log.commitIndex < core.leading.firstIndex) {
  core.leading.reads.push(read);
  return;
}`,
    replace: '',
  },
  {
    name: 'read-without-round',
    fault: 'serves reads without asking whether it still leads',
    file: 'raft/reads.ts',
    within: 'requestConfirms',
    find: 'return isQuorum(core, (id) => id === core.id || (acknowledges && id === read.from));',
    replace: 'return isQuorum(core, (id) => id > 0 || (acknowledges && id === read.from));',
  },
  {
    name: 'read-round-in-flight',
    fault: 'confirms a read by a round that began before it arrived (etcd 20418)',
    file: 'raft/reads.ts',
    within: 'admit',
    find: 'enter(core, leading, read, core.round + 1);',
    replace: 'enter(core, leading, read, roundInFlight ? core.round : core.round + 1);',
  },
  {
    name: 'read-any-round',
    fault: 'takes the answer to any round for the answer to this one',
    file: 'raft/reads.ts',
    within: 'roundIsConfirmed',
    find: 'progress.ackedRound >= read.round;',
    replace: 'progress.ackedRound > Math.min(0, read.round);',
  },
  {
    name: 'read-at-zero',
    fault: 'confirms reads at an index that was committed before they came',
    file: 'raft/reads.ts',
    within: 'enter',
    find: 'read.index = core.log.commitIndex;',
    replace: 'read.index = Math.max(0, core.log.commitIndex - 2);',
  },
  {
    name: 'lead-on-transfer-message',
    fault: 'a node told to campaign takes itself for elected',
    file: 'raft/transfer.ts',
    within: 'handleTimeoutNow',
    find: 'startElection(core, true);',
    replace: `startElection(core, true);
core.votes = new Map(core.configuration.details.map(({ id, directoryId }) => [id, directoryId]));`,
  },
  {
    name: 'transfer-for-ever',
    fault: 'a transfer that leads nowhere blocks writes for ever (hashicorp/raft 696)',
    file: 'raft/transfer.ts',
    within: 'tickTransfer',
    find: 'if (leading.transfer.elapsed >= core.options.electionTimeoutTicks) leading.transfer = null;',
    replace: '',
  },
  {
    name: 'no-step-aside',
    fault: 'a leader whose disk hangs goes on leading (hashicorp/raft 503)',
    file: 'raft/transfer.ts',
    within: 'tickStalledDisk',
    find: 'if (leading.persistStalledTicks <= core.options.electionTimeoutTicks) return;',
    replace: 'if (leading.persistStalledTicks >= 0) return;',
  },
  {
    name: 'remember-dead-leader',
    fault: 'goes on vouching for the leader of its term, also when that is dead (hashicorp/raft 605, raft-rs 84)',
    file: 'raft/election.ts',
    within: 'hearsLeader',
    find: 'function hearsLeader(core: Core): boolean {',
    replace: `const lastLedTerm = new WeakMap<Core, number>();
function hearsLeader(core: Core): boolean {
  if (core.leader !== NO_NODE) lastLedTerm.set(core, core.term);
  if (lastLedTerm.get(core) === core.term) return true;`,
  },
  {
    name: 'no-check-quorum',
    fault: 'a leader that nobody answers never steps down',
    file: 'raft/raft.ts',
    within: 'tickLeader',
    find: 'if (!isQuorum(core, (id) => id === core.id || isActive(leading, id))) {',
    replace: 'if (!isQuorum(core, (id) => id > 0 || isActive(leading, id))) {',
  },
  {
    name: 'lost-append-for-ever',
    fault: 'never looks for appends that were lost',
    file: 'raft/raft.ts',
    within: 'tickLeader',
    find: 'recheckLaggards(core, leading);',
    replace: '',
  },
  {
    name: 'probe-from-the-end',
    fault: 'moves back by one entry only ever once: a follower far behind is never found',
    file: 'raft/progress.ts',
    within: 'refused',
    find: 'this.probeFrom(Math.max(this.matchIndex, Math.min(possibleMatch, refusedIndex - 1)) + 1);',
    replace: 'this.probeFrom(refusedIndex + 1);',
  },
];
