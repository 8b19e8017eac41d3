import { describe, expect, it } from 'vitest';
import { readBatchHeader } from '../../../src/kv/batch.ts';
import { Op } from '../../../src/kv/types.ts';
import { ENTRY_HEADER_BYTES } from '../../../src/raft/state/entry.ts';
import { type Batch, Proposer } from '../../../src/replica/writes/proposer.ts';
import { commandOf } from '../../support/write-command.ts';
import { LIMITS, Request } from '../support.ts';

const SELF = 3;
const SESSION = 8;

function proposerOf(limits = {}): Proposer {
  return new Proposer(SELF, SESSION, { ...LIMITS, ...limits });
}

/** Adds a `set` of `valueBytes` bytes. */
function add(proposer: Proposer, valueBytes = 1): Request {
  const request = new Request();
  proposer.add(commandOf(Op.set, 'k', 'k'.repeat(valueBytes)), request);
  return request;
}

function addBatch(proposer: Proposer, nowMs = 0): Request {
  const request = add(proposer);
  proposer.closeBatch(nowMs);
  send(proposer, proposer.oldestSequence + proposer.unapplied - 1);
  return request;
}

function send(proposer: Proposer, sequence: number): void {
  const batch = proposer.batch(sequence);
  if (batch !== undefined) batch.sent = true;
}

/** Completes the oldest batch, all of whose commands are `stored`. */
function completeOldest(proposer: Proposer, commands = 1): void {
  proposer.beginCompletion();
  for (let position = 0; position < commands; position++) proposer.result(position, 'stored', null, '');
  proposer.endCompletion();
}

function unappliedOf(proposer: Proposer): Batch[] {
  return Array.from({ length: proposer.unapplied }, (_, i) => proposer.batch(proposer.oldestSequence + i) as Batch);
}

describe('the proposer', () => {
  it('makes one numbered batch of the commands of a turn, under its session and limits', () => {
    const proposer = proposerOf();
    add(proposer);
    add(proposer);
    proposer.closeBatch(5);
    addBatch(proposer, 6);
    const headers = unappliedOf(proposer).map(({ bytes }) => readBatchHeader(bytes, ENTRY_HEADER_BYTES));
    const { itemBytesMax, storeBytesMax } = LIMITS;
    const common = { timeMs: 0, proposer: SELF, sessionId: SESSION, itemBytesMax, storeBytesMax };
    expect(headers).toEqual([
      { ...common, sequence: 1, count: 2 },
      { ...common, sequence: 2, count: 1 },
    ]);
  });

  it('makes no batch of a turn without writes', () => {
    const proposer = proposerOf();
    proposer.closeBatch(0);
    expect(proposer.unapplied).toBe(0);
    expect(proposer.oldestSequence).toBe(1);
  });

  it('says when the open batch should take no more', () => {
    const proposer = proposerOf({ batchBytesMax: 1000 });
    add(proposer, 500);
    expect(proposer.batchIsFull).toBe(false);
    add(proposer, 500);
    expect(proposer.batchIsFull).toBe(true);
    proposer.closeBatch(0);
    expect(proposer.batchIsFull).toBe(false);
  });

  it('gives each result to the completion of its command, once', () => {
    const proposer = proposerOf();
    const requests = [add(proposer), add(proposer)];
    proposer.closeBatch(0);
    const later = addBatch(proposer);
    proposer.beginCompletion();
    proposer.result(0, 'stored', null, '');
    proposer.result(1, 'number', null, '42');
    proposer.endCompletion();
    expect(requests.map(({ outcomes }) => outcomes)).toEqual([['stored'], ['42']]);
    expect(later.outcomes).toEqual([]);
    completeOldest(proposer);
    expect(later.outcomes).toEqual(['stored']);
    expect(proposer.oldestSequence).toBe(3);
  });

  it('expects none that has not left', () => {
    const proposer = proposerOf();
    add(proposer);
    proposer.closeBatch(0);
    expect(proposer.expects(SELF, SESSION, 1)).toBe(false);
    send(proposer, 1);
    expect(proposer.expects(SELF, SESSION, 1)).toBe(true);
  });

  it('expects its own batches only, in their order', () => {
    const proposer = proposerOf();
    addBatch(proposer);
    addBatch(proposer);
    expect(proposer.expects(SELF, SESSION, 1)).toBe(true);
    expect(proposer.expects(SELF, SESSION, 2)).toBe(false);
    expect(proposer.expects(SELF, SESSION - 1, 1)).toBe(false);
    expect(proposer.expects(SELF + 1, SESSION, 1)).toBe(false);
    completeOldest(proposer);
    expect(proposer.expects(SELF, SESSION, 1)).toBe(false);
    expect(proposer.expects(SELF, SESSION, 2)).toBe(true);
    completeOldest(proposer);
    expect(proposer.expects(SELF, SESSION, 3)).toBe(false);
  });

  it('fails completions once when their time is up, keeps the place of their batch, and says nothing when it is applied', () => {
    const proposer = proposerOf();
    const early = addBatch(proposer, 100);
    const late = addBatch(proposer, 200);
    proposer.failOlderThan(99, 'timeout');
    expect(early.outcomes).toEqual([]);
    proposer.failOlderThan(100, 'timeout');
    proposer.failOlderThan(150, 'timeout');
    expect(early.outcomes).toEqual(['failed: timeout']);
    expect(unappliedOf(proposer).map(({ sequence }) => sequence)).toEqual([1, 2]);
    completeOldest(proposer);
    proposer.failOlderThan(200, 'timeout');
    completeOldest(proposer);
    expect([early.outcomes, late.outcomes]).toEqual([['failed: timeout'], ['failed: timeout']]);
  });

  it('has room until what is not applied reaches its limit, and again when enough is', () => {
    const proposer = proposerOf({ pendingWriteBytesMax: 4000 });
    add(proposer, 1000);
    proposer.closeBatch(0);
    add(proposer, 2000);
    expect(proposer.hasRoom).toBe(true);
    add(proposer, 1000);
    expect(proposer.hasRoom).toBe(false);
    proposer.closeBatch(0);
    expect(proposer.hasRoom).toBe(false);
    completeOldest(proposer);
    expect(proposer.hasRoom).toBe(true);
  });

  it('keeps counting what has timed out against its limit: the memory is still in use', () => {
    const proposer = proposerOf({ pendingWriteBytesMax: 1000 });
    add(proposer, 1000);
    proposer.closeBatch(0);
    proposer.failOlderThan(0, 'timeout');
    expect(proposer.hasRoom).toBe(false);
  });

  it('counts the commands that are not answered yet', () => {
    const proposer = proposerOf();
    addBatch(proposer, 1);
    addBatch(proposer, 2);
    add(proposer);
    expect(proposer.pendingCommands).toBe(3);
    proposer.failOlderThan(1, 'timeout');
    expect(proposer.pendingCommands).toBe(2);
    completeOldest(proposer);
    expect(proposer.pendingCommands).toBe(2);
    completeOldest(proposer);
    expect(proposer.pendingCommands).toBe(1);
  });

  it('takes new commands while it hands out results', () => {
    const proposer = proposerOf();
    const seen: string[] = [];
    const again = {
      written: () => {
        seen.push('written');
        addBatch(proposer);
      },
      writeFailed: () => seen.push('failed'),
    };
    proposer.add(commandOf(Op.delete, 'k'), again);
    proposer.closeBatch(0);
    completeOldest(proposer);
    expect(seen).toEqual(['written']);
    expect(unappliedOf(proposer).map(({ sequence }) => sequence)).toEqual([2]);
  });

  it('knows each batch by its sequence while it waits, and not before or after', () => {
    const proposer = proposerOf();
    for (let i = 0; i < 5000; i++) addBatch(proposer);
    for (let i = 0; i < 3000; i++) completeOldest(proposer);
    expect([proposer.oldestSequence, proposer.unapplied]).toEqual([3001, 2000]);
    expect([1, 3000, 5001, 9999].map((sequence) => proposer.batch(sequence))).toEqual(Array(4).fill(undefined));
    expect([3001, 5000].map((sequence) => proposer.batch(sequence)?.sequence)).toEqual([3001, 5000]);
    addBatch(proposer);
    expect(proposer.batch(5001)?.sequence).toBe(5001);
  });

  it('gets rid of what a long outage gathered without stopping the node for it', () => {
    const proposer = proposerOf();
    // So many that the test would run into its time limit if the cost of a batch grew with their number.
    const batches = 300_000;
    for (let i = 0; i < batches; i++) addBatch(proposer, i);
    for (let tick = 0; tick < 1000; tick++) proposer.failOlderThan(batches, 'timeout');
    for (let i = 0; i < batches; i++) completeOldest(proposer);
    expect(proposer.unapplied).toBe(0);
  });
});
