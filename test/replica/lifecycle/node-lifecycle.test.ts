import { beforeEach, describe, expect, it } from 'vitest';
import { silentLogger } from '../../../src/base/logger.ts';
import { configurationOf, EMPTY_CONFIGURATION } from '../../../src/raft/state/configuration.ts';
import type { Core } from '../../../src/raft/state/core.ts';
import type { Configuration, Input, LifecycleStatus, Message } from '../../../src/raft/state/types.ts';
import { newDirectoryId } from '../../../src/replica/lifecycle/identity.ts';
import { NodeLifecycle } from '../../../src/replica/lifecycle/node-lifecycle.ts';
import type { OwnSession } from '../../../src/replica/lifecycle/session-start.ts';
import type { LifecycleMessage, PeerMessage } from '../../../src/replica/peers/wire.ts';
import type { MetaState } from '../../../src/storage/meta.ts';
import type { PeerAddress } from '../../../src/transport/types.ts';
import { addressOf } from '../cluster.ts';
import { coreOf } from '../cores.ts';
import { ManualClock, microtasks } from '../support.ts';

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

const CLUSTER = '0123456789abcdef0123456789abcdef';
const OTHER_CLUSTER = 'f'.repeat(32);
/** What `random` draws. */
const NEW_DIRECTORY = newDirectoryId(() => 0.5);
/** This node's directory, and those of the other nodes unless told otherwise. */
const directoryOf = (id: number) => 40 + id;

const news = (
  lifecycle: LifecycleStatus,
  nodes: number[],
  changes: Partial<LifecycleMessage> = {},
): LifecycleMessage => ({
  kind: 'lifecycle',
  lifecycle,
  directoryId: directoryOf(nodes.at(-1) ?? 0),
  nodes,
  first: null,
  ...changes,
});

/** A first configuration with the directories of these nodes. */
const firstOf = (...ids: number[]): Configuration => {
  const details = ids.map((id) => ({ id, address: null, directoryId: directoryOf(id), joins: false, replaces: 0 }));
  return configurationOf(ids, details, CLUSTER);
};

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
  let firstsSent: (Configuration | null)[];
  let stepped: Input[];
  let persisted: string[];
  let onlyVoterNotes: boolean[];
  let clusterIds: string[];
  let clock: ManualClock;
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
    firstsSent = [];
    stepped = [];
    persisted = [];
    onlyVoterNotes = [];
    clusterIds = [];
    clock = new ManualClock();
    clock.nowMs = 0;
    noRoom = false;
    fatal = [];
    removals = 0;
    disk = [];
    waiting = [];
    linked = [];
  });

  function begin(
    lifecycle: LifecycleStatus,
    {
      initialMembers = [1, 2, 3] as number[] | null,
      term = 0,
      first = null as Configuration | null,
      remembered = null as boolean | null,
    } = {},
  ) {
    const configuration = lifecycle === 'uninitialized' ? EMPTY_CONFIGURATION : configurationOf(initialMembers ?? []);
    core = coreOf(SELF, { lifecycle, term, configuration });
    core.rights.directoryId = lifecycle === 'uninitialized' ? directoryOf(SELF) : 0;
    const persist = (what: string) => {
      persisted.push(what);
      return new Promise<void>((resolve, reject) => disk.push({ resolve, reject }));
    };
    const durable = { clusterId: lifecycle === 'uninitialized' ? '' : CLUSTER, first };
    const options = {
      clock: clock.forProcess(() => true),
      logger: silentLogger,
      initialMembers: initialMembers?.map((id) => ({ id, address: addressOf(id) })) ?? null,
      timing: { electionTimeoutMs: ELECTION_MS },
      random: () => 0.5,
      peerAddresses: [{ id: NOT_A_MEMBER, host: 'listed', port: 1 }],
      transport: {
        isUp: () => true,
        setPeers(peers: readonly PeerAddress[]) {
          linked = peers.map(({ id }) => id);
        },
        setClusterId: (clusterId: string) => clusterIds.push(clusterId),
      },
      meta: {
        get clusterId() {
          return durable.clusterId;
        },
        get first() {
          return durable.first;
        },
        onlyVoter: remembered,
        async persist(changes: Partial<MetaState>) {
          const { lifecycle: status, clusterId, directoryId, first: told, onlyVoter } = changes;
          if (onlyVoter === undefined) {
            const words = [status, told?.voters.join(' '), clusterId, directoryId];
            await persist(words.filter((each) => each !== undefined).join(' '));
            Object.assign(durable, changes);
            return;
          }
          onlyVoterNotes.push(onlyVoter ?? false);
          if (noRoom) throw Object.assign(new Error('no room'), { code: 'ENOSPC' });
        },
        raiseIncarnation: (count: number) => persist(`incarnation ${count}`),
      },
      onRemoved: () => removals++,
    };
    const loop = {
      core,
      put(input: Input) {
        stepped.push(input);
        if (input.kind === 'lifecycle') core.rights.lifecycle = input.lifecycle;
        if (input.kind === 'begin') core.rights.lifecycle = 'normal';
      },
      run: (action: () => void) => action(),
      fail: (error: unknown) => fatal.push(error),
    };
    const sender = {
      tell(to: number, message: PeerMessage) {
        if (message.kind !== 'lifecycle') return true;
        const { lifecycle: said, nodes, first: told } = message;
        sent.push(`${to} ${said}`);
        nodesSent.push(nodes);
        firstsSent.push(told);
        return true;
      },
    };
    const reads = { onceCurrent: (callback: () => void) => waiting.push(callback) };
    session = new FakeSession();
    nodeLifecycle = new NodeLifecycle(options, loop, sender, session, reads);
    nodeLifecycle.begin();
  }

  function tick(nowMs: number): void {
    clock.moveTo(nowMs);
    nodeLifecycle.tick(nowMs);
  }

  /** Lets so many election timeouts pass. */
  function listen(electionTimeouts = 1): void {
    for (let ms = 0; ms <= electionTimeouts * ELECTION_MS; ms += 10) tick(ms);
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
    /** Of a list in which this node has the lowest id. */
    const LIST = [SELF, 3, 4];

    function linkAll(...ids: number[]): void {
      for (const id of ids) {
        nodeLifecycle.linkUp(id, '');
        nodeLifecycle.receive(id, news('uninitialized', LIST, { directoryId: directoryOf(id) }));
      }
    }

    it('with the lowest id begins a cluster with the directories of all, once all are linked and uninitialized', async () => {
      begin('uninitialized', { initialMembers: LIST });
      listen();
      linkAll(3);
      nodeLifecycle.linkUp(4, '');
      await microtasks();
      expect(persisted).toEqual([]);
      linkAll(4);
      await microtasks();
      expect([persisted, stepped, session.mayPropose]).toEqual([
        [expect.stringMatching(/^normal 2 3 4 [0-9a-f]{32}$/)],
        [],
        false,
      ]);
      await written();
      const input = stepped[0];
      if (input?.kind !== 'begin') throw new Error('the core does not begin');
      expect(input.first.voters).toEqual(LIST);
      expect(input.first.details.map(({ directoryId }) => directoryId)).toEqual(LIST.map(directoryOf));
      expect(input.first.details.map(({ address }) => address)).toEqual(LIST.map(addressOf));
      expect(clusterIds).toEqual([input.first.clusterId]);
      expect([session.mayPropose, nodeLifecycle.clusterId]).toEqual([false, input.first.clusterId]);
      catchUp();
      expect([session.mayPropose, session.starts]).toEqual([true, 1]);
      // From now on it tells how the cluster began, over each new link.
      nodeLifecycle.linkUp(3, '');
      expect([sent.at(-1), firstsSent.at(-1)]).toEqual(['3 normal', input.first]);
    });

    it('with another id begins no cluster by itself', () => {
      begin('uninitialized', { initialMembers: [1, SELF, 3] });
      listen();
      for (const id of [1, 3]) {
        nodeLifecycle.linkUp(id, '');
        nodeLifecycle.receive(id, news('uninitialized', [1, SELF, 3]));
      }
      listen(100);
      expect(persisted).toEqual([]);
    });

    it('is a first member where a first configuration names its directory, also if it still listens', async () => {
      begin('uninitialized');
      nodeLifecycle.linkUp(1, CLUSTER);
      const first = firstOf(1, SELF, 3);
      nodeLifecycle.receive(1, news('normal', [1, SELF, 3], { first }));
      nodeLifecycle.receive(1, news('normal', [1, SELF, 3], { first }));
      expect([persisted, stepped]).toEqual([[`normal 1 2 3 ${CLUSTER}`], []]);
      await written();
      expect([stepped, clusterIds]).toEqual([[{ kind: 'begin', first }], [CLUSTER]]);
    });

    it.each([
      [
        'another directory of this node',
        { ...firstOf(1, SELF, 3), details: firstOf(1, SELF, 3).details.map((each) => ({ ...each, directoryId: 7 })) },
      ],
      ['other nodes', firstOf(1, 3, 4)],
    ])('is no first member where the first configuration names %s', (_, first) => {
      begin('uninitialized');
      nodeLifecycle.linkUp(1, CLUSTER);
      nodeLifecycle.receive(1, news('normal', [1, SELF, 3], { first }));
      listen(100);
      expect(persisted).toEqual([]);
    });

    it.each(['normal', 'recovering'] as const)('begins no cluster while another is %s', (lifecycle) => {
      begin('uninitialized', { initialMembers: LIST });
      listen();
      linkAll(3);
      nodeLifecycle.linkUp(4, lifecycle === 'normal' ? CLUSTER : '');
      nodeLifecycle.receive(4, news(lifecycle, LIST));
      listen(100);
      expect(persisted).toEqual([]);
      expect(nodeLifecycle.healthProblem()).toMatch(/^node 4 .*belongs? to a cluster/);
    });

    it.each(['append', 'heartbeat', 'commit', 'snapshotOffer'] as const)(
      'joins the history of the leader that it hears, as a directory without a vote: by %s',
      async (kind) => {
        begin('uninitialized');
        nodeLifecycle.linkUp(1, CLUSTER);
        expect(nodeLifecycle.hear(fromLeader(kind))).toBe(false);
        expect(nodeLifecycle.hear(fromLeader(kind))).toBe(false);
        expect([persisted, stepped, clusterIds]).toEqual([[`recovering ${CLUSTER} ${NEW_DIRECTORY}`], [], []]);
        await written();
        expect(stepped).toEqual([{ kind: 'lifecycle', lifecycle: 'recovering', directoryId: NEW_DIRECTORY }]);
        expect([clusterIds, session.mayPropose]).toEqual([[CLUSTER], false]);
        expect(nodeLifecycle.hear(fromLeader(kind))).toBe(true);
        expect(persisted).toHaveLength(1);
      },
    );

    it('takes no first configuration once it has heard a leader, and is not uninitialized for the others any more', async () => {
      begin('uninitialized');
      listen();
      nodeLifecycle.linkUp(1, CLUSTER);
      nodeLifecycle.hear(fromLeader('heartbeat'));
      nodeLifecycle.receive(1, news('normal', [1, SELF, 3], { first: firstOf(1, SELF, 3) }));
      sent.splice(0);
      nodeLifecycle.linkUp(3, '');
      expect([persisted.length, sent]).toEqual([1, []]);
      await written();
      expect(stepped.map(({ kind }) => kind)).toEqual(['lifecycle']);
    });

    it('tells how its cluster began in term 0 only', () => {
      const first = firstOf(1, SELF, 3);
      begin('normal', { term: 0, first });
      nodeLifecycle.linkUp(1, CLUSTER);
      expect(firstsSent).toEqual([first]);
      begin('normal', { term: 1, first });
      nodeLifecycle.linkUp(1, CLUSTER);
      expect(firstsSent).toEqual([first, null]);
    });

    it('takes no message, and joins no history of a node that has none or does not lead', () => {
      begin('uninitialized');
      nodeLifecycle.linkUp(1, '');
      expect(nodeLifecycle.hear(fromLeader('heartbeat'))).toBe(false);
      nodeLifecycle.linkUp(1, CLUSTER);
      expect(
        nodeLifecycle.hear({ kind: 'vote', from: 1, to: SELF, term: 9, transfer: false, lastIndex: 1, lastTerm: 1 }),
      ).toBe(false);
      nodeLifecycle.linkLost(1);
      expect(nodeLifecycle.hear(fromLeader('heartbeat'))).toBe(false);
      expect(persisted).toEqual([]);
    });

    it('becomes part of one history only, whichever it hears of first', async () => {
      begin('uninitialized');
      nodeLifecycle.linkUp(1, OTHER_CLUSTER);
      nodeLifecycle.linkUp(3, CLUSTER);
      nodeLifecycle.hear(fromLeader('heartbeat'));
      nodeLifecycle.receive(3, news('normal', [1, SELF, 3], { first: firstOf(1, SELF, 3) }));
      await written();
      expect([persisted, clusterIds]).toEqual([[`recovering ${OTHER_CLUSTER} ${NEW_DIRECTORY}`], [OTHER_CLUSTER]]);
    });

    it('listens for a while before it begins a cluster, and longest where it is alone', () => {
      begin('uninitialized', { initialMembers: LIST });
      linkAll(3, 4);
      for (let ms = 0; ms < ELECTION_MS; ms += 10) tick(ms);
      expect([persisted, sent]).toEqual([[], []]);
      tick(ELECTION_MS);
      expect([persisted.splice(0).length, sent]).toEqual([
        1,
        expect.arrayContaining(['3 uninitialized', '4 uninitialized']),
      ]);
      begin('uninitialized', { initialMembers: [SELF] });
      for (let ms = 0; ms < 3 * ELECTION_MS; ms += 10) tick(ms);
      expect(persisted).toEqual([]);
      tick(3 * ELECTION_MS);
      expect(persisted).toHaveLength(1);
    });

    it('begins no cluster while an unknown member of one asks for links, says why, and tells the others', () => {
      begin('uninitialized', { initialMembers: LIST });
      nodeLifecycle.unknownPeer(7);
      nodeLifecycle.unknownPeer(5);
      listen();
      linkAll(3, 4);
      expect(persisted).toEqual([]);
      expect(nodeLifecycle.healthProblem()).toMatch(
        /^nodes 5 and 7 of this cluster are not in the configuration file\. List all/,
      );
      expect(nodesSent.at(-1)).toEqual([SELF, 3, 4, 5, 7]);
      // It is forgotten once it has not asked for long; each time that it asks counts.
      for (let timeouts = 2; timeouts <= 100; timeouts++) {
        tick(timeouts * ELECTION_MS);
        if (timeouts === 50) nodeLifecycle.unknownPeer(5);
      }
      tick(150 * ELECTION_MS);
      expect(persisted).toEqual([]);
      tick(151 * ELECTION_MS);
      expect(persisted).toHaveLength(1);
    });

    it.each([[[SELF, 3, 4, 5]], [[SELF, 3]], [[SELF, 3, 5]], [[]]])(
      'begins no cluster with one that knows of %j',
      (nodes) => {
        begin('uninitialized', { initialMembers: LIST });
        listen();
        linkAll(3);
        nodeLifecycle.linkUp(4, '');
        nodeLifecycle.receive(4, news('uninitialized', nodes));
        expect(persisted).toEqual([]);
        expect(nodeLifecycle.healthProblem()).toMatch(
          /^the configuration files differ: node 4 knows of no?.*, this node of nodes 2, 3 and 4\. List all/,
        );
        linkAll(4);
        expect(persisted).toHaveLength(1);
      },
    );

    it('forgets what those have said who are no longer linked', () => {
      begin('uninitialized', { initialMembers: LIST });
      listen();
      linkAll(3);
      nodeLifecycle.linkLost(3);
      linkAll(4);
      expect(persisted).toEqual([]);
    });

    it('waits for a leader where it was configured to join', () => {
      begin('uninitialized', { initialMembers: null });
      listen(100);
      expect([persisted, nodeLifecycle.healthProblem()]).toEqual([[], expect.stringContaining('raftkv member add 2')]);
    });

    it('says what it is again and again, until it has found a leader', () => {
      begin('uninitialized');
      nodeLifecycle.linkUp(1, '');
      for (let ms = 0; ms < ELECTION_MS; ms += 10) tick(ms);
      expect(sent).toEqual([]);
      for (let ms = ELECTION_MS; ms <= 1000; ms += 10) tick(ms);
      expect(sent.length).toBeGreaterThanOrEqual(3);
      expect(new Set(sent)).toEqual(new Set(['1 uninitialized']));
      sent.splice(0);
      core.rights.lifecycle = 'normal';
      core.term = 1;
      core.leader = 1;
      for (let ms = 1000; ms <= 2000; ms += 10) tick(ms);
      expect(sent).toEqual([]);
    });

    it('ends with its process where that cannot be persisted', async () => {
      begin('uninitialized', { initialMembers: [SELF] });
      listen(3);
      disk[0]?.reject(new Error('EIO'));
      await microtasks();
      expect([fatal, stepped, clusterIds]).toEqual([[new Error('EIO')], [], []]);
    });
  });

  it('names the histories where its directory belongs to another one than a peer, until that is mended', () => {
    begin('normal', { term: 3 });
    nodeLifecycle.foreignPeer(1, 'cluster id a here, b there');
    expect(nodeLifecycle.healthProblem()).toBe('cluster id a here, b there');
    // Also where it has a leader, so that somebody looks after the other one.
    core.leader = 3;
    expect(nodeLifecycle.healthProblem()).toBe('cluster id a here, b there');
    nodeLifecycle.linkUp(1, CLUSTER);
    expect(nodeLifecycle.healthProblem()).toBe('');
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
    expect(onlyVoterNotes.splice(0)).toEqual([false]);
    become([2], [1, 2]);
    become([2]);
    become([1, 2], [2]);
    expect(onlyVoterNotes.splice(0)).toEqual([true]);
    become([1, 2]);
    become([1]);
    expect(onlyVoterNotes.splice(0)).toEqual([false]);
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
    tick(11 * ELECTION_MS);
    expect([isLost(), nodeLifecycle.healthProblem()]).toEqual([false, '']);
    // Another time counts from its own beginning, and by its own unknown nodes.
    core.leader = 0;
    tick(12 * ELECTION_MS);
    tick(21 * ELECTION_MS);
    expect(isLost()).toBe(false);
    tick(22 * ELECTION_MS);
    expect([isLost(), nodeLifecycle.healthProblem()]).toEqual([true, '']);
  });

  it('writes nothing at a start that finds it as it was remembered', () => {
    begin('normal', { term: 3, remembered: false });
    expect(onlyVoterNotes).toEqual([]);
    begin('normal', { term: 3, remembered: true });
    expect(onlyVoterNotes).toEqual([false]);
  });

  it('tries again to remember it while the disk is full', async () => {
    noRoom = true;
    begin('normal', { term: 3 });
    await microtasks();
    tick(ELECTION_MS);
    await microtasks();
    expect([onlyVoterNotes.splice(0), fatal]).toEqual([[false, false], []]);
    noRoom = false;
    for (let ms = ELECTION_MS; ms <= 5 * ELECTION_MS; ms += 10) tick(ms);
    expect(onlyVoterNotes).toEqual([false]);
  });

  it('remembers nothing of the kind while it recovers: what it takes for the members may be out of date', () => {
    begin('recovering', { initialMembers: [SELF] });
    nodeLifecycle.configured();
    expect(onlyVoterNotes).toEqual([]);
  });

  it('does not end as removed while it waits to be added again', () => {
    begin('recovering');
    for (const peer of [1, 3]) nodeLifecycle.removedSays(peer);
    expect(removals).toBe(0);
  });

  it('names who has lost data, for as long as they say so', () => {
    begin('normal', { term: 3 });
    nodeLifecycle.receive(1, news('recovering', [1, SELF, 3]));
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
    nodeLifecycle.receive(1, news('recovering', [1, SELF, 3]));
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
