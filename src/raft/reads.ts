import { broadcastHeartbeat } from './replication.ts';
import { withoutRights } from './rights.ts';
import { NO_DIRECTORY } from './state/configuration.ts';
import { answerRead, type Core, isQuorum, type Leadership, type PendingRead, send } from './state/core.ts';
import { NO_NODE, type ReadIndex, type ReadIndexReply } from './state/types.ts';

/**
 * Linearizable reads from any node without writing to the log (ReadIndex, §6.4).
 *
 *   reader ── readIndex ──▶ leader: commitIndex now ── round of heartbeats ──▶ quorum still follows
 *      ▲                                                                           │
 *      └── readIndexReply(index) ── serve once appliedIndex ≥ index ◀──────────────┘
 */

/** A client of this node reads. A follower passes the question on to the leader; without one, the caller asks again later. */
export function readLocally(core: Core, id: number): void {
  if (core.role === 'leader') {
    readAsLeader(core, { id, from: core.id, directoryId: core.rights.directoryId, round: 0, index: 0 });
    return;
  }
  if (core.leader === NO_NODE) {
    core.effects.readsRejected.push(id);
    return;
  }
  const { id: from, leader: to, term } = core;
  const { directoryId } = core.rights;
  send(core, { kind: 'readIndex', from, to, term, id, directoryId, withoutRights: withoutRights(core) });
}

/** A follower of this term reads. */
export function handleReadIndex(core: Core, message: ReadIndex): void {
  const { id, from, withoutRights, directoryId } = message;
  readAsLeader(core, { id, from, directoryId: withoutRights ? NO_DIRECTORY : directoryId, round: 0, index: 0 });
}

/**
 * Before the no-op is committed this leader does not know everything that is (etcd 7331): an entry of an earlier term
 * that was acknowledged to a client may lie behind its commit index. So the read waits.
 */
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

/** Once the no-op is committed, the commit index covers everything that earlier leaders acknowledged: held reads go on. */
export function releaseHeldReads(core: Core): void {
  const { leading } = core;
  if (leading === null || core.log.commitIndex < leading.firstIndex) return;
  if (leading.reads[0]?.round !== 0) return;
  // All of them have arrived already, so one round that begins now confirms them all.
  const round = core.round + 1;
  for (const read of leading.reads.splice(0)) enter(core, leading, read, round);
  if (leading.reads.length > 0) broadcastHeartbeat(core);
}

/** A read that may go on is answered at once, or as soon as a quorum has answered `round`. */
function enter(core: Core, leading: Leadership, read: PendingRead, round: number): void {
  read.index = core.log.commitIndex;
  read.round = round;
  if (requestConfirms(core, leading, read)) answerRead(core, read, read.index);
  else leading.reads.push(read);
}

function admit(core: Core, leading: Leadership, read: PendingRead): void {
  const newest = leading.reads.at(-1);
  // A round that is in flight began before this read arrived, so it proves nothing for it. Node 2 answers the round of
  // leader 1, then elects node 3, and node 3 acknowledges a write. A read that reaches node 1 now would be confirmed by
  // node 2's old answer, and miss that write. The next round begins when this one has been answered, and serves all reads
  // that gather meanwhile.
  const roundInFlight = newest !== undefined && newest.round >= core.round;
  enter(core, leading, read, core.round + 1);
  const isWaiting = leading.reads.at(-1) === read;
  if (isWaiting && !roundInFlight) broadcastHeartbeat(core);
}

/**
 * The reader's own request is an acknowledgement. It was sent in this term after the read arrived, so at that moment
 * the reader had voted in no later term; and the leader has voted in none now. If the two of them are a quorum, no later
 * leader had been elected when the read arrived, nothing newer than this commit index had been acknowledged, and no round
 * is needed. With five voters two are no quorum, and a round is needed. A reader that may have forgotten its votes proves
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

/** A round was answered: serves the reads that a quorum has confirmed, and begins the next round if reads wait for it. */
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
    // The reader's request is its acknowledgement here too.
    if (id === core.id || (acknowledges && id === read.from)) return true;
    const progress = leading.progress.get(id);
    return progress?.hasRights === true && progress.ackedRound >= read.round;
  });
}

/** The leader answered this node's question. Also an answer of an older term holds: it was confirmed when it was given. */
export function handleReadIndexReply(core: Core, message: ReadIndexReply): void {
  if (message.index < 0) core.effects.readsRejected.push(message.id);
  else core.effects.reads.push({ id: message.id, index: message.index });
}
