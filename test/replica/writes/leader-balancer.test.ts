import { beforeEach, describe, expect, it } from 'vitest';
import { NO_NODE } from '../../../src/raft/state/types.ts';
import { LeaderBalancer } from '../../../src/replica/writes/leader-balancer.ts';

/** Node 1 leads; time is in the test's hands. */
describe('leadership follows the writes', () => {
  let balancer: LeaderBalancer;
  let nowMs: number;

  beforeEach(() => {
    nowMs = 1000;
    balancer = new LeaderBalancer(1);
    balancer.begin(nowMs);
  });

  /** Half a second in which the proposers have so many batches taken; who should lead after it. */
  function window(batches: Record<number, number>): number {
    for (const [proposer, count] of Object.entries(batches)) {
      for (let i = 0; i < count; i++) balancer.count(Number(proposer));
    }
    expect(balancer.successor(nowMs + 499)).toBe(NO_NODE);
    nowMs += 500;
    return balancer.successor(nowMs);
  }

  it('to the follower where nearly all come in, when that has been so for a second', () => {
    expect(window({ 2: 1000 })).toBe(NO_NODE);
    expect(window({ 1: 10, 2: 1000, 3: 20 })).toBe(2);
  });

  it('not while they come in at the leader itself, or at several nodes', () => {
    for (let i = 0; i < 5; i++) expect(window({ 1: 1000 })).toBe(NO_NODE);
    for (let i = 0; i < 5; i++) expect(window({ 1: 120, 2: 1000 })).toBe(NO_NODE);
    for (let i = 0; i < 5; i++) expect(window({ 2: 500, 3: 500 })).toBe(NO_NODE);
  });

  it('not for a few writes', () => {
    for (let i = 0; i < 5; i++) expect(window({ 2: 49 })).toBe(NO_NODE);
    expect(window({ 2: 50 })).toBe(NO_NODE);
    expect(window({ 2: 50 })).toBe(2);
  });

  it('not where the favourite changes from window to window', () => {
    for (let i = 0; i < 5; i++) {
      expect(window({ 2: 1000 })).toBe(NO_NODE);
      expect(window({ 3: 1000 })).toBe(NO_NODE);
    }
  });

  it('not again for ten seconds after a try', () => {
    window({ 2: 1000 });
    expect(window({ 2: 1000 })).toBe(2);
    for (let i = 0; i < 19; i++) expect(window({ 2: 1000 })).toBe(NO_NODE);
    expect(window({ 2: 1000 })).toBe(2);
  });

  it('by nothing that was counted before this node came to lead', () => {
    window({ 2: 1000 });
    balancer.count(2);
    balancer.begin(nowMs);
    expect(window({})).toBe(NO_NODE);
    expect(window({ 2: 1000 })).toBe(NO_NODE);
    expect(window({ 2: 1000 })).toBe(2);
  });
});
