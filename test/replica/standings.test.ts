import { beforeEach, describe, expect, it } from 'vitest';
import { silentLogger } from '../../src/base/logger.ts';
import { configurationOf } from '../../src/raft/configuration.ts';
import type { Core } from '../../src/raft/core.ts';
import type { Input, Standing } from '../../src/raft/types.ts';
import { Standings } from '../../src/replica/standings.ts';
import type { StandingNews } from '../../src/replica/wire.ts';
import { coreOf } from './cores.ts';
import { microtasks } from './support.ts';

const SELF = 2;
const ANNOUNCE_MS = 300;
const news = (standing: Standing): StandingNews => ({ kind: 'standing', standing });

/** What node 2 makes of its own data and of what the others say. */
describe('the standing of a node', () => {
  let core: Core;
  let sent: string[];
  let stepped: Input[];
  let noted: string[];
  let fatal: unknown[];
  let removals: number;
  let turns: number;
  let appliedSession: number;
  /** What is to become durable waits here. */
  let disk: { resolve: () => void; reject: (error: Error) => void }[];
  let standings: Standings;

  beforeEach(() => {
    sent = [];
    stepped = [];
    noted = [];
    fatal = [];
    removals = 0;
    turns = 0;
    appliedSession = 0;
    disk = [];
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
      session: 7,
      knownMember,
      announceIntervalMs: ANNOUNCE_MS,
      newCopy: () => 99,
      isLinked: () => true,
      send: (to, { standing: said }) => sent.push(`${to} ${said}`),
      step(input) {
        stepped.push(input);
        if (input.kind === 'standing') core.standing = input.standing;
      },
      appliedSession: () => appliedSession,
      noteFounded: () => note('founded'),
      noteStanding: (which, copy) => note(`${which} ${copy}`),
      raiseBootCount: (count) => note(`boot count ${count}`),
      guard: (action) => action(),
      onMayPropose: () => turns++,
      onRemoved: () => removals++,
      onFatal: (error) => fatal.push(error),
    });
    standings.begin();
  }

  async function written(): Promise<void> {
    for (const { resolve } of disk.splice(0)) resolve();
    await microtasks();
  }

  describe('that is blank', () => {
    it('becomes a member once all have met and are blank, and not before that is durable', async () => {
      begin('blank');
      standings.linkUp(1);
      standings.receive(1, news('blank'));
      standings.linkUp(3);
      expect([sent.splice(0), noted]).toEqual([['1 blank', '3 blank'], []]);
      standings.receive(3, news('blank'));
      standings.receive(3, news('blank'));
      await microtasks();
      expect([noted, stepped, standings.mayPropose]).toEqual([['founded'], [], false]);
      await written();
      expect(stepped).toEqual([{ kind: 'standing', standing: 'member', copy: 0 }]);
      expect([standings.mayPropose, turns]).toEqual([true, 1]);
      // It has done nothing yet, so whoever died meanwhile must not be taken for wiped.
      expect(sent).toEqual(['1 blank', '3 blank']);
    });

    it.each(['member', 'recovering'] as const)('recovers where another is %s, as a new copy', async (standing) => {
      begin('blank');
      standings.linkUp(1);
      standings.receive(1, news(standing));
      standings.linkUp(3);
      standings.receive(3, news('blank'));
      await written();
      expect(noted).toEqual(['recovering 99']);
      expect(stepped).toEqual([{ kind: 'standing', standing: 'recovering', copy: 99 }]);
      expect(standings.mayPropose).toBe(false);
      expect(sent.slice(-2)).toEqual(['1 recovering', '3 recovering']);
    });

    it('recovers when it hears a leader, whatever else was lost on the way', async () => {
      begin('blank');
      const append = { kind: 'append', from: 1, to: SELF, term: 1, prevIndex: 0, prevTerm: 0, commitIndex: 0 } as const;
      standings.hear({ ...append, entries: [] });
      expect(noted).toEqual(['recovering 99']);
    });

    it('forgets what those have said who are no longer linked', () => {
      begin('blank');
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
      for (let ms = 0; ms <= 1000; ms += 10) standings.tick(ms);
      expect(sent).toEqual(Array(4).fill('1 blank'));
      core.standing = 'member';
      core.term = 1;
      core.leader = 1;
      for (let ms = 1000; ms <= 2000; ms += 10) standings.tick(ms);
      expect(sent).toHaveLength(4);
    });

    it('ends with its process where that cannot be noted', async () => {
      begin('blank', { founders: [SELF] });
      disk[0]?.reject(new Error('EIO'));
      await microtasks();
      expect([fatal, stepped]).toEqual([[new Error('EIO')], []]);
    });
  });

  describe('that recovers', () => {
    it('lets it propose once all that earlier lives left is applied, and that is durable', async () => {
      begin('recovering');
      core.log.commitIndex = 12;
      core.standing = 'member';
      standings.recovered();
      standings.applied(11);
      expect(noted).toEqual([]);
      standings.applied(12);
      standings.applied(13);
      expect([noted, standings.mayPropose]).toEqual([['member 0'], false]);
      await written();
      expect([standings.mayPropose, turns]).toEqual([true, 1]);
    });

    it.each([7, 8])('ends, to count on from there, where an earlier life has counted up to %i', async (session) => {
      begin('recovering');
      appliedSession = session;
      core.log.commitIndex = 12;
      standings.recovered();
      standings.applied(12);
      expect([noted, fatal]).toEqual([[`boot count ${session}`], []]);
      await written();
      expect(fatal).toEqual([expect.objectContaining({ code: 'SESSION_BEHIND' })]);
      expect(standings.mayPropose).toBe(false);
    });
  });

  describe('that is a member', () => {
    it('lets it propose at once where it has counted all its starts', () => {
      begin('member', { knownMember: true, term: 3 });
      expect([standings.mayPropose, noted]).toEqual([true, []]);
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

  it('does not end as removed while it waits to be added again', () => {
    begin('recovering');
    for (const peer of [1, 3]) standings.removedSays(peer);
    expect(removals).toBe(0);
  });

  it('names who has lost data, for as long as they say so', () => {
    begin('member', { knownMember: true, term: 3 });
    standings.receive(1, news('recovering'));
    expect(standings.trouble()).toBe('');
    standings.hear({ kind: 'voteReply', from: 3, to: SELF, term: 3, granted: false, withoutVote: true });
    expect(standings.trouble()).toContain('nodes 1 and 3 lost data');
    standings.linkLost(1);
    expect(standings.trouble()).toBe('');
    standings.receive(1, news('recovering'));
    standings.hear({ kind: 'preVoteReply', from: 3, to: SELF, term: 3, granted: false, withoutVote: false });
    expect(standings.trouble()).toBe('');
  });
});
