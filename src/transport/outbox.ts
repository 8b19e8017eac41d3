import type { Socket } from 'node:net';
import type { Clock } from '../base/clock.ts';
import { RaftkvError } from '../base/errors.ts';
import { FRAME_BYTES_MAX, FRAME_HEADER_BYTES, type FrameType, writeFrameHeader } from './frame.ts';

/**
 * Parts up to here are copied together, longer ones are handed to writev as they are. On loopback copying was up to
 * 1 µs a frame ahead at 1 KiB and as much behind at 4 KiB, close to the noise; this lies between.
 */
const COPIED_PART_BYTES_MAX = 2048;
/** The buffer into which small parts are copied; replaced when it is full. */
const SLAB_BYTES = 64 * 1024;
const EMPTY = Buffer.alloc(0);

/**
 * Gathers frames and writes all that one callback of the event loop sent in one system call, as soon as that callback
 * returns. Waiting for the end of the turn would gather more, but what is itself sent at the end of a turn (a batch)
 * would then leave one whole turn later.
 */
export class Outbox {
  framesOut = 0;
  bytesOut = 0;

  readonly #socket: Socket;
  readonly #clock: Clock;
  #bufferedBytesMax: number;
  #turnBytes = Number.POSITIVE_INFINITY;

  /** Bytes from `slabStart` to `slabEnd` wait for the next flush; those before belong to writes already made. */
  #slab: Buffer = EMPTY;
  #slabStart = 0;
  #slabEnd = 0;
  #pieces: Buffer[] = [];
  #queuedBytes = 0;
  #scheduled = false;

  constructor(socket: Socket, clock: Clock, bufferedBytesMax: number) {
    this.#socket = socket;
    this.#clock = clock;
    this.#bufferedBytesMax = bufferedBytesMax;
  }

  /** Bytes that have not been taken by the operating system yet. */
  get bufferedBytes(): number {
    return this.#queuedBytes + this.#socket.writableLength;
  }

  /**
   * Queues a frame; false where the limit would be passed, and nothing is queued.
   * @throws RaftkvError FRAME_INVALID where the frame is longer than any may be.
   */
  send(type: FrameType, parts: readonly Buffer[]): boolean {
    let payloadBytes = 0;
    for (const part of parts) payloadBytes += part.length;
    if (payloadBytes > FRAME_BYTES_MAX) throw tooLong(payloadBytes);
    const frameBytes = FRAME_HEADER_BYTES + payloadBytes;
    if (this.bufferedBytes + frameBytes > this.#bufferedBytesMax) return false;

    this.#reserve(FRAME_HEADER_BYTES);
    writeFrameHeader(this.#slab, this.#slabEnd, type, parts, payloadBytes);
    this.#slabEnd += FRAME_HEADER_BYTES;
    for (const part of parts) this.#enqueue(part);
    this.#queuedBytes += frameBytes;
    this.framesOut += 1;
    this.bytesOut += frameBytes;
    if (!this.#scheduled) {
      this.#scheduled = true;
      process.nextTick(this.#flushTurn);
    }
    return true;
  }

  /** Sets the limit of `send`. */
  setBufferedBytesMax(bytes: number): void {
    this.#bufferedBytesMax = bytes;
  }

  /** Makes the outbox write about so many bytes per turn of the event loop, and the rest in later turns. */
  setTurnBytes(bytes: number): void {
    this.#turnBytes = bytes;
  }

  /** Hands all that is queued to the socket now. */
  flush(): void {
    this.#scheduled = false;
    this.#takeSlab();
    const ready = this.#pieces;
    if (ready.length === 0) return;
    this.#pieces = [];
    this.#queuedBytes = 0;
    this.#write(ready);
  }

  /** The number of bytes that one turn may write, if that is less than everything. */
  readonly #flushTurn = (): void => {
    if (this.#queuedBytes <= this.#turnBytes || !this.#socket.writable) {
      this.flush();
      return;
    }
    this.#takeSlab();
    this.#write(this.#takePieces(this.#turnBytes));
    this.#clock.endOfTurn(this.#flushTurn);
  };

  /** Removes `bytes` from the front of the queue. */
  #takePieces(bytes: number): Buffer[] {
    let leftBytes = bytes;
    const ready: Buffer[] = [];
    while (leftBytes > 0) {
      const piece = this.#pieces.shift();
      if (piece === undefined) break;
      ready.push(piece.subarray(0, leftBytes));
      if (piece.length > leftBytes) this.#pieces.unshift(piece.subarray(leftBytes));
      leftBytes -= piece.length;
    }
    for (const piece of ready) this.#queuedBytes -= piece.length;
    return ready;
  }

  #takeSlab(): void {
    if (this.#slabEnd > this.#slabStart) this.#pieces.push(this.#slab.subarray(this.#slabStart, this.#slabEnd));
    this.#slabStart = this.#slabEnd;
  }

  #reserve(bytes: number): void {
    if (this.#slab.length - this.#slabEnd >= bytes) return;
    this.#takeSlab();
    this.#slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
    this.#slabStart = 0;
    this.#slabEnd = 0;
  }

  #enqueue(part: Buffer): void {
    if (part.length > COPIED_PART_BYTES_MAX) {
      this.#takeSlab();
      this.#pieces.push(part);
      return;
    }
    this.#reserve(part.length);
    this.#slab.set(part, this.#slabEnd);
    this.#slabEnd += part.length;
  }

  #write(ready: readonly Buffer[]): void {
    if (!this.#socket.writable) return;
    if (ready.length > 1) this.#socket.cork();
    for (const piece of ready) this.#socket.write(piece);
    if (ready.length > 1) this.#socket.uncork();
  }
}

function tooLong(payloadBytes: number): RaftkvError {
  return new RaftkvError(
    'FRAME_INVALID',
    `a frame of ${payloadBytes} bytes is larger than the limit of ${FRAME_BYTES_MAX}`,
    'This is a bug in raftkv: please report it.',
  );
}
