import { startElection } from './election.ts';
import { mostAdvancedVoter, sendAppends } from './replication.ts';
import { mayCampaign } from './rights.ts';
import { type Core, type Leadership, send } from './state/core.ts';
import { NO_NODE, type NodeId, type TimeoutNow } from './state/types.ts';

/**
 * Handing over leadership (§3.10): the leader stops taking writes, brings one follower up to date and tells it to
 * campaign at once. A time limit reopens writes whatever happens to the target. `to`: NO_NODE for the most advanced voter.
 */
export function startTransfer(core: Core, to: NodeId, force = false): void {
  const { leading } = core;
  if (leading === null || leading.transfer !== null) return;
  const target = to === NO_NODE ? mostAdvancedVoter(core, leading) : to;
  const progress = leading.progress.get(target);
  if (progress === undefined || !progress.hasRights || !progress.linked) return;
  if (!core.configurations.current.voters.includes(target)) return;
  // A target that was named must have room on its disk, if this node has: otherwise writes would stop that can go on.
  if (to !== NO_NODE && progress.diskFull && !core.diskFull) return;
  leading.transfer = { to: target, force, deadline: core.now + core.options.electionTimeoutTicks };
  sendAppends(core, target, progress);
  continueTransfer(core);
}

/**
 * Tells the target to campaign once it holds the whole log, or all that it can get of it. With less it could lose,
 * because other followers hold more and refuse it their votes, and a term without a leader would stop the writes. It does
 * no harm to repeat the message.
 */
export function continueTransfer(core: Core): void {
  const transfer = core.leading?.transfer;
  if (transfer === null || transfer === undefined) return;
  const progress = core.leading?.progress.get(transfer.to);
  if (progress?.hasRights !== true) return;
  if (progress.matchIndex !== core.log.lastIndex && !transfer.force) return;
  send(core, { kind: 'timeoutNow', from: core.id, to: transfer.to, term: core.term });
}

/** Gives a transfer up that takes too long. Otherwise one lost message would stop writes for ever (hashicorp/raft 696). */
export function tickTransfer(core: Core, leading: Leadership): void {
  if (leading.transfer !== null && core.now >= leading.transfer.deadline) leading.transfer = null;
}

/**
 * A leader whose disk hangs still sends heartbeats, so no node would replace it (hashicorp/raft 503). It steps aside when
 * its own writes have made no progress for an election timeout while a follower's have; and also if the best follower has
 * waited as long for entries that only this disk could read back, because then nothing moves at all. Whether that
 * follower lacks committed entries is decided by the votes (§3.6.1).
 */
export function tickStalledDisk(core: Core, leading: Leadership): void {
  const { log, now } = core;
  const isStalled = log.persistedIndex < log.lastIndex && log.persistedIndex === leading.diskProgressIndex;
  leading.diskProgressIndex = log.persistedIndex;
  if (!isStalled) leading.diskProgressAt = now;
  if (now - leading.diskProgressAt <= core.options.electionTimeoutTicks) return;
  leading.diskProgressAt = now;
  const target = mostAdvancedVoter(core, leading);
  const progress = leading.progress.get(target);
  if (progress === undefined) return;
  const isAhead = progress.matchIndex > log.persistedIndex;
  const isHeldUp = progress.readingBackTicks(now) >= core.options.electionTimeoutTicks;
  if (isAhead || isHeldUp) startTransfer(core, target, !isAhead);
}

/** The leader asks this node to campaign at once, without a pre-vote: the others still hear that leader. */
export function handleTimeoutNow(core: Core, message: TimeoutNow): void {
  if (core.role !== 'follower' || core.leader !== message.from || !mayCampaign(core)) return;
  startElection(core, true);
}
