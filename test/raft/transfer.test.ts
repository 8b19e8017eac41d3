import { describe, expect, it } from 'vitest';
import type { Message } from '../../src/raft/types.ts';
import { ELECTION_TIMEOUT_TICKS, elect, settle, smallCluster, tick, votersOf } from './small-cluster.ts';

describe('leadership transfer', () => {
  it('finds a successor at any time, also just after a check of the quorum', () => {
    for (let ticks = 0; ticks < 2 * ELECTION_TIMEOUT_TICKS; ticks++) {
      const cluster = smallCluster(votersOf(3));
      elect(cluster, 1);
      for (let i = 0; i < ticks; i++) {
        // What the last tick sent is still under way when the handing over is asked for.
        settle(cluster);
        tick(cluster, 1);
      }
      cluster.step(1, { kind: 'transferLeadership', to: 0 });
      settle(cluster);
      expect(cluster.leader()?.id, `after ${ticks} ticks`).not.toBe(1);
    }
  });

  it('goes to a node whose link stands, though one whose link was lost holds as much', () => {
    const cluster = smallCluster(votersOf(3));
    elect(cluster, 1);
    cluster.crash(2);
    cluster.step(1, { kind: 'linkLost', peer: 2 });
    cluster.step(1, { kind: 'transferLeadership', to: 0 });
    settle(cluster);
    expect(cluster.leader()?.id).toBe(3);
  });

  it('is over, and writes are taken again, after an election timeout at the most', () => {
    const cluster = smallCluster(votersOf(3));
    elect(cluster, 1);
    cluster.step(1, { kind: 'transferLeadership', to: 2 });
    expect(cluster.propose(1, 'x')).toBe(false);
    settle(cluster, ({ kind }) => kind === 'timeoutNow');
    for (let i = 0; i < ELECTION_TIMEOUT_TICKS; i++) {
      tick(cluster, 1);
      settle(cluster, ({ kind }) => kind === 'timeoutNow');
    }
    expect(cluster.propose(1, 'x')).toBe(true);
  });

  it('leaves a leader that takes writes, whichever one of its messages is lost', () => {
    const messages = transferWithout(-1);
    expect(messages).toBeGreaterThan(5);
    for (let lost = 0; lost < messages; lost++) transferWithout(lost);
  });
});

/** Hands over to a follower that lags, losing the message that is sent as number `lost`. Gives how many were sent. */
function transferWithout(lost: number): number {
  const cluster = smallCluster(votersOf(3));
  elect(cluster, 1);
  cluster.propose(1, 'x');
  settle(cluster, ({ to, kind }) => to === 2 && kind === 'append');
  const seen = new Set<Message>();
  const isLost = (message: Message) => {
    if (seen.has(message)) return false;
    seen.add(message);
    return seen.size - 1 === lost;
  };
  cluster.step(1, { kind: 'transferLeadership', to: 2 });
  for (let i = 0; i < 3 * ELECTION_TIMEOUT_TICKS; i++) {
    settle(cluster, isLost);
    if (cluster.leader()?.id === 2) break;
    for (const id of cluster.nodes.keys()) tick(cluster, id);
  }
  expect(cluster.propose(cluster.leader()?.id ?? 0, 'y'), `without message ${lost}`).toBe(true);
  return seen.size;
}
