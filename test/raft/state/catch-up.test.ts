import { describe, expect, it } from 'vitest';
import { CatchUp } from '../../../src/raft/state/catch-up.ts';

const TIMEOUT = 10;

describe('how a follower catches up', () => {
  it('has caught up when it reaches, in less than an election timeout, where the log ended when the phase began', () => {
    const catchUp = new CatchUp();
    catchUp.tick(0, 3, 50, TIMEOUT);
    expect(catchUp.isCaughtUp).toBe(false);
    catchUp.tick(9, 49, 60, TIMEOUT);
    expect(catchUp.isCaughtUp).toBe(false);
    catchUp.tick(9, 50, 60, TIMEOUT);
    expect(catchUp.isCaughtUp).toBe(true);
  });

  it('has not caught up after a phase as long as an election timeout; the next phase decides again', () => {
    const catchUp = new CatchUp();
    catchUp.tick(0, 3, 50, TIMEOUT);
    catchUp.tick(10, 50, 60, TIMEOUT);
    expect(catchUp.isCaughtUp).toBe(false);
    catchUp.tick(12, 60, 61, TIMEOUT);
    expect(catchUp.isCaughtUp).toBe(true);
  });

  it('falls behind again while a later phase is not finished', () => {
    const catchUp = new CatchUp();
    catchUp.tick(0, 50, 50, TIMEOUT);
    catchUp.tick(1, 50, 90, TIMEOUT);
    expect(catchUp.isCaughtUp).toBe(true);
    catchUp.tick(2, 89, 95, TIMEOUT);
    expect(catchUp.isCaughtUp).toBe(false);
  });

  it('keeps the log from the offer of a snapshot until the follower has caught up', () => {
    const catchUp = new CatchUp();
    expect(catchUp.keepsLog).toBe(false);
    catchUp.beginSnapshot(100);
    catchUp.tick(130, 20, 50, TIMEOUT);
    catchUp.tick(160, 50, 80, TIMEOUT);
    expect(catchUp.keepsLog).toBe(true);
    catchUp.tick(165, 80, 81, TIMEOUT);
    expect([catchUp.keepsLog, catchUp.isCaughtUp]).toEqual([false, true]);
  });

  it('keeps the log no longer for a phase that lasts longer than the one before', () => {
    const catchUp = new CatchUp();
    catchUp.beginSnapshot(100);
    catchUp.tick(130, 20, 50, TIMEOUT);
    catchUp.tick(160, 49, 80, TIMEOUT);
    expect(catchUp.keepsLog).toBe(true);
    catchUp.tick(161, 49, 80, TIMEOUT);
    expect(catchUp.keepsLog).toBe(false);
  });

  it('starts again without anything known once it is abandoned', () => {
    const catchUp = new CatchUp();
    catchUp.beginSnapshot(0);
    catchUp.abandon();
    expect([catchUp.keepsLog, catchUp.isCaughtUp]).toEqual([false, false]);
    catchUp.tick(1, 5, 5, TIMEOUT);
    catchUp.tick(2, 5, 5, TIMEOUT);
    expect([catchUp.keepsLog, catchUp.isCaughtUp]).toEqual([false, true]);
  });
});
