import { describe, expect, it } from 'vitest';
import { ClusterView, describeCluster } from '../../../src/cli/spawner/cluster-view.ts';
import { createManualClock, fakeConfig } from '../fake-cluster.ts';

function createView(nodeCount: number) {
  const clock = createManualClock();
  let announcements = 0;
  const config = fakeConfig(nodeCount);
  const view = new ClusterView(config, clock, () => announcements++);
  const serve = (...ids: number[]) => {
    for (const id of ids) {
      view.heard(id, { kind: 'listening' });
      view.heard(id, { kind: 'serving' });
    }
  };
  return { view, clock, config, serve, announced: () => announcements };
}

describe('what the spawner knows of its nodes', () => {
  it('follows a node from its start to its end and back', () => {
    const { view } = createView(1);
    const seen = [view.stateOf(1)];
    for (const kind of ['listening', 'serving'] as const) {
      view.heard(1, { kind });
      seen.push(view.stateOf(1));
    }
    view.ended(1);
    seen.push(view.stateOf(1));
    view.started(1);
    seen.push(view.stateOf(1));
    expect(seen).toEqual(['starting', 'waiting', 'serving', 'down', 'starting']);
  });

  it('names the leader that the newest term has', () => {
    const { view } = createView(3);
    view.heard(1, { kind: 'leaderChanged', leader: 1, term: 4 });
    view.heard(2, { kind: 'leaderChanged', leader: 3, term: 5 });
    view.heard(3, { kind: 'leaderChanged', leader: 0, term: 6 });
    expect(view.leader).toBe(3);
  });

  it('announces once, also when nodes come and go later', () => {
    const { view, serve, announced } = createView(3);
    serve(1, 2, 3);
    view.ended(3);
    view.started(3);
    serve(3);
    expect(announced()).toBe(1);
  });

  it('announces nothing where the majority is lost again while it waits for the others', () => {
    const { view, clock, serve, announced } = createView(3);
    serve(1, 2);
    view.ended(2);
    clock.timers[0]?.fire();
    expect(announced()).toBe(0);
    view.started(2);
    serve(2, 3);
    expect(announced()).toBe(1);
  });

  it('does not wait for a node that the cluster has removed', () => {
    const { view, serve, announced } = createView(3);
    view.heard(3, { kind: 'removed' });
    view.ended(3);
    expect(view.stateOf(3)).toBe('removed');
    serve(1);
    expect(announced()).toBe(0);
    serve(2);
    expect(announced()).toBe(1);
  });

  it('announces nothing any more when it is closed', () => {
    const { view, clock, serve, announced } = createView(3);
    serve(1, 2);
    view.close();
    expect(clock.timers).toEqual([]);
    serve(3);
    expect(announced()).toBe(0);
  });
});

describe('the table of a cluster that serves', () => {
  it('shows the ports, who leads, who is missing, and a line to paste', () => {
    const { view, config, serve } = createView(3);
    view.ended(1);
    serve(2, 3);
    view.heard(3, { kind: 'leaderChanged', leader: 3, term: 1 });
    expect(describeCluster(config, view)).toBe(`
Cluster fake serves.

  node  clients          peers  admin
  1     127.0.0.1:11001  12001  13001  down
  2     127.0.0.1:11002  12002  13002  follows
  3     127.0.0.1:11003  12003  13003  leads

Try it:

  printf 'set a 0 0 5\\r\\nhello\\r\\nget a\\r\\nquit\\r\\n' | nc 127.0.0.1 11002

`);
  });
});
