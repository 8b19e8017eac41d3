import { NO_DIRECTORY } from './configuration.ts';
import { answerRead, type Core, isQuorum, type Leadership, type PendingRead, send } from './core.ts';
import { broadcastHeartbeat } from './replication.ts';
import { withoutRights } from './rights.ts';
import { NO_NODE, type ReadIndex, type ReadIndexReply } from './types.ts';

/**
 * Linearizable reads from any node without writing to the log (ReadIndex, §6.4).
 *
 *   reader ── readIndex ──▶ leader: commitIndex now ── round of heartbeats ──▶ quorum still follows
 *      ▲                                                                           │
 *      └── readIndexReply(index) ── serve once appliedIndex ≥ index ◀──────────────┘
 */

/** A read asked for on this node. */
export function readLocally(core: Core, id: number): void {
  if (core.role === 'leader') {
    readAsLeader(core, { id, from: core.id, directoryId: core.directoryId, round: 0, index: 0 });
    return;
  }
  if (core.leader === NO_NODE) {
    core.effects.readsRejected.push(id);
    return;
  }
  const { id: from, leader: to, term, directoryId } = core;
  send(core, { kind: 'readIndex', from, to, term, id, directoryId, withoutRights: withoutRights(core) });
}

/** A read asked for on another node, in this term. */
export function handleReadIndex(core: Core, message: ReadIndex): void {
  const { id, from, withoutRights, directoryId } = message;
  readAsLeader(core, { id, from, directoryId: withoutRights ? NO_DIRECTORY : directoryId, round: 0, index: 0 });
}

function readAsLeader(core: Core, read: PendingRead): void {
  if (core.leading === null) {
    answerRead(core, read, -1);
    return;
  }
  if (core.log.commitIndex < core.leading.firstIndex) {
    core.leading.reads.push(read);
    return;
  }
  admit(core, core.leading, read);
}

/** The no-op is committed, so the commit index covers all that earlier leaders acknowledged: held reads may go on. */
export function releaseHeldReads(core: Core): void {
  const { leading } = core;
  if (leading === null || core.log.commitIndex < leading.firstIndex) return;
  if (leading.reads[0]?.round !== 0) return;
  // All of them are here already, so one round confirms them all.
  const round = core.round + 1;
  for (const read of leading.reads.splice(0)) enter(core, leading, read, round);
  if (leading.reads.length > 0) broadcastHeartbeat(core);
}

/** A read that may go on: answered at once, or as soon as `round` is confirmed. */
function enter(core: Core, leading: Leadership, read: PendingRead, round: number): void {
  read.index = core.log.commitIndex;
  read.round = round;
  if (requestConfirms(core, leading, read)) answerRead(core, read, read.index);
  else leading.reads.push(read);
}

function admit(core: Core, leading: Leadership, read: PendingRead): void {
  const newest = leading.reads.at(-1);
  const roundInFlight = newest !== undefined && newest.round >= core.round;
  // A round that is under way began before this read arrived; the next begins when it has been answered.
  enter(core, leading, read, core.round + 1);
  if (!roundInFlight && leading.reads.at(-1) === read) broadcastHeartbeat(core);
}

/**
 * The reader's own request is an acknowledgement. It was sent in this term after the read arrived, so at that moment
 * the reader had voted in no later term; nor has this node now. Where the two of them are a quorum, no later leader
 * had been elected when the read arrived, nothing newer than this commit index had been acknowledged, and no round is
 * needed. With five voters two are no quorum, and the round is. A reader that may have forgotten its votes proves
 * nothing by asking.
 */
function requestConfirms(core: Core, leading: Leadership, read: PendingRead): boolean {
  const acknowledges = isAcknowledgement(leading, read);
  return isQuorum(core, (id) => id === core.id || (acknowledges && id === read.from));
}

/** Whether the reader has rights by the configuration that is in force now, so that its request is an acknowledgement. */
function isAcknowledgement(leading: Leadership, { from, directoryId }: PendingRead): boolean {
  return directoryId !== NO_DIRECTORY && leading.progress.get(from)?.configuredDirectoryId === directoryId;
}

/** An answer to a round came in: serve what a quorum has confirmed, and begin the next round where reads wait. */
export function confirmReads(core: Core): void {
  const { leading } = core;
  if (leading === null) return;
  let confirmed = 0;
  while (confirmed < leading.reads.length) {
    const read = leading.reads[confirmed] as PendingRead;
    if (read.round === 0 || !roundIsConfirmed(core, leading, read)) break;
    answerRead(core, read, read.index);
    confirmed++;
  }
  if (confirmed === 0) return;
  leading.reads.splice(0, confirmed);
  const next = leading.reads[0];
  if (next !== undefined && next.round > core.round) broadcastHeartbeat(core);
}

function roundIsConfirmed(core: Core, leading: Leadership, read: PendingRead): boolean {
  const acknowledges = isAcknowledgement(leading, read);
  return isQuorum(core, (id) => {
    // Here, too, the reader's request is its acknowledgement.
    if (id === core.id || (acknowledges && id === read.from)) return true;
    const progress = leading.progress.get(id);
    return progress?.hasRights === true && progress.ackedRound >= read.round;
  });
}

export function handleReadIndexReply(core: Core, message: ReadIndexReply): void {
  if (message.index < 0) core.effects.readsRejected.push(message.id);
  else core.effects.reads.push({ id: message.id, index: message.index });
}
