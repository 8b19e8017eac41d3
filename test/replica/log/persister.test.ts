import { describe, expect, it } from 'vitest';
import { emptyEffects } from '../../../src/raft/state/core.ts';
import { sealEntry } from '../../../src/raft/state/entry.ts';
import type { Effects, HardState, Message } from '../../../src/raft/state/types.ts';
import { decodeHardState, encodeHardState, type Persisted, Persister } from '../../../src/replica/log/persister.ts';
import { batchOf, FakeWal } from '../support.ts';

const HARD_STATE: HardState = { term: 3, vote: 2, commitIndex: 4 };

function entry(index: number, term = 3) {
  return sealEntry(batchOf(`key${index}`, 'value'), 'data', term, index);
}

function ack(index: number): Message {
  const rest = { hintIndex: 0, hintTerm: 0, directoryId: 0, withoutRights: false, diskFull: false };
  return { kind: 'appendReply', from: 1, to: 2, term: 3, success: true, index, ...rest };
}

function effects(parts: Partial<Effects>): Effects {
  return { ...emptyEffects(), ...parts };
}

function setUp() {
  const wal = new FakeWal();
  const persisted: Persisted[] = [];
  const persister = new Persister(wal, (one) => persisted.push(one));
  return { wal, persisted, persister };
}

function hintsOf(wal: FakeWal): (number | null)[] {
  return wal.writes.map(({ hardState }) => (hardState === null ? null : decodeHardState(hardState).commitIndex));
}

describe('the persister', () => {
  it('keeps a promise back until what it rests on is durable', () => {
    const { wal, persisted, persister } = setUp();
    persister.persist(effects({ append: [entry(1), entry(2)], sendAfterPersist: [ack(2)] }), HARD_STATE);
    expect(wal.writes[0]).toMatchObject({ hardState: null, firstIndex: 1 });
    expect(persisted).toEqual([]);
    wal.complete();
    expect(persisted).toEqual([{ term: 3, index: 2, hardState: null, messages: [ack(2)] }]);
  });

  it('lets a promise that needs no write wait for the writes before it, and for none where there is none', () => {
    const { wal, persisted, persister } = setUp();
    persister.persist(effects({ append: [entry(1)] }), HARD_STATE);
    persister.persist(effects({ append: [entry(2)], sendAfterPersist: [ack(2)] }), HARD_STATE);
    persister.persist(effects({ sendAfterPersist: [ack(1)] }), HARD_STATE);
    wal.complete(1);
    expect(persisted.flatMap(({ messages }) => messages)).toEqual([]);
    wal.complete();
    expect(persisted.flatMap(({ messages }) => messages)).toEqual([ack(2), ack(1)]);
    persister.persist(effects({ sendAfterPersist: [ack(2)] }), HARD_STATE);
    expect(persisted.at(-1)).toEqual({ term: 0, index: 0, hardState: null, messages: [ack(2)] });
  });

  it('resets the log to a snapshot, and promises nothing before that is durable', () => {
    const { wal, persisted, persister } = setUp();
    const install = { index: 9, term: 2, resetLog: true };
    persister.persist(effects({ install, sendAfterPersist: [ack(9)] }), { ...HARD_STATE, commitIndex: 9 });
    expect(wal.writes[0]).toMatchObject({ reset: { index: 9, term: 2 }, entries: [] });
    expect(hintsOf(wal)).toEqual([9]);
    expect(persisted).toEqual([]);
    wal.complete();
    expect(persisted.flatMap(({ messages }) => messages)).toEqual([ack(9)]);
  });

  it('leaves the log as it is where the snapshot agrees with it', () => {
    const { wal, persisted, persister } = setUp();
    const install = { index: 9, term: 2, resetLog: false };
    persister.persist(effects({ install, sendAfterPersist: [ack(9)] }), HARD_STATE);
    expect(wal.writes).toEqual([]);
    expect(persisted.flatMap(({ messages }) => messages)).toEqual([ack(9)]);
  });

  it('writes nothing for a step that asks for nothing', () => {
    const { wal, persisted, persister } = setUp();
    persister.persist(effects({}), HARD_STATE);
    expect(wal.writes).toEqual([]);
    expect(persisted).toEqual([]);
  });

  it('reports term and index of the last entry of each write, in order, and the hard state that went with it', () => {
    const { wal, persisted, persister } = setUp();
    persister.persist(effects({ hardState: HARD_STATE }), HARD_STATE);
    persister.persist(effects({ append: [entry(1, 2), entry(2)] }), HARD_STATE);
    wal.complete();
    expect(persisted).toEqual([
      { term: 0, index: 0, hardState: HARD_STATE, messages: [] },
      { term: 3, index: 2, hardState: null, messages: [] },
    ]);
  });

  it('records how far the log is committed every 64 writes', () => {
    const { wal, persister } = setUp();
    for (let index = 1; index <= 130; index++) {
      persister.persist(effects({ append: [entry(index)] }), { ...HARD_STATE, commitIndex: index - 1 });
    }
    const hints = hintsOf(wal).flatMap((commitIndex, i) => (commitIndex === null ? [] : [[i + 1, commitIndex]]));
    expect(hints).toEqual([
      [64, 63],
      [128, 127],
    ]);
  });

  it('never records entries as committed that come after the record, where the file may still hold others', () => {
    const { wal, persister } = setUp();
    for (let index = 1; index <= 5; index++) persister.persist(effects({ append: [entry(index, 2)] }), HARD_STATE);
    const replacing = effects({ hardState: HARD_STATE, append: [entry(3), entry(4)] });
    persister.persist(replacing, { ...HARD_STATE, commitIndex: 4 });
    expect(hintsOf(wal).at(-1)).toBe(2);
    persister.record({ ...HARD_STATE, commitIndex: 4 });
    expect(hintsOf(wal).at(-1)).toBe(4);
  });

  it('reads a hard state as it was written, and calls anything else damage', () => {
    expect(decodeHardState(encodeHardState(HARD_STATE))).toEqual(HARD_STATE);
    expect(() => decodeHardState(Buffer.alloc(8))).toThrow(expect.objectContaining({ code: 'WAL_DAMAGED' }));
  });
});
