import { beforeEach, describe, expect, it } from 'vitest';
import { ReadRounds } from '../../../src/replica/loop/read-rounds.ts';
import { Request } from '../support.ts';

describe('read rounds', () => {
  let rounds: ReadRounds;
  beforeEach(() => {
    rounds = new ReadRounds(0.5);
  });

  /** One read, in a turn of its own. */
  function add(nowMs = 0): Request {
    const request = new Request();
    rounds.add(request);
    rounds.closeTurn(nowMs);
    return request;
  }

  it('confirm all that gathered with one question', () => {
    const reads = [new Request(), new Request()];
    for (const read of reads) rounds.add(read);
    expect(rounds.begin(0)).toBe(0);
    rounds.closeTurn(0);
    reads.push(add());
    const id = rounds.begin(0);
    expect(id).toBeGreaterThan(0);
    rounds.confirm(id, 10);
    rounds.serve(9);
    expect(reads.flatMap(({ outcomes }) => outcomes)).toEqual([]);
    rounds.serve(10);
    rounds.serve(11);
    expect(reads.map(({ outcomes }) => outcomes)).toEqual([['readable'], ['readable'], ['readable']]);
  });

  it('ask nothing where no read waits', () => {
    rounds.closeTurn(0);
    expect(rounds.begin(0)).toBe(0);
    expect(rounds.hasGathered).toBe(false);
  });

  it('let a read that comes while a round is on its way wait for the next: that one asked before it came', () => {
    const early = add();
    const id = rounds.begin(0);
    const late = add();
    expect(rounds.begin(0)).toBe(0);
    rounds.confirm(id, 1);
    rounds.serve(5);
    expect([early.outcomes, late.outcomes]).toEqual([['readable'], []]);
    expect(rounds.hasGathered).toBe(true);
    const next = rounds.begin(0);
    expect(next).not.toBe(id);
    rounds.confirm(next, 5);
    rounds.serve(5);
    expect(late.outcomes).toEqual(['readable']);
  });

  it('go by no answer to an earlier question once they have asked again', () => {
    const read = add();
    const id = rounds.begin(0);
    const again = rounds.beginAgain(100);
    expect(again).not.toBe(id);
    rounds.confirm(id, 1);
    rounds.serve(1);
    expect(read.outcomes).toEqual([]);
    rounds.confirm(again, 1);
    rounds.confirm(again, 1);
    rounds.serve(1);
    expect(read.outcomes).toEqual(['readable']);
    expect(rounds.beginAgain(0)).toBe(0);
  });

  it('are overdue when no answer came in time, and at once when they were rejected or the leader changed', () => {
    add();
    const id = rounds.begin(1000);
    expect(rounds.isOverdue(999)).toBe(false);
    expect(rounds.isOverdue(1000)).toBe(true);
    const again = rounds.beginAgain(2000);
    rounds.reject(id);
    expect(rounds.isOverdue(1000)).toBe(false);
    rounds.reject(again);
    expect(rounds.isOverdue(1000)).toBe(true);
    rounds.beginAgain(3000);
    rounds.rejectAny();
    expect(rounds.isOverdue(1000)).toBe(true);
  });

  it('are never overdue where none is on its way', () => {
    rounds.rejectAny();
    expect(rounds.isOverdue(1000)).toBe(false);
  });

  it('use no id twice, not even after a restart', () => {
    const ids = new Set<number>();
    for (const random of [0, 0.5, 0.999_999_999]) {
      rounds = new ReadRounds(random);
      for (let i = 0; i < 3; i++) {
        add();
        ids.add(rounds.begin(0)).add(rounds.beginAgain(0));
        rounds.failOlderThan(0, 'timeout');
      }
    }
    expect(ids.size).toBe(18);
    for (const id of ids) expect(Number.isSafeInteger(id)).toBe(true);
  });

  it('give up on each read by its own age, wherever it waits', () => {
    const reads = [add(10), add(20)];
    const first = rounds.begin(20);
    rounds.confirm(first, 99);
    reads.push(add(30), add(40));
    rounds.begin(40);
    reads.push(add(50), add(60));
    expect(rounds.pending).toBe(6);
    const failedAfter = (nowMs: number) => {
      rounds.failOlderThan(nowMs, 'timeout');
      return reads.filter(({ outcomes }) => outcomes.length > 0).length;
    };
    expect([9, 10, 20, 30, 49, 50, 60].map(failedAfter)).toEqual([0, 1, 2, 3, 4, 5, 6]);
    expect(reads.flatMap(({ outcomes }) => outcomes)).toEqual(Array(6).fill('failed: timeout'));
    expect(rounds.pending).toBe(0);
    rounds.serve(99);
    expect(reads.every(({ outcomes }) => outcomes.length === 1)).toBe(true);
  });

  it('serve what is left of a round when some of its reads have been given up', () => {
    const [old, young] = [add(10), add(20)];
    const id = rounds.begin(20);
    rounds.failOlderThan(10, 'timeout');
    rounds.confirm(id, 1);
    rounds.serve(1);
    expect([old.outcomes, young.outcomes]).toEqual([['failed: timeout'], ['readable']]);
  });

  it('ignore the answer to a round of which nobody waits any more', () => {
    add(10);
    const id = rounds.begin(10);
    rounds.failOlderThan(10, 'timeout');
    const next = add(20);
    rounds.confirm(id, 1);
    rounds.serve(1);
    expect(next.outcomes).toEqual([]);
    expect(rounds.begin(20)).toBeGreaterThan(id);
  });

  it('take a read that is asked for again from inside its failure', () => {
    const failures: string[] = [];
    const again = {
      readable: () => {},
      readFailed: (failure: string) => {
        failures.push(failure);
        rounds.add(again);
      },
    };
    rounds.add(again);
    rounds.closeTurn(0);
    rounds.failOlderThan(0, 'timeout');
    expect(failures).toEqual(['timeout']);
    expect(rounds.pending).toBe(1);
  });
});
