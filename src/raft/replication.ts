import { RaftkvError } from '../base/errors.ts';
import { becomeFollower, type Core, type Leadership, send, sendAfterPersist } from './core.ts';
import {
  configurationAppended,
  configurationsCommitted,
  configurationsTruncated,
  recordLeaderCommit,
} from './membership.ts';
import type { Progress } from './progress.ts';
import { jointCommittedIndex } from './quorum.ts';
import { askToRecover, recordReply, withoutRights } from './rights.ts';
import { offerSnapshot } from './snapshot.ts';
import {
  type Append,
  type AppendReply,
  type Commit,
  type Entry,
  type Heartbeat,
  type HeartbeatReply,
  NO_NODE,
  type NodeId,
} from './types.ts';

/**
 * Replication (§3.5): the leader's entries to every follower, pipelined and bounded, and news of commitment.
 *
 *   leader: append ──▶ followers: verify prev, truncate, append ──────▶ disk ──▶ reply
 *     └▶ own disk, at the same time (§10.2.1)                                      │
 *   commit ◀── a quorum holds an entry of the leader's own term (§5.4.2) ◀─────────┘
 */

/** Appends to the leader's own log; its disk write starts with the same effects that carry the messages. */
export function appendAsLeader(core: Core, entry: Entry): void {
  core.log.append(entry);
  core.effects.append.push(entry);
  if (entry.kind === 'configuration') configurationAppended(core, entry);
}

export function broadcastAppends(core: Core): void {
  if (core.leading === null) return;
  for (const [peer, progress] of core.leading.progress) sendAppends(core, peer, progress);
}

/** Sends what the follower lacks, as far as its window allows; a probe even where there is nothing new. */
export function sendAppends(core: Core, peer: NodeId, progress: Progress): void {
  while (progress.maySend) {
    if (progress.state === 'replicate' && progress.nextIndex > core.log.lastIndex) return;
    if (!sendAppend(core, peer, progress)) return;
  }
}

function sendAppend(core: Core, peer: NodeId, progress: Progress): boolean {
  const { log, options } = core;
  const { nextIndex } = progress;
  if (nextIndex < log.firstCachedIndex && nextIndex <= log.lastIndex) {
    if (nextIndex <= log.snapshotIndex) {
      offerSnapshot(core, peer, progress);
      return false;
    }
    progress.beginReadBack(core.leading?.ticks ?? 0);
    core.effects.readBacks.push({ peer, fromIndex: nextIndex, bytesMax: options.appendBytesMax });
    return false;
  }
  sendEntries(core, peer, progress, log.slice(nextIndex, options.appendBytesMax));
  return true;
}

function sendEntries(core: Core, to: NodeId, progress: Progress, entries: readonly Entry[]): void {
  const prevIndex = progress.nextIndex - 1;
  const { log, term } = core;
  let bytes = 0;
  for (const entry of entries) bytes += entry.bytes.length;
  const prevTerm = log.termAt(prevIndex);
  const commitIndex = progress.isAdmitted ? log.commitIndex : 0;
  send(core, { kind: 'append', from: core.id, to, term, prevIndex, prevTerm, commitIndex, entries });
  progress.sent(prevIndex + entries.length, bytes);
}

/** Entries that had left memory are back from the disk. */
export function handleReadBack(core: Core, peer: NodeId, entries: readonly Entry[]): void {
  const progress = core.leading?.progress.get(peer);
  if (progress === undefined || !progress.readingBack) return;
  progress.endReadBack();
  const fits = entries[0]?.index === progress.nextIndex && agreesWithLog(core, entries);
  if (fits && progress.maySend) sendEntries(core, peer, progress, entries);
  sendAppends(core, peer, progress);
}

/**
 * While the disk was being read, a new leadership may have truncated the log, and compaction may have overtaken the entries:
 * one at the log's very start has a known term, but the one before it no longer does.
 */
function agreesWithLog({ log }: Core, entries: readonly Entry[]): boolean {
  return entries.every(({ index, term }) => index > log.snapshotIndex && log.termAt(index) === term);
}

export function handleAppend(core: Core, message: Append): void {
  const { log } = core;
  const { prevIndex, prevTerm, entries } = message;
  // What is committed here is in the leader's log too (leader completeness), so it matches without being looked at:
  // also below a snapshot, where the terms are no longer known (openraft 511).
  const matches = prevIndex < log.commitIndex || log.termAt(prevIndex) === prevTerm;
  if (!matches) {
    const possible = log.lastPossibleMatch(Math.min(prevIndex, log.lastIndex), prevTerm);
    const hintIndex = Math.max(possible, log.commitIndex);
    const hintTerm = log.termAt(hintIndex);
    const refusal = { success: false, index: prevIndex, hintIndex, hintTerm };
    const { id: from, term, directoryId, diskFull } = core;
    const reply = {
      kind: 'appendReply',
      from,
      to: message.from,
      term,
      directoryId,
      withoutRights: withoutRights(core),
      diskFull,
    } as const;
    send(core, { ...reply, ...refusal });
    return;
  }
  for (const entry of entries) acceptEntry(core, entry);
  // Only what this very message verified may be committed: a longer tail may be another leader's (scylla 9965).
  const verified = prevIndex + entries.length;
  commitTo(core, Math.min(message.commitIndex, verified));
  recordLeaderCommit(core, message.commitIndex);
  acknowledge(core, message.from, Math.max(verified, log.commitIndex));
}

/** Tells the leader that this node holds its log up to `index`: once all that was emitted so far is on disk. */
export function acknowledge(core: Core, leader: NodeId, index: number): void {
  sendAfterPersist(core, {
    kind: 'appendReply',
    from: core.id,
    to: leader,
    term: core.term,
    success: true,
    index,
    hintIndex: 0,
    hintTerm: 0,
    directoryId: core.directoryId,
    withoutRights: withoutRights(core),
    diskFull: core.diskFull,
  });
}

/** Keeps what agrees; truncates at the first conflict only, since a late message may be shorter than the log (§3.5). */
function acceptEntry(core: Core, entry: Entry): void {
  const { log, effects } = core;
  if (entry.index <= log.commitIndex) return;
  if (entry.index <= log.lastIndex) {
    if (log.termAt(entry.index) === entry.term) return;
    log.truncateFrom(entry.index);
    configurationsTruncated(core, entry.index);
    effects.append = effects.append.filter((pending) => pending.index < entry.index);
    effects.truncateFrom = effects.truncateFrom === 0 ? entry.index : Math.min(effects.truncateFrom, entry.index);
  }
  log.append(entry);
  effects.append.push(entry);
  if (entry.kind === 'configuration') configurationAppended(core, entry);
}

export function handleAppendReply(core: Core, message: AppendReply): void {
  if (core.leading === null) return;
  const progress = recordReply(core, core.leading, message.from, message);
  if (progress === undefined) return;
  if (!message.success) {
    const possibleMatch = core.log.lastPossibleMatch(message.hintIndex, message.hintTerm);
    if (progress.refused(message.index, possibleMatch)) sendAppends(core, message.from, progress);
    return;
  }
  if (message.index > core.log.lastIndex) {
    throw new RaftkvError(
      'INVARIANT_BROKEN',
      `node ${message.from} acknowledges entry ${message.index} of a log that ends at ${core.log.lastIndex}`,
      'This node lost entries that it had replicated: restore its data directory, or wipe it and let the node recover from its peers.',
    );
  }
  const wasReplicating = progress.state === 'replicate';
  const isNews = progress.acknowledged(message.index, core.log.snapshotIndex);
  if (isNews) advanceCommit(core);
  sendAppends(core, message.from, progress);
  if (!wasReplicating) sendCommit(core, message.from, progress);
}

/** Commits what a quorum holds, if the newest of it is of this term (§5.4.2, the paper's figure 8). */
export function advanceCommit(core: Core): void {
  const { leading, log, configuration } = core;
  if (leading === null) return;
  const held = jointCommittedIndex(configuration.voters, configuration.votersOutgoing, (id) => {
    if (id === core.id) return log.persistedIndex;
    const progress = leading.progress.get(id);
    return progress?.hasRights === true ? progress.matchIndex : 0;
  });
  if (held <= log.commitIndex || log.termAt(held) !== core.term) return;
  commitTo(core, held);
  for (const [peer, progress] of leading.progress) sendCommit(core, peer, progress);
}

/** Tells a follower what is committed, unless an append that is about to go will. */
export function sendCommit(core: Core, to: NodeId, progress: Progress): void {
  const { log, term } = core;
  if (progress.state !== 'replicate' || !progress.isAdmitted) return;
  const index = progress.nextIndex - 1;
  // Where compaction has overtaken a slow follower, it cannot be told of a place in the log that it could compare.
  if (index < log.snapshotIndex) return;
  const indexTerm = log.termAt(index);
  send(core, { kind: 'commit', from: core.id, to, term, index, indexTerm, commitIndex: log.commitIndex });
}

export function handleCommit(core: Core, message: Commit): void {
  if (core.log.termAt(message.index) !== message.indexTerm) return;
  commitTo(core, Math.min(message.commitIndex, message.index));
  recordLeaderCommit(core, message.commitIndex);
}

export function commitTo(core: Core, index: number): void {
  if (index > core.log.lastIndex) {
    throw new RaftkvError('INVARIANT_BROKEN', `commit at ${index} of a log that ends at ${core.log.lastIndex}`);
  }
  if (index <= core.log.commitIndex) return;
  core.log.commitIndex = index;
  configurationsCommitted(core);
}

/** Begins a new heartbeat round. A node that answers it followed this leader after it began; reads and CheckQuorum rely on that. */
export function broadcastHeartbeat(core: Core): void {
  const { leading, log, term } = core;
  if (leading === null) return;
  core.round++;
  for (const [to, progress] of leading.progress) {
    // One that does not count learns of commitment where its own log is compared, from appends alone.
    const commitIndex = progress.hasRights ? Math.min(progress.matchIndex, log.commitIndex) : 0;
    const { id: from, round, clusterFull } = core;
    send(core, {
      kind: 'heartbeat',
      from,
      to,
      term,
      commitIndex,
      directoryId: progress.directoryId,
      round,
      clusterFull,
    });
  }
}

export function handleHeartbeat(core: Core, message: Heartbeat): void {
  // The leader may mean what another directory held.
  const isMeant = message.directoryId === core.directoryId && !withoutRights(core);
  if (isMeant) commitTo(core, Math.min(message.commitIndex, core.log.lastIndex));
  core.clusterFull = message.clusterFull;
  const { id: from, term, directoryId, diskFull } = core;
  const { from: to, round } = message;
  send(core, {
    kind: 'heartbeatReply',
    from,
    to,
    term,
    round,
    directoryId,
    withoutRights: withoutRights(core),
    diskFull,
  });
}

export function handleHeartbeatReply(core: Core, message: HeartbeatReply): void {
  if (core.leading === null) return;
  const progress = recordReply(core, core.leading, message.from, message);
  if (progress === undefined) return;
  progress.ackedRound = Math.max(progress.ackedRound, message.round);
  progress.heartbeatAnswered();
}

/**
 * Finds appends, and answers to them, that were lost without the link noticing: on each periodic heartbeat a follower
 * that is behind is shown where the leader believes it to be, and refuses if it is not.
 */
export function recheckLaggards(core: Core, leading: Leadership): void {
  for (const [peer, progress] of leading.progress) {
    // One whose acknowledgements don't count learns of commitment from appends alone (see `broadcastHeartbeat`).
    if (progress.readingBack || (progress.matchIndex === core.log.lastIndex && progress.hasRights)) continue;
    const needsSnapshot = progress.state === 'snapshot' || progress.nextIndex <= core.log.snapshotIndex;
    if (needsSnapshot) offerSnapshot(core, peer, progress);
    else if (progress.state === 'replicate') sendEntries(core, peer, progress, []);
    else sendAppends(core, peer, progress);
  }
}

/** A message from the leader of this term: follow it and restart the election timer. */
export function followLeader(core: Core, leader: NodeId): void {
  if (core.role !== 'follower' || core.leader !== leader) becomeFollower(core, core.term, leader);
  core.electionElapsed = 0;
  core.quickCampaignsLeft = 0;
  if (withoutRights(core) && core.recoveringElapsed >= core.options.electionTimeoutTicks) askToRecover(core);
}

/**
 * The voter to hand leadership to, 0 where there is none: one that is there, if possible, and holds most of the log.
 * Just after CheckQuorum has reset `recentActive`, no follower counts as active, so activity is no condition.
 */
export function mostAdvancedVoter(core: Core, leading: Leadership): NodeId {
  let best: [NodeId, Progress] | undefined;
  for (const [id, progress] of leading.progress) {
    if (!progress.hasRights || !core.configuration.voters.includes(id)) continue;
    if (best === undefined || isBetterSuccessor(progress, best[1])) best = [id, progress];
  }
  return best?.[0] ?? NO_NODE;
}

function isBetterSuccessor(a: Progress, b: Progress): boolean {
  if (a.linked !== b.linked) return a.linked;
  if (a.diskFull !== b.diskFull) return b.diskFull;
  if (a.recentActive !== b.recentActive) return a.recentActive;
  return a.matchIndex > b.matchIndex;
}
