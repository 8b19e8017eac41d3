import { beforeEach, describe, expect, it } from 'vitest';
import { silentLogger } from '../../src/base/logger.ts';
import { configurationOf } from '../../src/raft/configuration.ts';
import type { Core } from '../../src/raft/core.ts';
import type { Input, Message, Standing } from '../../src/raft/types.ts';
import { Standings } from '../../src/replica/standings.ts';
import type { StandingNews } from '../../src/replica/wire.ts';
import { coreOf } from './cores.ts';
import { microtasks } from './support.ts';

const SELF = 2;
const ELECTION_MS = 300;
/** Of one that has met all others, where it says no less. */
const news = (standing: Standing, nodes = [1, 2, 3], met = true): StandingNews => ({
  kind: 'standing',
  standing,
  met,
  nodes,
});

function fromLeader(kind: 'append' | 'heartbeat' | 'commit' | 'installSnapshot'): Message {
  const envelope = { from: 1, to: SELF, term: 1 };
  switch (kind) {
    case 'append':
      return { kind, ...envelope, prevIndex: 0, prevTerm: 0, commitIndex: 0, entries: [] };
    case 'heartbeat':
      return { kind, ...envelope, commitIndex: 0, directoryId: 0, round: 1, clusterFull: false };
    case 'commit':
      return { kind, ...envelope, index: 1, indexTerm: 1, commitIndex: 1 };
    case 'installSnapshot':
      return { kind, ...envelope, snapshotIndex: 1, snapshotTerm: 1 };
  }
}

/** What node 2 makes of its own data and of what the others say. */
describe('the standing of a node', () => {
  let core: Core;
  let sent: string[];
  let nodesSent: (readonly number[])[];
  let stepped: Input[];
  let noted: string[];
  let aloneNotes: boolean[];
  let noRoom: boolean;
  let fatal: unknown[];
  let removals: number;
  let turns: number;
  let appliedSession: number;
  let sessions: number[];
  /** What is to become durable waits here. */
  let disk: { resolve: () => void; reject: (error: Error) => void }[];
  let standings: Standings;
  /** Who waits until all is applied that was acknowledged when this life began. */
  let waiting: (() => void)[];

  beforeEach(() => {
    sent = [];
    nodesSent = [];
    stepped = [];
    noted = [];
    aloneNotes = [];
    noRoom = false;
    fatal = [];
    removals = 0;
    turns = 0;
    appliedSession = 0;
    sessions = [];
    disk = [];
    waiting = [];
  });

  function begin(standing: Standing, { founders = [1, 2, 3] as number[] | null, knownMember = false, term = 0 } = {}) {
    core = coreOf(SELF, { standing, term, configuration: configurationOf(founders ?? []) });
    const note = (what: string) => {
      noted.push(what);
      return new Promise<void>((resolve, reject) => disk.push({ resolve, reject }));
    };
    standings = new Standings({
      core,
      logger: silentLogger,
      founders,
      session: () => sessions.at(-1) ?? 7,
      knownMember,
      onceCurrent: (callback) => waiting.push(callback),
      electionTimeoutMs: ELECTION_MS,
      newDirectoryId: () => 99,
      isLinked: () => true,
      send(to, { standing: said, met, nodes }) {
        sent.push(`${to} ${said === 'blank' && met ? 'met' : said}`);
        nodesSent.push(nodes);
      },
      step(input) {
        stepped.push(input);
        if (input.kind === 'standing') core.standing = input.standing;
      },
      appliedSession: () => appliedSession,
      beginSession: (session) => sessions.push(session),
      noteFounded: () => note('founded'),
      noteStanding: (which, directoryId) => note(`${which} ${directoryId}`),
      raiseBootCount: (count) => note(`boot count ${count}`),
      async noteAlone(alone) {
        aloneNotes.push(alone);
        if (noRoom) throw Object.assign(new Error('no room'), { code: 'ENOSPC' });
      },
      guard: (action) => action(),
      onMayPropose: () => turns++,
      onRemoved: () => removals++,
      onFatal: (error) => fatal.push(error),
    });
    standings.begin();
  }

  /** Lets so many election timeouts pass. */
  function listen(electionTimeouts = 1): void {
    for (let ms = 0; ms <= electionTimeouts * ELECTION_MS; ms += 10) standings.tick(ms);
  }

  function catchUp(): void {
    for (const callback of waiting.splice(0)) callback();
  }

  async function written(): Promise<void> {
    for (const { resolve } of disk.splice(0)) resolve();
    await microtasks();
  }

  describe('that is blank', () => {
    it('becomes a member once all have met all and are blank, and not before that is durable', async () => {
      begin('blank');
      listen();
      standings.linkUp(1);
      standings.receive(1, news('blank'));
      standings.linkUp(3);
      expect([sent.splice(0), noted]).toEqual([['1 blank', '3 blank'], []]);
      standings.receive(3, news('blank', [1, 2, 3], false));
      expect([sent.splice(0), noted]).toEqual([['1 met', '3 met'], []]);
      standings.receive(3, news('blank'));
      standings.receive(3, news('blank'));
      await microtasks();
      expect([noted, stepped, standings.mayPropose]).toEqual([['founded'], [], false]);
      await written();
      expect(stepped).toEqual([{ kind: 'standing', standing: 'member', directoryId: 0 }]);
      expect([standings.mayPropose, turns]).toEqual([true, 1]);
      // It has done nothing yet, so whoever died meanwhile must not be taken for wiped.
      expect(sent).toEqual(['1 met', '3 met']);
    });

    describe('and has met all', () => {
      beforeEach(() => {
        begin('blank');
        listen();
        for (const id of [1, 3]) {
          standings.linkUp(id);
          standings.receive(id, news('blank', [1, 2, 3], false));
        }
        expect(noted).toEqual([]);
      });

      it('is a founder although the others have begun meanwhile: it has forgotten nothing', async () => {
        standings.receive(3, news('member'));
        await written();
        expect(noted).toEqual(['founded']);
        expect(stepped).toEqual([{ kind: 'standing', standing: 'member', directoryId: 0 }]);
      });

      it('is one also where it hears of that by a leader', () => {
        standings.hear(fromLeader('heartbeat'));
        expect(noted).toEqual(['founded']);
      });

      it('is one where it hears of that only after its link was lost', () => {
        standings.linkLost(3);
        standings.linkUp(3);
        standings.receive(3, news('member'));
        expect(noted).toEqual(['founded']);
      });

      it('recovers where a stranger has asked for a link since', () => {
        standings.stranger(7);
        standings.receive(3, news('member'));
        expect(noted).toEqual(['recovering 99']);
      });

      it('waits for those who have not, but not for ever', () => {
        for (let ms = ELECTION_MS; ms < 11 * ELECTION_MS; ms += 10) standings.tick(ms);
        expect(noted).toEqual([]);
        standings.tick(11 * ELECTION_MS);
        expect(noted).toEqual(['founded']);
      });
    });

    it.each(['member', 'recovering'] as const)('recovers where another is %s, as a new directory', async (standing) => {
      begin('blank');
      standings.linkUp(1);
      standings.receive(1, news(standing));
      standings.linkUp(3);
      standings.receive(3, news('blank'));
      await written();
      expect(noted).toEqual(['recovering 99']);
      expect(stepped).toEqual([{ kind: 'standing', standing: 'recovering', directoryId: 99 }]);
      expect(standings.mayPropose).toBe(false);
      expect(sent.slice(-2)).toEqual(['1 recovering', '3 recovering']);
    });

    it.each(['append', 'heartbeat', 'commit', 'installSnapshot'] as const)(
      'recovers when it hears a leader, whatever else was lost on the way: by %s',
      (kind) => {
        begin('blank');
        standings.hear(fromLeader(kind));
        expect(noted).toEqual(['recovering 99']);
      },
    );

    it('founds no cluster against what it has heard because others have elected a leader', () => {
      begin('blank', { founders: [1, SELF] });
      standings.linkUp(1);
      standings.stranger(7);
      listen();
      core.leader = 1;
      standings.receive(1, news('blank', [1, SELF, 7]));
      expect(noted).toEqual([]);
    });

    it('listens for a while before it founds a cluster, and longest where it is alone', () => {
      begin('blank');
      for (const id of [1, 3]) {
        standings.linkUp(id);
        standings.receive(id, news('blank'));
      }
      for (let ms = 0; ms < ELECTION_MS; ms += 10) standings.tick(ms);
      expect([noted, sent]).toEqual([[], []]);
      standings.tick(ELECTION_MS);
      expect([noted.splice(0), sent]).toEqual([['founded'], expect.arrayContaining(['1 blank', '3 blank'])]);
      begin('blank', { founders: [SELF] });
      for (let ms = 0; ms < 3 * ELECTION_MS; ms += 10) standings.tick(ms);
      expect(noted).toEqual([]);
      standings.tick(3 * ELECTION_MS);
      expect(noted).toEqual(['founded']);
    });

    it('founds no cluster once a stranger of this one has asked for a link, says why, and tells the others', () => {
      begin('blank', { founders: [1, SELF] });
      standings.linkUp(1);
      standings.stranger(7);
      standings.stranger(5);
      listen();
      standings.receive(1, news('blank', [1, SELF]));
      expect(noted).toEqual([]);
      expect(standings.trouble()).toMatch(
        /^nodes 5 and 7 of this cluster are not in the configuration file\. List all/,
      );
      expect(nodesSent.at(-1)).toEqual([1, SELF, 5, 7]);
      // Such a one is a member, after all.
      standings.linkUp(5);
      standings.receive(5, news('member', []));
      expect(noted).toEqual(['recovering 99']);
    });

    it.each([[[1, 2, 3, 4]], [[1, 2]], [[1, 2, 4]], [[]]])('founds no cluster with one that knows of %j', (nodes) => {
      begin('blank');
      listen();
      for (const id of [1, 3]) standings.linkUp(id);
      standings.receive(1, news('blank'));
      standings.receive(3, news('blank', nodes));
      expect(noted).toEqual([]);
      expect(standings.trouble()).toMatch(
        /^the configuration files differ: node 3 knows of no?.*, this node of nodes 1, 2 and 3\. List all/,
      );
      standings.receive(3, news('blank'));
      expect(noted).toEqual(['founded']);
    });

    it('forgets what those have said who are no longer linked', () => {
      begin('blank');
      listen();
      standings.linkUp(1);
      standings.receive(1, news('blank'));
      standings.linkLost(1);
      standings.linkUp(3);
      standings.receive(3, news('blank'));
      expect(noted).toEqual([]);
    });

    it('recovers at once where it is a newcomer', () => {
      begin('blank', { founders: null });
      expect(noted).toEqual(['recovering 99']);
    });

    it('says what it is again and again, until it has found a leader', () => {
      begin('blank');
      standings.linkUp(1);
      for (let ms = 0; ms < ELECTION_MS; ms += 10) standings.tick(ms);
      expect(sent).toEqual([]);
      for (let ms = ELECTION_MS; ms <= 1000; ms += 10) standings.tick(ms);
      expect(sent.length).toBeGreaterThanOrEqual(3);
      expect(new Set(sent)).toEqual(new Set(['1 blank']));
      sent.splice(0);
      core.standing = 'member';
      core.term = 1;
      core.leader = 1;
      for (let ms = 1000; ms <= 2000; ms += 10) standings.tick(ms);
      expect(sent).toEqual([]);
    });

    it('ends with its process where that cannot be noted', async () => {
      begin('blank', { founders: [SELF] });
      listen(3);
      disk[0]?.reject(new Error('EIO'));
      await microtasks();
      expect([fatal, stepped]).toEqual([[new Error('EIO')], []]);
    });
  });

  describe('that recovers', () => {
    it('is a member and may propose once all that earlier lives left is applied, and that is durable', async () => {
      begin('recovering');
      core.log.commitIndex = 12;
      standings.recovered();
      standings.applied(11);
      expect(noted).toEqual([]);
      standings.applied(12);
      standings.applied(13);
      expect([noted, stepped, standings.mayPropose]).toEqual([['member 0'], [], false]);
      await written();
      expect(stepped).toEqual([{ kind: 'standing', standing: 'member', directoryId: 0 }]);
      expect(standings.mayPropose).toBe(false);
      catchUp();
      expect([standings.mayPropose, turns]).toEqual([true, 1]);
    });

    it('counts on, before it proposes, where it was named long ago and another disk has used its session since', async () => {
      begin('recovering');
      core.log.commitIndex = 12;
      standings.recovered();
      standings.applied(12);
      await written();
      appliedSession = 7;
      standings.applied(13);
      catchUp();
      expect([noted, standings.mayPropose]).toEqual([['member 0', 'boot count 8'], false]);
      await written();
      expect([sessions, standings.mayPropose, fatal]).toEqual([[8], true, []]);
    });

    it.each([7, 8])('counts on, durably first, where an earlier life has counted up to %i', async (session) => {
      begin('recovering');
      appliedSession = session;
      core.log.commitIndex = 12;
      standings.recovered();
      standings.applied(12);
      expect([noted.splice(0), sessions]).toEqual([[`boot count ${session + 1}`], []]);
      await written();
      expect([noted, sessions, standings.mayPropose]).toEqual([['member 0'], [session + 1], false]);
      await written();
      catchUp();
      expect([sessions, standings.mayPropose, fatal]).toEqual([[session + 1], true, []]);
      // What it goes by from now on is the new one.
      appliedSession = session + 1;
      standings.applied(13);
      expect(noted).toEqual(['member 0']);
      appliedSession = session + 2;
      standings.applied(14);
      await written();
      expect(fatal).toEqual([expect.objectContaining({ code: 'SESSION_BEHIND' })]);
    });
  });

  describe('that is a member', () => {
    it('lets it propose once it has applied all that was acknowledged before, if nobody has used its session', () => {
      begin('member', { knownMember: true, term: 3 });
      expect([standings.mayPropose, turns]).toEqual([false, 0]);
      appliedSession = 6;
      catchUp();
      expect([standings.mayPropose, turns, noted]).toEqual([true, 1, []]);
    });

    it('counts on, before it proposes, where its disk is an old one and another has used its session', async () => {
      begin('member', { knownMember: true, term: 3 });
      appliedSession = 7;
      catchUp();
      expect(standings.mayPropose).toBe(false);
      appliedSession = 9;
      await written();
      expect([sessions, standings.mayPropose]).toEqual([[8], false]);
      await written();
      expect([sessions, standings.mayPropose, turns]).toEqual([[8, 10], true, 1]);
      expect([noted, fatal]).toEqual([['boot count 8', 'boot count 10'], []]);
    });

    it('proposes nothing where it cannot count on', async () => {
      begin('member', { knownMember: true, term: 3 });
      appliedSession = 7;
      catchUp();
      disk[0]?.reject(new Error('EIO'));
      await microtasks();
      expect([sessions, standings.mayPropose, fatal]).toEqual([[], false, [new Error('EIO')]]);
    });

    it('ends, to count on from there, where its disk is an old one that has missed starts', async () => {
      begin('member', { knownMember: true, term: 3 });
      catchUp();
      appliedSession = 7;
      standings.applied(11);
      expect(noted).toEqual([]);
      appliedSession = 9;
      standings.applied(12);
      standings.applied(13);
      await written();
      expect([noted, fatal]).toEqual([['boot count 9'], [expect.objectContaining({ code: 'SESSION_BEHIND' })]]);
    });

    it('ends where a batch that is not its own has its session, once it has proposed', async () => {
      begin('member', { knownMember: true, term: 3 });
      standings.sessionUsed();
      expect(noted).toEqual([]);
      catchUp();
      standings.sessionUsed();
      await written();
      expect([noted, fatal]).toEqual([['boot count 7'], [expect.objectContaining({ code: 'SESSION_BEHIND' })]]);
    });

    it('ends when most of the others say that it was removed; one alone may be behind', () => {
      begin('member', { knownMember: true, term: 3 });
      standings.removedSays(1);
      standings.removedSays(1);
      standings.removedSays(9);
      expect(removals).toBe(0);
      standings.removedSays(3);
      standings.removed();
      expect(removals).toBe(1);
    });
  });

  it('tells where a stranger of the cluster has asked in vain, until it has found a leader or is a member', () => {
    begin('recovering', { founders: [SELF] });
    standings.stranger(1);
    expect(standings.trouble()).toMatch(/^node 1 of this cluster is not in the configuration file/);
    core.leader = 3;
    expect(standings.trouble()).toBe('');
    begin('member', { knownMember: true, term: 3 });
    standings.stranger(9);
    expect(standings.trouble()).toBe('');
  });

  it('remembers whether it is the only voter, on either side of a joint configuration, once that changes', () => {
    begin('member', { knownMember: true, term: 3 });
    const become = (voters: number[], votersOutgoing: number[] = []) => {
      core.configuration = { ...configurationOf(voters), votersOutgoing };
      standings.configured();
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

  it('is lost when it has heard of no leader for long; from then on strangers are news', () => {
    begin('member', { knownMember: true, term: 3 });
    listen(9);
    standings.stranger(9);
    expect([standings.isLost, standings.trouble()]).toEqual([false, '']);
    listen(10);
    standings.stranger(9);
    expect(standings.isLost).toBe(true);
    expect(standings.trouble()).toMatch(/^node 9 of this cluster is not in the configuration file/);
    core.leader = 1;
    standings.tick(11 * ELECTION_MS);
    expect([standings.isLost, standings.trouble()]).toEqual([false, '']);
    // Another time counts from its own beginning, and by its own strangers.
    core.leader = 0;
    standings.tick(12 * ELECTION_MS);
    standings.tick(21 * ELECTION_MS);
    expect(standings.isLost).toBe(false);
    standings.tick(22 * ELECTION_MS);
    expect([standings.isLost, standings.trouble()]).toEqual([true, '']);
  });

  it('tries again to remember it while the disk is full', async () => {
    noRoom = true;
    begin('member', { knownMember: true, term: 3 });
    await microtasks();
    standings.tick(ELECTION_MS);
    await microtasks();
    expect([aloneNotes.splice(0), fatal]).toEqual([[false, false], []]);
    noRoom = false;
    for (let ms = ELECTION_MS; ms <= 5 * ELECTION_MS; ms += 10) standings.tick(ms);
    expect(aloneNotes).toEqual([false]);
  });

  it('remembers nothing of the kind while it recovers: what it takes for the members may be out of date', () => {
    begin('recovering', { founders: [SELF] });
    standings.configured();
    expect(aloneNotes).toEqual([]);
  });

  it('does not end as removed while it waits to be added again', () => {
    begin('recovering');
    for (const peer of [1, 3]) standings.removedSays(peer);
    expect(removals).toBe(0);
  });

  it('names who has lost data, for as long as they say so', () => {
    begin('member', { knownMember: true, term: 3 });
    standings.receive(1, news('recovering'));
    expect(standings.trouble()).toBe('');
    standings.hear({
      kind: 'voteReply',
      from: 3,
      to: SELF,
      term: 3,
      granted: false,
      directoryId: 0,
      withoutVote: true,
    });
    expect(standings.trouble()).toContain('nodes 1 and 3 lost data');
    standings.linkLost(1);
    expect(standings.trouble()).toBe('');
    standings.receive(1, news('recovering'));
    standings.hear({
      kind: 'preVoteReply',
      from: 3,
      to: SELF,
      term: 3,
      granted: false,
      directoryId: 0,
      withoutVote: false,
    });
    expect(standings.trouble()).toBe('');
  });
});
