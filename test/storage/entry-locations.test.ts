import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { EntryLocations } from '../../src/storage/entry-locations.ts';

describe('the places of entries', () => {
  it('are those of an array that is cut and pushed to', () => {
    const step = fc.record({ back: fc.nat(40), count: fc.nat(3000) });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1e6 }), fc.array(step, { maxLength: 12 }), (start, steps) => {
        const locations = new EntryLocations();
        const model: number[] = [];
        let written = 0;
        for (const { back, count } of steps) {
          model.length = Math.max(0, model.length - back);
          locations.truncate(start + model.length - 1);
          for (let n = 0; n < count; n++) {
            locations.put(start + model.length, 1 + (written % 7), written, written * 2, (written * 3) >>> 0);
            model.push(written++);
          }
        }
        expect(locations.firstIndex).toBe(model.length === 0 ? 0 : start);
        expect(locations.lastIndex).toBe(model.length === 0 ? 0 : start + model.length - 1);
        for (let place = 0; place < model.length; place += 1 + Math.floor(model.length / 50)) {
          const mark = model[place] ?? -1;
          const expected = { segment: 1 + (mark % 7), offset: mark, length: mark * 2, chainBefore: (mark * 3) >>> 0 };
          expect(locations.get(start + place)).toEqual({ index: start + place, ...expected });
        }
        expect(locations.get(start - 1)).toBeNull();
        expect(locations.get(start + model.length)).toBeNull();
      }),
      { numRuns: 40 },
    );
  });

  it('are cut by an entry that comes again at a lower index', () => {
    const locations = new EntryLocations();
    for (let index = 1; index <= 5; index++) locations.put(index, 1, index * 512, 30, 0);
    locations.put(3, 2, 512, 30, 0);
    expect(locations.lastIndex).toBe(3);
    expect(locations.get(3)).toMatchObject({ segment: 2 });
    expect(locations.get(4)).toBeNull();
  });
});
