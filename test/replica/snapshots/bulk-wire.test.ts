import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RaftkvError } from '../../../src/base/errors.ts';
import { type BulkMessage, decodeBulk, encodeBulk } from '../../../src/replica/snapshots/bulk-wire.ts';

const FROM = 2;
const number = fc.oneof(fc.nat(), fc.maxSafeNat());
const which = { index: number, term: number };
const bytes = fc.uint8Array({ maxLength: 80 }).map((all) => Buffer.from(all));

const MESSAGES: { [Kind in BulkMessage['kind']]: fc.Arbitrary<Extract<BulkMessage, { kind: Kind }>> } = {
  read: fc.record({ kind: fc.constant('read'), ...which, offset: number, length: number }),
  piece: fc.record({ kind: fc.constant('piece'), ...which, offset: number, byteLength: number, bytes }),
  gone: fc.record({ kind: fc.constant('gone'), ...which }),
};
const anyMessage = fc.oneof(...Object.values(MESSAGES)) as fc.Arbitrary<BulkMessage>;

describe('messages on the bulk link', () => {
  it.each(Object.entries(MESSAGES))('come out as they went in: %s', (_, arbitrary) => {
    fc.assert(
      fc.property(arbitrary as fc.Arbitrary<BulkMessage>, (message) => {
        expect(decodeBulk(Buffer.concat(encodeBulk(message)), FROM)).toEqual(message);
      }),
    );
  });

  it('come out as a message or not at all, whatever arrives', () => {
    const garbled = fc
      .record({ message: anyMessage, at: fc.nat(), to: fc.nat({ max: 255 }), end: fc.nat() })
      .map(({ message, at, to, end }) => {
        const frame = Buffer.concat(encodeBulk(message));
        frame[at % frame.length] = to;
        return frame.subarray(0, end % (frame.length + 1));
      });
    fc.assert(
      fc.property(fc.oneof(bytes, garbled), (frame) => {
        try {
          const message = decodeBulk(frame, FROM);
          for (const value of Object.values(message)) {
            if (typeof value === 'number') expect(Number.isSafeInteger(value) && value >= 0).toBe(true);
          }
        } catch (error) {
          expect(error).toBeInstanceOf(RaftkvError);
          expect(error).toMatchObject({ code: 'MESSAGE_INVALID', message: expect.stringContaining('node 2') });
        }
      }),
    );
  });

  it('are not read past their end, nor of a kind that is not known', () => {
    const [whole = Buffer.alloc(0)] = encodeBulk({ kind: 'read', index: 1, term: 1, offset: 0, length: 9 });
    for (let end = 0; end < whole.length; end++) {
      expect(() => decodeBulk(whole.subarray(0, end), FROM)).toThrow('is truncated');
    }
    whole.writeUInt32LE(4, 0);
    expect(() => decodeBulk(whole, FROM)).toThrow('unknown kind');
  });
});
