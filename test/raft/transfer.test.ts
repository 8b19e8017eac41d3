import { describe, expect, it } from 'vitest';
import type { Message } from '../../src/raft/state/types.ts';
import {
  crash,
  ELECTION_TIMEOUT_TICKS,
  elect,
  HEARTBEAT_INTERVAL_TICKS,
  restart,
  smallCluster,
  stabilize,
  tick,
  votersOf,
} from './small-cluster.ts';

/** Until a leader has noticed that its disk hangs: the first tick sees what was written before. */
const STALL_TICKS = ELECTION_TIMEOUT_TICKS + 2;

describe('leadership transfer', () => {
  it('finds a successor at any time, also just after a check of the quorum', () => {
    for (let ticks = 0; ticks < 2 * ELECTION_TIMEOUT_TICKS; ticks++) {
      const cluster = smallCluster(votersOf(3));
      elect(cluster, 1);
      for (let i = 0; i < ticks; i++) {
        // What the last tick sent is still under way when the handing over is asked for.
        stabilize(cluster);
        tick(cluster, 1);
      }
      cluster.step(1, { kind: 'transferLeadership', to: 0 });
      stabilize(cluster);
      expect(cluster.leader()?.id, `after ${ticks} ticks`).not.toBe(1);
    }
  });

  it('goes to a node whose link stands, though one whose link was lost holds as much', () => {
    const cluster = smallCluster(votersOf(3));
    elect(cluster, 1);
    cluster.crash(2);
    cluster.step(1, { kind: 'linkLost', peer: 2 });
    cluster.step(1, { kind: 'transferLeadership', to: 0 });
    stabilize(cluster);
    expect(cluster.leader()?.id).toBe(3);
  });

  it('is refused at once, so that writes go on, where the node that is named cannot take over', () => {
    const cluster = smallCluster(votersOf(3));
    elect(cluster, 1);
    const isTried = (to: number) => {
      cluster.step(1, { kind: 'transferLeadership', to });
      return cluster.node(1).core?.leading?.transfer !== null;
    };
    cluster.step(2, { kind: 'diskFull', full: true });
    tick(cluster, 1, HEARTBEAT_INTERVAL_TICKS);
    stabilize(cluster);
    expect(isTried(2)).toBe(false);
    cluster.step(1, { kind: 'linkLost', peer: 3 });
    expect(isTried(3)).toBe(false);
    cluster.crash(3);
    cluster.wipe(3, 'uninitialized');
    cluster.start(3);
    cluster.step(1, { kind: 'linkUp', peer: 3 });
    stabilize(cluster);
    expect(isTried(3)).toBe(false);
    expect(cluster.propose(1, 'x')).toBe(true);
    cluster.step(1, { kind: 'diskFull', full: true });
    expect(isTried(2)).toBe(true);
  });

  it('is not completed to a node that turns out not to count', () => {
    const cluster = smallCluster(votersOf(3));
    elect(cluster, 1);
    cluster.crash(2);
    cluster.wipe(2, 'uninitialized');
    cluster.step(1, { kind: 'transferLeadership', to: 2 });
    cluster.wire = [];
    cluster.start(2);
    tick(cluster, 1, HEARTBEAT_INTERVAL_TICKS);
    stabilize(cluster);
    const sent = new Set<string>();
    tick(cluster, 1, HEARTBEAT_INTERVAL_TICKS);
    stabilize(cluster, ({ kind, to }) => {
      if (to === 2) sent.add(kind);
      return false;
    });
    expect(cluster.node(1).core?.leading?.transfer?.to).toBe(2);
    expect(cluster.node(1).core?.leading?.progress.get(2)?.matchIndex).toBe(cluster.node(1).core?.log.lastIndex);
    expect([...sent]).not.toContain('timeoutNow');
  });

  it('goes to a node that lacks what only the hanging disk of this one could read back', () => {
    const cluster = smallCluster(votersOf(3), { cacheBytesMax: 0 });
    elect(cluster, 1);
    for (const id of [2, 3]) crash(cluster, id);
    cluster.propose(1, 'x');
    stabilize(cluster);
    cluster.wire = [];
    for (const id of [2, 3]) restart(cluster, id);
    cluster.propose(1, 'y');
    const node = cluster.node(1);
    expect(node.core?.log).toMatchObject({ lastIndex: 3, persistedIndex: 2, firstCachedIndex: 3 });
    const hangs = () => {
      node.readBacks = [];
      for (const id of [2, 3]) cluster.flushDisk(id);
      while (cluster.wire.length > 0) cluster.deliver(0);
    };
    for (let i = 0; i < STALL_TICKS; i++) {
      hangs();
      expect(cluster.leader()?.id).toBe(1);
      expect(cluster.propose(1, 'z')).toBe(true);
      tick(cluster, 1);
    }
    for (let i = 0; i < 5; i++) hangs();
    expect(cluster.leader()).toMatchObject({ id: 2, term: 2 });
    expect(cluster.propose(2, 'w')).toBe(true);
    for (let i = 0; i < 5; i++) hangs();
    expect(cluster.node(3).core?.log).toMatchObject({ lastIndex: 3, lastTerm: 2, commitIndex: 3 });
  });

  it('goes to no node that has waited for less than an election timeout for what is read back', () => {
    const cluster = smallCluster(votersOf(3), { cacheBytesMax: 0 });
    elect(cluster, 1);
    for (const id of [2, 3]) crash(cluster, id);
    cluster.propose(1, 'x');
    stabilize(cluster);
    cluster.propose(1, 'y');
    tick(cluster, 1, STALL_TICKS - 3);
    cluster.wire = [];
    restart(cluster, 2);
    expect(cluster.node(1).readBacks).toHaveLength(1);
    tick(cluster, 1, 3);
    // It looked just now at whether to hand over, and starts to wait again.
    const { core } = cluster.node(1);
    expect(core?.leading).toMatchObject({ transfer: null, diskProgressAt: core?.now });
  });

  it('is over, and writes are taken again, after an election timeout at the most', () => {
    const cluster = smallCluster(votersOf(3));
    elect(cluster, 1);
    cluster.step(1, { kind: 'transferLeadership', to: 2 });
    expect(cluster.propose(1, 'x')).toBe(false);
    stabilize(cluster, ({ kind }) => kind === 'timeoutNow');
    for (let i = 0; i < ELECTION_TIMEOUT_TICKS; i++) {
      tick(cluster, 1);
      stabilize(cluster, ({ kind }) => kind === 'timeoutNow');
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
  stabilize(cluster, ({ to, kind }) => to === 2 && kind === 'append');
  const seen = new Set<Message>();
  const isLost = (message: Message) => {
    if (seen.has(message)) return false;
    seen.add(message);
    return seen.size - 1 === lost;
  };
  cluster.step(1, { kind: 'transferLeadership', to: 2 });
  for (let i = 0; i < 3 * ELECTION_TIMEOUT_TICKS; i++) {
    stabilize(cluster, isLost);
    if (cluster.leader()?.id === 2) break;
    for (const id of cluster.nodes.keys()) tick(cluster, id);
  }
  expect(cluster.propose(cluster.leader()?.id ?? 0, 'y'), `without message ${lost}`).toBe(true);
  return seen.size;
}
