import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { writeStats, writeValue } from '../../src/memcached/items.ts';
import { Output } from '../../src/memcached/output.ts';
import { STORED } from '../../src/memcached/replies.ts';

const textOf = (output: Output) => output.gathered().toString('latin1');

describe('Output', () => {
  it('writes any whole number in decimal', () => {
    const edges = [0, 9, 10, 99, 100, 4294967295, 4294967296, 4294967297, Number.MAX_SAFE_INTEGER];
    const output = new Output();
    const check = (value: number) => {
      output.clear();
      output.spaceAndNumber(value);
      expect(textOf(output)).toBe(` ${value}`);
    };
    for (const value of edges) check(value);
    fc.assert(fc.property(fc.maxSafeNat(), check));
    fc.assert(fc.property(fc.nat(), check));
  });

  it('keeps what is written, short and long, while it grows', () => {
    const texts = fc.array(fc.string({ unit: fc.constantFrom('a', '\xff', '\0', 'xyz'.repeat(2000)), maxLength: 30 }));
    fc.assert(
      fc.property(texts, (parts) => {
        const output = new Output();
        for (const part of parts) {
          output.latin1(part);
          output.bytes(Buffer.from(part, 'latin1'));
        }
        expect(textOf(output)).toBe(parts.map((part) => part + part).join(''));
      }),
      { numRuns: 50 },
    );
  });

  it('writes into other memory once the old was given away', () => {
    const output = new Output();
    output.bytes(STORED);
    const given = output.gathered();
    output.giveAway();
    output.latin1('overwritten?');
    expect(given.toString()).toBe('STORED\r\n');
  });

  it('writes into the same memory once it was cleared', () => {
    const output = new Output();
    output.bytes(STORED);
    const { buffer } = output.gathered();
    output.clear();
    output.bytes(STORED);
    expect(output.gathered().buffer).toBe(buffer);
  });

  it('lays out values and statistics as memcached does', () => {
    const output = new Output();
    writeValue(output, 'k\xff', 7, 'v\r\n', null);
    writeValue(output, 'k', 4294967295, '', 9007199254740991);
    writeStats(output, [
      ['pid', 12],
      ['version', '1.6.45'],
    ]);
    expect(textOf(output)).toBe(
      'VALUE k\xff 7 3\r\nv\r\n\r\nVALUE k 4294967295 0 9007199254740991\r\n\r\nSTAT pid 12\r\nSTAT version 1.6.45\r\nEND\r\n',
    );
  });
});
