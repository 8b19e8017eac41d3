import { crc32 } from 'node:zlib';
import { RaftkvError } from '../base/errors.ts';

/**
 * A frame: the unit that peers send to each other (little-endian):
 *
 * ```
 *  0  u8  version   FRAME_VERSION
 *  1  u8  type      1 hello, 2 refuse, 3 ping, 4 pong, 5 data
 *  2  u16 reserved  zero
 *  4  u32 length    bytes of the payload
 *  8  u32 crc32     over bytes 0 to 7 of this header, then the payload
 * 12  payload
 * ```
 *
 * The checksum includes the fields of the header, so that a flipped bit can't change the type of a frame unnoticed.
 */
export const FRAME_VERSION = 1;
export const FRAME_HEADER_BYTES = 12;
const CHECKED_HEADER_BYTES = 8;

/**
 * The longest payload. Entries (about 9 MiB at most) and pieces of snapshots (4 MiB) are much shorter. It bounds the
 * memory that a receiver allocates per link if the length is wrong.
 */
export const FRAME_BYTES_MAX = 32 * 1024 * 1024;

export type FrameType = 'hello' | 'refuse' | 'ping' | 'pong' | 'data';

const TYPE_CODES: Record<FrameType, number> = { hello: 1, refuse: 2, ping: 3, pong: 4, data: 5 };
const TYPES: readonly (FrameType | undefined)[] = [undefined, 'hello', 'refuse', 'ping', 'pong', 'data'];

const REMEDY =
  'Check that only raftkv nodes of one version connect to the peer ports. Faulty network hardware is another cause.';

/** Writes the header of a frame at `offset`. @param payloadBytes the length of all `parts` together */
export function writeFrameHeader(
  target: Buffer,
  offset: number,
  type: FrameType,
  parts: readonly Buffer[],
  payloadBytes: number,
): void {
  target.writeUInt32LE(FRAME_VERSION | (TYPE_CODES[type] << 8), offset);
  target.writeUInt32LE(payloadBytes, offset + 4);
  let checksum = crc32(target.subarray(offset, offset + CHECKED_HEADER_BYTES));
  for (const part of parts) checksum = crc32(part, checksum);
  target.writeUInt32LE(checksum, offset + 8);
}

/**
 * Splits a stream of bytes into frames. A payload that is within one chunk is passed on as a view of the chunk. For one
 * that spans chunks, a buffer of its length is allocated when the header was read. So the limit must be small until the
 * sender is authenticated.
 */
export class FrameDecoder {
  readonly #onFrame: (type: FrameType, payload: Buffer) => void;
  #payloadBytesMax: number;
  #closed = false;

  /** A header that spans chunks, and the number of its bytes that were received. */
  readonly #partialHeader = Buffer.alloc(FRAME_HEADER_BYTES);
  #partialHeaderBytes = 0;
  /** A payload that spans chunks, and the number of its bytes that were received. Null if there is none. */
  #partial: Buffer | null = null;
  #partialBytes = 0;

  /** The fields of the header that was read last. */
  #type: FrameType = 'data';
  #length = 0;
  #checksum = 0;
  #headerChecksum = 0;

  constructor(payloadBytesMax: number, onFrame: (type: FrameType, payload: Buffer) => void) {
    this.#payloadBytesMax = payloadBytesMax;
    this.#onFrame = onFrame;
  }

  /**
   * Decodes the next bytes of the stream and passes on every frame that they complete, in order.
   * @throws RaftkvError FRAME_INVALID if the bytes are no valid frame. Later bytes are then ignored.
   */
  push(chunk: Buffer): void {
    if (this.#closed) return;
    let at = this.#partial === null ? 0 : this.#fillPartial(this.#partial, chunk);
    while (!this.#closed && at < chunk.length) {
      const start = this.#takeHeader(chunk, at);
      if (start < 0) return;
      if (chunk.length - start < this.#length) {
        this.#partial = Buffer.allocUnsafe(this.#length);
        this.#partialBytes = chunk.copy(this.#partial, 0, start);
        return;
      }
      at = start + this.#length;
      this.#deliver(chunk.subarray(start, at));
    }
  }

  /** Sets the length of the longest payload, for all frames whose header was not read yet. */
  setPayloadBytesMax(bytes: number): void {
    this.#payloadBytesMax = bytes;
  }

  /** Ignores all further bytes, including those of the present chunk. */
  close(): void {
    this.#closed = true;
    this.#partial = null;
  }

  /**
   * Reads a header at `at`, or keeps the part that was received. Returns where the payload starts; -1 if it is
   * incomplete.
   */
  #takeHeader(chunk: Buffer, at: number): number {
    if (this.#partialHeaderBytes === 0 && chunk.length - at >= FRAME_HEADER_BYTES) {
      this.#readHeader(chunk, at);
      return at + FRAME_HEADER_BYTES;
    }
    const copied = chunk.copy(this.#partialHeader, this.#partialHeaderBytes, at);
    this.#partialHeaderBytes += copied;
    if (this.#partialHeaderBytes < FRAME_HEADER_BYTES) return -1;
    this.#partialHeaderBytes = 0;
    this.#readHeader(this.#partialHeader, 0);
    return at + copied;
  }

  #readHeader(source: Buffer, at: number): void {
    const fields = source.readUInt32LE(at);
    const version = fields & 0xff;
    if (version !== FRAME_VERSION) throw this.#invalid(`frame version ${version}, expected ${FRAME_VERSION}`);
    const known = TYPES[fields >>> 8];
    if (known === undefined) throw this.#invalid(`unknown type ${fields >>> 8}`);
    const length = source.readUInt32LE(at + 4);
    if (length > this.#payloadBytesMax) {
      throw this.#invalid(`${length} bytes, more than the limit of ${this.#payloadBytesMax}`);
    }
    this.#type = known;
    this.#length = length;
    this.#checksum = source.readUInt32LE(at + 8);
    this.#headerChecksum = crc32(source.subarray(at, at + CHECKED_HEADER_BYTES));
  }

  /** Appends to the payload that spans chunks. Returns where the next frame starts. */
  #fillPartial(payload: Buffer, chunk: Buffer): number {
    const copied = chunk.copy(payload, this.#partialBytes);
    this.#partialBytes += copied;
    if (this.#partialBytes === payload.length) {
      this.#partial = null;
      this.#deliver(payload);
    }
    return copied;
  }

  #deliver(payload: Buffer): void {
    if (crc32(payload, this.#headerChecksum) !== this.#checksum) {
      throw this.#invalid(`checksum mismatch in a ${this.#type} frame`);
    }
    this.#onFrame(this.#type, payload);
  }

  #invalid(what: string): RaftkvError {
    this.close();
    return new RaftkvError('FRAME_INVALID', `invalid frame from a peer: ${what}`, REMEDY);
  }
}
