import { beforeEach, describe, expect, it } from 'vitest';
import { ProposalSequencer } from '../../../src/replica/writes/proposals.ts';

const TERM = 5;
const PROPOSER = 2;
const TAKEN = 'take';
const IGNORED = 'ignore';

describe('the proposal sequencer of a leader', () => {
  let sequencer: ProposalSequencer;
  beforeEach(() => {
    sequencer = new ProposalSequencer();
  });

  function offer(
    sequence: number,
    oldestSequence: number,
    { term = TERM, sessionId = 1, leads = true, at = TERM } = {},
  ) {
    const bytes = Buffer.alloc(0);
    const verdict = sequencer.judge(
      PROPOSER,
      { kind: 'proposal', term, sessionId, sequence, oldestSequence, bytes },
      at,
      leads,
    );
    return typeof verdict === 'string' ? verdict : `from ${verdict.expectedSequence}`;
  }

  it('takes the batches of a proposer in their order, from the oldest that is not applied', () => {
    expect([offer(7, 7), offer(8, 7), offer(9, 9)]).toEqual([TAKEN, TAKEN, TAKEN]);
  });

  it('ignores what it has taken already', () => {
    expect([offer(1, 1), offer(2, 1), offer(1, 1), offer(2, 2), offer(3, 2)]).toEqual([
      TAKEN,
      TAKEN,
      IGNORED,
      IGNORED,
      TAKEN,
    ]);
  });

  it('refuses what would leave a gap, and says where to go on', () => {
    expect([offer(3, 2), offer(2, 2), offer(4, 2), offer(3, 2)]).toEqual(['from 2', TAKEN, 'from 3', TAKEN]);
  });

  it('goes on from what the proposer has seen applied, though it never got it in this term', () => {
    expect(offer(5, 5)).toBe(TAKEN);
    // 6 was lost with a link, and applied all the same: from a copy that an earlier leader had put into the log.
    expect(offer(8, 7)).toBe('from 7');
    expect([offer(7, 7), offer(8, 7)]).toEqual([TAKEN, TAKEN]);
    expect(offer(6, 5)).toBe(IGNORED);
  });

  it('keeps the proposers apart', () => {
    offer(1, 1);
    const other = {
      kind: 'proposal',
      term: TERM,
      sessionId: 1,
      sequence: 1,
      oldestSequence: 1,
      bytes: Buffer.alloc(0),
    };
    expect(sequencer.judge(3, { ...other, kind: 'proposal' }, TERM, true)).toBe(TAKEN);
  });

  it('begins again with a new session of a proposer, and ignores the old one from then on', () => {
    expect(offer(40, 40)).toBe(TAKEN);
    expect(offer(1, 1, { sessionId: 2 })).toBe(TAKEN);
    expect(offer(41, 41)).toBe(IGNORED);
    expect(offer(2, 1, { sessionId: 2 })).toBe(TAKEN);
  });

  it('begins again with its next term: what an earlier one took may not be in this log', () => {
    expect([offer(1, 1), offer(2, 1)]).toEqual([TAKEN, TAKEN]);
    expect(offer(1, 1, { term: TERM + 2, at: TERM + 2 })).toBe(TAKEN);
  });

  it('takes nothing for another term than its own, and nothing at all where it does not lead', () => {
    expect(offer(1, 1, { term: TERM - 1 })).toBe('from 0');
    expect(offer(1, 1, { leads: false })).toBe('from 0');
    expect(offer(1, 1)).toBe(TAKEN);
  });
});
