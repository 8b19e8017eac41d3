import { describe, expect, it } from 'vitest';
import { silentLogger } from '../../src/base/logger.ts';
import { StateMachine } from '../../src/kv/state-machine.ts';
import { Op } from '../../src/kv/types.ts';
import { emptyEffects } from '../../src/raft/core.ts';
import { ENTRY_HEADER_BYTES, sealEntry } from '../../src/raft/entry.ts';
import type { Entry, HardState } from '../../src/raft/types.ts';
import { encodeHardState, Persister } from '../../src/replica/persister.ts';
import { LogRecovery } from '../../src/replica/recovery.ts';
import { openWal } from '../../src/storage/wal.ts';
import { MemoryDisk } from '../support/memory-disk.ts';
import { seededRandom } from '../support/random.ts';
import { batchOf, ManualClock } from './support.ts';

function dataEntry(index: number, term: number, value = `${index}@${term}`): Entry {
  const batch = batchOf(`k${index}`, value, { session: 1, sequence: index });
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

describe('recovery', () => {
  it('applies what the file knows to be committed, and keeps the rest for the leader to decide', () => {
    const recovery = feed(new LogRecovery(), dataEntry(1, 1), dataEntry(2, 1), hardState(3, 1), dataEntry(3, 3));
    const { log, stateMachine } = recovery;
    expect(recovery.hardState).toEqual({ term: 3, vote: 2, commitIndex: 1 });
    expect([log.lastIndex, log.persistedIndex, log.commitIndex, log.appliedIndex]).toEqual([3, 3, 1, 1]);
    expect([log.termAt(1), log.termAt(2), log.termAt(3)]).toEqual([1, 1, 3]);
    expect(stateMachine.get('k1')?.value).toBe('1@1');
    expect(stateMachine.get('k2')).toBeUndefined();
  });

  it('goes by the last hard state, and never takes a commit back', () => {
    const records = [dataEntry(1, 1), dataEntry(2, 1), hardState(1, 2), hardState(5, 0)];
    const recovery = feed(new LogRecovery(), ...records);
    expect(recovery.hardState.term).toBe(5);
    expect(recovery.log.commitIndex).toBe(2);
    expect(recovery.stateMachine.get('k2')?.value).toBe('2@1');
  });

  it('lets a later entry of an index replace the earlier one and all behind it', () => {
    const old = [dataEntry(1, 1), dataEntry(2, 1), dataEntry(3, 1), dataEntry(4, 1), hardState(1, 1)];
    const recovery = feed(new LogRecovery(), ...old, dataEntry(2, 2), dataEntry(3, 2), hardState(2, 3));
    const { log, stateMachine } = recovery;
    expect([log.lastIndex, log.termAt(2), log.termAt(3), log.termAt(4)]).toEqual([3, 2, 2, -1]);
    expect([1, 2, 3, 4].map((i) => stateMachine.get(`k${i}`)?.value)).toEqual(['1@1', '2@2', '3@2', undefined]);
  });

  it('keeps no view of the bytes that it was shown', () => {
    const entry = dataEntry(1, 1);
    const recovery = feed(new LogRecovery(), entry);
    entry.bytes.fill(0);
    feed(recovery, hardState(1, 1));
    expect(recovery.stateMachine.get('k1')?.value).toBe('1@1');
  });

  it('holds no more of the log in memory than the cache may, and leaves what has gone to be read back', () => {
    const cacheBytesMax = 8 * 1024;
    const recovery = new LogRecovery(cacheBytesMax);
    for (let index = 1; index <= 1000; index++) feed(recovery, dataEntry(index, 1, 'x'.repeat(200)));
    feed(recovery, hardState(1, 900));
    const { log } = recovery;
    expect(log.slice(log.firstCachedIndex, Number.POSITIVE_INFINITY).length).toBeLessThan((8 * 1024) / 200);
    expect([log.lastIndex, log.commitIndex, log.appliedIndex]).toEqual([1000, 900, 0]);
  });

  it('applies along the way what the hints allow, so that a log larger than the cache needs no second reading', () => {
    const recovery = new LogRecovery(8 * 1024);
    for (let index = 1; index <= 1000; index++) {
      feed(recovery, dataEntry(index, 1, 'x'.repeat(200)));
      if (index % 10 === 0) feed(recovery, hardState(1, index));
    }
    expect(recovery.log.appliedIndex).toBe(1000);
    expect(recovery.stateMachine.items).toBe(1000);
  });

  it('calls it damage where committed entries are missing', () => {
    const recovery = feed(new LogRecovery(), dataEntry(1, 1));
    expect(() => feed(recovery, hardState(1, 2))).toThrow(expect.objectContaining({ code: 'WAL_DAMAGED' }));
  });

  it('rebuilds from a real log the very state that was committed, whatever was cut and replaced in between', async () => {
    const disk = new MemoryDisk();
    const clock = new ManualClock().forProcess(() => true);
    const open = async (sink: LogRecovery, mustExist: boolean) => {
      const place = { disk, clock, directory: '/wal', clusterId: 'test', mustExist, random: seededRandom(1) };
      const { wal } = await openWal({ ...place, onFatal: fail, logger: silentLogger, sink });
      return wal;
    };
    const wal = await open(new LogRecovery(), false);
    const persister = new Persister(wal, () => {});
    const expected = writeHistory(persister, seededRandom(7));
    await wal.close();

    const recovery = new LogRecovery(128 * 1024);
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

function fail(error: unknown): never {
  throw error;
}

/** Two thousand writes as a follower makes them: appends, commits, and now and then a new term that cuts the tail. */
function writeHistory(persister: Persister, random: () => number): { entries: Entry[]; hardState: HardState } {
  const entries: Entry[] = [];
  let term = 1;
  let commitIndex = 0;
  for (let step = 0; step < 2000; step++) {
    const cuts = random() < 0.05;
    if (cuts) {
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
    const hardState = cuts ? { term, vote: 0, commitIndex } : null;
    persister.persist({ ...emptyEffects(), hardState, append }, { term, vote: 0, commitIndex });
  }
  const hardState = { term, vote: 0, commitIndex };
  persister.record(hardState);
  return { entries, hardState };
}
