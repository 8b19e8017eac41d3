import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RaftkvError } from '../../src/base/errors.ts';
import {
  checkHello,
  decodeHello,
  decodeRefusal,
  encodeHello,
  encodeRefusal,
  HANDSHAKE_PAYLOAD_BYTES_MAX,
  type Hello,
  type LocalIdentity,
  PROTOCOL_VERSION,
  type RefusalCode,
  refusalError,
} from '../../src/transport/handshake.ts';

const node2: LocalIdentity = { selfId: 2, clusterId: 'demo', bootCount: 7, isPeer: (id) => id === 1 || id === 3 };
const fromNode3: Hello = { protocolVersion: PROTOCOL_VERSION, clusterId: 'demo', fromId: 3, toId: 2, bootCount: 1 };
const fromNode1: Hello = { ...fromNode3, fromId: 1 };

describe('hello', () => {
  it('tells all that was put into it', () => {
    const anyId = fc.integer({ min: 1, max: 0xffff_ffff });
    fc.assert(
      fc.property(
        fc.string({ maxLength: 60, unit: 'grapheme' }),
        anyId,
        anyId,
        fc.maxSafeNat(),
        (clusterId, selfId, toId, bootCount) => {
          const payload = encodeHello({ selfId, clusterId, bootCount, isPeer: () => true }, toId);
          const hello = { protocolVersion: PROTOCOL_VERSION, clusterId, fromId: selfId, toId, bootCount };
          // What a later version appends does not matter.
          expect(decodeHello(Buffer.concat([payload, Buffer.of(1, 2, 3)]))).toEqual(hello);
        },
      ),
    );
  });

  it('of the longest cluster name fits into the frame allowed before the handshake, and a longer name is no configuration', () => {
    const named = (length: number) => encodeHello({ ...node2, clusterId: 'c'.repeat(length) }, 1);
    expect(named(512).length).toBeLessThanOrEqual(HANDSHAKE_PAYLOAD_BYTES_MAX);
    expect(() => named(513)).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }));
  });

  it('made of anything else is FRAME_INVALID', () => {
    const whole = encodeHello(node2, 1);
    for (let length = 0; length < whole.length; length++) {
      expect(() => decodeHello(whole.subarray(0, length))).toThrow(expect.objectContaining({ code: 'FRAME_INVALID' }));
    }
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        expect(() => decodeHello(Buffer.from(bytes))).toThrow(RaftkvError);
      }),
    );
  });
});

describe('checking a hello', () => {
  it('accepts the peer that was dialed, and one of a higher id that dials', () => {
    expect(checkHello(fromNode1, node2, 1)).toBeNull();
    expect(checkHello(fromNode3, node2, null)).toBeNull();
  });

  const refused: [RefusalCode, Hello, number | null][] = [
    ['version', { ...fromNode3, protocolVersion: PROTOCOL_VERSION + 1 }, null],
    ['cluster', { ...fromNode3, clusterId: 'other' }, null],
    ['self', { ...fromNode3, fromId: 2 }, null],
    ['wrongAddressee', { ...fromNode3, toId: 5 }, null],
    ['wrongAddressee', fromNode3, 1],
    ['unknownPeer', { ...fromNode3, fromId: 9 }, null],
    ['wrongDirection', fromNode1, null],
  ];
  for (const [code, hello, dialedId] of refused) {
    it(`refuses for ${code}${dialedId === null ? '' : ' where another was dialed'}, and says what to do`, () => {
      const refusal = checkHello(hello, node2, dialedId);
      expect(refusal?.code).toBe(code);
      if (refusal === null) return;
      expect(decodeRefusal(encodeRefusal(refusal))).toEqual(refusal);
      expect(refusalError(refusal, 'us')).toMatchObject({ code: 'PEER_REFUSED', remedy: expect.stringMatching(/\w/) });
    });
  }
});

describe('a refusal', () => {
  it('reaches the log without control characters, and cut to what may be sent', () => {
    expect(decodeRefusal(Buffer.from('\x02a\x1b[31mb\nc')).text).toBe('a?[31mb?c');
    const long = encodeRefusal({ code: 'cluster', text: 'x'.repeat(5000) });
    expect(long.length).toBeLessThanOrEqual(HANDSHAKE_PAYLOAD_BYTES_MAX);
  });

  it('for a reason unknown here is FRAME_INVALID', () => {
    for (const payload of [Buffer.alloc(0), Buffer.of(0), Buffer.of(200, 65)]) {
      expect(() => decodeRefusal(payload)).toThrow(expect.objectContaining({ code: 'FRAME_INVALID' }));
    }
  });
});
