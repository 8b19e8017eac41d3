import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { addDelta } from '../../src/kv/arithmetic.ts';

const UINT64_MAX = 2n ** 64n - 1n;
const add = (value: string, delta: bigint, direction: 'up' | 'down') =>
  addDelta(value, Number(delta >> 32n), Number(delta & 0xffff_ffffn), direction);

describe('addDelta', () => {
  it('counts in 64 bits: up wraps, down stops at 0', () => {
    const around = (center: bigint) => fc.bigInt({ min: -3n, max: 3n }).map((d) => (center + d) & UINT64_MAX);
    const uint64 = fc.oneof(
      fc.bigInt({ min: 0n, max: UINT64_MAX }),
      fc.constantFrom(0n, 10n ** 15n, 2n ** 32n, 2n ** 53n, 10n ** 19n, UINT64_MAX).chain(around),
    );
    const exact = (number: bigint, delta: bigint) => {
      expect(add(`${number}`, delta, 'up')).toBe(`${(number + delta) & UINT64_MAX}`);
      expect(add(`${number}`, delta, 'down')).toBe(`${delta > number ? 0n : number - delta}`);
    };
    fc.assert(fc.property(uint64, uint64, exact), { numRuns: 2000 });
  });

  const numbers = { ' 12': 12, '12 ': 12, '\t\n\v\f\r7': 7, '+5': 5, '0005': 5, '5 apples': 5, '5\0x': 5, '5\t': 5 };
  for (const [text, number] of Object.entries(numbers)) {
    it(`takes ${JSON.stringify(text)} for ${number}`, () => {
      expect(add(text, 1n, 'up')).toBe(`${number + 1}`);
    });
  }
  it('takes any number of leading zeros', () => {
    expect(add(`${'0'.repeat(100)}18446744073709551614`, 1n, 'up')).toBe('18446744073709551615');
    expect(add('0'.repeat(100), 1n, 'up')).toBe('1');
  });

  const others = ['', ' ', '+', '-', '-1', '-0', '+-1', '++1', 'x', '1x', '0x10', '1.5', '1e3', '18446744073709551616'];
  for (const text of [...others, '99999999999999999999', '1'.repeat(400), '\u00a01', '1\u00a0', '1\x1c']) {
    it(`takes ${JSON.stringify(text.slice(0, 30))} for no number`, () => {
      expect(add(text, 1n, 'up')).toBeNull();
      expect(add(text, 2n ** 40n, 'down')).toBeNull();
    });
  }
});
