import { RaftkvError } from '../base/errors.ts';
import { acknowledge } from './following.ts';
import { commitTo, compactLog, installSnapshot } from './own-log.ts';
import { sendAppends } from './replication.ts';
import { becomeFollower, type Core, hardStateIsPending, type Leadership } from './state/core.ts';
import { type Configuration, NO_NODE, type NodeId, type SnapshotMark, type SnapshotOffer } from './state/types.ts';

/**
 * Snapshots (§5): the log is compacted behind them, and a follower that needs what is gone gets one instead. The core only
 * keeps track of them; its caller writes, transfers and installs the state itself.
 *
 *   own state: "stored up to S" ──▶ "compact to I" ──▶ the log begins after min(I, S, applied, on disk, needs of transfers)
 *
 *   leader ── offers S, again and again ──▶ follower ─ wantSnapshot ─▶ fetched, durable ─ snapshotReceived ─▶ log and
 *     ▲                                                                                                     state at S
 *     └────────────────────────────────────── acknowledges S ◀──────────────────────────────────────────────────┘
 */

/** A snapshot is durable in this node's directory, of its own state or of another node's. */
export function snapshotStored(core: Core, index: number, term: number): void {
  if (index > (core.snapshot?.index ?? 0)) core.snapshot = { index, term };
}

/**
 * Compacts the log up to `index`, or as far as is safe: not beyond the newest snapshot, and not beyond what a follower
 * needs that fetches one or has just had one. Otherwise that follower would have to begin again with a newer snapshot, for
 * as long as there are writes (consul 9609). Nor beyond what is applied and on disk: a restart builds the state from the
 * newest snapshot and the log behind it, so between the two nothing may be missing.
 */
export function compact(core: Core, index: number): void {
  const { log } = core;
  let end = Math.min(index, core.snapshot?.index ?? 0, log.appliedIndex, log.persistedIndex);
  for (const progress of core.leading?.progress.values() ?? []) end = Math.min(end, progress.keepsLogFrom);
  compactLog(core, end);
}

/** The leader says that it no longer has in its log what this node lacks. It may be wrong: an acknowledgement was lost. */
export function handleSnapshotOffer(core: Core, message: SnapshotOffer): void {
  const { log } = core;
  const { from, snapshotIndex, snapshotTerm } = message;
  // The leader's snapshot is committed. If this log has its last entry, it has all of it (§3.5, log matching).
  if (snapshotIndex > log.commitIndex && log.termAt(snapshotIndex) === snapshotTerm) commitTo(core, snapshotIndex);
  if (snapshotIndex <= log.commitIndex) {
    acknowledge(core, from, log.commitIndex);
    return;
  }
  // A snapshot can be of this very term, and it is not written in line with the term, so the term must be on disk first.
  // The offer will be repeated.
  if (hardStateIsPending(core)) return;
  core.effects.wantSnapshot = { from, index: snapshotIndex, term: snapshotTerm };
}

/** The snapshot that was wanted is durable here: it replaces the log, or the part of it that agrees. */
export function snapshotReceived(core: Core, index: number, term: number, configuration: Configuration): void {
  const { log } = core;
  snapshotStored(core, index, term);
  if (index > log.commitIndex) install(core, { index, term }, configuration);
  if (core.leader !== NO_NODE && core.leader !== core.id) acknowledge(core, core.leader, log.commitIndex);
}

function install(core: Core, mark: SnapshotMark, configuration: Configuration): void {
  const { index, term } = mark;
  const resetLog = core.log.termAt(index) !== term;
  if (resetLog) prepareForReset(core, mark);
  installSnapshot(core, mark, configuration, resetLog);
  core.effects.install = { index, term, resetLog };
}

/** Entries behind one that disagrees with a committed one were never committed, so the log may be dropped. */
function prepareForReset(core: Core, { index, term }: SnapshotMark): void {
  if (core.leading !== null) {
    throw new RaftkvError(
      'INVARIANT_BROKEN',
      `node ${core.id} is leader but lacks the committed entry ${index}@${term}`,
    );
  }
  // Nodes that voted for this one did so because of the log that it had. It must not win with another one.
  if (core.role !== 'follower') becomeFollower(core, core.term, NO_NODE);
}

/** With each periodic heartbeat: which followers keep up (§4.2.1), and which are too slow for the log to be kept. */
export function tickCatchUps(core: Core, leading: Leadership): void {
  for (const progress of leading.progress.values()) {
    progress.tickCatchUp(core.now, core.log.lastIndex, core.options.electionTimeoutTicks);
  }
}

/** The follower has not asked for its snapshot for too long, or the snapshot is gone: find out where the follower is. */
export function snapshotStalled(core: Core, peer: NodeId): void {
  const progress = core.leading?.progress.get(peer);
  if (progress?.state !== 'snapshot') return;
  progress.probeAgain(core.log.snapshotIndex);
  sendAppends(core, peer, progress);
}
