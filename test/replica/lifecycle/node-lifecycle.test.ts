import { beforeEach, describe, expect, it } from 'vitest';
import { silentLogger } from '../../../src/base/logger.ts';
import { configurationOf } from '../../../src/raft/state/configuration.ts';
import type { Core } from '../../../src/raft/state/core.ts';
import type { Input, LifecycleStatus, Message } from '../../../src/raft/state/types.ts';
import { NodeLifecycle, type OwnSession } from '../../../src/replica/lifecycle/node-lifecycle.ts';
import type { LifecycleMessage, PeerMessage } from '../../../src/replica/peers/wire.ts';
import type { PeerAddress } from '../../../src/transport/types.ts';
import { coreOf } from '../cores.ts';
import { microtasks } from '../support.ts';

const SELF = 2;
const ELECTION_MS = 300;
/** Listed in the configuration file, but no member. */
const NOT_A_MEMBER = 8;

class FakeSession implements OwnSession {
  sessionId = 7;
  appliedSessionId = 0;
  mayPropose = false;
  starts = 0;
  readonly changes: number[] = [];

  changeSessionId(sessionId: number): void {
    this.sessionId = sessionId;
    this.changes.push(sessionId);
  }

  startProposing(): void {
    this.mayPropose = true;
    this.starts++;
  }
}

/** From a node that is ready to bootstrap, unless told otherwise. */
const news = (lifecycle: LifecycleStatus, nodes = [1, 2, 3], ready = true): LifecycleMessage => ({
  kind: 'lifecycle',
  lifecycle,
  ready,
  nodes,
});

function fromLeader(kind: 'append' | 'heartbeat' | 'commit' | 'snapshotOffer'): Message {
  const envelope = { from: 1, to: SELF, term: 1 };
  switch (kind) {
    case 'append':
      return { kind, ...envelope, prevIndex: 0, prevTerm: 0, commitIndex: 0, entries: [] };
    case 'heartbeat':
      return { kind, ...envelope, commitIndex: 0, directoryId: 0, round: 1, clusterFull: false };
    case 'commit':
      return { kind, ...envelope, index: 1, indexTerm: 1, commitIndex: 1 };
    case 'snapshotOffer':
      return { kind, ...envelope, snapshotIndex: 1, snapshotTerm: 1 };
  }
}

/** What node 2 makes of its own data and of what the others say. */
describe('the lifecycle of a node', () => {
  let core: Core;
  let sent: string[];
  let nodesSent: (readonly number[])[];
  let stepped: Input[];
  let persisted: string[];
  let aloneNotes: boolean[];
  let noRoom: boolean;
  let fatal: unknown[];
  let removals: number;
  let session: FakeSession;
  /** What is to become durable waits here. */
  let disk: { resolve: () => void; reject: (error: Error) => void }[];
  let nodeLifecycle: NodeLifecycle;
  /** The nodes with which links are kept. */
  let linked: number[];
  /** Who waits until all is applied that was acknowledged when this incarnation began. */
  let waiting: (() => void)[];

  beforeEach(() => {
    sent = [];
    nodesSent = [];
    stepped = [];
    persisted = [];
    aloneNotes = [];
    noRoom = false;
    fatal = [];
    removals = 0;
    disk = [];
    waiting = [];
    linked = [];
  });

  function begin(lifecycle: LifecycleStatus, { initialMembers = [1, 2, 3] as number[] | null, term = 0 } = {}) {
    core = coreOf(SELF, { lifecycle, term, configuration: configurationOf(initialMembers ?? []) });
    const persist = (what: string) => {
      persisted.push(what);
      return new Promise<void>((resolve, reject) => disk.push({ resolve, reject }));
    };
    const options = {
      logger: silentLogger,
      initialMembers,
      timing: { electionTimeoutMs: ELECTION_MS },
      // Of 2^48 - 1 directory ids, the one at 99.
      random: () => 98.5 / (2 ** 48 - 1),
      peerAddresses: [{ id: NOT_A_MEMBER, host: 'listed', port: 1 }],
      transport: {
        isUp: () => true,
        setPeers(peers: readonly PeerAddress[]) {
          linked = peers.map(({ id }) => id);
        },
      },
      persistBootstrapped: () => persist('bootstrapped'),
      persistLifecycle: (which: string, directoryId: number) => persist(`${which} ${directoryId}`),
      raiseIncarnation: (count: number) => persist(`incarnation ${count}`),
      async persistAlone(alone: boolean) {
        aloneNotes.push(alone);
        if (noRoom) throw Object.assign(new Error('no room'), { code: 'ENOSPC' });
      },
      onRemoved: () => removals++,
    };
    const loop = {
      core,
      put(input: Input) {
        stepped.push(input);
        if (input.kind === 'lifecycle') core.rights.lifecycle = input.lifecycle;
      },
      run: (action: () => void) => action(),
      fail: (error: unknown) => fatal.push(error),
    };
    const sender = {
      tell(to: number, message: PeerMessage) {
        if (message.kind !== 'lifecycle') return true;
        const { lifecycle: said, ready, nodes } = message;
        sent.push(`${to} ${said === 'uninitialized' && ready ? 'ready' : said}`);
        nodesSent.push(nodes);
        return true;
      },
    };
    const reads = { onceCurrent: (callback: () => void) => waiting.push(callback) };
    session = new FakeSession();
    nodeLifecycle = new NodeLifecycle(options, loop, sender, session, reads);
    nodeLifecycle.begin();
  }

  /** Lets so many election timeouts pass. */
  function listen(electionTimeouts = 1): void {
    for (let ms = 0; ms <= electionTimeouts * ELECTION_MS; ms += 10) nodeLifecycle.tick(ms);
  }

  /** A node that is lost also keeps links with nodes that only its configuration file lists. */
  const isLost = () => linked.includes(NOT_A_MEMBER);

  function catchUp(): void {
    for (const callback of waiting.splice(0)) callback();
  }

  async function written(): Promise<void> {
    for (const { resolve } of disk.splice(0)) resolve();
    await microtasks();
  }

  describe('that is uninitialized', () => {
    it('becomes a member once all are uninitialized and ready to bootstrap, and not before that is durable', async () => {
      begin('uninitialized');
      listen();
      nodeLifecycle.linkUp(1);
      nodeLifecycle.receive(1, news('uninitialized'));
      nodeLifecycle.linkUp(3);
      expect([sent.splice(0), persisted]).toEqual([['1 uninitialized', '3 uninitialized'], []]);
      nodeLifecycle.receive(3, news('uninitialized', [1, 2, 3], false));
      expect([sent.splice(0), persisted]).toEqual([['1 ready', '3 ready'], []]);
      nodeLifecycle.receive(3, news('uninitialized'));
      nodeLifecycle.receive(3, news('uninitialized'));
      await microtasks();
      expect([persisted, stepped, session.mayPropose]).toEqual([['bootstrapped'], [], false]);
      await written();
      expect(stepped).toEqual([{ kind: 'lifecycle', lifecycle: 'normal', directoryId: 0 }]);
      expect([session.mayPropose, session.starts]).toEqual([true, 1]);
      // It has done nothing yet, so a node that died meanwhile must not be taken for wiped.
      expect(sent).toEqual(['1 ready', '3 ready']);
    });

    describe('and is ready to bootstrap', () => {
      beforeEach(() => {
        begin('uninitialized');
        listen();
        for (const id of [1, 3]) {
          nodeLifecycle.linkUp(id);
          nodeLifecycle.receive(id, news('uninitialized', [1, 2, 3], false));
        }
        expect(persisted).toEqual([]);
      });

      it('is an initial member although the others have begun meanwhile: it has forgotten nothing', async () => {
        nodeLifecycle.receive(3, news('normal'));
        await written();
        expect(persisted).toEqual(['bootstrapped']);
        expect(stepped).toEqual([{ kind: 'lifecycle', lifecycle: 'normal', directoryId: 0 }]);
      });

      it('is one also where it hears of that by a leader', () => {
        nodeLifecycle.hear(fromLeader('heartbeat'));
        expect(persisted).toEqual(['bootstrapped']);
      });

      it('is one where it hears of that only after its link was lost', () => {
        nodeLifecycle.linkLost(3);
        nodeLifecycle.linkUp(3);
        nodeLifecycle.receive(3, news('normal'));
        expect(persisted).toEqual(['bootstrapped']);
      });

      it('recovers if an unknown node has asked for a link since', () => {
        nodeLifecycle.unknownPeer(7);
        nodeLifecycle.receive(3, news('normal'));
        expect(persisted).toEqual(['recovering 99']);
      });

      it('waits for those who have not, but not for ever', () => {
        for (let ms = ELECTION_MS; ms < 11 * ELECTION_MS; ms += 10) nodeLifecycle.tick(ms);
        expect(persisted).toEqual([]);
        nodeLifecycle.tick(11 * ELECTION_MS);
        expect(persisted).toEqual(['bootstrapped']);
      });
    });

    it.each(['normal', 'recovering'] as const)(
      'recovers where another is %s, as a new directory',
      async (lifecycle) => {
        begin('uninitialized');
        nodeLifecycle.linkUp(1);
        nodeLifecycle.receive(1, news(lifecycle));
        nodeLifecycle.linkUp(3);
        nodeLifecycle.receive(3, news('uninitialized'));
        await written();
        expect(persisted).toEqual(['recovering 99']);
        expect(stepped).toEqual([{ kind: 'lifecycle', lifecycle: 'recovering', directoryId: 99 }]);
        expect(session.mayPropose).toBe(false);
        expect(sent.slice(-2)).toEqual(['1 recovering', '3 recovering']);
      },
    );

    it.each(['append', 'heartbeat', 'commit', 'snapshotOffer'] as const)(
      'recovers when it hears a leader, whatever else was lost on the way: by %s',
      (kind) => {
        begin('uninitialized');
        nodeLifecycle.hear(fromLeader(kind));
        expect(persisted).toEqual(['recovering 99']);
      },
    );

    it('bootstraps no cluster against what it has heard because others have elected a leader', () => {
      begin('uninitialized', { initialMembers: [1, SELF] });
      nodeLifecycle.linkUp(1);
      nodeLifecycle.unknownPeer(7);
      listen();
      core.leader = 1;
      nodeLifecycle.receive(1, news('uninitialized', [1, SELF, 7]));
      expect(persisted).toEqual([]);
    });

    it('listens for a while before it bootstraps a cluster, and longest where it is alone', () => {
      begin('uninitialized');
      for (const id of [1, 3]) {
        nodeLifecycle.linkUp(id);
        nodeLifecycle.receive(id, news('uninitialized'));
      }
      for (let ms = 0; ms < ELECTION_MS; ms += 10) nodeLifecycle.tick(ms);
      expect([persisted, sent]).toEqual([[], []]);
      nodeLifecycle.tick(ELECTION_MS);
      expect([persisted.splice(0), sent]).toEqual([
        ['bootstrapped'],
        expect.arrayContaining(['1 uninitialized', '3 uninitialized']),
      ]);
      begin('uninitialized', { initialMembers: [SELF] });
      for (let ms = 0; ms < 3 * ELECTION_MS; ms += 10) nodeLifecycle.tick(ms);
      expect(persisted).toEqual([]);
      nodeLifecycle.tick(3 * ELECTION_MS);
      expect(persisted).toEqual(['bootstrapped']);
    });

    it('bootstraps no cluster once an unknown node of this cluster has asked for a link, says why, and tells the others', () => {
      begin('uninitialized', { initialMembers: [1, SELF] });
      nodeLifecycle.linkUp(1);
      nodeLifecycle.unknownPeer(7);
      nodeLifecycle.unknownPeer(5);
      listen();
      nodeLifecycle.receive(1, news('uninitialized', [1, SELF]));
      expect(persisted).toEqual([]);
      expect(nodeLifecycle.healthProblem()).toMatch(
        /^nodes 5 and 7 of this cluster are not in the configuration file\. List all/,
      );
      expect(nodesSent.at(-1)).toEqual([1, SELF, 5, 7]);
      // Such a one is a member, after all.
      nodeLifecycle.linkUp(5);
      nodeLifecycle.receive(5, news('normal', []));
      expect(persisted).toEqual(['recovering 99']);
    });

    it.each([[[1, 2, 3, 4]], [[1, 2]], [[1, 2, 4]], [[]]])(
      'bootstraps no cluster with one that knows of %j',
      (nodes) => {
        begin('uninitialized');
        listen();
        for (const id of [1, 3]) nodeLifecycle.linkUp(id);
        nodeLifecycle.receive(1, news('uninitialized'));
        nodeLifecycle.receive(3, news('uninitialized', nodes));
        expect(persisted).toEqual([]);
        expect(nodeLifecycle.healthProblem()).toMatch(
          /^the configuration files differ: node 3 knows of no?.*, this node of nodes 1, 2 and 3\. List all/,
        );
        nodeLifecycle.receive(3, news('uninitialized'));
        expect(persisted).toEqual(['bootstrapped']);
      },
    );

    it('forgets what those have said who are no longer linked', () => {
      begin('uninitialized');
      listen();
      nodeLifecycle.linkUp(1);
      nodeLifecycle.receive(1, news('uninitialized'));
      nodeLifecycle.linkLost(1);
      nodeLifecycle.linkUp(3);
      nodeLifecycle.receive(3, news('uninitialized'));
      expect(persisted).toEqual([]);
    });

    it('recovers at once where it is a newcomer', () => {
      begin('uninitialized', { initialMembers: null });
      expect(persisted).toEqual(['recovering 99']);
    });

    it('says what it is again and again, until it has found a leader', () => {
      begin('uninitialized');
      nodeLifecycle.linkUp(1);
      for (let ms = 0; ms < ELECTION_MS; ms += 10) nodeLifecycle.tick(ms);
      expect(sent).toEqual([]);
      for (let ms = ELECTION_MS; ms <= 1000; ms += 10) nodeLifecycle.tick(ms);
      expect(sent.length).toBeGreaterThanOrEqual(3);
      expect(new Set(sent)).toEqual(new Set(['1 uninitialized']));
      sent.splice(0);
      core.rights.lifecycle = 'normal';
      core.term = 1;
      core.leader = 1;
      for (let ms = 1000; ms <= 2000; ms += 10) nodeLifecycle.tick(ms);
      expect(sent).toEqual([]);
    });

    it('ends with its process where that cannot be persisted', async () => {
      begin('uninitialized', { initialMembers: [SELF] });
      listen(3);
      disk[0]?.reject(new Error('EIO'));
      await microtasks();
      expect([fatal, stepped]).toEqual([[new Error('EIO')], []]);
    });
  });

  describe('that recovers', () => {
    it('is a member and may propose once all that earlier incarnations left is applied, and that is durable', async () => {
      begin('recovering');
      core.log.commitIndex = 12;
      nodeLifecycle.recovered();
      nodeLifecycle.applied(11);
      expect(persisted).toEqual([]);
      nodeLifecycle.applied(12);
      nodeLifecycle.applied(13);
      expect([persisted, stepped, session.mayPropose]).toEqual([['normal 0'], [], false]);
      await written();
      expect(stepped).toEqual([{ kind: 'lifecycle', lifecycle: 'normal', directoryId: 0 }]);
      expect(session.mayPropose).toBe(false);
      catchUp();
      expect([session.mayPropose, session.starts]).toEqual([true, 1]);
    });

    it('takes a higher session id before it proposes, if it was named long ago and another disk has used its own since', async () => {
      begin('recovering');
      core.log.commitIndex = 12;
      nodeLifecycle.recovered();
      nodeLifecycle.applied(12);
      await written();
      session.appliedSessionId = 7;
      nodeLifecycle.applied(13);
      catchUp();
      expect([persisted, session.mayPropose]).toEqual([['normal 0', 'incarnation 8'], false]);
      await written();
      expect([session.changes, session.mayPropose, fatal]).toEqual([[8], true, []]);
    });

    it.each([7, 8])(
      'takes a higher session id, durably first, if an earlier incarnation has used %i',
      async (sessionId) => {
        begin('recovering');
        session.appliedSessionId = sessionId;
        core.log.commitIndex = 12;
        nodeLifecycle.recovered();
        nodeLifecycle.applied(12);
        expect([persisted.splice(0), session.changes]).toEqual([[`incarnation ${sessionId + 1}`], []]);
        await written();
        expect([persisted, session.changes, session.mayPropose]).toEqual([['normal 0'], [sessionId + 1], false]);
        await written();
        catchUp();
        expect([session.changes, session.mayPropose, fatal]).toEqual([[sessionId + 1], true, []]);
        // What it goes by from now on is the new one.
        session.appliedSessionId = sessionId + 1;
        nodeLifecycle.applied(13);
        expect(persisted).toEqual(['normal 0']);
        session.appliedSessionId = sessionId + 2;
        nodeLifecycle.applied(14);
        await written();
        expect(fatal).toEqual([expect.objectContaining({ code: 'SESSION_BEHIND' })]);
      },
    );
  });

  describe('that is a member', () => {
    it('lets it propose once it has applied all that was acknowledged before, if no other incarnation has used its session', () => {
      begin('normal', { term: 3 });
      expect([session.mayPropose, session.starts]).toEqual([false, 0]);
      session.appliedSessionId = 6;
      catchUp();
      expect([session.mayPropose, session.starts, persisted]).toEqual([true, 1, []]);
    });

    it('takes a higher session id before it proposes, if its disk was restored and another has used its own', async () => {
      begin('normal', { term: 3 });
      session.appliedSessionId = 7;
      catchUp();
      expect(session.mayPropose).toBe(false);
      session.appliedSessionId = 9;
      await written();
      expect([session.changes, session.mayPropose]).toEqual([[8], false]);
      await written();
      expect([session.changes, session.mayPropose, session.starts]).toEqual([[8, 10], true, 1]);
      expect([persisted, fatal]).toEqual([['incarnation 8', 'incarnation 10'], []]);
    });

    it('proposes nothing where it cannot count on', async () => {
      begin('normal', { term: 3 });
      session.appliedSessionId = 7;
      catchUp();
      disk[0]?.reject(new Error('EIO'));
      await microtasks();
      expect([session.changes, session.mayPropose, fatal]).toEqual([[], false, [new Error('EIO')]]);
    });

    it('ends, to count on from there, where its disk is an old one that has missed starts', async () => {
      begin('normal', { term: 3 });
      catchUp();
      session.appliedSessionId = 7;
      nodeLifecycle.applied(11);
      expect(persisted).toEqual([]);
      session.appliedSessionId = 9;
      nodeLifecycle.applied(12);
      nodeLifecycle.applied(13);
      await written();
      expect([persisted, fatal]).toEqual([['incarnation 9'], [expect.objectContaining({ code: 'SESSION_BEHIND' })]]);
    });

    it('ends where a batch that is not its own has its session, once it has proposed', async () => {
      begin('normal', { term: 3 });
      nodeLifecycle.sessionUsed();
      expect(persisted).toEqual([]);
      catchUp();
      nodeLifecycle.sessionUsed();
      await written();
      expect([persisted, fatal]).toEqual([['incarnation 7'], [expect.objectContaining({ code: 'SESSION_BEHIND' })]]);
    });

    it('ends when most of the others say that it was removed; one alone may be behind', () => {
      begin('normal', { term: 3 });
      nodeLifecycle.removedSays(1);
      nodeLifecycle.removedSays(1);
      nodeLifecycle.removedSays(9);
      expect(removals).toBe(0);
      nodeLifecycle.removedSays(3);
      nodeLifecycle.removedSays(1);
      expect(removals).toBe(1);
    });
  });

  it('tells where an unknown node of the cluster has asked in vain, until it has found a leader or is a member', () => {
    begin('recovering', { initialMembers: [SELF] });
    nodeLifecycle.unknownPeer(1);
    expect(nodeLifecycle.healthProblem()).toMatch(/^node 1 of this cluster is not in the configuration file/);
    core.leader = 3;
    expect(nodeLifecycle.healthProblem()).toBe('');
    begin('normal', { term: 3 });
    nodeLifecycle.unknownPeer(9);
    expect(nodeLifecycle.healthProblem()).toBe('');
  });

  it('remembers whether it is the only voter, on either side of a joint configuration, once that changes', () => {
    begin('normal', { term: 3 });
    const become = (voters: number[], votersOutgoing: number[] = []) => {
      core.configurations.append(core.configurations.newest.index + 1, { ...configurationOf(voters), votersOutgoing });
      nodeLifecycle.configured();
    };
    become([1, 2], [1, 2, 3]);
    expect(aloneNotes.splice(0)).toEqual([false]);
    become([2], [1, 2]);
    become([2]);
    become([1, 2], [2]);
    expect(aloneNotes.splice(0)).toEqual([true]);
    become([1, 2]);
    become([1]);
    expect(aloneNotes.splice(0)).toEqual([false]);
  });

  it('is lost when it has heard of no leader for long; from then on unknown nodes are news', () => {
    begin('normal', { term: 3 });
    listen(9);
    nodeLifecycle.unknownPeer(9);
    expect([isLost(), nodeLifecycle.healthProblem()]).toEqual([false, '']);
    listen(10);
    nodeLifecycle.unknownPeer(9);
    expect(isLost()).toBe(true);
    expect(nodeLifecycle.healthProblem()).toMatch(/^node 9 of this cluster is not in the configuration file/);
    core.leader = 1;
    nodeLifecycle.tick(11 * ELECTION_MS);
    expect([isLost(), nodeLifecycle.healthProblem()]).toEqual([false, '']);
    // Another time counts from its own beginning, and by its own unknown nodes.
    core.leader = 0;
    nodeLifecycle.tick(12 * ELECTION_MS);
    nodeLifecycle.tick(21 * ELECTION_MS);
    expect(isLost()).toBe(false);
    nodeLifecycle.tick(22 * ELECTION_MS);
    expect([isLost(), nodeLifecycle.healthProblem()]).toEqual([true, '']);
  });

  it('tries again to remember it while the disk is full', async () => {
    noRoom = true;
    begin('normal', { term: 3 });
    await microtasks();
    nodeLifecycle.tick(ELECTION_MS);
    await microtasks();
    expect([aloneNotes.splice(0), fatal]).toEqual([[false, false], []]);
    noRoom = false;
    for (let ms = ELECTION_MS; ms <= 5 * ELECTION_MS; ms += 10) nodeLifecycle.tick(ms);
    expect(aloneNotes).toEqual([false]);
  });

  it('remembers nothing of the kind while it recovers: what it takes for the members may be out of date', () => {
    begin('recovering', { initialMembers: [SELF] });
    nodeLifecycle.configured();
    expect(aloneNotes).toEqual([]);
  });

  it('does not end as removed while it waits to be added again', () => {
    begin('recovering');
    for (const peer of [1, 3]) nodeLifecycle.removedSays(peer);
    expect(removals).toBe(0);
  });

  it('names who has lost data, for as long as they say so', () => {
    begin('normal', { term: 3 });
    nodeLifecycle.receive(1, news('recovering'));
    expect(nodeLifecycle.healthProblem()).toBe('');
    nodeLifecycle.hear({
      kind: 'voteReply',
      from: 3,
      to: SELF,
      term: 3,
      granted: false,
      directoryId: 0,
      withoutRights: true,
    });
    expect(nodeLifecycle.healthProblem()).toContain('nodes 1 and 3 lost data');
    nodeLifecycle.linkLost(1);
    expect(nodeLifecycle.healthProblem()).toBe('');
    nodeLifecycle.receive(1, news('recovering'));
    nodeLifecycle.hear({
      kind: 'preVoteReply',
      from: 3,
      to: SELF,
      term: 3,
      granted: false,
      directoryId: 0,
      withoutRights: false,
    });
    expect(nodeLifecycle.healthProblem()).toBe('');
  });
});
