import { beforeEach, describe, expect, it } from 'vitest';
import { ReadBatches } from '../../../src/replica/reads/read-batches.ts';
import { Request } from '../support.ts';

describe('read batches', () => {
  let batches: ReadBatches;
  beforeEach(() => {
    batches = new ReadBatches(0.5);
  });

  /** One read, in a turn of its own. */
  function add(nowMs = 0): Request {
    const request = new Request();
    batches.add(request);
    batches.closeTurn(nowMs);
    return request;
  }

  it('confirm all that gathered with one question', () => {
    const reads = [new Request(), new Request()];
    for (const read of reads) batches.add(read);
    expect(batches.begin(0)).toBe(0);
    batches.closeTurn(0);
    reads.push(add());
    const id = batches.begin(0);
    expect(id).toBeGreaterThan(0);
    batches.confirm(id, 10);
    batches.serve(9);
    expect(reads.flatMap(({ outcomes }) => outcomes)).toEqual([]);
    batches.serve(10);
    batches.serve(11);
    expect(reads.map(({ outcomes }) => outcomes)).toEqual([['readable'], ['readable'], ['readable']]);
  });

  it('ask nothing where no read waits', () => {
    batches.closeTurn(0);
    expect(batches.begin(0)).toBe(0);
    expect(batches.hasGathered).toBe(false);
  });

  it('let a read that comes while a batch is on its way wait for the next: that one asked before it came', () => {
    const early = add();
    const id = batches.begin(0);
    const late = add();
    expect(batches.begin(0)).toBe(0);
    batches.confirm(id, 1);
    batches.serve(5);
    expect([early.outcomes, late.outcomes]).toEqual([['readable'], []]);
    expect(batches.hasGathered).toBe(true);
    const next = batches.begin(0);
    expect(next).not.toBe(id);
    batches.confirm(next, 5);
    batches.serve(5);
    expect(late.outcomes).toEqual(['readable']);
  });

  it('go by no answer to an earlier question once they have asked again', () => {
    const read = add();
    const id = batches.begin(0);
    const again = batches.beginAgain(100);
    expect(again).not.toBe(id);
    batches.confirm(id, 1);
    batches.serve(1);
    expect(read.outcomes).toEqual([]);
    batches.confirm(again, 1);
    batches.confirm(again, 1);
    batches.serve(1);
    expect(read.outcomes).toEqual(['readable']);
    expect(batches.beginAgain(0)).toBe(0);
  });

  it('are overdue when no answer came in time, and at once when they were rejected or the leader changed', () => {
    add();
    const id = batches.begin(1000);
    expect(batches.isOverdue(999)).toBe(false);
    expect(batches.isOverdue(1000)).toBe(true);
    const again = batches.beginAgain(2000);
    batches.reject(id);
    expect(batches.isOverdue(1000)).toBe(false);
    batches.reject(again);
    expect(batches.isOverdue(1000)).toBe(true);
    batches.beginAgain(3000);
    batches.rejectAny();
    expect(batches.isOverdue(1000)).toBe(true);
  });

  it('are never overdue where none is on its way', () => {
    batches.rejectAny();
    expect(batches.isOverdue(1000)).toBe(false);
  });

  it('use no id twice, not even after a restart', () => {
    const ids = new Set<number>();
    for (const random of [0, 0.5, 0.999_999_999]) {
      batches = new ReadBatches(random);
      for (let i = 0; i < 3; i++) {
        add();
        ids.add(batches.begin(0)).add(batches.beginAgain(0));
        batches.failOlderThan(0, 'timeout');
      }
    }
    expect(ids.size).toBe(18);
    for (const id of ids) expect(Number.isSafeInteger(id)).toBe(true);
  });

  it('give up on each read by its own age, wherever it waits', () => {
    const reads = [add(10), add(20)];
    const first = batches.begin(20);
    batches.confirm(first, 99);
    reads.push(add(30), add(40));
    batches.begin(40);
    reads.push(add(50), add(60));
    expect(batches.pending).toBe(6);
    const failedAfter = (nowMs: number) => {
      batches.failOlderThan(nowMs, 'timeout');
      return reads.filter(({ outcomes }) => outcomes.length > 0).length;
    };
    expect([9, 10, 20, 30, 49, 50, 60].map(failedAfter)).toEqual([0, 1, 2, 3, 4, 5, 6]);
    expect(reads.flatMap(({ outcomes }) => outcomes)).toEqual(Array(6).fill('failed: timeout'));
    expect(batches.pending).toBe(0);
    batches.serve(99);
    expect(reads.every(({ outcomes }) => outcomes.length === 1)).toBe(true);
  });

  it('serve what is left of a batch when some of its reads have been given up', () => {
    const [old, young] = [add(10), add(20)];
    const id = batches.begin(20);
    batches.failOlderThan(10, 'timeout');
    batches.confirm(id, 1);
    batches.serve(1);
    expect([old.outcomes, young.outcomes]).toEqual([['failed: timeout'], ['readable']]);
  });

  it('ignore the answer to a batch that is no longer waited for', () => {
    add(10);
    const id = batches.begin(10);
    batches.failOlderThan(10, 'timeout');
    const next = add(20);
    batches.confirm(id, 1);
    batches.serve(1);
    expect(next.outcomes).toEqual([]);
    expect(batches.begin(20)).toBeGreaterThan(id);
  });

  it('take a read that is asked for again from inside its failure', () => {
    const failures: string[] = [];
    const again = {
      readable: () => {},
      readFailed: (failure: string) => {
        failures.push(failure);
        batches.add(again);
      },
    };
    batches.add(again);
    batches.closeTurn(0);
    batches.failOlderThan(0, 'timeout');
    expect(failures).toEqual(['timeout']);
    expect(batches.pending).toBe(1);
  });
});
