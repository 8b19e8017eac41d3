import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  BLOCK_HEADER_BYTES,
  countBlankSectors,
  encodeBlockHeader,
  encodeRecord,
  encodeSegmentHeader,
  isZero,
  RECORD_ENTRY,
  RECORD_HEADER_BYTES,
  readBlockHeader,
  readSegmentHeader,
  SECTOR_BYTES,
  verifyRecord,
} from '../../../src/storage/segments/format.ts';
import { seededRandom } from '../../support/random.ts';

const uint32 = fc.integer({ min: 0, max: 0xffff_ffff });
const safe = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });

describe('the bytes of the log', () => {
  it('a segment header reads back as written, and not at all with a flipped bit', () => {
    fc.assert(
      fc.property(
        safe,
        uint32,
        fc.string({ maxLength: 60, unit: 'grapheme' }),
        uint32,
        fc.nat(SECTOR_BYTES * 8 - 1),
        (number, bytes, id, seed, bit) => {
          const sector = encodeSegmentHeader(number, bytes, id, seededRandom(seed));
          expect(readSegmentHeader(sector)).toMatchObject({ version: 1, number, segmentBytes: bytes, clusterName: id });
          sector.writeUInt8(sector.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
          expect(readSegmentHeader(sector)).toBeNull();
          expect(readSegmentHeader(sector.subarray(0, 511))).toBeNull();
        },
      ),
    );
  });

  it('a block header reads back only unchanged, in its place, in its segment', () => {
    const block = fc.record({
      sequence: safe,
      byteLength: uint32,
      records: uint32,
      blankSectors: uint32,
      chainBefore: uint32,
      seal: fc.boolean(),
    });
    fc.assert(
      fc.property(
        block,
        uint32,
        safe,
        uint32,
        fc.nat(BLOCK_HEADER_BYTES * 8 - 1),
        (header, salt, segment, position, bit) => {
          const buffer = Buffer.alloc(SECTOR_BYTES);
          encodeBlockHeader(buffer, salt, segment, position, header);
          expect(readBlockHeader(buffer, 0, salt, segment, position)).toEqual(header);
          expect(readBlockHeader(buffer, 0, (salt ^ 1) >>> 0, segment, position)).toBeNull();
          expect(readBlockHeader(buffer, 0, salt, segment + 1, position)).toBeNull();
          expect(readBlockHeader(buffer, 0, salt, segment, position ^ 512)).toBeNull();
          buffer.writeUInt8(buffer.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
          expect(readBlockHeader(buffer, 0, salt, segment, position)).toBeNull();
        },
      ),
    );
  });

  it('a record verifies only unchanged and behind the record it was chained to', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), uint32, safe, fc.nat(), (bytes, chain, index, bitSeed) => {
        const length = RECORD_HEADER_BYTES + bytes.length;
        const buffer = Buffer.alloc(length + 10);
        const crc = encodeRecord(buffer, 3, RECORD_ENTRY, index, Buffer.from(bytes), chain);
        expect(verifyRecord(buffer, 3, buffer.length, chain)).toBe(length);
        expect(buffer.readUInt32LE(3)).toBe(crc);
        expect(verifyRecord(buffer, 3, 3 + length - 1, chain)).toBe(0);
        expect(verifyRecord(buffer, 3, buffer.length, (chain ^ 1) >>> 0)).toBe(0);
        const bit = 24 + (bitSeed % (length * 8));
        buffer.writeUInt8(buffer.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
        expect(verifyRecord(buffer, 3, buffer.length, chain)).toBe(0);
      }),
    );
  });

  it('blank sectors are counted as a slow look at every byte counts them', () => {
    const pieces = fc.array(fc.oneof(fc.constant(-1), fc.nat(SECTOR_BYTES - 1)), { minLength: 1, maxLength: 20 });
    fc.assert(
      fc.property(pieces, (marks) => {
        const buffer = Buffer.alloc(marks.length * SECTOR_BYTES);
        for (const [sector, mark] of marks.entries()) if (mark >= 0) buffer[sector * SECTOR_BYTES + mark] = 1;
        const expected = marks.filter((mark) => mark < 0).length;
        expect(countBlankSectors(buffer, 0, buffer.length)).toBe(expected);
        expect(isZero(buffer, 0, buffer.length)).toBe(expected === marks.length);
      }),
    );
  });

  it('zeros longer than any buffer of zeros kept for comparing are recognized', () => {
    const buffer = Buffer.alloc(200_000);
    expect(isZero(buffer, 0, buffer.length)).toBe(true);
    buffer[199_999] = 1;
    expect(isZero(buffer, 0, buffer.length)).toBe(false);
    expect(isZero(buffer, 0, 199_999)).toBe(true);
  });
});
