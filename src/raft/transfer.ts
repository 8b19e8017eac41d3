import { type Core, type Leadership, send } from './core.ts';
import { startElection } from './election.ts';
import { mostAdvancedVoter, sendAppends } from './replication.ts';
import { mayCampaign } from './rights.ts';
import { NO_NODE, type NodeId, type TimeoutNow } from './types.ts';

/**
 * Handing over leadership (§3.10): the leader stops taking writes, brings one follower up to date and tells it to
 * campaign at once. A time limit reopens writes whatever becomes of it.
 */
export function startTransfer(core: Core, to: NodeId, force = false): void {
  const { leading } = core;
  if (leading === null || leading.transfer !== null) return;
  const target = to === NO_NODE ? mostAdvancedVoter(core, leading) : to;
  const progress = leading.progress.get(target);
  if (progress === undefined || !progress.hasRights || !progress.linked) return;
  if (!core.configuration.voters.includes(target)) return;
  // Writes would stop where they can go on.
  if (to !== NO_NODE && progress.diskFull && !core.diskFull) return;
  leading.transfer = { to: target, force, elapsed: 0 };
  sendAppends(core, target, progress);
  continueTransfer(core);
}

/** Tells the target to campaign once it holds the whole log, or all that it can get of it. Saying it again does no harm. */
export function continueTransfer(core: Core): void {
  const transfer = core.leading?.transfer;
  if (transfer === null || transfer === undefined) return;
  const progress = core.leading?.progress.get(transfer.to);
  if (progress?.hasRights !== true) return;
  if (progress.matchIndex !== core.log.lastIndex && !transfer.force) return;
  send(core, { kind: 'timeoutNow', from: core.id, to: transfer.to, term: core.term });
}

export function tickTransfer(core: Core, leading: Leadership): void {
  if (leading.transfer === null) return;
  leading.transfer.elapsed++;
  if (leading.transfer.elapsed >= core.options.electionTimeoutTicks) leading.transfer = null;
}

/**
 * A leader whose disk stalls still sends heartbeats, so no follower would replace it (hashicorp/raft 503). When its own
 * writes have made no progress for an election timeout while a follower's have, it steps aside. So it does where the
 * best follower has waited as long for entries that only this disk could read back: then nothing moves at all. Whether
 * that follower lacks what is committed, the votes decide (§3.6.1).
 */
export function tickStalledDisk(core: Core, leading: Leadership): void {
  const { log } = core;
  const stalled = log.persistedIndex < log.lastIndex && log.persistedIndex === leading.lastPersistedIndex;
  leading.lastPersistedIndex = log.persistedIndex;
  leading.persistStalledTicks = stalled ? leading.persistStalledTicks + 1 : 0;
  if (leading.persistStalledTicks <= core.options.electionTimeoutTicks) return;
  leading.persistStalledTicks = 0;
  const target = mostAdvancedVoter(core, leading);
  const progress = leading.progress.get(target);
  if (progress === undefined) return;
  const isAhead = progress.matchIndex > log.persistedIndex;
  const isHeldUp = progress.readingBackTicks(leading.ticks) >= core.options.electionTimeoutTicks;
  if (isAhead || isHeldUp) startTransfer(core, target, !isAhead);
}

export function handleTimeoutNow(core: Core, message: TimeoutNow): void {
  if (core.role !== 'follower' || core.leader !== message.from || !mayCampaign(core)) return;
  startElection(core, true);
}
