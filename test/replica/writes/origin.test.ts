import { describe, expect, it } from 'vitest';
import { readBatchHeader } from '../../../src/kv/batch.ts';
import { Op } from '../../../src/kv/types.ts';
import { ENTRY_HEADER_BYTES } from '../../../src/raft/entry.ts';
import { type Batch, Origin } from '../../../src/replica/writes/origin.ts';
import { LIMITS, Request } from '../support.ts';

const SELF = 3;
const SESSION = 8;

function originOf(limits = {}): Origin {
  return new Origin(SELF, SESSION, { ...LIMITS, ...limits });
}

/** Adds a `set` of `valueBytes` bytes. */
function add(origin: Origin, valueBytes = 1): Request {
  const request = new Request();
  const source = Buffer.alloc(1 + valueBytes, 'k');
  origin.add(Op.set, source, 0, 1, 0, 0, 1, source.length, 0, 0, request);
  return request;
}

function addBatch(origin: Origin, nowMs = 0): Request {
  const request = add(origin);
  origin.closeBatch(nowMs);
  send(origin, origin.oldestSequence + origin.unapplied - 1);
  return request;
}

function send(origin: Origin, sequence: number): void {
  const batch = origin.batch(sequence);
  if (batch !== undefined) batch.sent = true;
}

/** Settles the oldest batch, all of whose commands are `stored`. */
function settle(origin: Origin, commands = 1): void {
  origin.beginSettling();
  for (let position = 0; position < commands; position++) origin.result(position, 'stored', null, '');
  origin.endSettling();
}

function unappliedOf(origin: Origin): Batch[] {
  return Array.from({ length: origin.unapplied }, (_, i) => origin.batch(origin.oldestSequence + i) as Batch);
}

describe('an origin', () => {
  it('makes one numbered batch of the commands of a turn, under its session and limits', () => {
    const origin = originOf();
    add(origin);
    add(origin);
    origin.closeBatch(5);
    addBatch(origin, 6);
    const headers = unappliedOf(origin).map(({ bytes }) => readBatchHeader(bytes, ENTRY_HEADER_BYTES));
    const { itemBytesMax, storeBytesMax } = LIMITS;
    const common = { timeMs: 0, origin: SELF, session: SESSION, itemBytesMax, storeBytesMax };
    expect(headers).toEqual([
      { ...common, sequence: 1, count: 2 },
      { ...common, sequence: 2, count: 1 },
    ]);
  });

  it('makes no batch of a turn without writes', () => {
    const origin = originOf();
    origin.closeBatch(0);
    expect(origin.unapplied).toBe(0);
    expect(origin.oldestSequence).toBe(1);
  });

  it('says when the open batch should take no more', () => {
    const origin = originOf({ batchBytesMax: 1000 });
    add(origin, 500);
    expect(origin.batchIsFull).toBe(false);
    add(origin, 500);
    expect(origin.batchIsFull).toBe(true);
    origin.closeBatch(0);
    expect(origin.batchIsFull).toBe(false);
  });

  it('gives each result to the owner of its command, once', () => {
    const origin = originOf();
    const requests = [add(origin), add(origin)];
    origin.closeBatch(0);
    const later = addBatch(origin);
    origin.beginSettling();
    origin.result(0, 'stored', null, '');
    origin.result(1, 'number', null, '42');
    origin.endSettling();
    expect(requests.map(({ outcomes }) => outcomes)).toEqual([['stored'], ['42']]);
    expect(later.outcomes).toEqual([]);
    settle(origin);
    expect(later.outcomes).toEqual(['stored']);
    expect(origin.oldestSequence).toBe(3);
  });

  it('expects none that has not left', () => {
    const origin = originOf();
    add(origin);
    origin.closeBatch(0);
    expect(origin.expects(SELF, SESSION, 1)).toBe(false);
    send(origin, 1);
    expect(origin.expects(SELF, SESSION, 1)).toBe(true);
  });

  it('expects its own batches only, in their order', () => {
    const origin = originOf();
    addBatch(origin);
    addBatch(origin);
    expect(origin.expects(SELF, SESSION, 1)).toBe(true);
    expect(origin.expects(SELF, SESSION, 2)).toBe(false);
    expect(origin.expects(SELF, SESSION - 1, 1)).toBe(false);
    expect(origin.expects(SELF + 1, SESSION, 1)).toBe(false);
    settle(origin);
    expect(origin.expects(SELF, SESSION, 1)).toBe(false);
    expect(origin.expects(SELF, SESSION, 2)).toBe(true);
    settle(origin);
    expect(origin.expects(SELF, SESSION, 3)).toBe(false);
  });

  it('tells owners once that their time is up, keeps the place of their batch, and says nothing when it is applied', () => {
    const origin = originOf();
    const early = addBatch(origin, 100);
    const late = addBatch(origin, 200);
    origin.failOlderThan(99, 'timeout');
    expect(early.outcomes).toEqual([]);
    origin.failOlderThan(100, 'timeout');
    origin.failOlderThan(150, 'timeout');
    expect(early.outcomes).toEqual(['failed: timeout']);
    expect(unappliedOf(origin).map(({ sequence }) => sequence)).toEqual([1, 2]);
    settle(origin);
    origin.failOlderThan(200, 'timeout');
    settle(origin);
    expect([early.outcomes, late.outcomes]).toEqual([['failed: timeout'], ['failed: timeout']]);
  });

  it('has room until what is not applied reaches its limit, and again when enough is', () => {
    const origin = originOf({ pendingWriteBytesMax: 4000 });
    add(origin, 1000);
    origin.closeBatch(0);
    add(origin, 2000);
    expect(origin.hasRoom).toBe(true);
    add(origin, 1000);
    expect(origin.hasRoom).toBe(false);
    origin.closeBatch(0);
    expect(origin.hasRoom).toBe(false);
    settle(origin);
    expect(origin.hasRoom).toBe(true);
  });

  it('keeps counting what has timed out against its limit: the memory is still in use', () => {
    const origin = originOf({ pendingWriteBytesMax: 1000 });
    add(origin, 1000);
    origin.closeBatch(0);
    origin.failOlderThan(0, 'timeout');
    expect(origin.hasRoom).toBe(false);
  });

  it('counts the commands that nobody has answered yet', () => {
    const origin = originOf();
    addBatch(origin, 1);
    addBatch(origin, 2);
    add(origin);
    expect(origin.pendingCommands).toBe(3);
    origin.failOlderThan(1, 'timeout');
    expect(origin.pendingCommands).toBe(2);
    settle(origin);
    expect(origin.pendingCommands).toBe(2);
    settle(origin);
    expect(origin.pendingCommands).toBe(1);
  });

  it('takes new commands while it hands out results', () => {
    const origin = originOf();
    const seen: string[] = [];
    const source = Buffer.from('k');
    const again = {
      written: () => {
        seen.push('written');
        addBatch(origin);
      },
      writeFailed: () => seen.push('failed'),
    };
    origin.add(Op.delete, source, 0, 1, 0, 0, 0, 0, 0, 0, again);
    origin.closeBatch(0);
    settle(origin);
    expect(seen).toEqual(['written']);
    expect(unappliedOf(origin).map(({ sequence }) => sequence)).toEqual([2]);
  });

  it('knows each batch by its sequence while it waits, and not before or after', () => {
    const origin = originOf();
    for (let i = 0; i < 5000; i++) addBatch(origin);
    for (let i = 0; i < 3000; i++) settle(origin);
    expect([origin.oldestSequence, origin.unapplied]).toEqual([3001, 2000]);
    expect([1, 3000, 5001, 9999].map((sequence) => origin.batch(sequence))).toEqual(Array(4).fill(undefined));
    expect([3001, 5000].map((sequence) => origin.batch(sequence)?.sequence)).toEqual([3001, 5000]);
    addBatch(origin);
    expect(origin.batch(5001)?.sequence).toBe(5001);
  });

  it('gets rid of what a long outage gathered without stopping the node for it', () => {
    const origin = originOf();
    for (let i = 0; i < 100_000; i++) addBatch(origin, i);
    const startedAtMs = performance.now();
    for (let tick = 0; tick < 1000; tick++) origin.failOlderThan(100_000, 'timeout');
    for (let i = 0; i < 100_000; i++) settle(origin);
    // Well under a second; many, were the cost of a batch to grow with their number.
    expect(performance.now() - startedAtMs).toBeLessThan(2000);
    expect(origin.unapplied).toBe(0);
  });
});
