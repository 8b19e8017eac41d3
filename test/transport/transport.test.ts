import { afterEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { FRAME_BYTES_MAX, FRAME_HEADER_BYTES } from '../../src/transport/frame.ts';
import { createManualClock, createSignal } from '../support/manual-clock.ts';
import { cleanUp, dialAs, dialRaw, frameOf, listenRaw, NO_PORT, pattern, type RawPeer, startNode } from './support.ts';

afterEach(cleanUp);

const NO_TRAFFIC = {
  up: false,
  bytesIn: 0,
  bytesOut: 0,
  framesIn: 0,
  framesOut: 0,
  drops: 0,
  reconnects: 0,
  refusals: 0,
  bufferedBytes: 0,
};

async function startPair(clock = systemClock) {
  const one = await startNode({ id: 1, peers: { 2: NO_PORT }, clock });
  const two = await startNode({ id: 2, peers: { 1: one.transport.port }, clock });
  await Promise.all([one.until(() => one.events.length === 1), two.until(() => two.events.length === 1)]);
  return { one, two };
}

/** What the system still holds open; a closed socket is released at the end of the turn after. */
async function openSockets(): Promise<string[]> {
  for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate);
  return process.getActiveResourcesInfo().filter((name) => name.startsWith('TCP'));
}

describe('a link', () => {
  it('comes up on both ends and carries frames both ways in the order sent', async () => {
    const { one, two } = await startPair();
    expect([one.events, two.events]).toEqual([['up 2'], ['up 1']]);
    expect([one.transport.isUp(2), two.transport.isUp(1)]).toEqual([true, true]);

    const sent: Buffer[] = [];
    for (let i = 0; i < 1000; i++) {
      const parts = [pattern(i % 7, i), pattern((i * 37) % 9000, i + 1), pattern(i % 3, i + 2)];
      sent.push(Buffer.concat(parts));
      expect(one.transport.send(2, parts)).toBe(true);
      expect(two.transport.send(1, parts)).toBe(true);
    }
    await Promise.all([one.until(() => one.frames.length === 1000), two.until(() => two.frames.length === 1000)]);
    for (const [i, payload] of sent.entries()) {
      expect(one.frames[i]?.frame.equals(payload)).toBe(true);
      expect(two.frames[i]?.frame.equals(payload)).toBe(true);
    }
    expect(one.frames[0]?.peer).toBe(2);
  });

  it('carries 8 MiB frames whole', async () => {
    const { one, two } = await startPair();
    const parts = [pattern(20, 1), pattern(3 * 1024 * 1024, 2), pattern(100, 3), pattern(5 * 1024 * 1024, 4)];
    for (let i = 0; i < 3; i++) expect(two.transport.send(1, parts)).toBe(true);
    await one.until(() => one.frames.length === 3);
    const whole = Buffer.concat(parts);
    for (const { frame } of one.frames) expect(frame.equals(whole)).toBe(true);
  });

  it('sends what one callback sent in one write', async () => {
    const one = await startNode({ id: 1, peers: { 2: NO_PORT } });
    const peer = await dialAs(2, 1, one.transport.port);
    await one.until(() => one.events.length === 1);
    peer.chunks.length = 0;
    for (let i = 0; i < 50; i++) one.transport.send(2, [pattern(100, i), pattern(50, i)]);
    await peer.until(() => peer.received.length === 52);
    expect(peer.chunks).toEqual([50 * (FRAME_HEADER_BYTES + 150)]);
  });

  it('stands once between each pair of three nodes', async () => {
    const one = await startNode({ id: 1, peers: { 2: NO_PORT, 3: NO_PORT } });
    const two = await startNode({ id: 2, peers: { 1: one.transport.port, 3: NO_PORT } });
    const three = await startNode({ id: 3, peers: { 1: one.transport.port, 2: two.transport.port } });
    const nodes = [one, two, three];
    await Promise.all(nodes.map((node) => node.until(() => node.events.length === 2)));
    expect(nodes.map((node) => [...node.events].sort())).toEqual([
      ['up 2', 'up 3'],
      ['up 1', 'up 3'],
      ['up 1', 'up 2'],
    ]);
    one.transport.send(2, [Buffer.from('to two')]);
    one.transport.send(3, [Buffer.from('to three')]);
    await Promise.all([two, three].map((node) => node.until(() => node.frames.length === 1)));
    expect([two.frames[0]?.frame.toString(), three.frames[0]?.frame.toString()]).toEqual(['to two', 'to three']);
  });

  it('is reported lost as soon as the peer closes or resets it', async () => {
    const one = await startNode({ id: 1, peers: { 2: NO_PORT, 3: NO_PORT } });
    const closing = await dialAs(2, 1, one.transport.port);
    const resetting = await dialAs(3, 1, one.transport.port);
    await one.until(() => one.events.length === 2);
    closing.socket.destroy();
    await one.until(() => one.events.length === 3);
    resetting.socket.resetAndDestroy();
    await one.until(() => one.events.length === 4);
    expect(one.events.slice(2)).toEqual(['lost 2', 'lost 3']);
    expect(one.transport.isUp(2)).toBe(false);
    expect(one.transport.send(2, [Buffer.from('x')])).toBe(false);
  });

  it('comes back after the listening node has restarted', async () => {
    const { one, two } = await startPair();
    const port = one.transport.port;
    await one.transport.stop();
    await two.until(() => two.events.length === 2);
    const again = await startNode({ id: 1, peers: { 2: NO_PORT }, incarnation: 2, port });
    await Promise.all([two.until(() => two.events.length === 3), again.until(() => again.events.length === 1)]);
    expect(two.events).toEqual(['up 1', 'lost 1', 'up 1']);
    expect(two.transport.stats().peers[0]).toMatchObject({ peer: 1, up: true, incarnation: 2, reconnects: 1 });
  });

  it('is replaced by a newer one of the same peer: lost, then up', async () => {
    const one = await startNode({ id: 1, peers: { 2: NO_PORT } });
    const older = await dialAs(2, 1, one.transport.port);
    const newer = await dialAs(2, 1, one.transport.port);
    await older.until(() => older.closed);
    expect(one.events).toEqual(['up 2', 'lost 2', 'up 2']);
    one.transport.send(2, [Buffer.from('to the newer')]);
    await newer.until(() => newer.received.length === 3);
    expect(newer.received[2]?.payload.toString()).toBe('to the newer');
  });
});

describe('send', () => {
  it('returns false and drops beyond the limit of the buffer, and takes frames again when the peer has read', async () => {
    const linkBufferBytesMax = 1024 * 1024;
    const one = await startNode({ id: 1, peers: { 2: NO_PORT }, limits: { linkBufferBytesMax } });
    const peer = await dialAs(2, 1, one.transport.port);
    await one.until(() => one.events.length === 1);
    peer.socket.pause();
    let taken = 0;
    const frame = (i: number) => pattern(64 * 1024, i);
    // The system takes some MiB itself before bytes stay with us; each turn hands over what was sent.
    let full = false;
    while (!full) {
      full = !one.transport.send(2, [frame(taken)]);
      if (!full) taken += 1;
      await new Promise(setImmediate);
    }
    const { bufferedBytes, drops } = one.transport.stats().peers[0] ?? {};
    expect(bufferedBytes).toBeLessThanOrEqual(linkBufferBytesMax);
    expect(bufferedBytes).toBeGreaterThan(linkBufferBytesMax - 2 * 64 * 1024);
    expect(drops).toBe(1);

    peer.socket.resume();
    await peer.until(() => peer.received.length === 2 + taken);
    for (let i = 0; i < taken; i++) expect(peer.received[2 + i]?.payload.equals(frame(i))).toBe(true);
    expect(one.transport.send(2, [frame(0)])).toBe(true);
  });

  it('counts what waits within one callback against the limit too', async () => {
    const one = await startNode({ id: 1, peers: { 2: NO_PORT }, limits: { linkBufferBytesMax: 10_000 } });
    await dialAs(2, 1, one.transport.port);
    await one.until(() => one.events.length === 1);
    const taken = Array.from({ length: 20 }, () => one.transport.send(2, [Buffer.alloc(988)]));
    expect(taken.filter(Boolean).length).toBe(10);
  });

  it('refuses a frame longer than any may be, and to an unknown peer returns false', async () => {
    const { one } = await startPair();
    const half = Buffer.alloc(FRAME_BYTES_MAX / 2);
    expect(() => one.transport.send(2, [half, half, Buffer.alloc(1)])).toThrow(
      expect.objectContaining({ code: 'FRAME_INVALID' }),
    );
    expect(one.transport.send(7, [half])).toBe(false);
    expect(one.transport.isUp(7)).toBe(false);
  });
});

describe('counters', () => {
  it('tell bytes and frames of both directions, over all links of a peer', async () => {
    const one = await startNode({ id: 1, peers: { 2: NO_PORT } });
    for (let round = 0; round < 2; round++) {
      const peer = await dialAs(2, 1, one.transport.port);
      peer.write(frameOf('data', Buffer.alloc(100)));
      await one.until(() => one.frames.length === round + 1);
      one.transport.send(2, [Buffer.alloc(200)]);
      await peer.until(() => peer.received.length === 3);
      peer.socket.destroy();
      await one.until(() => one.events.length === 2 * round + 2);
    }
    const hello = FRAME_HEADER_BYTES + 40 + 'test'.length + 1;
    const around = hello + FRAME_HEADER_BYTES;
    expect(one.transport.stats().peers).toEqual([
      {
        peer: 2,
        up: false,
        incarnation: 1,
        bytesIn: 2 * (around + FRAME_HEADER_BYTES + 100),
        bytesOut: 2 * (around + FRAME_HEADER_BYTES + 200),
        framesIn: 6,
        framesOut: 6,
        drops: 0,
        reconnects: 1,
        refusals: 0,
        bufferedBytes: 0,
        bulk: NO_TRAFFIC,
      },
    ]);
  });
});

describe('start and stop', () => {
  it('rejects with PORT_UNAVAILABLE where the port is taken', async () => {
    const one = await startNode({ id: 1, peers: {} });
    const second = startNode({ id: 2, peers: {}, port: one.transport.port });
    await expect(second).rejects.toMatchObject({ code: 'PORT_UNAVAILABLE', remedy: expect.stringMatching(/peerPort/) });
  });

  it('flushes what was sent before it stops', async () => {
    // Time stands still, so that however slow the machine, nothing is closed for being late.
    const { one, two } = await startPair(createManualClock().clock);
    const big = pattern(8 * 1024 * 1024, 1);
    for (let i = 0; i < 4; i++) expect(one.transport.send(2, [big])).toBe(true);
    await one.transport.stop();
    await two.until(() => two.events.length === 2);
    expect(two.frames.map(({ frame }) => frame.equals(big))).toEqual([true, true, true, true]);
    expect(one.events).toEqual(['up 2']);
  });

  it('gives up on a peer that does not read once its time is over', async () => {
    const manual = createManualClock();
    const one = await startNode({ id: 1, peers: { 2: NO_PORT }, clock: manual.clock, limits: { stopMsMax: 777 } });
    const peer = await dialAs(2, 1, one.transport.port);
    await one.until(() => one.events.length === 1);
    peer.socket.pause();
    one.transport.send(2, [Buffer.alloc(FRAME_BYTES_MAX)]);
    const stopped = one.transport.stop();
    await manual.until(() => manual.scheduled.includes(777));
    manual.advance(777);
    await stopped;
    expect(manual.pending()).toBe(0);
  });

  it('closes what is still shaking hands, on either side', async () => {
    const manual = createManualClock();
    const silent: RawPeer[] = [];
    const signal = createSignal();
    const { port } = await listenRaw((peer) => {
      silent.push(peer);
      signal.changed();
    });
    const node = await startNode({ id: 2, peers: { 1: port }, clock: manual.clock });
    const unknown = dialRaw(node.transport.port);
    await signal.until(() => silent.length === 1);
    await manual.until(() => node.transport.stats().pendingHandshakes === 1);
    await node.transport.stop();
    expect(manual.pending()).toBe(0);
    await Promise.all([unknown, ...silent].map((peer) => peer.until(() => peer.closed)));
    expect(silent.length).toBe(1);
  });

  it('leaves no socket, timer or port behind', async () => {
    const before = await openSockets();
    const manual = createManualClock();
    const { clock } = manual;
    const one = await startNode({ id: 1, peers: { 2: NO_PORT, 3: NO_PORT }, clock });
    const port = one.transport.port;
    const two = await startNode({ id: 2, peers: { 1: port, 3: NO_PORT }, clock });
    // Node 3 knows a node 4 nowhere to be found, so it is waiting to dial when it is stopped.
    const three = await startNode({ id: 5, peers: { 4: NO_PORT }, clock });
    await Promise.all([one.until(() => one.events.length === 1), two.until(() => two.events.length === 1)]);
    await manual.until(() => manual.scheduled.some((delay) => delay < 20));
    await Promise.all([one, two, three].map((node) => node.transport.stop()));
    expect(manual.pending()).toBe(0);
    expect(await openSockets()).toEqual(before);
    const again = await startNode({ id: 1, peers: {}, port });
    expect(again.transport.port).toBe(port);
  });
});
