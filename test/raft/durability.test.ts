import { describe, expect, it } from 'vitest';
import { Raft } from '../../src/raft/raft.ts';
import { sealEntry } from '../../src/raft/state/entry.ts';
import type { Entry, HardState, Message } from '../../src/raft/state/types.ts';
import { batchOf } from './core-cluster.ts';
import { SimulatedDisk } from './simulated-disk.ts';
import { votersOf } from './small-cluster.ts';

/** Node 3 of three, by itself, with a disk. */
function startOn(disk: SimulatedDisk): Raft {
  return new Raft({
    id: 3,
    configurations: [{ index: 0, configuration: votersOf(3) }],
    snapshot: null,
    lifecycle: 'normal',
    directoryId: 0,
    log: disk.recover(1_000_000),
    hardState: disk.hardState,
    electionTimeoutTicks: 10,
    heartbeatIntervalTicks: 3,
    appendBytesMax: 1000,
    flow: { inflightMessagesMax: 8, inflightBytesMax: 10_000 },
    random: () => 0,
  });
}

function receive(raft: Raft, disk: SimulatedDisk, message: Message): readonly Message[] {
  const effects = raft.step({ kind: 'receive', message });
  return [...effects.sendNow, ...disk.submit(effects)];
}

function append(from: number, term: number, entries: readonly Entry[], commitIndex: number): Message {
  return { kind: 'append', from, to: 3, term, prevIndex: 0, prevTerm: 0, commitIndex, entries };
}

const entriesOf = (term: number, ...payloads: readonly string[]) =>
  payloads.map((payload, i) => sealEntry(batchOf(payload), 'data', term, i + 1));

/** Writes everything, and tells the core. */
function persistAll(raft: Raft, disk: SimulatedDisk): void {
  while (disk.persistNext());
  for (const { entries, hardState } of disk.completed.splice(0)) {
    const last = entries.at(-1);
    raft.step({ kind: 'persisted', term: last?.term ?? 0, index: last?.index ?? 0, hardState });
  }
}

describe('what a crash leaves', () => {
  it('is never a conflicting entry taken for committed, where only the hard state of a write arrived', () => {
    const disk = new SimulatedDisk();
    const raft = startOn(disk);
    receive(raft, disk, append(1, 1, entriesOf(1, 'old', 'old'), 0));
    persistAll(raft, disk);
    receive(raft, disk, append(2, 2, entriesOf(2, 'new', 'new'), 2));
    expect(raft.core.log.commitIndex).toBe(2);
    disk.crash(1);
    expect(disk.hardState.term).toBe(2);
    expect(disk.termAt(2)).toBe(1);
    expect(startOn(disk).core.log.commitIndex).toBe(0);
  });

  it('tells a restart what was committed before the write', () => {
    const disk = new SimulatedDisk();
    const raft = startOn(disk);
    receive(raft, disk, append(1, 1, entriesOf(1, 'a', 'b'), 1));
    receive(raft, disk, {
      kind: 'heartbeat',
      from: 2,
      to: 3,
      term: 2,
      commitIndex: 0,
      directoryId: 0,
      round: 1,
      clusterFull: false,
    });
    persistAll(raft, disk);
    disk.crash(0);
    expect(startOn(disk).core.log.commitIndex).toBe(1);
  });
});

describe('a restart', () => {
  it('takes no more for committed than its log holds, whatever its hard state says', () => {
    const disk = new SimulatedDisk();
    disk.entries.push(...entriesOf(1, 'a', 'b'));
    disk.hardState = { term: 1, vote: 1, commitIndex: 5 };
    expect(startOn(disk).core).toMatchObject({ term: 1, vote: 1, log: { commitIndex: 2, persistedIndex: 2 } });
  });
});

describe('completions from the disk', () => {
  it('do not count for entries that have been replaced since (ra 637)', () => {
    const disk = new SimulatedDisk();
    const raft = startOn(disk);
    receive(raft, disk, append(1, 1, entriesOf(1, 'a', 'b', 'c'), 0));
    receive(raft, disk, append(2, 2, entriesOf(2, 'x', 'y', 'z'), 0));
    const term1: HardState = { term: 1, vote: 0, commitIndex: 0 };
    raft.step({ kind: 'persisted', term: 1, index: 3, hardState: term1 });
    expect(raft.core.log.persistedIndex).toBe(0);
    raft.step({ kind: 'persisted', term: 2, index: 3, hardState: { term: 2, vote: 0, commitIndex: 0 } });
    expect(raft.core.log.persistedIndex).toBe(3);
  });

  it('never take progress back, in whatever order they come (openraft 1960)', () => {
    const disk = new SimulatedDisk();
    const raft = startOn(disk);
    receive(raft, disk, append(1, 1, entriesOf(1, 'a', 'b', 'c'), 0));
    receive(raft, disk, {
      kind: 'heartbeat',
      from: 2,
      to: 3,
      term: 2,
      commitIndex: 0,
      directoryId: 0,
      round: 1,
      clusterFull: false,
    });
    raft.step({ kind: 'persisted', term: 1, index: 3, hardState: { term: 2, vote: 0, commitIndex: 0 } });
    raft.step({ kind: 'persisted', term: 1, index: 1, hardState: { term: 1, vote: 0, commitIndex: 0 } });
    expect(raft.core.log.persistedIndex).toBe(3);
    // A hard state thought to be pending would make every answer wait for the disk.
    const heartbeat: Message = {
      kind: 'heartbeat',
      from: 2,
      to: 3,
      term: 2,
      commitIndex: 0,
      directoryId: 0,
      round: 2,
      clusterFull: false,
    };
    expect(raft.step({ kind: 'receive', message: heartbeat }).sendNow).toHaveLength(1);
  });

  it('let acknowledgements go, and nothing does before', () => {
    const disk = new SimulatedDisk();
    const raft = startOn(disk);
    const sent = receive(raft, disk, append(1, 1, entriesOf(1, 'a'), 0));
    expect(sent).toEqual([]);
    expect(disk.pending[0]?.messages).toMatchObject([{ kind: 'appendReply', success: true, index: 1 }]);
    const again = receive(raft, disk, append(1, 1, entriesOf(1, 'a'), 0));
    expect(again).toEqual([]);
    expect(disk.pending[0]?.messages).toHaveLength(2);
  });
});
