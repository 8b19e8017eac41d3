import { describe, expect, it } from 'vitest';
import { configurationOf } from '../../../src/raft/state/configuration.ts';
import { ConfigurationTracker } from '../../../src/raft/state/configuration-tracker.ts';

const A = configurationOf([1, 2, 3]);
const B = configurationOf([1, 2, 3, 4]);
const C = configurationOf([1, 2, 4]);

function trackerOf(...indexes: number[]): ConfigurationTracker {
  const entries = [A, B, C]
    .slice(0, indexes.length)
    .map((configuration, i) => ({ index: indexes[i] ?? 0, configuration }));
  return new ConfigurationTracker(entries, 0, 0);
}

describe('the configuration tracker', () => {
  it('has the newest configuration in force as soon as it is appended, committed or not', () => {
    const tracker = trackerOf(0);
    tracker.append(5, B);
    expect([tracker.current, tracker.newest.index, tracker.committed.index]).toEqual([B, 5, 0]);
    expect(tracker.isCommitted).toBe(false);
  });

  it('says when the commit index reaches a configuration, and only then', () => {
    const tracker = trackerOf(0, 5);
    expect(tracker.commit(4)).toBe(false);
    expect(tracker.commit(5)).toBe(true);
    expect(tracker.commit(6)).toBe(false);
    expect([tracker.committed.index, tracker.isCommitted]).toEqual([5, true]);
  });

  it('goes back to the one before when its entry is truncated', () => {
    const tracker = trackerOf(0, 5);
    expect(tracker.truncate(6)).toBe(false);
    expect(tracker.current).toBe(B);
    expect(tracker.truncate(5)).toBe(true);
    expect([tracker.current, tracker.isCommitted]).toEqual([A, true]);
  });

  it('replaces everything up to a snapshot, and all behind it that the log lost', () => {
    const tracker = trackerOf(0, 5, 9);
    tracker.install(7, A, 20);
    expect(tracker.entries.map(({ index }) => index)).toEqual([7, 9]);
    expect([tracker.current, tracker.committed.index]).toEqual([C, 7]);
    tracker.install(12, B, 12);
    expect([tracker.current, tracker.isCommitted, tracker.entries.length]).toEqual([B, true, 1]);
  });

  it('keeps of those before the start of the log only the newest', () => {
    const tracker = trackerOf(0, 5, 9);
    tracker.commit(20);
    tracker.compact(8);
    expect(tracker.entries.map(({ index }) => index)).toEqual([5, 9]);
    expect(tracker.asOf(8)).toBe(B);
    expect(() => tracker.asOf(4)).toThrow(expect.objectContaining({ code: 'INVARIANT_BROKEN' }));
  });

  it('counts a member whose removal is not committed among the possible members', () => {
    const tracker = trackerOf(0, 5, 9);
    expect([...tracker.possibleMembers()].sort()).toEqual([1, 2, 3, 4]);
    tracker.commit(9);
    expect([...tracker.possibleMembers()].sort()).toEqual([1, 2, 4]);
  });

  it('starts with a snapshot and what the log holds behind it, as far as the commit index reaches', () => {
    const entries = [A, B, C].map((configuration, i) => ({ index: [4, 6, 8][i] ?? 0, configuration }));
    const tracker = new ConfigurationTracker(entries, 7, 4);
    expect([tracker.committed.index, tracker.newest.index]).toEqual([6, 8]);
  });
});
