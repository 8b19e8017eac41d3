import { appendToLog, commitTo, truncateLog } from './own-log.ts';
import { askToRecover, withoutRights } from './rights.ts';
import { becomeFollower, type Core, send, sendAfterPersist } from './state/core.ts';
import type { Append, Commit, Entry, Heartbeat, NodeId } from './state/types.ts';

/**
 * Replication, the follower's side (§3.5): the receiver rules of the paper's AppendEntries. `messages.ts` has dealt with
 * terms before: here the message is of this node's own term, and its sender is the leader of that term.
 */

/** A leader spoke: follow it, and start the election timer again. */
export function followLeader(core: Core, leader: NodeId): void {
  if (core.role !== 'follower' || core.leader !== leader) becomeFollower(core, core.term, leader);
  core.timerStartedAt = core.now;
  core.quickCampaignsLeft = 0;
  if (withoutRights(core) && core.now >= core.rights.askAgainAt) askToRecover(core);
}

/**
 * Entries from the leader, or none, to find out where the logs agree.
 *
 * Why `<` in `matches`, and not `<=`? Below the commit index no comparison is needed: the leader of this term has every
 * committed entry (leader completeness). It is not possible either, since terms below the snapshot are not known any more
 * (openraft 511). At the commit index the term is known, so it is compared.
 *
 * Why acknowledge `max(verified, commitIndex)`? For the same reason everything committed here is in the leader's log. A
 * leader that probes at entry 10 of a follower with 50 committed entries goes on at 51, and does not send 40 again.
 */
export function handleAppend(core: Core, message: Append): void {
  const { log } = core;
  const { prevIndex, prevTerm, entries } = message;
  const matches = prevIndex < log.commitIndex || log.termAt(prevIndex) === prevTerm;
  if (!matches) {
    const possible = log.lastPossibleMatch(Math.min(prevIndex, log.lastIndex), prevTerm);
    const hintIndex = Math.max(possible, log.commitIndex);
    refuseAppend(core, message.from, prevIndex, hintIndex, log.termAt(hintIndex));
    return;
  }
  for (const entry of entries) acceptEntry(core, entry);
  // Commit only what this very message verified: a longer tail may be another leader's (scylla 9965). Here entry 5 is the
  // leader's, and 6 and 7 are left over from a deposed one. An append that carries entry 5 and commitIndex 7 must not commit
  // them.
  const verified = prevIndex + entries.length;
  commitTo(core, Math.min(message.commitIndex, verified));
  acknowledge(core, message.from, Math.max(verified, log.commitIndex));
}

/**
 * Keeps entries that agree and truncates at the first conflict only: a late append may be shorter than the log (§3.5).
 * If an append of entries 5 to 6 cut the log after 6, it would remove 7 and 8, which this node has acknowledged by then and
 * which may be committed.
 */
function acceptEntry(core: Core, entry: Entry): void {
  const { log } = core;
  if (entry.index <= log.commitIndex) return;
  if (entry.index <= log.lastIndex) {
    if (log.termAt(entry.index) === entry.term) return;
    truncateLog(core, entry.index);
  }
  appendToLog(core, entry);
}

/**
 * Tells the leader that this node holds its log up to `index`, once everything that was emitted so far is on disk. If it
 * did not wait: node 2 acknowledges entry 9, node 1 commits it and answers its client, and both crash. Node 2 comes back
 * without entry 9 and elects a leader together with node 3, which never had it. The client's write is lost.
 */
export function acknowledge(core: Core, leader: NodeId, index: number): void {
  const { id: from, term, diskFull } = core;
  const { directoryId } = core.rights;
  sendAfterPersist(core, {
    kind: 'appendReply',
    from,
    to: leader,
    term,
    success: true,
    index,
    hintIndex: 0,
    hintTerm: 0,
    directoryId,
    withoutRights: withoutRights(core),
    diskFull,
  });
}

/**
 * Refuses an append after `index`, with a hint how far the logs may agree. Sent to a leader of an older term too, with
 * zeros: the reply carries this node's term, which makes that leader step down.
 */
export function refuseAppend(core: Core, leader: NodeId, index: number, hintIndex: number, hintTerm: number): void {
  const { id: from, term, diskFull } = core;
  const { directoryId } = core.rights;
  send(core, {
    kind: 'appendReply',
    from,
    to: leader,
    term,
    success: false,
    index,
    hintIndex,
    hintTerm,
    directoryId,
    withoutRights: withoutRights(core),
    diskFull,
  });
}

/**
 * News of commitment. If the entry at `index` is the leader's, the logs agree up to there (§3.5, log matching). If it is
 * not compared: the append that replaces a deposed leader's entry 7 is lost, the news that 7 is committed arrives, and this
 * node applies the wrong entry 7.
 */
export function handleCommit(core: Core, message: Commit): void {
  if (core.log.termAt(message.index) !== message.indexTerm) return;
  commitTo(core, Math.min(message.commitIndex, message.index));
}

/** A sign of life, answered at once. */
export function handleHeartbeat(core: Core, message: Heartbeat): void {
  const { rights } = core;
  // The commit index was capped at what the leader knows of one directory; it says nothing about another one's log.
  const isMeant = message.directoryId === rights.directoryId && !withoutRights(core);
  if (isMeant) commitTo(core, Math.min(message.commitIndex, core.log.lastIndex));
  core.clusterFull = message.clusterFull;
  const { id: from, term, diskFull } = core;
  const { from: to, round } = message;
  const { directoryId } = rights;
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
