import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Expiring, ExpiryQueue, UNQUEUED } from '../../src/kv/expiry.ts';

const NEVER = Number.POSITIVE_INFINITY;
const item = (): Expiring => ({ expiresAtMs: NEVER, queueIndex: UNQUEUED });

describe('the expiry queue', () => {
  it('gives the items out in the order of their time, whatever was rescheduled or removed before', () => {
    const change = fc.record({ which: fc.nat(30), atMs: fc.oneof(fc.nat(50), fc.constant(NEVER), fc.constant(-1)) });
    const agrees = (changes: { which: number; atMs: number }[]) => {
      const queue = new ExpiryQueue<Expiring>();
      const items = Array.from({ length: 31 }, item);
      for (const { which, atMs } of changes) {
        const one = items[which] ?? item();
        if (atMs < 0) {
          queue.remove(one);
          one.expiresAtMs = NEVER;
        } else queue.schedule(one, atMs);
        expect(queue.earliestMs).toBe(Math.min(...items.map(({ expiresAtMs }) => expiresAtMs)));
        expect(queue.size).toBe(items.filter(({ expiresAtMs }) => expiresAtMs < NEVER).length);
      }
      const expected = items.map(({ expiresAtMs }) => expiresAtMs).filter((ms) => ms < NEVER);
      const taken: number[] = [];
      for (let due = queue.takeDue(100); due !== undefined; due = queue.takeDue(100)) {
        expect(due.queueIndex).toBe(UNQUEUED);
        taken.push(due.expiresAtMs);
      }
      expect(taken).toEqual(expected.sort((a, b) => a - b));
    };
    fc.assert(fc.property(fc.array(change, { maxLength: 120 }), agrees), { numRuns: 300 });
  });

  it('gives out nothing before its time', () => {
    const queue = new ExpiryQueue<Expiring>();
    queue.schedule(item(), 10);
    expect(queue.takeDue(9)).toBeUndefined();
    expect(queue.takeDue(10)).toBeDefined();
    expect(queue.earliestMs).toBe(NEVER);
  });

  it('never holds more than the items that expire, though one is touched a million times', () => {
    const queue = new ExpiryQueue<Expiring>();
    const items = [item(), item(), item()];
    for (const [i, one] of items.entries()) queue.schedule(one, 5 + i);
    const [first = item()] = items;
    for (let i = 0; i < 1_000_000; i++) queue.schedule(first, i % 3 === 0 ? NEVER : i);
    expect(queue.size).toBe(2);
    expect(queue.earliestMs).toBe(6);
  });
});
