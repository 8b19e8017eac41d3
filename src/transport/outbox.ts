import type { Socket } from 'node:net';
import type { Clock } from '../base/clock.ts';
import { RaftkvError } from '../base/errors.ts';
import { FRAME_BYTES_MAX, FRAME_HEADER_BYTES, type FrameType, writeFrameHeader } from './frame.ts';

/**
 * Parts up to here are copied together, longer ones are handed to writev as they are. On loopback copying was up to
 * 1 µs a frame ahead at 1 KiB and as much behind at 4 KiB, close to the noise; this lies between.
 */
const COPIED_PART_BYTES_MAX = 2048;
/** What small parts are copied into, one after the other; a new one when it is full. */
const SLAB_BYTES = 64 * 1024;
const EMPTY = Buffer.alloc(0);

export interface Outbox {
  /**
   * Queues a frame; false where the limit would be passed, and nothing is queued.
   * @throws RaftkvError FRAME_INVALID where the frame is longer than any may be.
   */
  send(type: FrameType, parts: readonly Buffer[]): boolean;
  /** From now on, `send` keeps to this limit. */
  setBufferedBytesMax(bytes: number): void;
  /** From now on, hands over about so many bytes in one turn of the event loop, and the rest in those that follow. */
  setTurnBytes(bytes: number): void;
  /** Hands all that is queued to the socket now. */
  flush(): void;
  /** Bytes that have not been taken by the operating system yet. */
  bufferedBytes(): number;
  readonly framesOut: number;
  readonly bytesOut: number;
}

/**
 * Gathers frames and writes all that one callback of the event loop sent in one system call, as soon as that callback
 * returns. Waiting for the end of the turn would gather more, but what is itself sent at the end of a turn (a batch)
 * would then leave one whole turn later.
 */
export function createOutbox(socket: Socket, clock: Clock, bufferedBytesMax: number): Outbox {
  /** Bytes from `slabStart` to `slabEnd` wait for the next flush; those before belong to writes already made. */
  let slab: Buffer = EMPTY;
  let slabStart = 0;
  let slabEnd = 0;
  let pieces: Buffer[] = [];
  let queuedBytes = 0;
  let scheduled = false;
  let limit = bufferedBytesMax;
  let turnBytes = Number.POSITIVE_INFINITY;

  function takeSlab(): void {
    if (slabEnd > slabStart) pieces.push(slab.subarray(slabStart, slabEnd));
    slabStart = slabEnd;
  }

  function reserve(bytes: number): void {
    if (slab.length - slabEnd >= bytes) return;
    takeSlab();
    slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
    slabStart = 0;
    slabEnd = 0;
  }

  function enqueue(part: Buffer): void {
    if (part.length > COPIED_PART_BYTES_MAX) {
      takeSlab();
      pieces.push(part);
      return;
    }
    reserve(part.length);
    slab.set(part, slabEnd);
    slabEnd += part.length;
  }

  /** What one turn may hand over, where that is less than all there is. */
  function flushTurn(): void {
    if (queuedBytes <= turnBytes || !socket.writable) {
      flush();
      return;
    }
    takeSlab();
    let leftBytes = turnBytes;
    const ready: Buffer[] = [];
    while (leftBytes > 0) {
      const piece = pieces.shift();
      if (piece === undefined) break;
      ready.push(piece.subarray(0, leftBytes));
      if (piece.length > leftBytes) pieces.unshift(piece.subarray(leftBytes));
      leftBytes -= piece.length;
    }
    for (const piece of ready) queuedBytes -= piece.length;
    write(ready);
    clock.endOfTurn(flushTurn);
  }

  function flush(): void {
    scheduled = false;
    takeSlab();
    const ready = pieces;
    if (ready.length === 0) return;
    pieces = [];
    queuedBytes = 0;
    write(ready);
  }

  function write(ready: readonly Buffer[]): void {
    if (!socket.writable) return;
    if (ready.length > 1) socket.cork();
    for (const piece of ready) socket.write(piece);
    if (ready.length > 1) socket.uncork();
  }

  const outbox = {
    framesOut: 0,
    bytesOut: 0,
    send(type: FrameType, parts: readonly Buffer[]): boolean {
      let payloadBytes = 0;
      for (const part of parts) payloadBytes += part.length;
      if (payloadBytes > FRAME_BYTES_MAX) throw tooLong(payloadBytes);
      const frameBytes = FRAME_HEADER_BYTES + payloadBytes;
      if (outbox.bufferedBytes() + frameBytes > limit) return false;

      reserve(FRAME_HEADER_BYTES);
      writeFrameHeader(slab, slabEnd, type, parts, payloadBytes);
      slabEnd += FRAME_HEADER_BYTES;
      for (const part of parts) enqueue(part);
      queuedBytes += frameBytes;
      outbox.framesOut += 1;
      outbox.bytesOut += frameBytes;
      if (!scheduled) {
        scheduled = true;
        process.nextTick(flushTurn);
      }
      return true;
    },
    setBufferedBytesMax(bytes: number) {
      limit = bytes;
    },
    setTurnBytes(bytes: number) {
      turnBytes = bytes;
    },
    flush,
    bufferedBytes: () => queuedBytes + socket.writableLength,
  };
  return outbox;
}

function tooLong(payloadBytes: number): RaftkvError {
  return new RaftkvError(
    'FRAME_INVALID',
    `a frame of ${payloadBytes} bytes is larger than the limit of ${FRAME_BYTES_MAX}`,
    'This is a bug in raftkv: please report it.',
  );
}
