import { beforeEach, describe, expect, it } from 'vitest';
import { clockBatch, stampBatchTime } from '../../../src/kv/batch.ts';
import { StateMachine } from '../../../src/kv/state-machine.ts';
import { Op } from '../../../src/kv/types.ts';
import type { Core } from '../../../src/raft/state/core.ts';
import { ENTRY_HEADER_BYTES, sealEntry } from '../../../src/raft/state/entry.ts';
import { RaftLog } from '../../../src/raft/state/log.ts';
import type { ReplicaInput } from '../../../src/replica/node-loop.ts';
import { Applier } from '../../../src/replica/writes/applier.ts';
import { Proposer } from '../../../src/replica/writes/proposer.ts';
import { commandOf } from '../../support/write-command.ts';
import { batchOf, FakeWal, LIMITS, Request } from '../support.ts';

const SELF = 1;
const SESSION = 4;

describe('the applier', () => {
  let log: RaftLog;
  let wal: FakeWal;
  let stateMachine: StateMachine;
  let proposer: Proposer;
  let fatal: unknown[];
  let turnsWanted: number;
  let sessionsUsed: number;
  /** What the core was told: indexes up to which entries are applied. */
  let applied: number[];
  let applier: Applier;

  beforeEach(() => setUp(1024 * 1024));

  function setUp(cacheBytesMax: number): void {
    log = new RaftLog({ snapshotIndex: 0, snapshotTerm: 0, cacheBytesMax });
    wal = new FakeWal();
    stateMachine = new StateMachine();
    proposer = new Proposer(SELF, SESSION, LIMITS);
    fatal = [];
    turnsWanted = 0;
    sessionsUsed = 0;
    const context = { wal, stateMachine, proposer, observer: null, onSessionUsed: () => sessionsUsed++ };
    applied = [];
    const loop = {
      core: { log } as Core,
      put(input: ReplicaInput) {
        if (input.kind === 'applied') applied.push(input.index);
      },
      run(action: () => void) {
        try {
          action();
        } catch (error) {
          fatal.push(error);
        }
      },
      scheduleTurn: () => turnsWanted++,
      fail: (error: unknown) => fatal.push(error),
    };
    applier = new Applier(context, loop);
  }

  /** How many times the applier has told the core of applied entries in this call. */
  function apply(): number {
    const before = applied.length;
    applier.applyCommitted();
    if (applied.length > before) expect(applied.at(-1)).toBe(applier.appliedIndex);
    return applied.length - before;
  }

  /** Puts a batch into the log, and what the log's memory does not hold on the disk. */
  function append(batch: Buffer, kind: 'data' | 'noop' = 'data'): void {
    const entry = sealEntry(batch, kind, 1, log.lastIndex + 1);
    log.append(entry);
    wal.append({ reset: null, hardState: null, firstIndex: entry.index, entries: [entry.bytes], done: () => {} });
    log.persistedIndex = entry.index;
    log.evict();
  }

  function appendSets(count: number, valueBytes = 10): void {
    for (let i = 0; i < count; i++) {
      const sequence = log.lastIndex + 1;
      append(batchOf(`k${sequence}`, 'v'.repeat(valueBytes), { proposer: 9, sequence }));
    }
  }

  function commit(index = log.lastIndex): void {
    log.commitIndex = index;
  }

  function propose(key: string, nowMs = 0): Request {
    const request = new Request();
    proposer.add(commandOf(Op.set, key), request);
    proposer.closeBatch(nowMs);
    const batch = proposer.batch(proposer.oldestSequence + proposer.unapplied - 1);
    if (batch !== undefined) batch.sent = true;
    return request;
  }

  it('applies what is committed and nothing more, once', () => {
    appendSets(3);
    expect(apply()).toBe(0);
    commit(2);
    expect(apply()).toBe(1);
    expect(applier.appliedIndex).toBe(2);
    expect([stateMachine.items, stateMachine.totalItems]).toEqual([2, 2]);
    expect(apply()).toBe(0);
    commit(3);
    applier.applyCommitted();
    expect([stateMachine.items, stateMachine.totalItems]).toEqual([3, 3]);
  });

  it('passes over entries that hold no batch', () => {
    append(Buffer.alloc(ENTRY_HEADER_BYTES), 'noop');
    commit();
    expect(apply()).toBe(1);
    expect(applier.appliedIndex).toBe(1);
  });

  it("gives the results of this node's own batches to their completions, and of no other node's", () => {
    const own = propose('a');
    append(batchOf('b', 'v', { proposer: 9 }));
    append(Buffer.from(proposer.batch(1)?.bytes ?? ''));
    commit();
    applier.applyCommitted();
    expect(own.outcomes).toEqual(['stored']);
    expect(stateMachine.items).toBe(2);
  });

  it('applies a batch that is in the log twice once', () => {
    const own = propose('a');
    const bytes = Buffer.from(proposer.batch(1)?.bytes ?? '');
    const later = propose('b');
    append(Buffer.from(bytes));
    append(Buffer.from(bytes));
    append(Buffer.from(proposer.batch(2)?.bytes ?? ''));
    commit();
    applier.applyCommitted();
    expect([own.outcomes, later.outcomes]).toEqual([['stored'], ['stored']]);
    expect(stateMachine.totalItems).toBe(2);
    expect(fatal).toEqual([]);
  });

  it('calls no completion whose request has timed out, and applies their batch all the same', () => {
    const own = propose('a', 5);
    append(Buffer.from(proposer.batch(1)?.bytes ?? ''));
    proposer.failOlderThan(5, 'timeout');
    commit();
    applier.applyCommitted();
    expect(own.outcomes).toEqual(['failed: timeout']);
    expect(stateMachine.items).toBe(1);
  });

  it('does not take a batch of an earlier session of this node for one of its own', () => {
    const own = propose('a');
    append(batchOf('old', 'v', { proposer: SELF, sessionId: SESSION - 1 }));
    commit();
    applier.applyCommitted();
    expect(own.outcomes).toEqual([]);
    expect(stateMachine.get('old')).toBeDefined();
  });

  it('does not take a batch of an earlier incarnation under the same session for one that has not left yet', () => {
    const own = propose('a');
    const batch = proposer.batch(1);
    if (batch !== undefined) batch.sent = false;
    append(batchOf('old', 'v', { proposer: SELF, sessionId: SESSION }));
    commit();
    applier.applyCommitted();
    expect(own.outcomes).toEqual([]);
    expect(stateMachine.get('old')).toBeDefined();
  });

  it('lets time pass where an entry says no more than that', () => {
    const batch = clockBatch(ENTRY_HEADER_BYTES);
    stampBatchTime(batch, ENTRY_HEADER_BYTES, 777);
    append(batch);
    commit();
    applier.applyCommitted();
    expect(stateMachine.timeMs).toBe(777);
  });

  it("takes no other incarnation's batch for its own where both have used one session id, and says so", () => {
    propose('a');
    append(batchOf('x', 'y', { proposer: SELF, sessionId: SESSION - 1 }));
    commit();
    applier.applyCommitted();
    expect(sessionsUsed).toBe(0);
    append(batchOf('x', 'y', { proposer: SELF, sessionId: SESSION }));
    commit();
    applier.applyCommitted();
    expect([proposer.unapplied, sessionsUsed]).toEqual([1, 1]);
    expect(stateMachine.get('x')?.value).toBe('y');
    append(Buffer.from(proposer.batch(1)?.bytes ?? ''));
    commit();
    applier.applyCommitted();
    expect(sessionsUsed).toBe(2);
  });

  it.each([
    ['has gone on to a later session', SESSION + 1],
    ['has used this session', SESSION],
  ])("says so where this node's own next batch had no effect, since another incarnation of it %s", (_, sessionId) => {
    propose('a');
    stateMachine.apply(batchOf('x', 'y', { proposer: SELF, sessionId }), ENTRY_HEADER_BYTES, null);
    append(Buffer.from(proposer.batch(1)?.bytes ?? ''));
    commit();
    applier.applyCommitted();
    expect(sessionsUsed).toBe(1);
  });

  it('leaves the loop its turn after two mebibytes', () => {
    setUp(64 * 1024 * 1024);
    appendSets(50, 60 * 1024);
    commit();
    expect(apply()).toBe(1);
    expect(applier.appliedIndex).toBe(35);
    expect(turnsWanted).toBe(1);
    expect(apply()).toBe(1);
    expect(applier.appliedIndex).toBe(50);
    expect(turnsWanted).toBe(1);
  });

  it('reads back from the disk what memory no longer holds, one read at a time', async () => {
    setUp(4000);
    appendSets(100);
    commit();
    const cached = log.lastIndex - log.firstCachedIndex + 1;
    expect(cached).toBeLessThan(100);
    expect(apply()).toBe(0);
    expect(apply()).toBe(0);
    expect(wal.readsWaiting).toBe(1);
    await wal.answerReads();
    expect(applier.appliedIndex).toBe(100 - cached);
    expect(applied).toEqual([applier.appliedIndex]);
    expect(apply()).toBe(1);
    expect(stateMachine.items).toBe(100);
    expect(fatal).toEqual([]);
  });

  it('goes on from memory where entries come in while it reads from the disk', async () => {
    setUp(4000);
    appendSets(50);
    commit();
    applier.applyCommitted();
    appendSets(50);
    commit();
    expect(apply()).toBe(0);
    for (let reads = 0; applier.appliedIndex < 100 && reads < 10; reads++) {
      await wal.answerReads();
      applier.applyCommitted();
    }
    expect(stateMachine.items).toBe(100);
  });

  it('ends where the disk cannot give an entry back, or gives another', async () => {
    setUp(1000);
    appendSets(20);
    commit();
    wal.entries.set(1, wal.entries.get(2) ?? Buffer.alloc(0));
    applier.applyCommitted();
    await wal.answerReads();
    expect(fatal).toMatchObject([{ code: 'INVARIANT_BROKEN' }]);
    expect(stateMachine.items).toBe(0);

    setUp(1000);
    appendSets(20);
    commit();
    wal.read = () => Promise.reject(new Error('unreadable'));
    applier.applyCommitted();
    await wal.answerReads();
    expect(fatal).toMatchObject([{ message: 'unreadable' }]);
  });
});
