import { describe, expect, it } from 'vitest';
import type { FlowLimits } from '../../../src/raft/state/inflights.ts';
import { Progress } from '../../../src/raft/state/progress.ts';

const LIMITS: FlowLimits = { inflightMessagesMax: 3, inflightBytesMax: 100 };

/** A follower that has acknowledged entries up to `matchIndex`. */
function replicating(matchIndex: number): Progress {
  const progress = new Progress(matchIndex + 1, LIMITS, 0);
  progress.acknowledged(matchIndex, 0);
  return progress;
}

describe('what a leader knows of a follower', () => {
  it('begins by probing: one append, and then no other until it is answered', () => {
    const progress = new Progress(5, LIMITS, 0);
    expect(progress.maySend).toBe(true);
    progress.sent(6, 10);
    expect(progress.maySend).toBe(false);
    expect(progress.nextIndex).toBe(5);
  });

  it('sends a probe again once a heartbeat was answered, since the probe or its answer was lost', () => {
    const progress = new Progress(5, LIMITS, 0);
    progress.sent(4, 0);
    progress.heartbeatAnswered();
    expect(progress.maySend).toBe(true);
  });

  it('sends ahead once an append was acknowledged', () => {
    const progress = new Progress(5, LIMITS, 0);
    progress.sent(6, 10);
    expect(progress.acknowledged(6, 0)).toBe(true);
    expect(progress).toMatchObject({ state: 'replicate', matchIndex: 6, nextIndex: 7 });
    progress.sent(9, 10);
    expect(progress).toMatchObject({ matchIndex: 6, nextIndex: 10, maySend: true });
  });

  it('stops at the limit of messages in flight, and goes on when one is acknowledged', () => {
    const progress = replicating(0);
    for (const last of [1, 2, 3]) progress.sent(last, 1);
    expect(progress.maySend).toBe(false);
    progress.acknowledged(1, 0);
    expect(progress.maySend).toBe(true);
  });

  it('stops at the limit of bytes in flight, and goes on when some are acknowledged', () => {
    const progress = replicating(0);
    progress.sent(1, 60);
    progress.sent(2, 60);
    expect(progress.maySend).toBe(false);
    progress.acknowledged(1, 0);
    expect(progress.maySend).toBe(true);
  });

  it('frees all that an acknowledgement covers, also where earlier ones were lost', () => {
    const progress = replicating(0);
    for (const last of [1, 2, 3]) progress.sent(last, 40);
    progress.acknowledged(3, 0);
    for (const last of [4, 5, 6]) {
      expect(progress.maySend).toBe(true);
      progress.sent(last, 30);
    }
    expect(progress.maySend).toBe(false);
  });

  it('counts no append without entries as in flight', () => {
    const progress = replicating(4);
    for (let i = 0; i < 10; i++) progress.sent(4, 0);
    expect(progress).toMatchObject({ maySend: true, nextIndex: 5 });
  });

  it('never takes back what was acknowledged, whatever old answers come', () => {
    const progress = replicating(7);
    expect(progress.acknowledged(3, 0)).toBe(false);
    expect(progress.refused(5, 2)).toBe(false);
    expect(progress).toMatchObject({ matchIndex: 7, nextIndex: 8, state: 'replicate' });
  });

  it('probes from where the follower may agree when an append is refused', () => {
    const progress = new Progress(11, LIMITS, 0);
    progress.sent(10, 0);
    expect(progress.refused(10, 6)).toBe(true);
    expect(progress).toMatchObject({ state: 'probe', nextIndex: 7, maySend: true });
  });

  it('goes back by one at the least with every refusal, so that the search ends', () => {
    const progress = new Progress(4, LIMITS, 0);
    for (let prevIndex = 3; prevIndex > 0; prevIndex--) {
      progress.sent(prevIndex, 0);
      expect(progress.refused(prevIndex, 99)).toBe(true);
      expect(progress.nextIndex).toBe(prevIndex);
    }
  });

  it('heeds a refusal of its newest question only', () => {
    const progress = new Progress(11, LIMITS, 0);
    progress.sent(10, 0);
    expect(progress.refused(10, 6)).toBe(true);
    progress.sent(6, 0);
    expect(progress.refused(10, 2)).toBe(false);
    expect(progress).toMatchObject({ nextIndex: 7, maySend: false });
  });

  it('probes again, from what is certain, when what was sent ahead is refused', () => {
    const progress = replicating(4);
    progress.sent(8, 50);
    progress.sent(9, 50);
    expect(progress.maySend).toBe(false);
    expect(progress.refused(8, 3)).toBe(true);
    expect(progress).toMatchObject({ state: 'probe', nextIndex: 5, maySend: true });
  });

  it('sends nothing over a lost link, and probes at once when it stands again', () => {
    const progress = replicating(4);
    progress.sent(9, 50);
    progress.linkLost(0);
    expect(progress).toMatchObject({ state: 'probe', nextIndex: 5, maySend: false, linked: false });
    progress.linkUp(0);
    expect(progress).toMatchObject({ state: 'probe', nextIndex: 5, maySend: true, linked: true });
  });

  it('waits for entries that are being read back, and forgets about them when it has to begin again', () => {
    const progress = replicating(4);
    progress.beginReadBack(0);
    expect(progress.maySend).toBe(false);
    progress.linkUp(0);
    expect(progress).toMatchObject({ readingBack: false, maySend: true });
  });

  it('sends nothing to a follower that needs a snapshot, whatever it answers to heartbeats', () => {
    const progress = replicating(4);
    progress.sent(9, 50);
    progress.needsSnapshot(20, 0);
    expect(progress).toMatchObject({ state: 'snapshot', pendingSnapshot: 20, nextIndex: 21, matchIndex: 4 });
    progress.heartbeatAnswered();
    expect(progress.maySend).toBe(false);
    expect(progress.refused(9, 3)).toBe(false);
    expect(progress.refused(20, 3)).toBe(false);
    expect(progress).toMatchObject({ state: 'snapshot', maySend: false });
  });

  it('goes on behind the snapshot once it is acknowledged, with nothing in flight', () => {
    const progress = replicating(4);
    for (const last of [5, 6, 7]) progress.sent(last, 40);
    progress.needsSnapshot(20, 0);
    expect(progress.acknowledged(20, 15)).toBe(true);
    expect(progress).toMatchObject({ state: 'replicate', pendingSnapshot: 0, nextIndex: 21, matchIndex: 20 });
    expect(progress.maySend).toBe(true);
  });

  it('goes on without the snapshot where the follower came by another way to what the log still has', () => {
    const progress = new Progress(5, LIMITS, 0);
    progress.needsSnapshot(20, 0);
    expect(progress.acknowledged(14, 15)).toBe(true);
    expect(progress).toMatchObject({ state: 'snapshot', matchIndex: 14, nextIndex: 21 });
    expect(progress.acknowledged(15, 15)).toBe(true);
    expect(progress).toMatchObject({ state: 'replicate', matchIndex: 15, nextIndex: 16 });
  });

  it('goes on with more than the snapshot where the follower has more', () => {
    const progress = new Progress(5, LIMITS, 0);
    progress.needsSnapshot(20, 0);
    expect(progress.acknowledged(30, 15)).toBe(true);
    expect(progress).toMatchObject({ state: 'replicate', matchIndex: 30, nextIndex: 31 });
  });

  it('probes again for a follower whose link was lost while it fetched a snapshot, from where the log begins', () => {
    const progress = replicating(4);
    progress.needsSnapshot(20, 0);
    progress.linkLost(15);
    expect(progress).toMatchObject({ state: 'probe', pendingSnapshot: 0, nextIndex: 16, maySend: false });
    progress.linkUp(15);
    expect(progress).toMatchObject({ state: 'probe', nextIndex: 16, maySend: true });
  });

  it('probes again for a follower whose transfer has stalled, never below what it has acknowledged', () => {
    const progress = replicating(17);
    progress.needsSnapshot(20, 0);
    progress.probeAgain(15);
    expect(progress).toMatchObject({ state: 'probe', pendingSnapshot: 0, nextIndex: 18, maySend: true });
  });

  it('keeps the log behind a snapshot until a round behind it was shorter than an election timeout', () => {
    const progress = replicating(4);
    expect(progress.keepsLogFrom).toBe(Infinity);
    progress.needsSnapshot(20, 100);
    progress.tickCatchUp(160, 70, 10);
    expect(progress.keepsLogFrom).toBe(20);
    progress.acknowledged(20, 15);
    expect(progress.keepsLogFrom).toBe(20);
    // The snapshot took 60 ticks, so the log behind it may take as many.
    progress.tickCatchUp(160, 70, 10);
    progress.acknowledged(69, 20);
    progress.tickCatchUp(220, 110, 10);
    expect(progress.keepsLogFrom).toBe(69);
    progress.acknowledged(70, 20);
    progress.tickCatchUp(220, 110, 10);
    progress.acknowledged(110, 20);
    progress.tickCatchUp(230, 115, 10);
    expect(progress.keepsLogFrom).toBe(110);
    progress.acknowledged(115, 20);
    progress.tickCatchUp(239, 116, 10);
    expect(progress.keepsLogFrom).toBe(Infinity);
  });

  it('keeps no log for a follower that takes longer for a catch-up phase than for the one before', () => {
    const progress = replicating(4);
    progress.needsSnapshot(20, 100);
    progress.acknowledged(20, 15);
    progress.tickCatchUp(130, 50, 10);
    progress.acknowledged(50, 20);
    progress.tickCatchUp(150, 90, 10);
    progress.acknowledged(89, 20);
    progress.tickCatchUp(170, 110, 10);
    expect(progress.keepsLogFrom).toBe(89);
    progress.tickCatchUp(171, 110, 10);
    expect(progress.keepsLogFrom).toBe(Infinity);
  });

  it('gives each round an election timeout at least, however quick the snapshot was', () => {
    const progress = replicating(4);
    progress.needsSnapshot(20, 100);
    progress.acknowledged(20, 15);
    progress.tickCatchUp(101, 50, 10);
    progress.tickCatchUp(111, 50, 10);
    expect(progress.keepsLogFrom).toBe(20);
    progress.tickCatchUp(112, 50, 10);
    expect(progress.keepsLogFrom).toBe(Infinity);
  });

  it('keeps no log for a follower whose link is lost, or that is probed again, while it catches up', () => {
    for (const lose of [(lost: Progress) => lost.linkLost(15), (lost: Progress) => lost.probeAgain(15)]) {
      const progress = replicating(4);
      progress.needsSnapshot(20, 100);
      progress.acknowledged(20, 15);
      progress.tickCatchUp(130, 50, 10);
      lose(progress);
      expect(progress.keepsLogFrom).toBe(Infinity);
    }
  });

  it('forgets about entries that are being read back when the follower needs a snapshot instead', () => {
    const progress = replicating(4);
    progress.beginReadBack(0);
    progress.needsSnapshot(20, 0);
    expect(progress).toMatchObject({ readingBack: false, maySend: false });
    progress.acknowledged(20, 20);
    expect(progress.maySend).toBe(true);
  });
});
