import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { createMembersClient } from '../../../src/cli/admin/members-client.ts';
import {
  memberAddCommand,
  memberListCommand,
  memberPromoteCommand,
  memberRemoveCommand,
  memberReplaceCommand,
} from '../../../src/cli/commands/member.ts';
import { UsageError } from '../../../src/cli/terminal/output.ts';
import { loadConfig } from '../../../src/config/load.ts';
import type { MembersBody } from '../../../src/server/admin/members.ts';
import { type AdminAnswer, createFakeAdmin, type FakeAdmin, membersBody, memberView } from './fake-admin.ts';

let folder: string;
let config: string;
let output: string;
let admins: FakeAdmin[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'raftkv-member-'));
  config = join(folder, 'cluster.json');
  output = '';
  admins = [];
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    output += String(text);
    return true;
  });
  vi.spyOn(process.stderr, 'write').mockImplementation(() => true);
});
afterEach(async () => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true });
  await Promise.all(admins.map((admin) => admin.close()));
});

/** A cluster file whose nodes 1, 2, … answer so; node 9 is listed and not there. */
async function cluster(...answers: ((asked: string | object) => AdminAnswer)[]): Promise<FakeAdmin[]> {
  admins = await Promise.all(answers.map(createFakeAdmin));
  const nodes = admins.map(({ port }, i) => ({
    id: i + 1,
    host: '127.0.0.1',
    clientPort: 20_001 + i,
    peerPort: 21_001 + i,
    adminPort: port,
  }));
  const newcomer = { id: 9, host: '127.0.0.9', clientPort: 9, peerPort: 109, adminPort: 209 };
  writeFileSync(config, JSON.stringify({ cluster: 'demo', nodes: [...nodes, newcomer] }));
  return admins;
}

const portOf = (index: number) => admins[index]?.port ?? 0;

function client(patienceMs: number) {
  const { config: loaded } = loadConfig({ file: config, environment: {} });
  return createMembersClient({ config: loaded, nodes: loaded.nodes, tls: null, patienceMs });
}

const OK: AdminAnswer = { status: 200, body: { committed: true } };
const refusal = (error: string): AdminAnswer => ({
  status: 409,
  body: { error, code: 'MEMBER_CHANGE_REFUSED', remedy: 'Wait.' },
});
/** What a node that does not lead answers: that `id` does, and where that is if the node knows. */
const redirect = (id: number, adminPort: number | null = null, cluster = 'demo'): AdminAnswer => ({
  status: adminPort === null ? 503 : 307,
  body: {
    ...{ error: `not the leader; node ${id} is`, code: 'NOT_LEADER', remedy: '', cluster, nodeId: 99 },
    leader: { id, address: adminPort === null ? null : { host: '127.0.0.1', adminPort } },
  },
});
const LEADERLESS: AdminAnswer = { status: 503, body: { error: 'no leader', code: '', remedy: '' } };

/** Answers each GET with the next view, the last one for ever, and each change with `OK` or what is given. */
function serves(views: readonly (MembersBody | AdminAnswer)[], changed: readonly AdminAnswer[] = [OK]) {
  let gets = 0;
  let posts = 0;
  return (asked: string | object): AdminAnswer => {
    if (typeof asked === 'object') return changed[Math.min(posts++, changed.length - 1)] ?? OK;
    const view = views[Math.min(gets++, views.length - 1)];
    if (view === undefined) return LEADERLESS;
    return 'members' in view ? { status: 200, body: view } : view;
  };
}

const three = [memberView(1), memberView(2), memberView(3)];
const learner9 = (matchIndex: number, changes: object = {}) =>
  memberView(9, { role: 'learner', joins: true, matchIndex, ...changes });
const options = (changes: object = {}) => ({ config, json: false, wait: true, learner: false, ...changes });
const address9 = { host: '127.0.0.9', clientPort: 9, peerPort: 109, adminPort: 209 };

describe('raftkv member list', () => {
  it('shows the members as the leader sees them', async () => {
    const learner = memberView(4, { role: 'learner', state: 'snapshot', joins: true, replaces: 2, matchIndex: 0 });
    const gone = memberView(3, { state: 'unreachable', hasRights: false, matchIndex: 40 });
    const back = memberView(2, { hasRights: false });
    await cluster(serves([membersBody([memberView(1), back, gone, learner])]));
    await memberListCommand(options());
    expect(output).toBe(
      [
        'node  clients      peers  admin  role     log         state',
        '1     127.0.0.1:1  101    201    leader   100 of 100  leads',
        '2     127.0.0.1:2  102    202    voter    100 of 100  follows, recovering, without a vote',
        '3     127.0.0.1:3  103    203    voter    40 of 100   unreachable',
        '4     127.0.0.1:4  104    204    learner  0 of 100    receives a snapshot, will replace node 2',
        '',
        'Cluster demo has the voters 1, 2, 3 and survives 1 failure.',
        'Cluster id: 0123456789abcdef0123456789abcdef.',
        '',
      ].join('\n'),
    );
  });

  it('gives JSON to a program', async () => {
    const view = membersBody(three);
    await cluster(serves([view]));
    await memberListCommand(options({ json: true }));
    expect(JSON.parse(output)).toEqual(view);
  });

  it('asks the next node if one is down, has no leader, or is of another cluster', async () => {
    const foreign = membersBody(three, { cluster: 'other' });
    await cluster(
      serves([foreign]),
      serves([LEADERLESS]),
      () => ({ status: 404, body: '<html>' }),
      serves([membersBody(three)]),
    );
    await memberListCommand(options());
    expect(output).toContain('has the voters 1, 2, 3');
  });

  it('asks only the node that it is told to, and says why that does not answer', async () => {
    await cluster(serves([membersBody(three)]));
    await expect(memberListCommand(options({ node: 9 }))).rejects.toMatchObject({
      code: 'PEER_UNREACHABLE',
      message: expect.stringMatching(/node 9 \(127\.0\.0\.9:209\): connection refused/),
    });
    await expect(memberListCommand(options({ node: 7 }))).rejects.toThrow(UsageError);
  });

  it('waits for an election', async () => {
    await cluster(serves([LEADERLESS, LEADERLESS, membersBody(three)]));
    await memberListCommand(options());
    expect(output).toContain('has the voters 1, 2, 3');
  });
});

describe('the leader', () => {
  it('is asked where the other nodes say that it is, and first from then on', async () => {
    const views = [membersBody(three), membersBody([...three, memberView(9)])];
    const [first, second, third] = await cluster(() => redirect(3), serves(views), serves(views));
    await memberAddCommand(9, options());
    expect(output).toContain('Node 9 is a voter.');
    expect([first, second, third].map((admin) => [admin?.asked(), admin?.posted.length])).toEqual([
      [2, 0],
      [0, 0],
      [3, 1],
    ]);
  });

  it('is found by the address in the answer only if the configuration does not list it', async () => {
    const [, , unlisted] = await cluster(
      () => redirect(2, portOf(2)),
      () => redirect(7, portOf(2)),
      serves([membersBody(three)]),
    );
    await memberListCommand(options({ node: 1 }));
    expect([output, unlisted?.asked()]).toEqual([expect.stringContaining('has the voters 1, 2, 3'), 1]);
    output = '';
    await Promise.all(admins.splice(0).map((admin) => admin.close()));
    const [, elsewhere, listed] = await cluster(
      () => redirect(3, portOf(1)),
      serves([membersBody(three)]),
      serves([membersBody(three)]),
    );
    await memberListCommand(options({ node: 1 }));
    expect([elsewhere?.asked(), listed?.asked()]).toEqual([0, 1]);
  });

  it('is not looked for in another cluster', async () => {
    const [, second] = await cluster(() => redirect(2, portOf(1), 'other'), serves([membersBody(three)]));
    await expect(memberListCommand(options({ node: 1 }))).rejects.toMatchObject({
      message: expect.stringContaining('the server is node 99 of cluster other'),
    });
    expect(second?.asked()).toBe(0);
  });

  it('may change while it is looked for', async () => {
    let leader = 2;
    const [, second, third] = await cluster(
      () => redirect(leader),
      () => {
        leader = 3;
        return redirect(3);
      },
      serves([membersBody(three), membersBody([...three, memberView(9)])]),
    );
    await memberAddCommand(9, options());
    expect([second?.posted.length, third?.posted.length]).toEqual([0, 1]);
  });

  it('is given up in one pass where two nodes name each other, and looked for again a moment later', async () => {
    let passes = 0;
    const [first, second] = await cluster(
      () => redirect(2),
      () => (++passes === 1 ? redirect(1) : { status: 200, body: membersBody(three) }),
    );
    await memberListCommand(options());
    expect(output).toContain('has the voters 1, 2, 3');
    expect([first?.asked(), second?.asked()]).toEqual([2, 2]);
  });

  it('that has just died is waited for, and the reason names every node that was asked', async () => {
    const [first] = await cluster(() => redirect(9));
    await expect(client(0).view()).rejects.toMatchObject({
      code: 'QUORUM_LOST',
      message: expect.stringMatching(
        /node 1 .*: not the leader; node 9 is\n.*node 9 \(127\.0\.0\.9:209\): connection refused/,
      ),
    });
    expect(first?.asked()).toBe(1);
  });

  it('is looked for among so many nodes at most', async () => {
    let next = 100;
    const [first] = await cluster(() => redirect(next++, portOf(0)));
    await expect(client(0).view()).rejects.toMatchObject({ code: 'QUORUM_LOST' });
    expect(first?.asked()).toBe(32);
  });

  it('takes a change once where the answer to it was lost', async () => {
    const [, second] = await cluster(
      () => redirect(2),
      serves([membersBody([...three, learner9(0)])], [LEADERLESS, refusal('it is there')]),
    );
    await client(1_000).change({ op: 'add', id: 9, address: address9, joins: true, replaces: 0 });
    expect(second?.posted).toHaveLength(2);
  });
});

describe('raftkv member add', () => {
  it('takes the address from the cluster file, and shows the way from learner to voter', async () => {
    const [admin] = await cluster(
      serves([
        membersBody(three),
        membersBody([...three, learner9(0, { state: 'unreachable' })], { changing: true }),
        membersBody([...three, learner9(0, { state: 'snapshot' })]),
        membersBody([...three, learner9(60)]),
        membersBody([...three, memberView(9)], { changing: true }),
        membersBody([...three, memberView(9)]),
      ]),
    );
    await memberAddCommand(9, options());
    expect(admin?.posted).toEqual([{ op: 'add', id: 9, address: address9, joins: true, replaces: 0 }]);
    expect(output).toBe(
      [
        'waiting for node 9: start it with `raftkv node --id 9 --join`',
        'node 9 receives a snapshot',
        'node 9 receives the log: entry 60 of 100',
        'node 9 has caught up and becomes a voter',
        'Node 9 is a voter. Cluster demo has the voters 1, 2, 3, 9 and survives 1 failure.',
        '',
      ].join('\n'),
    );
  });

  it('takes what the flags say over the cluster file, and needs all of an address', async () => {
    const [admin] = await cluster(serves([membersBody(three), membersBody([...three, memberView(5)])]));
    const flags = { host: 'h5', clientPort: 1, peerPort: 2, adminPort: 3 };
    await memberAddCommand(5, options(flags));
    expect(admin?.posted).toEqual([{ op: 'add', id: 5, address: flags, joins: true, replaces: 0 }]);
    expect(output).toContain('Add node 5 to cluster.json');
    await expect(memberAddCommand(5, options({ ...flags, peerPort: undefined }))).rejects.toThrow(/peerPort: /);
    await expect(memberAddCommand(5, options())).rejects.toThrow(UsageError);
    expect(admin?.posted).toHaveLength(1);
  });

  it('with --learner is done once the learner has caught up with what there was', async () => {
    const slow = (matchIndex: number, lastIndex: number) =>
      membersBody([...three, learner9(matchIndex, { joins: false })], { lastIndex });
    const [admin] = await cluster(serves([membersBody(three), slow(0, 100), slow(60, 150), slow(100, 200)]));
    await memberAddCommand(9, options({ learner: true }));
    expect(admin?.posted).toMatchObject([{ joins: false }]);
    expect(output).toMatch(/Node 9 is a learner and has caught up\./);
  });

  it('with --no-wait ends once the change is in the log', async () => {
    await cluster(serves([membersBody(three), membersBody([...three, learner9(0)], { changing: true })]));
    await memberAddCommand(9, options({ wait: false }));
    expect(output).toBe(
      'Node 9 receives the log: entry 0 of 100. ' +
        'Cluster demo has the voters 1, 2, 3 and survives 1 failure. A change is in progress.\n' +
        '`raftkv member list` shows its progress.\n',
    );
  });

  it('goes on watching where the change is under way already', async () => {
    const [admin] = await cluster(
      serves([membersBody([...three, learner9(5)]), membersBody([...three, memberView(9)])]),
    );
    await memberAddCommand(9, options());
    expect(admin?.posted).toEqual([]);
    expect(output).toContain('Node 9 is a voter.');
  });

  it('tells the reason of a refusal, and asks no other node', async () => {
    const [, second] = await cluster(
      serves([membersBody(three)], [refusal('a change of members is running (CHANGE_RUNNING)')]),
      serves([membersBody(three)]),
    );
    await expect(memberAddCommand(9, options())).rejects.toMatchObject({
      code: 'MEMBER_CHANGE_REFUSED',
      message: 'a change of members is running (CHANGE_RUNNING)',
      remedy: 'Wait.',
    });
    expect(second?.posted).toEqual([]);
  });

  it('knows its own change again where the answer to a first attempt was lost', async () => {
    const [first, second] = await cluster(
      serves([membersBody(three), LEADERLESS], [LEADERLESS]),
      serves([membersBody([...three, learner9(0)]), membersBody([...three, memberView(9)])], [refusal('it is there')]),
    );
    await memberAddCommand(9, options());
    expect([first?.posted.length, second?.posted.length]).toEqual([1, 1]);
    expect(output).toContain('Node 9 is a voter.');
  });

  it('fails where somebody removes the learner meanwhile, but not for one old leader that does not know it yet', async () => {
    await cluster(serves([membersBody(three), membersBody([...three, learner9(0)]), membersBody(three)]));
    await expect(memberAddCommand(9, options())).rejects.toMatchObject({ code: 'MEMBER_CHANGE_REFUSED' });
    output = '';
    await Promise.all(admins.splice(0).map((admin) => admin.close()));
    await cluster(serves([membersBody(three), membersBody(three), membersBody([...three, memberView(9)])]));
    await memberAddCommand(9, options());
    expect(output).toContain('Node 9 is a voter.');
  });

  it('prints nothing but the outcome as JSON', async () => {
    const last = membersBody([...three, memberView(9)]);
    await cluster(serves([membersBody(three), membersBody([...three, learner9(0)]), last]));
    await memberAddCommand(9, options({ json: true }));
    expect(JSON.parse(output)).toEqual(last);
  });
});

describe('raftkv member replace', () => {
  it('is done when the new one votes and the old one is gone', async () => {
    const [one, two] = [memberView(1), memberView(2)];
    const [admin] = await cluster(
      serves([
        membersBody([one, two, memberView(3, { state: 'unreachable' })]),
        membersBody([one, two, memberView(3), learner9(10, { replaces: 3 })]),
        membersBody([one, two, memberView(3, { role: 'leaving' }), memberView(9)], { changing: true }),
        membersBody([one, two, memberView(9)]),
      ]),
    );
    await memberReplaceCommand(3, 9, options());
    expect(admin?.posted).toEqual([{ op: 'add', id: 9, address: address9, joins: true, replaces: 3 }]);
    expect(output).toBe(
      [
        'node 9 receives the log: entry 10 of 100',
        'node 9 has caught up; it becomes a voter and node 3 is removed',
        'Node 9 is a voter and replaced node 3. Cluster demo has the voters 1, 2, 9 and survives 1 failure.',
        'The process of node 3 exits by itself; its data directory can be deleted.',
        '',
      ].join('\n'),
    );
  });

  it('refuses an old node that is no member, and a node in its own place', async () => {
    const [admin] = await cluster(serves([membersBody(three)]));
    await expect(memberReplaceCommand(7, 9, options())).rejects.toMatchObject({
      code: 'MEMBER_CHANGE_REFUSED',
      message: 'node 7 is not a member of the cluster; its members are 1, 2, 3',
    });
    await expect(
      memberReplaceCommand(3, 2, options({ host: 'h2', clientPort: 1, peerPort: 2, adminPort: 3 })),
    ).rejects.toMatchObject({
      remedy: 'To remove node 3: raftkv member remove 3.',
    });
    await expect(memberReplaceCommand(3, 3, options())).rejects.toThrow(UsageError);
    expect(admin?.posted).toEqual([]);
  });
});

describe('raftkv member remove and promote', () => {
  it('waits until the node is gone, and asks the others where it was the one that was asked', async () => {
    let removed = false;
    await cluster(
      (asked) => {
        if (removed) return LEADERLESS;
        removed = typeof asked === 'object';
        return removed ? OK : { status: 200, body: membersBody(three) };
      },
      serves([membersBody([memberView(2), memberView(3)], { leader: 2 })]),
    );
    await memberRemoveCommand(1, options({ node: 1 }));
    expect(output).toContain('Node 1 is no longer a member. Cluster demo has the voters 2, 3 and survives no failure.');
    expect(output).toContain('Remove it from cluster.json');
  });

  it('promotes a learner', async () => {
    const before = membersBody([...three, learner9(100, { joins: false })]);
    const [admin] = await cluster(serves([before, membersBody([...three, memberView(9)])]));
    await memberPromoteCommand(9, options());
    expect(admin?.posted).toEqual([{ op: 'promote', id: 9 }]);
    expect(output).toContain('Node 9 is a voter.');
  });
});
