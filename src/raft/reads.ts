import { answerRead, type Core, isQuorum, type Leadership, type PendingRead, send } from './core.ts';
import { broadcastHeartbeat } from './replication.ts';
import { NOBODY, type NodeId, type ReadIndexReply } from './types.ts';

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
    readAsLeader(core, core.id, id);
    return;
  }
  if (core.leader === NOBODY) {
    core.effects.readsRejected.push(id);
    return;
  }
  send(core, { kind: 'readIndex', from: core.id, to: core.leader, term: core.term, id });
}

/** A read asked for on `from`, in this term. */
export function readAsLeader(core: Core, from: NodeId, id: number): void {
  const read: PendingRead = { id, from, round: 0, index: 0 };
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
  for (const read of leading.reads.splice(0)) admit(core, leading, read);
}

/**
 * The reader's own request is an acknowledgement. It was sent in this term after the read arrived, so at that moment
 * the reader had voted in no later term; nor has this node now. Where the two of them are a quorum, no later leader
 * had been elected when the read arrived, nothing newer than this commit index had been acknowledged, and no round is
 * needed. With five voters two are no quorum, and the round is.
 */
function admit(core: Core, leading: Leadership, read: PendingRead): void {
  read.index = core.log.commitIndex;
  if (isQuorum(core, (id) => id === core.id || id === read.from)) {
    answerRead(core, read, read.index);
    return;
  }
  const newest = leading.reads.at(-1);
  const roundInFlight = newest !== undefined && newest.round >= core.round;
  leading.reads.push(read);
  // A round that is under way began before this read arrived; the next begins when it has been answered.
  read.round = core.round + 1;
  if (!roundInFlight) broadcastHeartbeat(core);
}

/** An answer to a round came in: serve what a quorum has confirmed, and begin the next round where reads wait. */
export function confirmReads(core: Core): void {
  const { leading } = core;
  if (leading === null) return;
  let confirmed = 0;
  while (confirmed < leading.reads.length) {
    const read = leading.reads[confirmed] as PendingRead;
    if (read.round === 0 || !roundIsConfirmed(core, leading, read.round)) break;
    answerRead(core, read, read.index);
    confirmed++;
  }
  if (confirmed === 0) return;
  leading.reads.splice(0, confirmed);
  const next = leading.reads[0];
  if (next !== undefined && next.round > core.round) broadcastHeartbeat(core);
}

function roundIsConfirmed(core: Core, leading: Leadership, round: number): boolean {
  return isQuorum(core, (id) => id === core.id || (leading.progress.get(id)?.ackedRound ?? 0) >= round);
}

export function handleReadIndexReply(core: Core, message: ReadIndexReply): void {
  if (message.index < 0) core.effects.readsRejected.push(message.id);
  else core.effects.reads.push({ id: message.id, index: message.index });
}
