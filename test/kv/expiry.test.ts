import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Expiring, ExpiryQueue, UNQUEUED } from '../../src/kv/expiry.ts';

const NEVER = Number.POSITIVE_INFINITY;
const item = (): Expiring => ({ expiresAtMs: NEVER, queueIndex: UNQUEUED });

describe('the expiry queue', () => {
  it('gives out exactly the items that are due, whatever was rescheduled or removed before', () => {
    const change = fc.record({ which: fc.nat(30), atMs: fc.oneof(fc.nat(50), fc.constant(NEVER), fc.constant(-1)) });
    const agrees = (changes: { which: number; atMs: number }[], stepMs: number) => {
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
      for (let nowMs = -5; nowMs <= 50; nowMs += stepMs) {
        const expected = items.filter((one) => one.queueIndex !== UNQUEUED && one.expiresAtMs <= nowMs);
        const due = queue.takeDue(nowMs);
        expect(new Set(due)).toEqual(new Set(expected));
        expect(due.length).toBe(expected.length);
        expect(due.every((one) => one.queueIndex === UNQUEUED)).toBe(true);
        expect(queue.earliestMs).toBeGreaterThan(nowMs);
      }
    };
    const changes = fc.array(change, { minLength: 40, maxLength: 120, size: 'max' });
    fc.assert(fc.property(changes, fc.integer({ min: 1, max: 30 }), agrees), { numRuns: 300 });
  });

  it('gives out nothing before its time', () => {
    const queue = new ExpiryQueue<Expiring>();
    queue.schedule(item(), 10);
    expect(queue.takeDue(9).length).toBe(0);
    expect(queue.takeDue(10).length).toBe(1);
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

  it('keeps its order when the item that fills a gap is sooner than what stands above the gap', () => {
    const queue = new ExpiryQueue<Expiring>();
    const items = [1, 10, 2, 11, 12, 3, 4].map((atMs) => {
      const one = item();
      queue.schedule(one, atMs);
      return one;
    });
    const eleven = items[3];
    if (eleven !== undefined) queue.remove(eleven);
    expect(queue.takeDue(9).map(({ expiresAtMs }) => expiresAtMs)).toEqual(expect.arrayContaining([1, 2, 3, 4]));
  });
});
