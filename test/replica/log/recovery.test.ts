import { describe, expect, it } from 'vitest';
import { silentLogger } from '../../../src/base/logger.ts';
import { StateMachine } from '../../../src/kv/state-machine.ts';
import { Op } from '../../../src/kv/types.ts';
import { configurationOf, encodeConfiguration } from '../../../src/raft/state/configuration.ts';
import { emptyEffects } from '../../../src/raft/state/core.ts';
import { ENTRY_HEADER_BYTES, sealEntry } from '../../../src/raft/state/entry.ts';
import type { Entry, HardState } from '../../../src/raft/state/types.ts';
import { encodeHardState, Persister } from '../../../src/replica/log/persister.ts';
import { LogRecovery } from '../../../src/replica/log/recovery.ts';
import type { LogBase } from '../../../src/storage/wal/types.ts';
import { openWal } from '../../../src/storage/wal/wal.ts';
import { MemoryDisk } from '../../support/memory-disk.ts';
import { seededRandom } from '../../support/random.ts';
import { batchOf, ManualClock } from '../support.ts';

function dataEntry(index: number, term: number, value = `${index}@${term}`): Entry {
  const batch = batchOf(`k${index}`, value, { sessionId: 1, sequence: index });
  return sealEntry(batch, 'data', term, index);
}

function hardState(term: number, commitIndex: number): Buffer {
  return encodeHardState({ term, vote: 2, commitIndex });
}

function feed(recovery: LogRecovery, ...records: (Entry | Buffer)[]): LogRecovery {
  for (const record of records) {
    if (Buffer.isBuffer(record)) recovery.onHardState(record);
    else recovery.onEntry(record.index, record.bytes);
  }
  return recovery;
}

const BLANK = { index: 0, term: 0 };

function recoveryFrom({ index, term }: LogBase, cacheBytesMax?: number): LogRecovery {
  const stateMachine = new StateMachine();
  for (let i = 1; i <= index; i++)
    stateMachine.apply(dataEntry(i, 1, 'of the snapshot').bytes, ENTRY_HEADER_BYTES, null);
  return new LogRecovery({ index, term, configuration: configurationOf([1, 2, 3]), stateMachine }, cacheBytesMax);
}

function configurationEntry(index: number, term: number, voters: number[]): Entry {
  return sealEntry(encodeConfiguration(configurationOf(voters), ENTRY_HEADER_BYTES), 'configuration', term, index);
}

describe('recovery', () => {
  it('applies what the file knows to be committed, and keeps the rest for the leader to decide', () => {
    const recovery = feed(recoveryFrom(BLANK), dataEntry(1, 1), dataEntry(2, 1), hardState(3, 1), dataEntry(3, 3));
    const { log, stateMachine } = recovery;
    expect(recovery.hardState).toEqual({ term: 3, vote: 2, commitIndex: 1 });
    expect([log.lastIndex, log.persistedIndex, log.commitIndex, log.appliedIndex]).toEqual([3, 3, 1, 1]);
    expect([log.termAt(1), log.termAt(2), log.termAt(3)]).toEqual([1, 1, 3]);
    expect(stateMachine.get('k1')?.value).toBe('1@1');
    expect(stateMachine.get('k2')).toBeUndefined();
  });

  it('goes by the last hard state, and never takes a commit back', () => {
    const records = [dataEntry(1, 1), dataEntry(2, 1), hardState(1, 2), hardState(5, 0)];
    const recovery = feed(recoveryFrom(BLANK), ...records);
    expect(recovery.hardState.term).toBe(5);
    expect(recovery.log.commitIndex).toBe(2);
    expect(recovery.stateMachine.get('k2')?.value).toBe('2@1');
  });

  it('lets a later entry of an index replace the earlier one and all behind it', () => {
    const old = [dataEntry(1, 1), dataEntry(2, 1), dataEntry(3, 1), dataEntry(4, 1), hardState(1, 1)];
    const recovery = feed(recoveryFrom(BLANK), ...old, dataEntry(2, 2), dataEntry(3, 2), hardState(2, 3));
    const { log, stateMachine } = recovery;
    expect([log.lastIndex, log.termAt(2), log.termAt(3), log.termAt(4)]).toEqual([3, 2, 2, -1]);
    expect([1, 2, 3, 4].map((i) => stateMachine.get(`k${i}`)?.value)).toEqual(['1@1', '2@2', '3@2', undefined]);
  });

  it('keeps no view of the bytes that it was shown', () => {
    const entry = dataEntry(1, 1);
    const recovery = feed(recoveryFrom(BLANK), entry);
    entry.bytes.fill(0);
    feed(recovery, hardState(1, 1));
    expect(recovery.stateMachine.get('k1')?.value).toBe('1@1');
  });

  it('holds no more of the log in memory than the cache may, and leaves what has gone to be read back', () => {
    const cacheBytesMax = 8 * 1024;
    const recovery = recoveryFrom(BLANK, cacheBytesMax);
    for (let index = 1; index <= 1000; index++) feed(recovery, dataEntry(index, 1, 'x'.repeat(200)));
    feed(recovery, hardState(1, 900));
    const { log } = recovery;
    expect(log.slice(log.firstCachedIndex, Number.POSITIVE_INFINITY).length).toBeLessThan((8 * 1024) / 200);
    expect([log.lastIndex, log.commitIndex, log.appliedIndex]).toEqual([1000, 900, 0]);
  });

  it('applies along the way what the hints allow, so that a log larger than the cache needs no second reading', () => {
    const recovery = recoveryFrom(BLANK, 8 * 1024);
    for (let index = 1; index <= 1000; index++) {
      feed(recovery, dataEntry(index, 1, 'x'.repeat(200)));
      if (index % 10 === 0) feed(recovery, hardState(1, index));
    }
    expect(recovery.log.appliedIndex).toBe(1000);
    expect(recovery.stateMachine.items).toBe(1000);
  });

  it('calls it damage where committed entries are missing', () => {
    const recovery = feed(recoveryFrom(BLANK), dataEntry(1, 1), hardState(1, 2));
    expect(() => recovery.finish()).toThrow(expect.objectContaining({ code: 'WAL_DAMAGED' }));
  });

  it('waits for committed entries that come behind what speaks of them, where the log once was repaired', () => {
    const recovery = feed(recoveryFrom(BLANK), hardState(5, 2), dataEntry(1, 1), dataEntry(2, 1), dataEntry(3, 5));
    expect(recovery.finish()).toBeNull();
    expect([recovery.log.commitIndex, recovery.log.appliedIndex]).toEqual([2, 2]);
  });

  it('rebuilds from a real log the very state that was committed, whatever was truncated and replaced in between', async () => {
    const disk = new MemoryDisk();
    const clock = new ManualClock().forProcess(() => true);
    const open = async (sink: LogRecovery, mustExist: boolean) => {
      const place = { disk, clock, directory: '/wal', clusterName: 'test', mustExist, random: seededRandom(1) };
      const rest = { begin: BLANK, onDamage: null, onFull: () => {} };
      const { wal } = await openWal({ ...place, ...rest, onFatal: fail, logger: silentLogger, sink });
      return wal;
    };
    const wal = await open(recoveryFrom(BLANK), false);
    const persister = new Persister(wal, () => {});
    const expected = writeHistory(persister, seededRandom(7));
    await wal.close();

    const recovery = recoveryFrom(BLANK, 128 * 1024);
    await open(recovery, true);
    expect(recovery.log.lastIndex).toBe(expected.entries.length);
    for (const { index, term } of expected.entries) expect(recovery.log.termAt(index)).toBe(term);
    expect(recovery.hardState).toEqual(expected.hardState);
    const replayed = new StateMachine();
    for (const { bytes } of expected.entries.slice(0, recovery.log.appliedIndex)) {
      replayed.apply(bytes, ENTRY_HEADER_BYTES, null);
    }
    expect(recovery.log.appliedIndex).toBeGreaterThan(0);
    expect(recovery.stateMachine.hash()).toBe(replayed.hash());
  });
});

describe('recovery behind a snapshot', () => {
  const S = { index: 5, term: 1 };
  const entries = (from: number, to: number, term = 1) =>
    Array.from({ length: to - from + 1 }, (_, i) => dataEntry(from + i, term));

  it('begins where the snapshot ends when the log holds nothing', () => {
    const recovery = recoveryFrom(S);
    expect(recovery.finish()).toBeNull();
    const { log } = recovery;
    expect([log.snapshotIndex, log.lastIndex, log.commitIndex, log.appliedIndex]).toEqual([5, 5, 5, 5]);
  });

  it('keeps a log that reaches back behind the snapshot, and applies only what comes after', () => {
    const recovery = feed(recoveryFrom(S), ...entries(3, 8), hardState(1, 7));
    expect(recovery.finish()).toBeNull();
    const { log, stateMachine } = recovery;
    // The first entry stands for all before it: its own predecessor's term is not known.
    expect([log.snapshotIndex, log.snapshotTerm, log.lastIndex, log.commitIndex, log.appliedIndex]).toEqual([
      3, 1, 8, 7, 7,
    ]);
    expect(log.cached(4)?.index).toBe(4);
    expect([5, 6, 7, 8].map((i) => stateMachine.get(`k${i}`)?.value)).toEqual([
      'of the snapshot',
      '6@1',
      '7@1',
      undefined,
    ]);
    expect(recovery.bytesBehindBase).toBe(entries(6, 8).reduce((sum, { bytes }) => sum + bytes.length, 0));
  });

  it('keeps a whole log from its first entry on', () => {
    const recovery = feed(recoveryFrom(S), ...entries(1, 8));
    expect(recovery.finish()).toBeNull();
    const { log } = recovery;
    expect([log.snapshotIndex, log.lastIndex, log.commitIndex, log.appliedIndex]).toEqual([0, 8, 5, 5]);
  });

  it('resets the log if it does not hold what the snapshot ends with', () => {
    for (const held of [entries(1, 4), entries(1, 8, 3), [...entries(1, 8, 3), ...entries(4, 4, 4)]]) {
      const recovery = feed(recoveryFrom(S), ...held, hardState(4, 3));
      expect(recovery.finish()).toEqual(S);
      const { log } = recovery;
      expect([log.snapshotIndex, log.lastIndex, log.commitIndex, log.appliedIndex]).toEqual([5, 5, 5, 5]);
      expect(recovery.hardState).toMatchObject({ term: 4, vote: 2 });
      expect(recovery.stateMachine.get('k4')?.value).toBe('of the snapshot');
    }
  });

  it('follows a log that was reset, be it before the snapshot or just where it ends', () => {
    for (const index of [2, 5]) {
      const recovery = feed(recoveryFrom(S), ...entries(1, 9, 2));
      recovery.onLogReset(index, 1);
      feed(recovery, ...entries(index + 1, 7), hardState(1, 6));
      expect(recovery.finish()).toBeNull();
      const { log } = recovery;
      expect([log.snapshotIndex, log.lastIndex, log.commitIndex, log.appliedIndex]).toEqual([index, 7, 6, 6]);
      expect(recovery.stateMachine.get('k6')?.value).toBe('6@1');
    }
  });

  it('begins again where entries before its first are written again', () => {
    const recovery = feed(recoveryFrom(S), ...entries(4, 6), ...entries(3, 3, 1), ...entries(4, 7));
    expect(recovery.finish()).toBeNull();
    const { log } = recovery;
    expect([log.snapshotIndex, log.lastIndex, log.commitIndex]).toEqual([3, 7, 5]);
  });

  it('has the configuration of the snapshot, and those that the log has behind it', () => {
    const log = [...entries(4, 4), configurationEntry(5, 1, [9]), configurationEntry(6, 1, [1, 2]), dataEntry(7, 1)];
    const recovery = feed(recoveryFrom(S), ...log, configurationEntry(8, 1, [1]), dataEntry(8, 2));
    recovery.finish();
    const voters = recovery.configurations.map(({ index, configuration }) => [index, configuration.voters]);
    expect(voters).toEqual([
      [5, [1, 2, 3]],
      [6, [1, 2]],
    ]);
  });

  it('forgets the configurations of a log that has to be reset', () => {
    const recovery = feed(recoveryFrom(S), ...entries(1, 5, 2), configurationEntry(6, 2, [1]));
    expect(recovery.finish()).toEqual(S);
    expect(recovery.configurations.map(({ index }) => index)).toEqual([5]);
  });
});

function fail(error: unknown): never {
  throw error;
}

/** Two thousand writes as a follower makes them: appends, commits, and now and then a new term that truncates the tail. */
function writeHistory(persister: Persister, random: () => number): { entries: Entry[]; hardState: HardState } {
  const entries: Entry[] = [];
  let term = 1;
  let commitIndex = 0;
  for (let step = 0; step < 2000; step++) {
    const truncates = random() < 0.05;
    if (truncates) {
      term++;
      entries.length = commitIndex + Math.floor(random() * (entries.length - commitIndex + 1));
    }
    const append: Entry[] = [];
    const from = entries.length;
    for (let i = 0; i < 1 + random() * 4; i++) {
      const batch = batchOf('n', `${term}.${step}.${i}`, { op: Op.set, sequence: from + i + 1 });
      append.push(sealEntry(batch, 'data', term, from + i + 1));
    }
    entries.push(...append);
    commitIndex += Math.floor(random() * (entries.length - commitIndex + 1));
    const hardState = truncates ? { term, vote: 0, commitIndex } : null;
    persister.persist({ ...emptyEffects(), hardState, append }, { term, vote: 0, commitIndex });
  }
  const hardState = { term, vote: 0, commitIndex };
  persister.record(hardState);
  return { entries, hardState };
}
