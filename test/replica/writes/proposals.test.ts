import { beforeEach, describe, expect, it, vi } from 'vitest';
import { readBatchHeader } from '../../../src/kv/batch.ts';
import { Op } from '../../../src/kv/types.ts';
import type { Core } from '../../../src/raft/state/core.ts';
import { ENTRY_HEADER_BYTES } from '../../../src/raft/state/entry.ts';
import type { PeerMessage, Proposal } from '../../../src/replica/peers/wire.ts';
import { LeaderBalancer } from '../../../src/replica/writes/leader-balancer.ts';
import { checkProposal, Proposals } from '../../../src/replica/writes/proposals.ts';
import { Proposer } from '../../../src/replica/writes/proposer.ts';
import { commandOf } from '../../support/write-command.ts';
import { coreOf } from '../cores.ts';
import { batchOf, LIMITS, Request } from '../support.ts';

const SELF = 2;
const SESSION = 7;
const KEY = 'key';

describe('proposals', () => {
  let core: Core;
  let proposer: Proposer;
  let sent: { to: number; message: PeerMessage }[];
  let turns: number;
  let linkTakes: number;
  let proposals: Proposals;

  beforeEach(() => {
    core = coreOf(SELF);
    proposer = new Proposer(SELF, SESSION, LIMITS);
    sent = [];
    turns = 0;
    linkTakes = Number.POSITIVE_INFINITY;
    const sender = {
      tell(to: number, message: PeerMessage) {
        if (sent.length >= linkTakes) return false;
        sent.push({ to, message });
        return true;
      },
    };
    proposals = new Proposals({ core, scheduleTurn: () => turns++ }, sender, proposer, new LeaderBalancer(SELF));
  });

  function follow(leader: number, term = core.term): void {
    Object.assign(core, { role: 'follower', leader, term });
    proposals.forget();
    proposals.sendAllAgain();
  }

  function lead(term = core.term): void {
    Object.assign(core, { role: 'leader', leader: SELF, term });
    proposals.sendAllAgain();
  }

  function accept(count = 1): void {
    for (let i = 0; i < count; i++) {
      proposer.add(commandOf(Op.incr, KEY, '', { low: 1 }), new Request());
      proposer.closeBatch(0);
    }
  }

  function complete(count = 1): void {
    for (let i = 0; i < count; i++) {
      proposer.beginCompletion();
      proposer.endCompletion();
    }
  }

  function sequencesSent(): number[] {
    return sent.splice(0).map(({ message }) => (message as Proposal).sequence);
  }

  function sequencesOf(batches: readonly Buffer[]): number[] {
    return batches.map((bytes) => readBatchHeader(bytes, ENTRY_HEADER_BYTES).sequence);
  }

  it('go to the leader in order, each once', () => {
    follow(1);
    accept(2);
    proposals.sendNew();
    expect(sent.map(({ to }) => to)).toEqual([1, 1]);
    expect(sent[1]?.message).toMatchObject({ kind: 'proposal', term: 4, sessionId: SESSION, oldestSequence: 1 });
    expect(sequencesSent()).toEqual([1, 2]);
    accept();
    proposals.sendNew();
    proposals.sendNew();
    expect(sequencesSent()).toEqual([3]);
  });

  it('wait where no leader', () => {
    accept();
    proposals.sendNew();
    expect(sent).toEqual([]);
    follow(3);
    proposals.sendNew();
    expect(sent.map(({ to }) => to)).toEqual([3]);
  });

  it('go to a new leader from the oldest that is not applied', () => {
    follow(1);
    accept(3);
    proposals.sendNew();
    complete();
    sent = [];
    follow(3, 5);
    proposals.sendNew();
    expect(sent[0]?.message).toMatchObject({ term: 5, oldestSequence: 2 });
    expect(sequencesSent()).toEqual([2, 3]);
  });

  it('stay in order where a link takes no more', () => {
    follow(1);
    accept(3);
    linkTakes = 1;
    proposals.sendNew();
    expect(sequencesSent()).toEqual([1]);
    linkTakes = Number.POSITIVE_INFINITY;
    accept();
    proposals.sendNew();
    expect(sequencesSent()).toEqual([2, 3, 4]);
  });

  it('are sent again where nothing has moved for a while, and only then', () => {
    follow(1);
    accept(2);
    proposals.sendNew();
    sent = [];
    proposals.sendAgainIfStuck(1000, 100);
    complete();
    proposals.sendAgainIfStuck(1100, 100);
    proposals.sendNew();
    expect(sequencesSent()).toEqual([]);
    proposals.sendAgainIfStuck(1150, 100);
    proposals.sendNew();
    expect(sequencesSent()).toEqual([]);
    proposals.sendAgainIfStuck(1200, 100);
    proposals.sendNew();
    expect(sequencesSent()).toEqual([2]);
  });

  it('go on where the leader says that it expects them, if it is the leader that says so', () => {
    follow(1);
    accept(4);
    proposals.sendNew();
    complete();
    sent = [];
    const refusal = { kind: 'proposalRefused', term: 4, sessionId: SESSION, expectedSequence: 3 } as const;
    proposals.receiveRefusal(3, refusal);
    proposals.receiveRefusal(1, { ...refusal, term: 3 });
    proposals.receiveRefusal(1, { ...refusal, sessionId: SESSION - 1 });
    proposals.receiveRefusal(1, { ...refusal, expectedSequence: 0 });
    proposals.receiveRefusal(1, { ...refusal, expectedSequence: 1 });
    proposals.sendNew();
    expect(sequencesSent()).toEqual([]);
    turns = 0;
    proposals.receiveRefusal(1, refusal);
    expect(turns).toBe(1);
    proposals.sendNew();
    expect(sequencesSent()).toEqual([3, 4]);
  });

  it('of a leader go into its own log, under its time', () => {
    lead();
    accept(2);
    proposals.sendNew();
    expect(sent).toEqual([]);
    expect(proposals.waiting).toBe(true);
    const batches = proposals.drain(1234);
    expect(batches.map((bytes) => readBatchHeader(bytes, ENTRY_HEADER_BYTES))).toMatchObject([
      { sequence: 1, timeMs: 1234 },
      { sequence: 2, timeMs: 1234 },
    ]);
    expect(proposals.waiting).toBe(false);
    proposals.sendAllAgain();
    proposals.sendNew();
    expect(proposals.waiting).toBe(false);
  });

  it('enter a log uncopied the first time, and as a copy once anybody else uses their bytes', () => {
    lead();
    accept();
    proposals.sendNew();
    expect(proposals.drain(1)[0]).toBe(proposer.batch(1)?.bytes);
    const first = Buffer.from(proposer.batch(1)?.bytes ?? '');
    lead(6);
    proposals.sendNew();
    const [second] = proposals.drain(2);
    expect(second).not.toBe(proposer.batch(1)?.bytes);
    expect(proposer.batch(1)?.bytes).toEqual(first);

    follow(1, 7);
    accept();
    proposals.sendNew();
    const [{ bytes: onLink }] = sent.slice(-1).map(({ message }) => message) as [Proposal];
    lead(8);
    proposals.sendNew();
    expect(proposals.drain(3).at(-1)).not.toBe(onLink);
    expect(readBatchHeader(onLink, ENTRY_HEADER_BYTES).timeMs).toBe(0);
  });

  it('cost no copy where they are offered again and not taken', () => {
    lead();
    accept(3);
    proposals.sendNew();
    const copying = vi.spyOn(Buffer, 'from');
    proposals.sendAllAgain();
    proposals.sendNew();
    expect(copying).not.toHaveBeenCalled();
    copying.mockRestore();
  });

  it('that were taken and not yet in the log are forgotten with the leadership', () => {
    lead();
    accept();
    proposals.sendNew();
    follow(1, 5);
    expect(proposals.waiting).toBe(false);
    lead(6);
    proposals.sendNew();
    expect(sequencesOf(proposals.drain(0))).toEqual([1]);
  });

  it('of another proposer are taken by the leader, and refused by other nodes', () => {
    const proposal: Proposal = {
      kind: 'proposal',
      term: 4,
      sessionId: 1,
      sequence: 1,
      oldestSequence: 1,
      bytes: batchOf('k', 'v', { proposer: 3 }),
    };
    follow(1);
    proposals.receive(3, proposal);
    expect(sent.splice(0)).toEqual([
      { to: 3, message: { kind: 'proposalRefused', term: 4, sessionId: 1, expectedSequence: 0 } },
    ]);
    lead();
    turns = 0;
    proposals.receive(3, proposal);
    expect(turns).toBe(1);
    proposals.receive(3, proposal);
    expect(sequencesOf(proposals.drain(0))).toEqual([1]);
    expect(sent).toEqual([]);
  });

  it('must be what their sender says, and its own', () => {
    const bytes = batchOf('k', 'v', { proposer: 3, sessionId: 2, sequence: 9 });
    const proposal: Proposal = { kind: 'proposal', term: 4, sessionId: 2, sequence: 9, oldestSequence: 9, bytes };
    expect(() => checkProposal(3, proposal)).not.toThrow();
    for (const [from, wrong] of [
      [1, proposal],
      [3, { ...proposal, sessionId: 3 }],
      [3, { ...proposal, sequence: 8 }],
      [3, { ...proposal, bytes: bytes.subarray(0, -1) }],
      [3, { ...proposal, bytes: Buffer.alloc(0) }],
    ] as const) {
      expect(() => checkProposal(from, wrong)).toThrow(expect.objectContaining({ code: 'MESSAGE_INVALID' }));
    }
  });
});
