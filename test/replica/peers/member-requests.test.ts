import { beforeEach, describe, expect, it } from 'vitest';
import { configurationOf } from '../../../src/raft/state/configuration.ts';
import type { Core } from '../../../src/raft/state/core.ts';
import { ENTRY_HEADER_BYTES, sealEntry } from '../../../src/raft/state/entry.ts';
import { type Input, type MemberChange, NO_NODE } from '../../../src/raft/state/types.ts';
import { MemberRequests } from '../../../src/replica/peers/member-requests.ts';
import type { MemberReply, MemberRequest } from '../../../src/replica/peers/wire.ts';
import { coreOf } from '../cores.ts';
import { ManualClock, microtasks } from '../support.ts';

const SELF = 2;
const TIMEOUT_MS = 2000;
const REMOVAL: MemberChange = { op: 'remove', id: 3 };

describe('questions about members', () => {
  let clock: ManualClock;
  let core: Core;
  let stepped: Input[];
  let sent: { to: number; message: MemberRequest | MemberReply }[];
  let linkTakes: boolean;
  let requests: MemberRequests;
  let outcomes: string[];

  beforeEach(() => {
    clock = new ManualClock();
    core = coreOf(SELF);
    stepped = [];
    sent = [];
    linkTakes = true;
    outcomes = [];
    requests = new MemberRequests({
      clock: clock.forProcess(() => true),
      core,
      timeoutMs: TIMEOUT_MS,
      put: (input) => stepped.push(input),
      send(to, message) {
        if (linkTakes) sent.push({ to, message });
        return linkTakes;
      },
      isLinked: () => true,
    });
  });

  function lead(): void {
    core.leading = { progress: new Map() } as never;
    core.role = 'leader';
    core.leader = SELF;
  }

  async function ask(): Promise<void> {
    requests.change(REMOVAL).then(
      () => outcomes.push('done'),
      (error: Error) => outcomes.push(/\((\w+)\)$/.exec(error.message)?.[1] ?? error.message),
    );
    await microtasks();
  }

  async function told(): Promise<string[]> {
    await microtasks();
    return outcomes.splice(0);
  }

  /** The core has put the change into the log. */
  function begun(): void {
    const input = stepped.at(-1);
    if (input?.kind !== 'changeMembers') throw new Error('nothing was asked of the core');
    const index = core.log.lastIndex + 1;
    core.configurations.append(index, configurationOf([1, 2]));
    core.log.append(sealEntry(Buffer.alloc(ENTRY_HEADER_BYTES), 'configuration', core.term, index));
    requests.outcome({ id: input.id, refusal: null, text: '' });
  }

  it('are done once the change is committed', async () => {
    lead();
    await ask();
    begun();
    requests.progress();
    expect(await told()).toEqual([]);
    core.log.commitIndex = 1;
    requests.progress();
    requests.progress();
    expect(await told()).toEqual(['done']);
    expect(clock.nextTimerMs()).toBe(Number.POSITIVE_INFINITY);
  });

  it('are given up in time, once, whether the core has said anything or not', async () => {
    lead();
    await ask();
    await ask();
    begun();
    clock.moveTo(clock.nowMs + TIMEOUT_MS - 1);
    expect(await told()).toEqual([]);
    clock.moveTo(clock.nowMs + 1);
    expect(await told()).toEqual(['TIMEOUT', 'TIMEOUT']);
    core.log.commitIndex = 1;
    requests.progress();
    expect(await told()).toEqual([]);
  });

  it('have an unknown outcome where this node stops to lead, or leads again, before they are committed', async () => {
    lead();
    await ask();
    begun();
    core.leading = null;
    requests.progress();
    expect(await told()).toEqual(['NOT_LEADER']);
    lead();
    await ask();
    begun();
    core.term++;
    requests.progress();
    expect(await told()).toEqual(['NOT_LEADER']);
  });

  it('are done also where they were committed just before this node stopped to lead', async () => {
    lead();
    await ask();
    begun();
    core.log.commitIndex = 1;
    core.leading = null;
    requests.progress();
    expect(await told()).toEqual(['done']);
  });

  it('are refused as the core says', async () => {
    lead();
    await ask();
    requests.outcome({ id: 1, refusal: 'CHANGE_RUNNING', text: 'one runs' });
    expect(await told()).toEqual(['CHANGE_RUNNING']);
  });

  it('go to the leader, and its answer back', async () => {
    core.leader = 1;
    await ask();
    const [asked] = sent.splice(0);
    expect(asked?.to).toBe(1);
    if (asked?.message.kind !== 'memberRequest') throw new Error('something else was sent');
    requests.receiveReply({ kind: 'memberReply', id: asked.message.id + 1, body: Buffer.from('{"ok":null}') });
    expect(await told()).toEqual([]);
    const reply: MemberReply = { kind: 'memberReply', id: asked.message.id, body: Buffer.from('{"ok":null}') };
    requests.receiveReply(reply);
    requests.receiveReply(reply);
    expect(await told()).toEqual(['done']);
  });

  it('are answered for another node, or refused by a node that no longer leads', async () => {
    const body = Buffer.from(JSON.stringify({ ask: 'change', change: REMOVAL }));
    requests.receiveRequest(3, { kind: 'memberRequest', id: 77, body });
    await microtasks();
    lead();
    requests.receiveRequest(3, { kind: 'memberRequest', id: 78, body });
    expect(stepped).toEqual([expect.objectContaining({ kind: 'changeMembers', change: REMOVAL })]);
    begun();
    core.log.commitIndex = 1;
    requests.progress();
    await microtasks();
    const replies = sent.map(({ to, message }) => [to, message.id, JSON.parse(message.body.toString())]);
    expect(replies).toEqual([
      [3, 77, expect.objectContaining({ code: 'NOT_LEADER' })],
      [3, 78, { ok: null }],
    ]);
  });

  it('are refused at once if there is no leader or no link, and where too many wait', async () => {
    core.leader = NO_NODE;
    await ask();
    core.leader = 1;
    linkTakes = false;
    await ask();
    expect(await told()).toEqual(['NOT_LEADER', 'NOT_LEADER']);
    linkTakes = true;
    for (let i = 0; i < 64; i++) await ask();
    expect(await told()).toEqual([]);
    await ask();
    expect(await told()).toEqual(['BUSY']);
    requests.stop();
    expect(await told()).toEqual(Array(64).fill('STOPPING'));
    expect(clock.nextTimerMs()).toBe(Number.POSITIVE_INFINITY);
  });
});
