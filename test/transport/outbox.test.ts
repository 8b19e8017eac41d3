import type { Socket } from 'node:net';
import { Writable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { FRAME_HEADER_BYTES } from '../../src/transport/frame.ts';
import { Outbox } from '../../src/transport/outbox.ts';
import { createManualClock } from '../support/manual-clock.ts';
import { frameOf, pattern } from './support.ts';

describe('an outbox with a limit for each turn', () => {
  it('hands over that much in a turn, in order, and at a flush all the rest', async () => {
    const written: Buffer[] = [];
    const socket = new Writable({
      write(bytes: Buffer, _encoding, done) {
        written.push(bytes);
        done();
      },
    }) as Socket;
    const turns: (() => void)[] = [];
    const clock = { ...createManualClock().clock, endOfTurn: (turn: () => void) => turns.push(turn) };
    const outbox = new Outbox(socket, clock, 1_000_000);
    outbox.setTurnBytes(10_000);
    const frames = [pattern(25_000, 1), pattern(3, 2), pattern(9000, 3), pattern(30_000, 4)];
    for (const frame of frames) outbox.send('data', [frame]);
    const total = frames.reduce((sum, frame) => sum + FRAME_HEADER_BYTES + frame.length, 0);
    const bytes = () => written.reduce((sum, piece) => sum + piece.length, 0);
    await new Promise(setImmediate);
    for (let turn = 1; turn <= 4; turn++) {
      expect([bytes(), outbox.bufferedBytes]).toEqual([turn * 10_000, total - turn * 10_000]);
      expect(turns.length).toBe(1);
      turns.shift()?.();
    }
    outbox.flush();
    turns.shift()?.();
    expect([bytes(), outbox.bufferedBytes, turns.length]).toEqual([total, 0, 0]);
    expect(Buffer.concat(written).equals(Buffer.concat(frames.map((frame) => frameOf('data', frame))))).toBe(true);
  });
});
