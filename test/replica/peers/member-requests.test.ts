import { beforeEach, describe, expect, it } from 'vitest';
import { configurationOf } from '../../../src/raft/state/configuration.ts';
import type { Core } from '../../../src/raft/state/core.ts';
import { ENTRY_HEADER_BYTES, sealEntry } from '../../../src/raft/state/entry.ts';
import { type Input, type MemberChange, NO_NODE } from '../../../src/raft/state/types.ts';
import { MemberRequests, NotLeaderError } from '../../../src/replica/peers/member-requests.ts';
import { coreOf } from '../cores.ts';
import { ManualClock, microtasks } from '../support.ts';

const SELF = 2;
const TIMEOUT_MS = 2000;
const REMOVAL: MemberChange = { op: 'remove', id: 3 };

describe('questions about members', () => {
  let clock: ManualClock;
  let core: Core;
  let stepped: Input[];
  let requests: MemberRequests;
  let outcomes: string[];

  beforeEach(() => {
    clock = new ManualClock();
    core = coreOf(SELF);
    stepped = [];
    outcomes = [];
    const timing = { requestTimeoutMs: TIMEOUT_MS };
    const options = { clock: clock.forProcess(() => true), transport: { isUp: () => true }, timing };
    const loop = { core, put: (input: Input) => stepped.push(input), run: (action: () => void) => action() };
    requests = new MemberRequests(options, loop);
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

  it('are refused by a node that does not lead, which names the leader and its address', async () => {
    const address = { host: '10.0.0.1', clientPort: 1, peerPort: 2, adminPort: 3 };
    const details = [{ id: 1, address, directoryId: 0, joins: false, replaces: NO_NODE }];
    core.configurations.append(1, configurationOf([1, 2, 3], details));
    const refusals: unknown[] = [];
    for (const leader of [1, 3, NO_NODE]) {
      core.leader = leader;
      await requests.change(REMOVAL).catch((error: unknown) => refusals.push(error));
      expect(() => requests.view()).toThrow(NotLeaderError);
    }
    expect(refusals).toEqual([
      expect.objectContaining({ code: 'NOT_LEADER', leader: { id: 1, address } }),
      expect.objectContaining({ code: 'NOT_LEADER', leader: { id: 3, address: null } }),
      expect.objectContaining({ code: 'NOT_LEADER', leader: null }),
    ]);
    expect(stepped).toEqual([]);
    expect(clock.nextTimerMs()).toBe(Number.POSITIVE_INFINITY);
  });

  it('are refused where too many wait, and when the node stops', async () => {
    lead();
    for (let i = 0; i < 64; i++) await ask();
    expect(await told()).toEqual([]);
    await ask();
    expect(await told()).toEqual(['BUSY']);
    requests.stop();
    expect(await told()).toEqual(Array(64).fill('STOPPING'));
    expect(clock.nextTimerMs()).toBe(Number.POSITIVE_INFINITY);
  });
});
