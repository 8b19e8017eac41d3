import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ENTRY_HEADER_BYTES, readEntry, sealEntry } from '../../../src/raft/state/entry.ts';
import type { EntryKind } from '../../../src/raft/state/types.ts';

const kindArbitrary = fc.constantFrom<EntryKind>('noop', 'data', 'configuration');
const indexArbitrary = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });
const payloadArbitrary = fc.uint8Array({ maxLength: 300 });

function sealed(kind: EntryKind, term: number, index: number, payload: Uint8Array) {
  return sealEntry(Buffer.concat([Buffer.alloc(ENTRY_HEADER_BYTES), payload]), kind, term, index);
}

describe('the encoding of a log entry', () => {
  it('returns what was put in, wherever it stands', () => {
    fc.assert(
      fc.property(
        kindArbitrary,
        fc.maxSafeNat(),
        indexArbitrary,
        payloadArbitrary,
        payloadArbitrary,
        (kind, term, index, payload, around) => {
          const entry = sealed(kind, term, index, payload);
          const read = readEntry(Buffer.concat([around, entry.bytes, around]), around.length);
          expect(read).toEqual(entry);
          expect(Buffer.compare(read.bytes.subarray(ENTRY_HEADER_BYTES), payload)).toBe(0);
        },
      ),
    );
  });

  it('fills in the header and leaves the payload where the proposer put it', () => {
    const bytes = Buffer.concat([Buffer.alloc(ENTRY_HEADER_BYTES), Buffer.from('payload')]);
    const entry = sealEntry(bytes, 'data', 3, 9);
    expect(entry.bytes).toBe(bytes);
    expect(bytes.toString('latin1', ENTRY_HEADER_BYTES)).toBe('payload');
    expect(bytes.toString('hex', 0, ENTRY_HEADER_BYTES)).toBe(`0300000000000000${'0900000000000000'}0200000007000000`);
  });

  it('reads a view, not a copy: an entry costs no second buffer', () => {
    const { bytes } = sealed('data', 1, 1, Buffer.from('x'));
    expect(readEntry(bytes, 0).bytes.buffer).toBe(bytes.buffer);
  });

  it('refuses an entry that is truncated at any byte', () => {
    const { bytes } = sealed('data', 1, 1, Buffer.from('payload'));
    for (let length = 0; length < bytes.length; length++) {
      expect(() => readEntry(bytes.subarray(0, length), 0), `${length} bytes`).toThrow(/the log entry at byte 0 is/);
    }
  });

  it('refuses kinds that it does not know and bytes that must be zero', () => {
    for (const [at, value] of [
      [16, 0],
      [16, 4],
      [17, 1],
      [19, 255],
    ] as const) {
      const { bytes } = sealed('noop', 1, 1, Buffer.alloc(0));
      bytes[at] = value;
      expect(() => readEntry(bytes, 0)).toThrow(/of no known kind/);
    }
  });

  it('refuses terms and indexes that a number cannot hold, and the index 0', () => {
    for (const [at, hex] of [
      [0, 'ffffffffffffffff'],
      [8, '0000000000002000'],
      [8, '0000000000000000'],
    ] as const) {
      const { bytes } = sealed('noop', 1, 1, Buffer.alloc(0));
      bytes.write(hex, at, 'hex');
      expect(() => readEntry(bytes, 0)).toThrow(/out of range/);
    }
  });

  it('reads any bytes as an entry of just that place, or refuses them with a code', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), fc.nat({ max: 90 }), (bytes, offset) => {
        const buffer = Buffer.from(bytes);
        try {
          const entry = readEntry(buffer, offset);
          expect(entry.bytes.byteOffset).toBe(buffer.byteOffset + offset);
          expect(entry.bytes.length).toBeGreaterThanOrEqual(ENTRY_HEADER_BYTES);
        } catch (error) {
          expect(error).toMatchObject({ code: 'MESSAGE_INVALID' });
        }
      }),
    );
  });
});
