import { describe, expect, it } from 'vitest';
import { checkCore, checkStep, summarize } from '../../src/raft/invariants.ts';
import { Raft } from '../../src/raft/raft.ts';
import { configurationOf, encodeConfiguration, members } from '../../src/raft/state/configuration.ts';
import { ENTRY_HEADER_BYTES, sealEntry } from '../../src/raft/state/entry.ts';
import { RaftLog } from '../../src/raft/state/log.ts';
import type { Effects, Entry, Input, Message, NodeId } from '../../src/raft/state/types.ts';
import { batchOf, type CoreCluster } from './core-cluster.ts';
import {
  crash,
  ELECTION_TIMEOUT_TICKS,
  elect,
  HEARTBEAT_INTERVAL_TICKS,
  restart,
  smallCluster,
  stabilize,
  tick,
  votersOf,
} from './small-cluster.ts';

/** Node 1 leads; its log and that of node 2 end at `lastIndex`, node 3 is down and has nothing but the first entry. */
function withOneBehind(lastIndex: number): CoreCluster {
  const cluster = smallCluster(votersOf(3));
  elect(cluster, 1);
  crash(cluster, 3);
  write(cluster, lastIndex - 1);
  return cluster;
}

function write(cluster: CoreCluster, count: number, leader: NodeId = 1): void {
  for (let i = 0; i < count; i++) cluster.propose(leader, 'x');
  stabilize(cluster);
}

/** Messages arrive and disks finish, but transfers stand still. */
function stabilizeWithoutTransfers(cluster: CoreCluster): void {
  const { moveTransfer } = cluster;
  cluster.moveTransfer = () => false;
  stabilize(cluster);
  cluster.moveTransfer = moveTransfer;
}

function coreOf(cluster: CoreCluster, id: NodeId) {
  const { core } = cluster.node(id);
  if (core === null) throw new Error(`node ${id} is down`);
  return core;
}

function progressOf(cluster: CoreCluster, leader: NodeId, peer: NodeId) {
  const progress = coreOf(cluster, leader).leading?.progress.get(peer);
  if (progress === undefined) throw new Error(`node ${leader} knows nothing of node ${peer}`);
  return progress;
}

function step(cluster: CoreCluster, id: NodeId, input: Input): Effects {
  const effects = cluster.step(id, input);
  if (effects === null) throw new Error(`node ${id} is down`);
  return effects;
}

const entryOf = (term: number, index: number): Entry => sealEntry(batchOf(`${index}of${term}`), 'data', term, index);

function appendOf(prevIndex: number, prevTerm: number, entries: readonly Entry[], term = 1, commitIndex = 0): Message {
  return { kind: 'append', from: 1, to: 3, term, prevIndex, prevTerm, commitIndex, entries };
}

/**
 * A follower by itself, node 3 of 3, whose log has entries of these terms, all durable. It follows node 1 in `term`, which
 * has told it that the first `commitIndex` are committed.
 */
function followerWith(terms: readonly number[], term: number, commitIndex = 0): Raft {
  const log = new RaftLog({ snapshotIndex: 0, snapshotTerm: 0, cacheBytesMax: 1_000_000 });
  for (const [i, entryTerm] of terms.entries()) log.append(entryOf(entryTerm, i + 1));
  log.persistedIndex = log.lastIndex;
  const hardState = { term, vote: 0, commitIndex: 0 };
  const raft = new Raft({
    id: 3,
    log,
    configurations: [{ index: 0, configuration: votersOf(3) }],
    snapshot: null,
    hardState,
    lifecycle: 'normal',
    directoryId: 0,
    electionTimeoutTicks: ELECTION_TIMEOUT_TICKS,
    heartbeatIntervalTicks: HEARTBEAT_INTERVAL_TICKS,
    appendBytesMax: 1000,
    flow: { inflightMessagesMax: 8, inflightBytesMax: 10_000 },
    random: () => 0,
  });
  hear(raft, appendOf(commitIndex, terms[commitIndex - 1] ?? 0, [], term, commitIndex));
  return raft;
}

/** One step, after which all that must be true of a core is. */
function stepAlone(raft: Raft, input: Input): Effects {
  const before = summarize(raft.core);
  const effects = raft.step(input);
  checkCore(raft.core);
  checkStep(before, raft.core);
  return effects;
}

const hear = (raft: Raft, message: Message): Effects => stepAlone(raft, { kind: 'receive', message });

/** A snapshot has arrived, of a cluster with the same three voters. */
const receive = (raft: Raft, index: number, term: number): Effects =>
  stepAlone(raft, { kind: 'snapshotReceived', index, term, configuration: votersOf(3) });

const acknowledgements = ({ sendAfterPersist }: Effects) =>
  sendAfterPersist.flatMap((message) => (message.kind === 'appendReply' && message.success ? [message.index] : []));

describe('compaction', () => {
  it('goes no further than the newest snapshot', () => {
    const cluster = withOneBehind(6);
    cluster.compact(1, 6);
    expect(coreOf(cluster, 1).log.snapshotIndex).toBe(0);
    cluster.snapshot(1);
    write(cluster, 3);
    cluster.compact(1, 9);
    expect(coreOf(cluster, 1)).toMatchObject({
      log: { snapshotIndex: 6, lastIndex: 9 },
      snapshot: { index: 6, term: 1 },
    });
  });

  it('goes no further than what is on disk, and on as soon as it is', () => {
    const cluster = smallCluster(votersOf(3));
    elect(cluster, 1);
    cluster.propose(1, 'x');
    stabilize(
      cluster,
      () => false,
      (id) => id !== 1,
    );
    cluster.snapshot(1, 2);
    expect(coreOf(cluster, 1).log).toMatchObject({ appliedIndex: 2, persistedIndex: 1, snapshotIndex: 1 });
    cluster.flushDisk(1);
    cluster.compact(1, 2);
    expect(coreOf(cluster, 1).log.snapshotIndex).toBe(2);
  });

  it('lets one transfer be enough under endless writes, since the log it needs afterwards is kept (consul 9609)', () => {
    const cluster = withOneBehind(6);
    cluster.snapshot(1, 6);
    restart(cluster, 3);
    stabilizeWithoutTransfers(cluster);
    expect(cluster.moveTransfer(3)).toBe(true);
    for (let round = 0; round < 5; round++) {
      for (let i = 0; i < 4; i++) cluster.propose(1, 'x');
      stabilizeWithoutTransfers(cluster);
      cluster.snapshot(1, 1000);
      tick(cluster, 1, HEARTBEAT_INTERVAL_TICKS);
      stabilizeWithoutTransfers(cluster);
      expect(coreOf(cluster, 1).log.snapshotIndex).toBe(6);
      expect(cluster.node(3).transfer).toMatchObject({ index: 6, source: { index: 6 } });
    }
    stabilize(cluster);
    expect(coreOf(cluster, 3).log).toMatchObject({ snapshotIndex: 6, lastIndex: 26, commitIndex: 26 });
    expect(progressOf(cluster, 1, 3)).toMatchObject({ state: 'replicate', pendingSnapshot: 0 });
    cluster.compact(1, 1000);
    expect(coreOf(cluster, 1).log.snapshotIndex).toBe(26);
  });

  it('keeps the log for a follower with a new snapshot until it has caught up, so that it needs no other', () => {
    const cluster = withOneBehind(6);
    cluster.snapshot(1, 6);
    restart(cluster, 3);
    stabilizeWithoutTransfers(cluster);
    for (let i = 0; i < 4; i++) cluster.propose(1, 'x');
    stabilizeWithoutTransfers(cluster);
    while (cluster.moveTransfer(3));
    cluster.partitions.add('1->3');
    stabilize(cluster);
    expect(progressOf(cluster, 1, 3)).toMatchObject({ state: 'replicate', matchIndex: 6 });
    cluster.snapshot(1, 10);
    expect(coreOf(cluster, 1).log).toMatchObject({ appliedIndex: 10, snapshotIndex: 6 });
    cluster.partitions.clear();
    tick(cluster, 1, HEARTBEAT_INTERVAL_TICKS);
    stabilize(cluster);
    expect(coreOf(cluster, 3).log).toMatchObject({ snapshotIndex: 6, lastIndex: 10, commitIndex: 10 });
    tick(cluster, 1, HEARTBEAT_INTERVAL_TICKS);
    cluster.compact(1, 10);
    expect(coreOf(cluster, 1).log.snapshotIndex).toBe(10);
    // From then on it is waited for as little as any other.
    tick(cluster, 1, HEARTBEAT_INTERVAL_TICKS);
    stabilize(cluster);
    cluster.partitions.add('1->3');
    write(cluster, 2);
    cluster.snapshot(1, 12);
    expect(progressOf(cluster, 1, 3).matchIndex).toBe(10);
    expect(coreOf(cluster, 1).log.snapshotIndex).toBe(12);
  });

  it('waits for no follower that is gone, or whose transfer has stalled', () => {
    for (const end of ['linkLost', 'snapshotStalled'] as const) {
      const cluster = withOneBehind(6);
      cluster.snapshot(1, 6);
      restart(cluster, 3);
      stabilizeWithoutTransfers(cluster);
      cluster.partitions.add('1->3');
      for (let i = 0; i < 4; i++) cluster.propose(1, 'x');
      stabilizeWithoutTransfers(cluster);
      step(cluster, 1, { kind: end, peer: 3 });
      cluster.snapshot(1, 10);
      expect(coreOf(cluster, 1).log.snapshotIndex).toBe(coreOf(cluster, 1).log.appliedIndex);
    }
  });

  it('overtakes entries that are being read back for a follower: they are not sent', () => {
    for (const beyond of [0, 1]) {
      const cluster = smallCluster(votersOf(3), { cacheBytesMax: 0, appendBytesMax: 30 });
      elect(cluster, 1);
      crash(cluster, 3);
      write(cluster, 5);
      restart(cluster, 3);
      const readBackFrom = cluster.node(1).readBacks.splice(0)[0]?.fromIndex ?? 0;
      expect(readBackFrom).toBe(2);
      const entry = cluster.entryAt(cluster.node(1), readBackFrom);
      cluster.snapshot(1, readBackFrom + beyond);
      const { sendNow } = step(cluster, 1, { kind: 'readBack', peer: 3, entries: [entry] });
      expect(sendNow.map(({ kind }) => kind)).toEqual(['snapshotOffer']);
    }
  });

  it('says nothing of places that are gone to a follower that it has overtaken', () => {
    const cluster = smallCluster(votersOf(3), { flow: { inflightMessagesMax: 1, inflightBytesMax: 10_000 } });
    elect(cluster, 1);
    cluster.partitions.add('1->3');
    for (let i = 0; i < 3; i++) write(cluster, 1);
    expect(progressOf(cluster, 1, 3)).toMatchObject({ state: 'replicate', nextIndex: 3 });
    cluster.snapshot(1, 4);
    // News of commitment, whose place would be the one before the next entry; the checks look at all that is sent.
    write(cluster, 1);
    expect(progressOf(cluster, 1, 3)).toMatchObject({ state: 'replicate', nextIndex: 3 });
    tick(cluster, 1, HEARTBEAT_INTERVAL_TICKS);
    expect(progressOf(cluster, 1, 3)).toMatchObject({ state: 'snapshot', pendingSnapshot: 4 });
    cluster.partitions.clear();
    tick(cluster, 1, HEARTBEAT_INTERVAL_TICKS);
    stabilize(cluster);
    expect(coreOf(cluster, 3).log).toMatchObject({ snapshotIndex: 4, lastIndex: 5, commitIndex: 5 });
  });
});

describe('a follower that needs what is no longer in the log', () => {
  it('is found out by a probe where the log begins, fetches the snapshot and goes on behind it', () => {
    const cluster = withOneBehind(6);
    cluster.snapshot(1, 4);
    restart(cluster, 3);
    expect(cluster.wire.filter(({ to }) => to === 3)).toMatchObject([{ kind: 'append', prevIndex: 4, prevTerm: 1 }]);
    stabilizeWithoutTransfers(cluster);
    expect(cluster.node(3).transfer).toMatchObject({ from: 1, index: 6, term: 1 });
    stabilize(cluster);
    expect(coreOf(cluster, 3).log).toMatchObject({ snapshotIndex: 6, snapshotTerm: 1, appliedIndex: 6, lastIndex: 6 });
    expect(progressOf(cluster, 1, 3)).toMatchObject({ state: 'replicate', matchIndex: 6, nextIndex: 7 });
    write(cluster, 1);
    expect(coreOf(cluster, 3).log).toMatchObject({ snapshotIndex: 6, lastIndex: 7, persistedIndex: 7, commitIndex: 7 });
  });

  it('is sent no snapshot where it holds the log up to its start, whatever this leader knows of it', () => {
    const cluster = smallCluster(votersOf(3));
    elect(cluster, 1);
    write(cluster, 3);
    crash(cluster, 3);
    write(cluster, 3);
    cluster.snapshot(2, 3);
    cluster.step(1, { kind: 'transferLeadership', to: 2 });
    stabilize(cluster);
    expect(coreOf(cluster, 2)).toMatchObject({ role: 'leader', log: { snapshotIndex: 3 } });
    cluster.step(2, { kind: 'linkLost', peer: 3 });
    restart(cluster, 3);
    stabilizeWithoutTransfers(cluster);
    expect(cluster.node(3).transfer).toBeNull();
    expect(coreOf(cluster, 3).log).toMatchObject({ snapshotIndex: 0, lastIndex: 8, commitIndex: 8 });
  });

  it('says so where its log has the last entry of the snapshot, and need not fetch it', () => {
    const raft = followerWith([1, 1, 1, 1, 1], 1, 1);
    const message: Message = { kind: 'snapshotOffer', from: 1, to: 3, term: 1, snapshotIndex: 3, snapshotTerm: 1 };
    const effects = hear(raft, message);
    expect(effects).toMatchObject({ wantSnapshot: null, install: null });
    expect(acknowledgements(effects)).toEqual([3]);
    expect(raft.core.log).toMatchObject({ commitIndex: 3, appliedIndex: 0, lastIndex: 5 });
  });

  it('wants the snapshot where its log has another entry there, or none', () => {
    for (const [index, term] of [
      [3, 2],
      [6, 1],
    ] as const) {
      const raft = followerWith([1, 1, 1, 1, 1], 2, 1);
      const message: Message = {
        kind: 'snapshotOffer',
        from: 1,
        to: 3,
        term: 2,
        snapshotIndex: index,
        snapshotTerm: term,
      };
      expect(hear(raft, message)).toMatchObject({
        wantSnapshot: { from: 1, index, term },
        sendAfterPersist: [],
        install: null,
      });
      expect(raft.core.log).toMatchObject({ commitIndex: 1, lastIndex: 5 });
    }
  });

  it('wants it only once the term that it hears of with the offer is on disk', () => {
    const raft = followerWith([1, 1], 1);
    const message: Message = { kind: 'snapshotOffer', from: 1, to: 3, term: 5, snapshotIndex: 9, snapshotTerm: 5 };
    const { hardState, wantSnapshot } = hear(raft, message);
    expect(wantSnapshot).toBeNull();
    expect(hear(raft, message).wantSnapshot).toBeNull();
    stepAlone(raft, { kind: 'persisted', term: 0, index: 0, hardState });
    expect(hear(raft, message).wantSnapshot).toEqual({ from: 1, index: 9, term: 5 });
  });

  it('hears of the leader by the offer, and tells a leader of an older term of its own', () => {
    const raft = followerWith([1, 1], 2);
    for (let i = 1; i < ELECTION_TIMEOUT_TICKS; i++) stepAlone(raft, { kind: 'tick' });
    const offer = { kind: 'snapshotOffer', from: 1, to: 3, snapshotIndex: 9, snapshotTerm: 1 } as const;
    hear(raft, { ...offer, term: 2 });
    expect(raft.core).toMatchObject({ leader: 1, timerStartedAt: raft.core.now });
    const effects = hear(raft, { ...offer, from: 2, term: 1 });
    expect(effects).toMatchObject({
      wantSnapshot: null,
      sendNow: [{ kind: 'appendReply', to: 2, term: 2, success: false }],
    });
    hear(raft, { ...offer, from: 2, term: 3 });
    expect(raft.core).toMatchObject({ leader: 2, term: 3 });
  });

  it('is sent nothing but heartbeats and the offer meanwhile, with every periodic heartbeat', () => {
    const cluster = withOneBehind(6);
    cluster.snapshot(1, 6);
    restart(cluster, 3);
    stabilizeWithoutTransfers(cluster);
    for (let beat = 0; beat < 4; beat++) {
      cluster.propose(1, 'x');
      tick(cluster, 1, HEARTBEAT_INTERVAL_TICKS);
      const kinds = cluster.wire.filter(({ to }) => to === 3).map(({ kind }) => kind);
      expect(kinds).toEqual(['heartbeat', 'snapshotOffer']);
      stabilizeWithoutTransfers(cluster);
    }
  });

  it('is offered the same again while a newer one is there, so that what it has fetched of it is of use', () => {
    const cluster = withOneBehind(6);
    cluster.snapshot(1, 6);
    restart(cluster, 3);
    stabilizeWithoutTransfers(cluster);
    cluster.propose(1, 'x');
    stabilizeWithoutTransfers(cluster);
    cluster.snapshot(1);
    expect(coreOf(cluster, 1).snapshot).toMatchObject({ index: 7 });
    tick(cluster, 1, HEARTBEAT_INTERVAL_TICKS);
    const offers = cluster.wire.filter(({ kind }) => kind === 'snapshotOffer');
    expect(offers).toMatchObject([{ to: 3, snapshotIndex: 6, snapshotTerm: 1 }]);
  });

  it('is offered the snapshot again where the offer was lost', () => {
    const cluster = withOneBehind(6);
    cluster.snapshot(1, 6);
    restart(cluster, 3);
    stabilize(cluster, ({ kind }) => kind === 'snapshotOffer');
    expect(cluster.node(3).transfer).toBeNull();
    tick(cluster, 1, HEARTBEAT_INTERVAL_TICKS);
    stabilize(cluster);
    expect(coreOf(cluster, 3).log.commitIndex).toBe(6);
  });

  it('is offered it again where its acknowledgement was lost, and acknowledges again', () => {
    const cluster = withOneBehind(6);
    cluster.snapshot(1, 6);
    restart(cluster, 3);
    stabilize(cluster, (message) => message.kind === 'appendReply' && message.from === 3 && message.success);
    expect(coreOf(cluster, 3).log.commitIndex).toBe(6);
    expect(progressOf(cluster, 1, 3).state).toBe('snapshot');
    tick(cluster, 1, HEARTBEAT_INTERVAL_TICKS);
    stabilize(cluster);
    expect(progressOf(cluster, 1, 3)).toMatchObject({ state: 'replicate', matchIndex: 6 });
  });

  it('may die while it fetches: it is looked for again when it is back (dgraph 2707)', () => {
    const cluster = withOneBehind(6);
    cluster.snapshot(1, 6);
    restart(cluster, 3);
    stabilizeWithoutTransfers(cluster);
    cluster.moveTransfer(3);
    crash(cluster, 3);
    expect(progressOf(cluster, 1, 3)).toMatchObject({ state: 'probe', pendingSnapshot: 0, maySend: false });
    write(cluster, 2);
    cluster.snapshot(1, 8);
    restart(cluster, 3);
    stabilize(cluster);
    expect(coreOf(cluster, 3).log).toMatchObject({ snapshotIndex: 8, commitIndex: 8 });
  });

  it('is looked for again where it fetches nothing for too long, and offered the newest', () => {
    const cluster = withOneBehind(6);
    cluster.snapshot(1, 6);
    restart(cluster, 3);
    stabilizeWithoutTransfers(cluster);
    cluster.node(3).transfer = null;
    cluster.propose(1, 'x');
    stabilizeWithoutTransfers(cluster);
    cluster.snapshot(1);
    step(cluster, 1, { kind: 'snapshotStalled', peer: 3 });
    expect(cluster.wire).toMatchObject([{ kind: 'append', to: 3, prevIndex: 6 }]);
    stabilize(cluster);
    expect(coreOf(cluster, 3).log).toMatchObject({ snapshotIndex: 7, commitIndex: 7 });
  });

  it('is left alone by news of a transfer where none runs', () => {
    const cluster = withOneBehind(3);
    for (const [id, peer] of [
      [1, 2],
      [1, 9],
      [2, 1],
    ] as const) {
      expect(step(cluster, id, { kind: 'snapshotStalled', peer })).toMatchObject({ sendNow: [], sendAfterPersist: [] });
    }
    expect(progressOf(cluster, 1, 2).state).toBe('replicate');
  });

  it('may get it from a leader that leads no more, and goes on from there with the new one', () => {
    const cluster = withOneBehind(6);
    cluster.snapshot(1, 6);
    restart(cluster, 3);
    stabilizeWithoutTransfers(cluster);
    cluster.moveTransfer(3);
    // The next leader has a newer snapshot, but its log still reaches back to where the older one ends.
    cluster.propose(1, 'x');
    stabilizeWithoutTransfers(cluster);
    cluster.snapshot(2, 6);
    cluster.step(1, { kind: 'transferLeadership', to: 2 });
    stabilizeWithoutTransfers(cluster);
    expect(coreOf(cluster, 2).role).toBe('leader');
    expect(progressOf(cluster, 2, 3)).toMatchObject({ state: 'snapshot', pendingSnapshot: 7 });
    while (cluster.moveTransfer(3));
    expect(coreOf(cluster, 3).log).toMatchObject({ snapshotIndex: 6, commitIndex: 6 });
    stabilize(cluster);
    expect(coreOf(cluster, 3).log).toMatchObject({ snapshotIndex: 6, lastIndex: 8, commitIndex: 8 });
    expect(cluster.node(3).transfer).toBeNull();
  });

  it('can’t be helped by a leader without a snapshot, which must not happen', () => {
    const cluster = withOneBehind(6);
    cluster.snapshot(1, 6);
    coreOf(cluster, 1).snapshot = null;
    const refusal = { index: 6, hintIndex: 1, hintTerm: 1, directoryId: 0, withoutRights: false, diskFull: false };
    const message: Message = { kind: 'appendReply', from: 3, to: 1, term: 1, success: false, ...refusal };
    const raft = cluster.node(1).raft;
    raft?.step({ kind: 'linkUp', peer: 3 });
    expect(() => raft?.step({ kind: 'receive', message })).toThrow(/begins after entry 6, but the newest .* ends at 0/);
  });
});

describe('a snapshot that was received', () => {
  it('takes the place of a log that has another entry there, with all that follows it', () => {
    const raft = followerWith([1, 1, 2, 2, 2, 2], 4, 2);
    const effects = receive(raft, 4, 3);
    expect(effects).toMatchObject({ install: { index: 4, term: 3, resetLog: true }, append: [] });
    expect(acknowledgements(effects)).toEqual([4]);
    const core = raft.core;
    expect(core.log).toMatchObject({ snapshotIndex: 4, snapshotTerm: 3, lastIndex: 4, lastTerm: 3, persistedIndex: 4 });
    expect(core).toMatchObject({ log: { commitIndex: 4, appliedIndex: 4 }, snapshot: { index: 4, term: 3 } });
  });

  it('takes the place of a log that ends before it', () => {
    const raft = followerWith([1, 1], 1, 2);
    expect(receive(raft, 9, 1)).toMatchObject({ install: { index: 9, term: 1, resetLog: true } });
    expect(raft.core.log).toMatchObject({ snapshotIndex: 9, lastIndex: 9 });
  });

  it('leaves a log alone that agrees with it, and what follows it there is no more committed than before', () => {
    const raft = followerWith([1, 1, 1, 1, 1], 2, 1);
    const effects = receive(raft, 3, 1);
    expect(effects).toMatchObject({ install: { index: 3, term: 1, resetLog: false } });
    expect(acknowledgements(effects)).toEqual([3]);
    expect(raft.core.log).toMatchObject({ snapshotIndex: 0, commitIndex: 3, appliedIndex: 3, lastIndex: 5 });
    expect(raft.core.snapshot).toEqual({ index: 3, term: 1 });
  });

  it('changes nothing where all of it is committed here already, but is acknowledged, and is the newest there is', () => {
    const raft = followerWith([1, 1, 1, 1, 1], 2, 4);
    const effects = receive(raft, 3, 1);
    expect(effects.install).toBeNull();
    expect(acknowledgements(effects)).toEqual([4]);
    expect(raft.core).toMatchObject({ snapshot: { index: 3 }, log: { commitIndex: 4, lastIndex: 5 } });
    receive(raft, 2, 1);
    expect(raft.core.snapshot).toEqual({ index: 3, term: 1 });
  });

  it('is not acknowledged while no leader', () => {
    const raft = followerWith([1, 1], 1, 1);
    stepAlone(raft, { kind: 'linkLost', peer: 1 });
    const effects = receive(raft, 9, 1);
    expect(effects).toMatchObject({ install: { index: 9 }, sendNow: [], sendAfterPersist: [] });
  });

  it('ends a campaign, since its votes were given to the log that is gone', () => {
    const raft = followerWith([1, 1, 1], 1, 1);
    for (let i = 0; i < 2 * ELECTION_TIMEOUT_TICKS; i++) stepAlone(raft, { kind: 'tick' });
    expect(raft.core.role).toBe('preCandidate');
    receive(raft, 9, 1);
    expect(raft.core).toMatchObject({ role: 'follower', leader: 0 });
  });

  it('is never put in place of a leader’s log', () => {
    const cluster = smallCluster(votersOf(3));
    elect(cluster, 1);
    const raft = cluster.node(1).raft;
    const input = { kind: 'snapshotReceived', index: 9, term: 1, configuration: configurationOf([1, 2, 3]) } as const;
    expect(() => raft?.step(input)).toThrow(/is leader but lacks the committed entry 9@1/);
  });

  it('brings its configuration with it, and undoes what the log that is gone had changed (openraft 1808)', () => {
    const raft = followerWith([1, 1], 2, 2);
    const bytes = encodeConfiguration(configurationOf([1, 2, 3, 4, 5]), ENTRY_HEADER_BYTES);
    const entry = sealEntry(bytes, 'configuration', 1, 3);
    hear(raft, appendOf(2, 1, [entry], 2));
    expect(members(raft.core.configurations.current)).toEqual([1, 2, 3, 4, 5]);
    const effects = receive(raft, 3, 2);
    expect(members(raft.core.configurations.current)).toEqual([1, 2, 3]);
    expect(effects.configuration).toEqual(configurationOf([1, 2, 3]));
  });

  it('keeps a change of members that follows it in a log that agrees with it', () => {
    const raft = followerWith([1, 1, 1], 1, 1);
    const bytes = encodeConfiguration(configurationOf([1, 2, 3, 4, 5]), ENTRY_HEADER_BYTES);
    const entry = sealEntry(bytes, 'configuration', 1, 4);
    hear(raft, appendOf(3, 1, [entry]));
    receive(raft, 3, 1);
    expect(members(raft.core.configurations.current)).toEqual([1, 2, 3, 4, 5]);
  });
});

describe('old news about a log that now begins later', () => {
  /** A follower whose log begins at 4@3 and holds 5@3. */
  function installed(): Raft {
    const raft = followerWith([1, 1, 2, 2, 2, 2], 4, 2);
    receive(raft, 4, 3);
    hear(raft, appendOf(4, 3, [entryOf(3, 5)], 4, 4));
    return raft;
  }

  it('matches below its start without being looked at (openraft 511)', () => {
    const raft = installed();
    const old = appendOf(1, 1, [entryOf(1, 2), entryOf(2, 3)], 4, 2);
    const effects = hear(raft, old);
    expect(effects).toMatchObject({ append: [] });
    expect(acknowledgements(effects)).toEqual([4]);
    expect(raft.core.log).toMatchObject({ snapshotIndex: 4, lastIndex: 5, commitIndex: 4 });
  });

  it('truncates nothing where the entries reach over its start (openraft 9540c904)', () => {
    const raft = installed();
    const old = appendOf(2, 1, [entryOf(3, 3), entryOf(3, 4)], 4, 4);
    const effects = hear(raft, old);
    expect(effects).toMatchObject({ append: [] });
    expect(raft.core.log).toMatchObject({ lastIndex: 5, commitIndex: 4 });
  });

  it('counts a write that was on its way when the log was dropped as nothing (ra 637)', () => {
    const raft = followerWith([1, 1], 2, 2);
    hear(raft, appendOf(2, 1, [entryOf(1, 3), entryOf(1, 4), entryOf(1, 5)], 2));
    receive(raft, 4, 2);
    stepAlone(raft, { kind: 'persisted', term: 1, index: 5, hardState: null });
    expect(raft.core.log).toMatchObject({ persistedIndex: 4, lastIndex: 4 });
  });

  it('takes back nothing that is applied, where the state machine was slower than the snapshot', () => {
    const raft = installed();
    stepAlone(raft, { kind: 'applied', index: 2 });
    expect(raft.core.log.appliedIndex).toBe(4);
  });

  it('commits nothing by a place that the log does not have', () => {
    const raft = installed();
    for (const index of [2, 3, 9]) {
      const message: Message = { kind: 'commit', from: 1, to: 3, term: 4, index, indexTerm: 2, commitIndex: 9 };
      hear(raft, message);
      expect(raft.core.log.commitIndex).toBe(4);
    }
  });

  it('makes a leader give up where a follower says that it holds what was never written', () => {
    const cluster = smallCluster(votersOf(3));
    elect(cluster, 1);
    const message: Message = {
      kind: 'appendReply',
      from: 2,
      to: 1,
      term: 1,
      success: true,
      index: 9,
      hintIndex: 0,
      hintTerm: 0,
      directoryId: 0,
      withoutRights: false,
      diskFull: false,
    };
    expect(() => cluster.step(1, { kind: 'receive', message })).toThrow(/acknowledges entry 9/);
  });
});

describe('a restart', () => {
  it('begins with the snapshot and the tail of the log before and behind it', () => {
    const cluster = withOneBehind(6);
    cluster.snapshot(1, 4);
    write(cluster, 2);
    cluster.crash(1);
    cluster.start(1);
    expect(coreOf(cluster, 1)).toMatchObject({
      snapshot: { index: 6, term: 1 },
      log: { snapshotIndex: 4, snapshotTerm: 1, appliedIndex: 6, commitIndex: 6, lastIndex: 8 },
    });
    elect(cluster, 2);
    write(cluster, 1, 2);
    expect(coreOf(cluster, 1).log).toMatchObject({ snapshotIndex: 4, lastIndex: 10, commitIndex: 10 });
  });

  it('begins with a snapshot that was received, where the log had no time to follow (RedisRaft 43)', () => {
    for (const told of [false, true]) {
      const cluster = withOneBehind(6);
      cluster.snapshot(1, 6);
      restart(cluster, 3);
      stabilizeWithoutTransfers(cluster);
      cluster.moveTransfer(3);
      cluster.moveTransfer(3);
      if (told) cluster.moveTransfer(3);
      expect(cluster.node(3).disk).toMatchObject({ snapshot: { index: 6 }, start: { index: 0 } });
      crash(cluster, 3);
      cluster.wire = [];
      restart(cluster, 3);
      expect(coreOf(cluster, 3).log).toMatchObject({ snapshotIndex: 6, appliedIndex: 6, lastIndex: 6 });
      stabilize(cluster);
      write(cluster, 1);
      expect(coreOf(cluster, 3).log).toMatchObject({ lastIndex: 7, commitIndex: 7 });
    }
  });

  it('of all nodes, with nothing but snapshots left, still has all that was committed', () => {
    const cluster = withOneBehind(6);
    restart(cluster, 3);
    stabilize(cluster);
    for (const id of [1, 2, 3]) {
      cluster.snapshot(id, 6);
      cluster.crash(id);
      cluster.start(id);
    }
    elect(cluster, 3);
    write(cluster, 1, 3);
    for (const id of [1, 2, 3]) {
      expect(coreOf(cluster, id).log).toMatchObject({ snapshotIndex: 6, lastIndex: 8, commitIndex: 8 });
    }
  });
});
