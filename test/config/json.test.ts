import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseJson } from '../../src/config/json.ts';

function fault(text: string): string {
  try {
    parseJson(text, 'f.json');
  } catch (error) {
    return error instanceof Error ? error.message.replace('f.json is not valid JSON: ', '') : String(error);
  }
  throw new Error('was accepted');
}

describe('parseJson', () => {
  it.each([
    ['', 'line 1, column 1: expected a value, found the end of the file'],
    ['{"a": 1,}', 'line 1, column 9: expected a name in double quotes, found "}"'],
    ['{\n  "a": 1\n  "b": 2\n}', 'line 3, column 3: expected a comma or }, found "\\""'],
    ["{'a': 1}", 'line 1, column 2: expected a name in double quotes, found "\'"'],
    ['{\n// ports\n}', 'line 2, column 1: expected a name in double quotes, found "/"'],
    ['[1, 2', 'line 1, column 6: expected a comma or ], found the end of the file'],
    ['{"a" 1}', 'line 1, column 6: expected a colon, found "1"'],
    ['{"a": x}', 'line 1, column 7: expected a value, found "x"'],
    ['{"a": 01}', 'line 1, column 7: expected a value, found "0"'],
    ['{"a": "b\n"}', 'line 1, column 7: expected a string that ends with a double quote on the same line, found "\\""'],
    ['{} {}', 'line 1, column 4: expected the end of the file, found "{"'],
    [`${'['.repeat(100)}x`, 'line 1, column 66: nested more than 64 deep'],
  ])('%j: %s', (text, expected) => {
    expect(fault(text)).toBe(expected);
  });

  it('gives what JSON.parse gives', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const text = JSON.stringify(value, null, 2);
        expect(parseJson(text, 'f')).toEqual(JSON.parse(text));
      }),
    );
  });

  it('finds a fault inside whatever JSON.parse refuses', () => {
    const intruders = fc.constantFrom('}', ']', ',', '"', ':', 'x', '1', '\n', '\\', '-', '.');
    fc.assert(
      fc.property(fc.jsonValue(), fc.nat(), intruders, (value, at, intruder) => {
        const text = JSON.stringify(value);
        const position = at % (text.length + 1);
        const damaged = text.slice(0, position) + intruder + text.slice(position);
        if (isJson(damaged)) return;
        expect(fault(damaged)).toMatch(/^line \d+, column \d+: expected /);
        expect(fault(damaged)).not.toMatch(/expected the end of the file, found the end/);
      }),
      { numRuns: 1000 },
    );
  });
});

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
