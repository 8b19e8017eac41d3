import { describe, expect, it } from 'vitest';
import {
  acquire,
  HELD_MS,
  type LockOperation,
  type LockStep,
  PATIENCE_MS,
  renew,
} from '../../../src/storage/lock/protocol.ts';
import { formatRecord, type Identity, type LockRecord } from '../../../src/storage/lock/record.ts';
import { createManualClock } from '../../support/manual-clock.ts';
import { performOn } from './memory-files.ts';

/**
 * A claim and a renewal of the holder that wakes up meanwhile, in each order of their file operations: either the renewal
 * fails, or the claimant sees it and waits until it has lapsed.
 */
const identity = (id: string): Identity => ({ pid: 1, host: 'h', since: '', id, place: null, started: null });
const HELD: LockRecord = { state: 'held', beat: 7, holder: identity('holder') };
/** Create, write, list and read again; write and list. */
const CLAIM_OPERATIONS = 4;
const RENEWAL_OPERATIONS = 2;

function createFiles() {
  const files = new Map([['0000000001', formatRecord(HELD)]]);
  return (operation: LockOperation) => performOn(files, operation);
}

/** Runs a generator one operation at a time. */
function createRunner<T>(steps: Generator<LockStep, T, unknown>, perform: (operation: LockOperation) => unknown) {
  let next = steps.next();
  return {
    step: () => (next.done ? null : next.value),
    result: () => (next.done ? next.value : undefined),
    go() {
      if (next.done) return;
      const step = next.value;
      next = steps.next(step.kind === 'wait' ? undefined : perform(step));
    },
  };
}

/** The positions of the renewal's operations among all: each choice of two. */
const ORDERS = Array.from({ length: CLAIM_OPERATIONS + RENEWAL_OPERATIONS }, (_, first) =>
  Array.from({ length: CLAIM_OPERATIONS + RENEWAL_OPERATIONS - first - 1 }, (_, i) => [first, first + 1 + i] as const),
).flat();

describe('a claim and a renewal', () => {
  it.each(ORDERS)('with the renewal at %i and %i of their operations', (write, list) => {
    const perform = createFiles();
    const { clock, advance } = createManualClock();
    const contender = { folder: 'LOCK', identity: identity('claimant'), clock, watching() {} };
    const claim = createRunner(acquire({ ...contender, stateOf: () => ({ kind: 'dead' }) }), perform);
    const advanceClaim = () => {
      const step = claim.step();
      if (step?.kind === 'wait') advance(step.ms);
      claim.go();
    };
    while (claim.step()?.kind !== 'create') advanceClaim();
    const renewal = createRunner(renew(1, { ...HELD, beat: 8 }), perform);
    for (let at = 0; at < CLAIM_OPERATIONS + RENEWAL_OPERATIONS; at++) {
      (at === write || at === list ? renewal : claim).go();
    }
    const renewed = renewal.result();
    const waits = claim.step()?.kind === 'wait';
    expect(renewed).toBeTypeOf('boolean');
    if (renewed) expect(waits).toBe(true);

    const claimedMs = clock.monotonicMs();
    while (claim.step() !== null) advanceClaim();
    expect(claim.result()).toMatchObject({ number: 2 });
    expect(clock.monotonicMs() - claimedMs).toBe(waits ? PATIENCE_MS : 0);
    expect(PATIENCE_MS).toBeGreaterThanOrEqual(2 * HELD_MS);
  });
});
