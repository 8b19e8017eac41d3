import { RaftkvError } from '../base/errors.ts';
import { recordReply } from './followers.ts';
import { commitTo } from './own-log.ts';
import { type Core, type Leadership, send } from './state/core.ts';
import type { Progress } from './state/progress.ts';
import { jointCommittedIndex } from './state/quorum.ts';
import { type AppendReply, type Entry, type HeartbeatReply, NO_NODE, type NodeId } from './state/types.ts';

/**
 * Replication, the leader's side (§3.5): its entries to every follower, pipelined and bounded, and news of commitment.
 * The paper's AppendEntries is three messages here: `append` carries entries and is answered once they are on the
 * follower's disk; `heartbeat` shows that the leader lives and is answered at once; `commit` is news that needs no answer.
 *
 *   leader: append ──▶ followers: compare prev, truncate at a conflict, append ──▶ disk ──▶ reply
 *     └▶ own disk, at the same time (§10.2.1)                                               │
 *   commit ◀── a quorum holds an entry of the leader's own term (§3.6.2) ◀──────────────────┘
 */

/** To be called after entries were appended: every follower gets what its window allows. */
export function broadcastAppends(core: Core): void {
  if (core.leading === null) return;
  for (const [peer, progress] of core.leading.progress) sendAppends(core, peer, progress);
}

/** Sends what the follower lacks, as far as its window allows; in `probe` one append, even if there is nothing new. */
export function sendAppends(core: Core, peer: NodeId, progress: Progress): void {
  while (progress.maySend) {
    if (progress.state === 'replicate' && progress.nextIndex > core.log.lastIndex) return;
    if (!sendAppend(core, peer, progress)) return;
  }
}

/** Returns false if nothing more can be sent now, because the entries are no longer in memory or in the log. */
function sendAppend(core: Core, peer: NodeId, progress: Progress): boolean {
  const { log, options } = core;
  const { nextIndex } = progress;
  if (nextIndex < log.firstCachedIndex && nextIndex <= log.lastIndex) {
    if (nextIndex <= log.snapshotIndex) {
      offerSnapshot(core, peer, progress);
      return false;
    }
    progress.beginReadBack(core.now);
    core.effects.readBacks.push({ peer, fromIndex: nextIndex, bytesMax: options.appendBytesMax });
    return false;
  }
  sendEntries(core, peer, progress, log.slice(nextIndex, options.appendBytesMax));
  return true;
}

/** One append, which also carries the commit index: a separate `commit` is then not needed. */
function sendEntries(core: Core, to: NodeId, progress: Progress, entries: readonly Entry[]): void {
  const { log, term } = core;
  const prevIndex = progress.nextIndex - 1;
  const prevTerm = log.termAt(prevIndex);
  let bytes = 0;
  for (const entry of entries) bytes += entry.bytes.length;
  const { commitIndex } = log;
  send(core, { kind: 'append', from: core.id, to, term, prevIndex, prevTerm, commitIndex, entries });
  progress.sent(prevIndex + entries.length, bytes);
}

/** Entries that had left memory were read back from disk. */
export function handleReadBack(core: Core, peer: NodeId, entries: readonly Entry[]): void {
  const progress = core.leading?.progress.get(peer);
  if (progress === undefined || !progress.readingBack) return;
  progress.endReadBack();
  const fits = entries[0]?.index === progress.nextIndex && agreesWithLog(core, entries);
  if (fits && progress.maySend) sendEntries(core, peer, progress, entries);
  sendAppends(core, peer, progress);
}

/**
 * While the disk was being read, a new leadership may have truncated the log, and compaction may have overtaken the
 * entries: one at the log's very start has a known term, but the one before it no longer does.
 */
function agreesWithLog({ log }: Core, entries: readonly Entry[]): boolean {
  return entries.every(({ index, term }) => index > log.snapshotIndex && log.termAt(index) === term);
}

/** A follower answered an append. */
export function handleAppendReply(core: Core, message: AppendReply): void {
  const { leading, log } = core;
  if (leading === null) return;
  const { from, success, index } = message;
  const before = leading.progress.get(from);
  const progress = recordReply(core, leading, from, message);
  if (progress === undefined) return;
  if (progress !== before) sendAppends(core, from, progress);
  if (!success) {
    const possibleMatch = log.lastPossibleMatch(message.hintIndex, message.hintTerm);
    if (progress.refused(index, possibleMatch)) sendAppends(core, from, progress);
    return;
  }
  if (index > log.lastIndex) {
    throw new RaftkvError(
      'INVARIANT_BROKEN',
      `node ${from} acknowledges entry ${index} of a log that ends at ${log.lastIndex}`,
      'This node lost entries that it had replicated: restore its data directory, or wipe it and let it join again.',
    );
  }
  const wasReplicating = progress.state === 'replicate';
  const isNews = progress.acknowledged(index, log.snapshotIndex);
  if (isNews) advanceCommit(core);
  sendAppends(core, from, progress);
  if (!wasReplicating) sendCommit(core, from, progress);
}

/**
 * Commits what a quorum holds, if the newest of it is of this term (§3.6.2, the paper's figure 8): an entry of an earlier
 * term that a majority holds can still be overwritten by a leader that was elected without it. The leader counts itself by
 * what is on its own disk, so the followers alone may commit an entry that this disk does not hold yet.
 *
 * A follower without rights counts for nothing. Otherwise node 3 could count twice: its old directory acknowledges entry 9
 * to this leader, while its new directory, which lacks entry 9, votes for the next one.
 */
export function advanceCommit(core: Core): void {
  const { leading, log, configurations } = core;
  if (leading === null) return;
  const { voters, votersOutgoing } = configurations.current;
  const held = jointCommittedIndex(voters, votersOutgoing, (id) => {
    if (id === core.id) return log.persistedIndex;
    const progress = leading.progress.get(id);
    return progress?.hasRights === true ? progress.matchIndex : 0;
  });
  if (held <= log.commitIndex || log.termAt(held) !== core.term) return;
  commitTo(core, held);
  for (const [peer, progress] of leading.progress) sendCommit(core, peer, progress);
}

/** Tells a follower what is committed, unless an append that is about to leave says so. */
function sendCommit(core: Core, to: NodeId, progress: Progress): void {
  const { log, term } = core;
  if (progress.state !== 'replicate') return;
  const index = progress.nextIndex - 1;
  // If compaction has overtaken a slow follower, the leader knows no term at `index` that the follower could compare.
  if (index < log.snapshotIndex) return;
  const indexTerm = log.termAt(index);
  send(core, { kind: 'commit', from: core.id, to, term, index, indexTerm, commitIndex: log.commitIndex });
}

/** Begins a round: a node that answers it follows this leader now. Reads and CheckQuorum rely on that. */
export function broadcastHeartbeat(core: Core): void {
  const { leading, log, term, id: from, clusterFull } = core;
  if (leading === null) return;
  const round = ++core.round;
  for (const [to, { hasRights, matchIndex, directoryId }] of leading.progress) {
    // `matchIndex` may describe another directory than the one that reads this. Without rights a follower learns of
    // commitment from appends alone, which compare the logs.
    const commitIndex = hasRights ? Math.min(matchIndex, log.commitIndex) : 0;
    send(core, { kind: 'heartbeat', from, to, term, commitIndex, directoryId, round, clusterFull });
  }
}

/** A follower answered a heartbeat. */
export function handleHeartbeatReply(core: Core, message: HeartbeatReply): void {
  const { leading } = core;
  if (leading === null) return;
  const before = leading.progress.get(message.from);
  const progress = recordReply(core, leading, message.from, message);
  if (progress === undefined) return;
  if (progress !== before) sendAppends(core, message.from, progress);
  progress.ackedRound = Math.max(progress.ackedRound, message.round);
  progress.heartbeatAnswered();
}

/**
 * Finds appends, and answers to them, that were lost without the link breaking: with each periodic heartbeat a follower
 * that is behind is shown where the leader believes it to be, and refuses if it is not there.
 */
export function recheckLaggards(core: Core, leading: Leadership): void {
  for (const [peer, progress] of leading.progress) {
    // A follower without rights learns of commitment from appends alone (see `broadcastHeartbeat`).
    if (progress.readingBack || (progress.matchIndex === core.log.lastIndex && progress.hasRights)) continue;
    const needsSnapshot = progress.state === 'snapshot' || progress.nextIndex <= core.log.snapshotIndex;
    if (needsSnapshot) offerSnapshot(core, peer, progress);
    else if (progress.state === 'replicate') sendEntries(core, peer, progress, []);
    else sendAppends(core, peer, progress);
  }
}

/**
 * Offers the follower the snapshot that it was offered before, or else the newest. Repeated with every periodic heartbeat:
 * a lost offer or a broken transfer must not leave the follower alone (dgraph 2707).
 */
function offerSnapshot(core: Core, to: NodeId, progress: Progress): void {
  if (progress.state !== 'snapshot') {
    const newest = core.snapshot?.index ?? 0;
    if (newest < core.log.snapshotIndex) {
      throw new RaftkvError(
        'INVARIANT_BROKEN',
        `the log begins after entry ${core.log.snapshotIndex}, but the newest snapshot ends at ${newest}`,
      );
    }
    progress.needsSnapshot(newest, core.now);
  }
  const snapshotIndex = progress.pendingSnapshot;
  const snapshotTerm = core.log.termAt(snapshotIndex);
  send(core, { kind: 'snapshotOffer', from: core.id, to, term: core.term, snapshotIndex, snapshotTerm });
}

/** The voter to hand leadership to: one that can be reached, if possible, and holds most of the log; NO_NODE if none. */
export function mostAdvancedVoter(core: Core, leading: Leadership): NodeId {
  let best: [NodeId, Progress] | undefined;
  for (const [id, progress] of leading.progress) {
    if (!progress.hasRights || !core.configurations.current.voters.includes(id)) continue;
    if (best === undefined || isBetterSuccessor(core, progress, best[1])) best = [id, progress];
  }
  return best?.[0] ?? NO_NODE;
}

function isBetterSuccessor({ now, options }: Core, a: Progress, b: Progress): boolean {
  if (a.linked !== b.linked) return a.linked;
  if (a.diskFull !== b.diskFull) return b.diskFull;
  const answers = a.hasAnsweredWithin(options.electionTimeoutTicks, now);
  if (answers !== b.hasAnsweredWithin(options.electionTimeoutTicks, now)) return answers;
  return a.matchIndex > b.matchIndex;
}
