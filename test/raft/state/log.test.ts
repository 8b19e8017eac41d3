import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { sealEntry } from '../../../src/raft/state/entry.ts';
import { RaftLog } from '../../../src/raft/state/log.ts';
import { collectGarbage } from '../../support/garbage.ts';
import { batchOf } from '../core-cluster.ts';

const entryOf = (term: number, index: number, payload = `${index}@${term}`) =>
  sealEntry(batchOf(payload), 'data', term, index);

function logOf(terms: readonly number[], cacheBytesMax = 1_000_000, snapshotIndex = 0, snapshotTerm = 0): RaftLog {
  const log = new RaftLog({ snapshotIndex, snapshotTerm, cacheBytesMax });
  for (const [i, term] of terms.entries()) log.append(entryOf(term, snapshotIndex + i + 1));
  return log;
}

/** Terms as a log has them: never falling. */
const termsArbitrary = fc.array(fc.nat({ max: 2 }), { maxLength: 20 }).map((steps) =>
  steps.map(
    (
      (sum) => (step: number) =>
        (sum += step)
    )(1),
  ),
);

describe('the log of one node', () => {
  it('knows the term of every entry, and -1 for those it does not have', () => {
    fc.assert(
      fc.property(termsArbitrary, fc.nat({ max: 5 }), (terms, snapshotIndex) => {
        const log = logOf(terms, 0, snapshotIndex, snapshotIndex === 0 ? 0 : 1);
        expect(log.lastTerm).toBe(terms.at(-1) ?? log.snapshotTerm);
        for (let index = 0; index < snapshotIndex; index++) expect(log.termAt(index)).toBe(-1);
        expect(log.termAt(snapshotIndex)).toBe(log.snapshotTerm);
        for (const [i, term] of terms.entries()) expect(log.termAt(snapshotIndex + i + 1)).toBe(term);
        expect(log.termAt(snapshotIndex + terms.length + 1)).toBe(-1);
      }),
    );
  });

  it('is the same as a plain list, whatever is appended, truncated, written, evicted, compacted or replaced', () => {
    const operation = fc.oneof(
      fc.record({ kind: fc.constant('append' as const), count: fc.integer({ min: 1, max: 4 }), newTerm: fc.boolean() }),
      fc.record({ kind: fc.constant('truncate' as const), back: fc.nat({ max: 6 }) }),
      fc.record({ kind: fc.constant('persist' as const), back: fc.nat({ max: 3 }) }),
      fc.record({ kind: fc.constant('commit' as const), back: fc.nat({ max: 5 }) }),
      fc.record({ kind: fc.constant('apply' as const), back: fc.nat({ max: 5 }) }),
      fc.record({ kind: fc.constant('compact' as const), back: fc.nat({ max: 8 }) }),
      fc.record({
        kind: fc.constant('restore' as const),
        ahead: fc.integer({ min: 1, max: 9 }),
        newTerm: fc.boolean(),
      }),
    );
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 40 }), fc.nat({ max: 2000 }), (operations, cacheBytesMax) => {
        const log = new RaftLog({ snapshotIndex: 0, snapshotTerm: 0, cacheBytesMax });
        /** The term at every index that is known, as a list with nothing clever about it; the base's among them. */
        let plain = new Map([[0, 0]]);
        let [term, last, base, commit, applied, persisted] = [1, 0, 0, 0, 0, 0];
        for (const step of operations) {
          switch (step.kind) {
            case 'append':
              if (step.newTerm) term++;
              for (let i = 0; i < step.count; i++) {
                last++;
                log.append(entryOf(term, last));
                plain.set(last, term);
              }
              break;
            case 'truncate': {
              const index = Math.max(commit + 1, last + 1 - step.back);
              log.truncateFrom(index);
              for (let gone = index; gone <= last; gone++) plain.delete(gone);
              last = Math.min(last, index - 1);
              persisted = Math.min(persisted, last);
              term++;
              break;
            }
            case 'persist':
              persisted = Math.max(persisted, last - step.back);
              log.persistedIndex = persisted;
              log.evict();
              break;
            case 'commit':
              commit = Math.max(commit, last - step.back);
              log.commitIndex = commit;
              break;
            case 'apply':
              applied = Math.max(applied, commit - step.back);
              log.appliedIndex = applied;
              break;
            case 'compact': {
              const index = Math.min(applied, persisted) - step.back;
              log.compactTo(index);
              base = Math.max(base, index);
              for (const known of [...plain.keys()]) if (known < base) plain.delete(known);
              break;
            }
            case 'restore':
              if (step.newTerm) term++;
              base = commit + step.ahead;
              log.restore(base, term);
              plain = new Map([[base, term]]);
              last = commit = applied = persisted = base;
              break;
          }
          expect(log).toMatchObject({ snapshotIndex: base, snapshotTerm: plain.get(base), lastIndex: last });
          expect(log).toMatchObject({ lastTerm: plain.get(last), commitIndex: commit, appliedIndex: applied });
          expect(log.persistedIndex).toBe(persisted);
          expect(log.firstCachedIndex).toBeLessThanOrEqual(persisted + 1);
          expect(log.firstCachedIndex).toBeGreaterThan(base);
          for (let index = 0; index <= last + 1; index++) {
            const held = log.cached(index);
            expect(log.termAt(index)).toBe(plain.get(index) ?? -1);
            const inMemory = index >= log.firstCachedIndex && index <= last;
            expect(held && `${held.index}@${held.term}`).toBe(inMemory ? `${index}@${plain.get(index)}` : undefined);
          }
        }
      }),
      { numRuns: 1000 },
    );
  });

  it('is compacted no further than what is applied and on disk', () => {
    const log = logOf([1, 1, 1]);
    log.commitIndex = 3;
    log.appliedIndex = 3;
    log.persistedIndex = 1;
    expect(() => log.compactTo(2)).toThrow(/on disk up to 1/);
    log.persistedIndex = 3;
    log.appliedIndex = 1;
    expect(() => log.compactTo(2)).toThrow(/applied up to 1/);
    log.compactTo(1);
    expect(log.snapshotIndex).toBe(1);
  });

  it('is never replaced by a snapshot that holds less than what is committed', () => {
    const log = logOf([1, 1, 1]);
    log.commitIndex = 3;
    expect(() => log.restore(3, 1)).toThrow(/committed up to 3/);
    log.restore(4, 1);
    expect(log).toMatchObject({ lastIndex: 4, lastTerm: 1, appliedIndex: 4 });
  });

  it('counts as free memory what was compacted or replaced', () => {
    const size = entryOf(1, 10).bytes.length + 160;
    const log = logOf([1, 1, 1, 1], 3 * size);
    log.persistedIndex = log.commitIndex = log.appliedIndex = 4;
    log.compactTo(2);
    log.append(entryOf(1, 5));
    log.evict();
    expect(log.firstCachedIndex).toBe(3);
    log.restore(9, 2);
    for (const index of [10, 11, 12]) log.append(entryOf(2, index));
    log.persistedIndex = 12;
    log.evict();
    expect(log.firstCachedIndex).toBe(10);
  });

  it('takes no entry that does not follow its last', () => {
    expect(() => logOf([1, 1]).append(entryOf(1, 4))).toThrow(/appended after entry 2/);
    expect(() => logOf([1, 1]).append(entryOf(1, 2))).toThrow(/appended after entry 2/);
  });

  it('never forgets what is committed', () => {
    const log = logOf([1, 1, 1]);
    log.commitIndex = 2;
    expect(() => log.truncateFrom(2)).toThrow(/committed up to 2/);
    log.truncateFrom(3);
    expect(log.lastIndex).toBe(2);
  });

  it('keeps in memory what is not on disk yet, however much it is', () => {
    const log = logOf([1, 1, 1, 1], 0);
    log.evict();
    expect(log.firstCachedIndex).toBe(1);
    log.persistedIndex = 3;
    log.evict();
    expect(log.firstCachedIndex).toBe(4);
    expect(log.cached(4)?.index).toBe(4);
  });

  it('frees the memory of what it evicts at once', () => {
    const log = logOf([], 0);
    const appendWatched = () => {
      const entry = entryOf(1, 1);
      log.append(entry);
      return new WeakRef(entry);
    };
    const evicted = appendWatched();
    log.append(entryOf(1, 2));
    log.persistedIndex = 1;
    log.evict();
    return new Promise((resolve) => setImmediate(resolve)).then(() => {
      collectGarbage();
      expect(evicted.deref()).toBeUndefined();
      expect(log.cached(2)?.index).toBe(2);
    });
  });

  it('keeps its place through thousands of evictions', () => {
    const log = logOf([], 1000);
    for (let index = 1; index <= 5000; index++) {
      log.append(entryOf(1, index));
      log.persistedIndex = index;
      log.evict();
      expect(log.cached(index)?.index).toBe(index);
    }
    const { firstCachedIndex } = log;
    expect(firstCachedIndex).toBeGreaterThan(4990);
    expect(log.slice(firstCachedIndex, 1_000_000).map(({ index }) => index)).toEqual(
      Array.from({ length: 5001 - firstCachedIndex }, (_, i) => firstCachedIndex + i),
    );
  });

  it('slices by bytes, but always gives one entry where it has one', () => {
    const log = logOf([1, 1, 1]);
    const size = entryOf(1, 1).bytes.length;
    const indexes = (from: number, bytesMax: number) => log.slice(from, bytesMax).map(({ index }) => index);
    expect(indexes(1, 0)).toEqual([1]);
    expect(indexes(1, 2 * size - 1)).toEqual([1]);
    expect(indexes(1, 2 * size)).toEqual([1, 2]);
    expect(indexes(2, 100 * size)).toEqual([2, 3]);
    expect(indexes(4, 100)).toEqual([]);
  });

  it('compares ends of logs by term first, then by length (§3.6.1)', () => {
    const log = logOf([1, 2, 2]);
    expect(log.isUpToDate(1, 3)).toBe(true);
    expect(log.isUpToDate(3, 2)).toBe(true);
    expect(log.isUpToDate(4, 2)).toBe(true);
    expect(log.isUpToDate(2, 2)).toBe(false);
    expect(log.isUpToDate(99, 1)).toBe(false);
  });

  it('finds the last place where two logs may agree, and skips a whole term at a time (§3.5)', () => {
    fc.assert(
      fc.property(
        termsArbitrary,
        fc.nat({ max: 25 }),
        fc.nat({ max: 30 }),
        fc.nat({ max: 20 }),
        (terms, index, term, compactTo) => {
          const log = logOf(terms);
          const base = Math.min(compactTo, terms.length);
          log.commitIndex = log.appliedIndex = log.persistedIndex = base;
          log.compactTo(base);
          let naive = Math.min(index, terms.length);
          while (naive >= Math.max(base, 1) && (terms[naive - 1] as number) > term) naive--;
          // Where terms are no longer known, any answer is right that is below the log and not above what was asked.
          const found = log.lastPossibleMatch(index, term);
          if (naive >= base) expect(found).toBe(naive);
          else expect(found).toBeLessThanOrEqual(Math.min(index, base - 1));
          expect(found).toBeGreaterThanOrEqual(0);
        },
      ),
      { numRuns: 1000 },
    );
  });

  it('lets a leader find where a follower agrees within one question per term, never skipping the place', () => {
    fc.assert(
      fc.property(termsArbitrary, termsArbitrary, fc.nat({ max: 10 }), (mine, theirs, common) => {
        // Two logs that agree up to a place and differ in the term of every entry after it, as log matching has it.
        const shared = mine.slice(0, common);
        const base = shared.at(-1) ?? 1;
        const leader = logOf([...shared, ...mine.slice(common).map((term) => base + 2 * term)]);
        const follower = logOf([...shared, ...theirs.map((term) => base + 2 * term + 1)]);
        let prevIndex = leader.lastIndex;
        let questions = 0;
        while (follower.termAt(prevIndex) !== leader.termAt(prevIndex)) {
          const hint = follower.lastPossibleMatch(prevIndex, leader.termAt(prevIndex));
          const next = Math.min(leader.lastPossibleMatch(hint, follower.termAt(hint)), prevIndex - 1);
          expect(next).toBeGreaterThanOrEqual(shared.length);
          prevIndex = next;
          questions++;
        }
        expect(prevIndex).toBe(shared.length);
        expect(questions).toBeLessThanOrEqual(new Set([...mine, ...theirs]).size + 1);
      }),
    );
  });
});
