import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RaftkvError } from '../../src/base/errors.ts';
import {
  type Channel,
  checkHello,
  type Dialed,
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

const node2: LocalIdentity = {
  selfId: 2,
  clusterName: 'demo',
  clusterId: '',
  incarnation: 7,
  isPeer: (id) => id === 1 || id === 3,
  // 3 was added again.
  isRemoved: (id) => id === 3 || id === 4 || id === 0,
};
const fromNode3: Hello = {
  protocolVersion: PROTOCOL_VERSION,
  clusterName: 'demo',
  clusterId: '',
  fromId: 3,
  toId: 2,
  incarnation: 1,
  channel: 'main',
};
const node1: Dialed = { id: 1, channel: 'main' };
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
        fc.constantFrom<Channel>('main', 'bulk'),
        fc.option(fc.string({ unit: fc.constantFrom(...'123456789abcdef'), minLength: 32, maxLength: 32 }), {
          nil: '',
        }),
        (clusterName, selfId, toId, incarnation, channel, clusterId) => {
          const payload = encodeHello({ selfId, clusterName, clusterId, incarnation }, toId, channel);
          const hello = {
            protocolVersion: PROTOCOL_VERSION,
            clusterName,
            clusterId,
            fromId: selfId,
            toId,
            incarnation,
            channel,
          };
          // What a later version appends does not matter.
          expect(decodeHello(Buffer.concat([payload, Buffer.of(1, 2, 3)]))).toEqual(hello);
        },
      ),
    );
  });

  it('of the longest cluster name fits into the frame allowed before the handshake, and a longer name is no configuration', () => {
    const named = (length: number) => encodeHello({ ...node2, clusterName: 'c'.repeat(length) }, 1);
    expect(named(512).length).toBeLessThanOrEqual(HANDSHAKE_PAYLOAD_BYTES_MAX);
    expect(() => named(513)).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }));
  });

  it('made of anything else is FRAME_INVALID', () => {
    const whole = encodeHello(node2, 1);
    // The last byte is the channel, which an earlier version does not send.
    expect(decodeHello(whole.subarray(0, -1)).channel).toBe('main');
    for (let length = 0; length < whole.length - 1; length++) {
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
    expect(checkHello(fromNode1, node2, node1)).toBeNull();
    expect(checkHello(fromNode3, node2, null)).toBeNull();
    expect(checkHello({ ...fromNode3, channel: 'bulk' }, node2, null)).toBeNull();
    expect(checkHello({ ...fromNode1, channel: 'bulk' }, node2, { id: 1, channel: 'bulk' })).toBeNull();
  });

  it('of a channel that only a later version knows refuses for channel', () => {
    const payload = encodeHello(node2, 1);
    payload[payload.length - 1] = 2;
    expect(checkHello({ ...fromNode3, channel: decodeHello(payload).channel }, node2, null)?.code).toBe('channel');
  });

  it('accepts a peer without a cluster id, and any where it has none itself', () => {
    const [own, other] = ['a'.repeat(32), 'b'.repeat(32)];
    expect(checkHello({ ...fromNode3, clusterId: '' }, { ...node2, clusterId: own }, null)).toBeNull();
    expect(checkHello({ ...fromNode3, clusterId: own }, { ...node2, clusterId: own }, null)).toBeNull();
    expect(checkHello({ ...fromNode3, clusterId: other }, { ...node2, clusterId: '' }, null)).toBeNull();
  });

  it('of another history refuses with both cluster ids, whether the peer is known or not', () => {
    const [own, other] = ['a'.repeat(32), 'b'.repeat(32)];
    for (const fromId of [3, 4, 9]) {
      const refusal = checkHello({ ...fromNode3, fromId, clusterId: other }, { ...node2, clusterId: own }, null);
      expect(refusal).toMatchObject({ code: 'history', text: expect.stringContaining(own) });
      expect(refusal?.text).toContain(other);
      expect(decodeRefusal(encodeRefusal(refusal ?? { code: 'self', text: '' }))).toEqual(refusal);
      expect(refusalError(refusal ?? { code: 'self', text: '' }, 'peer').remedy).toContain('log verify');
    }
  });

  const refused: [RefusalCode, Hello, Dialed | null][] = [
    ['version', { ...fromNode3, protocolVersion: PROTOCOL_VERSION + 1 }, null],
    ['cluster', { ...fromNode3, clusterName: 'other' }, null],
    ['self', { ...fromNode3, fromId: 2 }, null],
    ['wrongAddressee', { ...fromNode3, toId: 5 }, null],
    ['wrongAddressee', fromNode3, node1],
    ['unknownPeer', { ...fromNode3, fromId: 9 }, null],
    ['wrongDirection', fromNode1, null],
    ['removed', { ...fromNode3, fromId: 4 }, null],
    // One that this node would have to dial hears of it too.
    ['removed', { ...fromNode3, fromId: 0 }, null],
    ['version', { ...fromNode3, protocolVersion: PROTOCOL_VERSION + 1, channel: null }, null],
    ['channel', { ...fromNode1, channel: 'bulk' }, node1],
    ['channel', fromNode1, { id: 1, channel: 'bulk' }],
  ];
  for (const [code, hello, dialed] of refused) {
    it(`refuses for ${code}${dialed === null ? '' : ' where another was dialed'}, and says what to do`, () => {
      const refusal = checkHello(hello, node2, dialed);
      expect(refusal?.code).toBe(code);
      if (refusal === null) return;
      expect(decodeRefusal(encodeRefusal(refusal))).toEqual(refusal);
      expect(refusalError(refusal, 'us')).toMatchObject({ code: 'PEER_REFUSED', remedy: expect.stringMatching(/\w/) });
    });
  }
});

describe('a refusal', () => {
  it('reaches the log without control characters, and truncated to what may be sent', () => {
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
