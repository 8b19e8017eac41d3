import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RaftkvError } from '../../src/base/errors.ts';
import {
  FRAME_BYTES_MAX,
  FRAME_HEADER_BYTES,
  FRAME_VERSION,
  FrameDecoder,
  type FrameType,
} from '../../src/transport/frame.ts';
import { frameOf, pattern } from './support.ts';

const anyType = fc.constantFrom<FrameType>('hello', 'refuse', 'ping', 'pong', 'data');
const anyFrame = fc.record({ type: anyType, payload: fc.uint8Array({ maxLength: 300 }).map((b) => Buffer.from(b)) });
const anyFrames = fc.array(anyFrame, { minLength: 1, maxLength: 8 });
/** Lengths of chunks, used in turn until the bytes are used up. */
const anyLengths = fc.array(fc.integer({ min: 1, max: 80 }), { minLength: 1, maxLength: 12 });

function encode(frames: readonly { type: FrameType; payload: Buffer }[]): Buffer {
  return Buffer.concat(frames.map(({ type, payload }) => frameOf(type, payload)));
}

function chunksOf(bytes: Buffer, lengths: readonly number[]): Buffer[] {
  const chunks: Buffer[] = [];
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const length = lengths[i % lengths.length] ?? 1;
    chunks.push(bytes.subarray(at, at + length));
    at += length;
  }
  return chunks;
}

/** Decodes until the end or the first error, which is returned. */
function decode(chunks: readonly Buffer[], limit = FRAME_BYTES_MAX) {
  const frames: { type: FrameType; payload: Buffer }[] = [];
  const decoder = new FrameDecoder(limit, (type, payload) => frames.push({ type, payload }));
  let error: unknown = null;
  try {
    for (const chunk of chunks) decoder.push(chunk);
  } catch (thrown) {
    error = thrown;
  }
  return { frames, error };
}

function isFrameInvalid(error: unknown): boolean {
  return error instanceof RaftkvError && error.code === 'FRAME_INVALID';
}

describe('the frame codec', () => {
  it('returns every frame, however the stream is split', () => {
    fc.assert(
      fc.property(anyFrames, anyLengths, (frames, lengths) => {
        expect(decode(chunksOf(encode(frames), lengths))).toEqual({ frames, error: null });
      }),
    );
  });

  it('returns every frame when bytes come one by one, and when all come at once', () => {
    fc.assert(
      fc.property(anyFrames, (frames) => {
        const bytes = encode(frames);
        expect(decode(chunksOf(bytes, [1]))).toEqual({ frames, error: null });
        expect(decode([bytes])).toEqual({ frames, error: null });
      }),
      { numRuns: 50 },
    );
  });

  it('never makes a wrong frame of damaged bytes', () => {
    const anyDamage = fc.array(fc.record({ at: fc.nat(), flip: fc.integer({ min: 1, max: 255 }) }), {
      minLength: 1,
      maxLength: 4,
    });
    fc.assert(
      fc.property(anyFrames, anyLengths, anyDamage, (frames, lengths, damage) => {
        const bytes = encode(frames);
        for (const { at, flip } of damage) bytes[at % bytes.length] = (bytes[at % bytes.length] ?? 0) ^ flip;
        const decoded = decode(chunksOf(bytes, lengths));
        if (decoded.error !== null) expect(isFrameInvalid(decoded.error)).toBe(true);
        // Two flips may undo each other; apart from that only what lies before the damage comes out.
        expect(decoded.frames).toEqual(frames.slice(0, decoded.frames.length));
      }),
      { numRuns: 500 },
    );
  });

  it('notices every single flipped bit of a frame, its header included', () => {
    const frame = frameOf('data', pattern(40, 1));
    for (let bit = 0; bit < frame.length * 8; bit++) {
      const damaged = Buffer.from(frame);
      damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      // A frame that now claims to be longer leaves the decoder waiting; what follows shows it up.
      expect(decode([damaged]).frames).toEqual([]);
    }
  });

  it('throws nothing but FRAME_INVALID at random bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), anyLengths, (bytes, lengths) => {
        const { error } = decode(chunksOf(Buffer.from(bytes), lengths));
        expect(error === null || isFrameInvalid(error)).toBe(true);
      }),
    );
  });

  it('hands over a view of the chunk where a frame lies in one, and a buffer of its own where not', () => {
    const payload = pattern(200, 2);
    const bytes = frameOf('data', payload);
    const chunk = Buffer.from(new ArrayBuffer(bytes.length));
    bytes.copy(chunk);
    expect(decode([chunk]).frames[0]?.payload.buffer).toBe(chunk.buffer);

    const [spanning] = decode([chunk.subarray(0, 50), chunk.subarray(50)]).frames;
    expect(spanning?.payload.equals(payload)).toBe(true);
    expect(spanning?.payload.buffer).not.toBe(chunk.buffer);
  });

  it('refuses a frame longer than its limit by the header alone, and obeys a new limit', () => {
    const frame = frameOf('data', pattern(101, 3));
    const header = frame.subarray(0, FRAME_HEADER_BYTES);
    expect(isFrameInvalid(decode([header], 100).error)).toBe(true);

    const seen: number[] = [];
    const decoder = new FrameDecoder(0, (_type, payload) => {
      seen.push(payload.length);
      decoder.setPayloadBytesMax(101);
    });
    decoder.push(Buffer.concat([frameOf('ping'), frame]));
    expect(seen).toEqual([0, 101]);
  });

  it('refuses another version, an unknown type and a set reserved bit', () => {
    for (const [at, value] of [
      [0, FRAME_VERSION + 1],
      [1, 0],
      [1, 6],
      [2, 1],
      [3, 128],
    ] as const) {
      const frame = frameOf('ping');
      frame[at] = value;
      expect(isFrameInvalid(decode([frame]).error)).toBe(true);
    }
  });

  it('says no more once it has failed or was closed', () => {
    const seen: FrameType[] = [];
    const failed = new FrameDecoder(10, (type) => seen.push(type));
    expect(() => failed.push(Buffer.alloc(FRAME_HEADER_BYTES, 0xff))).toThrow(RaftkvError);
    failed.push(frameOf('ping'));
    expect(seen).toEqual([]);

    const closing = new FrameDecoder(10, (type) => {
      seen.push(type);
      closing.close();
    });
    closing.push(Buffer.concat([frameOf('ping'), frameOf('pong')]));
    expect(seen).toEqual(['ping']);
  });

  it('takes a frame of the greatest length in small chunks without copying it over and over', () => {
    const payload = Buffer.alloc(FRAME_BYTES_MAX, 7);
    const { frames, error } = decode(chunksOf(frameOf('data', payload), [16 * 1024]));
    expect(error).toBeNull();
    expect(frames[0]?.payload.equals(payload)).toBe(true);
  });
});
