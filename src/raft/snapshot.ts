import { RaftkvError } from '../base/errors.ts';
import { becomeFollower, type Core, hardStateIsPending, type Leadership, send } from './core.ts';
import { configurationInstalled, configurationsCompacted } from './membership.ts';
import type { Progress } from './progress.ts';
import { acknowledge, commitTo, sendAppends } from './replication.ts';
import { type Configuration, NO_NODE, type NodeId, type SnapshotOffer } from './types.ts';

/**
 * Snapshots (§5): the log goes behind them, and a follower that needs what is gone gets one instead. The core only
 * keeps track; its caller writes, transfers and installs the state itself.
 *
 *   own state: "stored up to S" ──▶ "compact to I" ──▶ the log begins after min(I, S, applied, on disk, needs of transfers)
 *
 *   leader ── offers S, again and again ──▶ follower ─ wantSnapshot ─▶ fetched, durable ─ snapshotReceived ─▶ log and
 *     ▲                                                                                                     state at S
 *     └────────────────────────────────────── acknowledges S ◀──────────────────────────────────────────────────┘
 */

/** What a durable snapshot stands for: everything up to the entry at `index`, which has `term`. */
export interface SnapshotMark {
  readonly index: number;
  readonly term: number;
}

/** A snapshot is durable in this node's directory, be it of its own state or another's, and the newest there is. */
export function snapshotStored(core: Core, index: number, term: number): void {
  if (index > (core.snapshot?.index ?? 0)) core.snapshot = { index, term };
}

/**
 * Compacts the log up to `index`, or as far as is safe: not beyond the newest snapshot, and not beyond what a follower
 * needs that fetches one or has just had one, or it would have to begin again, with a newer one, for as long as there are
 * writes (consul 9609).
 */
export function compact(core: Core, index: number): void {
  const { log } = core;
  let end = Math.min(index, core.snapshot?.index ?? 0, log.appliedIndex, log.persistedIndex);
  for (const progress of core.leading?.progress.values() ?? []) {
    end = Math.min(end, progress.keepsLogFrom);
  }
  log.compactTo(end);
  configurationsCompacted(core);
}

/**
 * Offers the follower the snapshot that it has been offered before, or else the newest. Said again with every periodic
 * heartbeat: neither a lost offer nor a transfer that broke off may leave it alone (dgraph 2707).
 */
export function offerSnapshot(core: Core, to: NodeId, progress: Progress): void {
  if (progress.state !== 'snapshot') {
    const newest = core.snapshot?.index ?? 0;
    if (newest < core.log.snapshotIndex) {
      throw new RaftkvError(
        'INVARIANT_BROKEN',
        `the log begins after entry ${core.log.snapshotIndex}, but the newest snapshot ends at ${newest}`,
      );
    }
    progress.needsSnapshot(newest, core.leading?.ticks ?? 0);
  }
  const snapshotIndex = progress.pendingSnapshot;
  const snapshotTerm = core.log.termAt(snapshotIndex);
  send(core, { kind: 'snapshotOffer', from: core.id, to, term: core.term, snapshotIndex, snapshotTerm });
}

/** The leader no longer has in its log what this node lacks; or thinks so. */
export function handleSnapshotOffer(core: Core, message: SnapshotOffer): void {
  const { log } = core;
  const { from, snapshotIndex, snapshotTerm } = message;
  // A leader's snapshot is committed, so where this log has its last entry, it has all of it (§3.5).
  if (snapshotIndex > log.commitIndex && log.termAt(snapshotIndex) === snapshotTerm) commitTo(core, snapshotIndex);
  if (snapshotIndex <= log.commitIndex) {
    acknowledge(core, from, log.commitIndex);
    return;
  }
  // A snapshot may be of this very term and is not written in line with it, so the term has to be on disk first. The
  // offer will come again.
  if (hardStateIsPending(core)) return;
  core.effects.wantSnapshot = { from, index: snapshotIndex, term: snapshotTerm };
}

/** What was wanted is durable here: it takes the place of the log, or of the part of it that agrees. */
export function snapshotReceived(core: Core, index: number, term: number, configuration: Configuration): void {
  const { log } = core;
  snapshotStored(core, index, term);
  if (index > log.commitIndex) install(core, { index, term }, configuration);
  if (core.leader !== NO_NODE && core.leader !== core.id) acknowledge(core, core.leader, log.commitIndex);
}

function install(core: Core, { index, term }: SnapshotMark, configuration: Configuration): void {
  const { log } = core;
  const resetLog = log.termAt(index) !== term;
  if (resetLog) resetTo(core, index, term);
  else commitTo(core, index);
  log.appliedIndex = index;
  configurationInstalled(core, index, configuration);
  core.effects.install = { index, term, resetLog };
}

/** Entries behind one that differs from the committed one were never committed and can be dropped. */
function resetTo(core: Core, index: number, term: number): void {
  if (core.leading !== null) {
    throw new RaftkvError(
      'INVARIANT_BROKEN',
      `node ${core.id} is leader but lacks the committed entry ${index}@${term}`,
    );
  }
  // Votes for this node were given for the log that it had.
  if (core.role !== 'follower') becomeFollower(core, core.term, NO_NODE);
  core.log.restore(index, term);
}

/** At each periodic heartbeat: who has caught up since its snapshot, and who is too slow for the log to be kept. */
export function tickCatchUps(core: Core, leading: Leadership): void {
  for (const progress of leading.progress.values()) {
    progress.tickCatchUp(leading.ticks, core.log.lastIndex, core.options.electionTimeoutTicks);
  }
}

/** The follower has not asked for its snapshot for too long, or it is no longer here: look for where the follower is. */
export function snapshotStalled(core: Core, peer: NodeId): void {
  const progress = core.leading?.progress.get(peer);
  if (progress?.state !== 'snapshot') return;
  progress.probeAgain(core.log.snapshotIndex);
  sendAppends(core, peer, progress);
}
