import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { EntryLocations } from '../../../src/storage/wal/entries.ts';

describe('the places of entries', () => {
  it('are those of an array that is truncated, pushed to and shifted', () => {
    const step = fc.record({ back: fc.nat(40), count: fc.nat(3000), forget: fc.nat(9) });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1e6 }), fc.array(step, { maxLength: 12 }), (start, steps) => {
        const locations = new EntryLocations();
        locations.restart(start - 1);
        let first = start;
        // Of each entry that is there, which write it was: it tells all about its place.
        const model: number[] = [];
        const segmentOf = (mark: number) => 1 + Math.floor(mark / 700);
        let written = 0;
        for (const { back, count, forget } of steps) {
          model.length = Math.max(0, model.length - back);
          locations.truncate(first + model.length - 1);
          for (let n = 0; n < count; n++) {
            locations.put(first + model.length, segmentOf(written), written, written * 2, (written * 3) >>> 0);
            model.push(written++);
          }
          const below = segmentOf(model[0] ?? 0) + forget - 4;
          locations.forgetBelow(below);
          while (model.length > 0 && segmentOf(model[0] ?? 0) < below) {
            model.shift();
            first++;
          }
        }
        expect(locations.isEmpty).toBe(model.length === 0);
        expect(locations.firstIndex).toBe(first);
        expect(locations.lastIndex).toBe(first + model.length - 1);
        for (let place = 0; place < model.length; place += 1 + Math.floor(model.length / 50)) {
          const mark = model[place] ?? -1;
          const expected = { segment: segmentOf(mark), offset: mark, length: mark * 2, chainBefore: (mark * 3) >>> 0 };
          expect(locations.get(first + place)).toEqual({ index: first + place, ...expected });
          expect(locations.isAt(first + place, segmentOf(mark), mark)).toBe(true);
          expect(locations.isAt(first + place, segmentOf(mark), mark + 1)).toBe(false);
        }
        expect(locations.get(first - 1)).toBeNull();
        expect(locations.get(first + model.length)).toBeNull();
        const bytes = written * 3;
        let fits = model.length;
        for (let left = bytes; fits > 0 && left >= (model[fits - 1] ?? 0) * 2; fits--)
          left -= (model[fits - 1] ?? 0) * 2;
        expect(locations.indexBehind(bytes)).toBe(first + fits - 1);
      }),
      { numRuns: 60 },
    );
  });

  it('can be reset to any index', () => {
    const locations = new EntryLocations();
    for (let index = 1; index <= 10_000; index++) locations.put(index, 1, index * 512, 30, 0);
    locations.restart(70);
    expect(locations).toMatchObject({ isEmpty: true, firstIndex: 71, lastIndex: 70 });
    expect(locations.get(71)).toBeNull();
    expect(locations.indexBehind(0)).toBe(70);
    locations.put(71, 2, 512, 30, 0);
    expect(locations).toMatchObject({ isEmpty: false, firstIndex: 71, lastIndex: 71 });
  });

  it('are truncated by an entry that comes again at a lower index', () => {
    const locations = new EntryLocations();
    for (let index = 1; index <= 5; index++) locations.put(index, 1, index * 512, 30, 0);
    locations.put(3, 2, 512, 30, 0);
    expect(locations.lastIndex).toBe(3);
    expect(locations.get(3)).toMatchObject({ segment: 2 });
    expect(locations.get(4)).toBeNull();
  });
});
