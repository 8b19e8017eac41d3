import { createConnection as connectSocket, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { RaftkvError } from '../../src/base/errors.ts';
import { Connection } from '../../src/transport/connection.ts';
import { FRAME_BYTES_MAX } from '../../src/transport/frame.ts';
import { decodeRefusal, encodeHello, type RefusalCode } from '../../src/transport/handshake.ts';
import { plainSockets } from '../../src/transport/sockets.ts';
import { DEFAULT_LIMITS } from '../../src/transport/types.ts';
import { bufferBytesAtMost } from '../support/garbage.ts';
import { createManualClock } from '../support/manual-clock.ts';
import {
  cleanUp,
  dialAs,
  dialRaw,
  frameOf,
  HOST,
  helloFrom,
  listenRaw,
  NO_PORT,
  type RawPeer,
  startNode,
  type TestNode,
} from './support.ts';

afterEach(cleanUp);

const warnings = (node: TestNode) => node.logs.filter(({ level }) => level === 'warn');

function otherVersion(): Buffer {
  const payload = encodeHello({ selfId: 3, clusterName: 'test', incarnation: 1, clusterId: '' }, 2);
  payload.writeUInt16LE(99, 4);
  return frameOf('hello', payload);
}

describe('a listening node', () => {
  const refused: [RefusalCode, Buffer][] = [
    ['version', otherVersion()],
    ['cluster', helloFrom(3, 2, 'elsewhere')],
    ['self', helloFrom(2, 2)],
    ['wrongAddressee', helloFrom(3, 7)],
    ['unknownPeer', helloFrom(9, 2)],
    ['wrongDirection', helloFrom(1, 2)],
  ];
  for (const [code, hello] of refused) {
    it(`refuses for ${code}, tells the other end why, closes and logs what to do`, async () => {
      const node = await startNode({ id: 2, peers: { 1: NO_PORT, 3: NO_PORT } });
      const peer = dialRaw(node.transport.port);
      peer.write(hello, frameOf('ping'), frameOf('data', Buffer.from('not to be heard')));
      await peer.until(() => peer.closed);
      expect(peer.received.map(({ type }) => type)).toEqual(['refuse']);
      expect(decodeRefusal(peer.received[0]?.payload ?? Buffer.alloc(0)).code).toBe(code);
      await node.until(() => node.transport.stats().refusals === 1);
      const record = warnings(node).find(({ fields }) => fields['code'] === 'PEER_REFUSED');
      expect(record?.message).toContain(code);
      expect(record?.fields['remedy']).toMatch(/\w/);
      // Of this very cluster, and yet no peer: that is worth hearing of, and nothing else is.
      expect([node.events, node.frames]).toEqual([code === 'unknownPeer' ? ['unknown peer 9'] : [], []]);
    });
  }

  it('holds no link for up before the dialer has accepted its hello', async () => {
    const node = await startNode({ id: 1, peers: { 2: NO_PORT } });
    const peer = dialRaw(node.transport.port);
    peer.write(helloFrom(2, 1));
    await peer.until(() => peer.received.length === 1);
    expect([peer.received[0]?.type, node.transport.isUp(2), node.events]).toEqual(['hello', false, []]);
    peer.write(frameOf('refuse', Buffer.from('\x02not my cluster')));
    await node.until(() => node.transport.stats().refusals === 1);
    expect(node.events).toEqual([]);
  });

  it('closes a connection that says nothing when its time is over', async () => {
    const manual = createManualClock();
    const node = await startNode({ id: 1, peers: { 2: NO_PORT }, clock: manual.clock });
    const silent = dialRaw(node.transport.port);
    // One timer is that of the link, which waits for its peer.
    await manual.until(() => manual.pending() === 2);
    manual.advance(DEFAULT_LIMITS.handshakeMsMax - 1);
    expect(node.transport.stats().pendingHandshakes).toBe(1);
    manual.advance(1);
    await silent.until(() => silent.closed);
    expect(node.transport.stats()).toMatchObject({ pendingHandshakes: 0, rejected: 1 });
  });

  it('takes no frame longer than a hello from one that has not shown who it is', async () => {
    const node = await startNode({ id: 1, peers: { 2: NO_PORT } });
    const peer = dialRaw(node.transport.port);
    peer.write(frameOf('hello', Buffer.alloc(1025)).subarray(0, 12));
    await peer.until(() => peer.closed);
    expect(warnings(node)[0]?.fields['code']).toBe('FRAME_INVALID');
  });
});

describe('a dialing node', () => {
  it('and its peer both log a refusal and what to do; it goes on trying, at ease', async () => {
    const manual = createManualClock();
    const one = await startNode({ id: 1, peers: { 2: NO_PORT } });
    const two = await startNode({ id: 2, peers: { 1: one.transport.port }, clusterName: 'other', clock: manual.clock });
    await Promise.all([one, two].map((node) => node.until(() => warnings(node).length === 1)));
    for (const node of [one, two]) {
      expect(warnings(node)[0]?.fields).toMatchObject({
        code: 'PEER_REFUSED',
        remedy: expect.stringContaining('cluster name'),
      });
    }
    const wait = DEFAULT_LIMITS.refusedRedialMs * 0.75;
    const waits = () => manual.scheduled.filter((delay) => delay === wait).length;
    await manual.until(() => waits() === 1);
    manual.advance(wait);
    await manual.until(() => waits() === 2);
    expect(two.transport.stats().peers[0]?.refusals).toBe(2);
    // The same again is not logged again.
    expect([warnings(one).length, warnings(two).length]).toEqual([1, 1]);
  });

  it('refuses an answer by another node than the one it dialed', async () => {
    const peers: RawPeer[] = [];
    const { port } = await listenRaw((peer) => {
      peers.push(peer);
      peer.write(helloFrom(3, 5));
    });
    const node = await startNode({ id: 5, peers: { 1: port, 3: NO_PORT } });
    await node.until(() => warnings(node).length > 0);
    expect(warnings(node)[0]?.message).toContain('wrongAddressee');
    await peers[0]?.until(() => peers[0]?.received.length === 2);
    expect(peers[0]?.received.map(({ type }) => type)).toEqual(['hello', 'refuse']);
  });

  /** A node 2 whose waits between dials are collected, each of them ended early, while `behave` plays its peer. */
  async function redialsOf(behave: (peer: RawPeer) => void, count: number): Promise<number[]> {
    const manual = createManualClock();
    const { port } = await listenRaw(behave);
    const limits = { connectMsMax: 100_001, handshakeMsMax: 100_002, keepAliveMs: 100_003 };
    await startNode({ id: 2, peers: { 1: port }, clock: manual.clock, limits, random: () => 0.999999 });
    const waits = () => manual.scheduled.filter((delay) => delay < 1000);
    for (let i = 1; i <= count; i++) {
      await manual.until(() => waits().length === i);
      manual.advance(waits()[i - 1] ?? 0);
    }
    return waits().map(Math.round);
  }
  const BACK_OFF = [10, 20, 40, 80, 160, 250, 250];

  it('waits longer after each failure, up to a limit', async () => {
    expect(await redialsOf((peer) => peer.socket.destroy(), 7)).toEqual(BACK_OFF);
  });

  it('waits longer too where the link comes up and breaks on a bad frame each time', async () => {
    let links = 0;
    const waits = await redialsOf((peer) => {
      peer.write(helloFrom(1, 2));
      peer
        .until(() => peer.received.some(({ type }) => type === 'ping'))
        .then(() => {
          links += 1;
          peer.socket.write(Buffer.alloc(12, 0xee));
        });
    }, 7);
    expect([waits, links]).toEqual([BACK_OFF, 7]);
  });

  it('is back at the shortest wait once a link has stood for a while', async () => {
    const manual = createManualClock();
    let dials = 0;
    let last: RawPeer | null = null;
    const { port } = await listenRaw((peer) => {
      dials += 1;
      if (dials <= 3) peer.socket.destroy();
      else peer.write(helloFrom(1, 2));
      last = peer;
    });
    const limits = { connectMsMax: 100_001, handshakeMsMax: 100_002, keepAliveMs: 100_003 };
    const node = await startNode({ id: 2, peers: { 1: port }, clock: manual.clock, limits, random: () => 0 });
    const waits = () => manual.scheduled.filter((delay) => delay < 1000);
    for (let i = 1; i <= 3; i++) {
      await manual.until(() => waits().length === i);
      manual.advance(waits()[i - 1] ?? 0);
    }
    await node.until(() => node.events.length === 1);
    manual.advance(DEFAULT_LIMITS.soundLinkMs);
    (last as RawPeer | null)?.socket.destroy();
    await manual.until(() => waits().length === 4);
    expect(waits()).toEqual([5, 10, 20, 5]);
  });

  it('gives up a connection that does not open in time and dials again', async () => {
    const manual = createManualClock();
    const { port, server } = await listenRaw(() => {});
    // Nothing is accepted while the process does not return to its event loop, and the clock moves before it does.
    const node = await startNode({ id: 2, peers: { 1: port }, clock: manual.clock, random: () => 0 });
    manual.advance(DEFAULT_LIMITS.connectMsMax);
    expect(manual.scheduled.at(-1)).toBe(DEFAULT_LIMITS.redialMsMin / 2);
    expect(node.transport.isUp(1)).toBe(false);
    server.close();
  });

  it('warns that a peer cannot be reached, and where, but not in the first moments', async () => {
    const { port, server } = await listenRaw(() => {});
    await new Promise<void>((resolve) => server.close(() => resolve()));
    const node = await startNode({ id: 2, peers: { 1: port }, limits: { redialMsMin: 1, redialMsMax: 1 } });
    await node.until(() => warnings(node).length === 1);
    expect(warnings(node)[0]?.fields['code']).toBe('PEER_UNREACHABLE');
    expect(warnings(node)[0]?.message).toContain(`node 1 cannot be reached at ${HOST}:${port}`);
  });
});

describe('keep-alive', () => {
  async function idleLink() {
    const manual = createManualClock();
    const node = await startNode({ id: 1, peers: { 2: NO_PORT }, clock: manual.clock });
    const peer = await dialAs(2, 1, node.transport.port);
    await node.until(() => node.events.length === 1);
    const pings = () => peer.received.filter(({ type }) => type === 'ping').length;
    const tick = () => manual.advance(DEFAULT_LIMITS.keepAliveMs);
    tick();
    return { node, peer, pings, tick };
  }

  it('pings a silent peer each second and takes the link for lost after five', async () => {
    const { node, peer, pings, tick } = await idleLink();
    for (let silent = 1; silent <= 4; silent++) {
      tick();
      await peer.until(() => pings() === silent);
      expect(node.events).toEqual(['up 2']);
    }
    tick();
    expect(node.events).toEqual(['up 2', 'lost 2']);
    await peer.until(() => peer.closed);
  });

  it('keeps the link of a peer that answers', async () => {
    const { node, peer, pings, tick } = await idleLink();
    for (let round = 1; round <= 8; round++) {
      const before = node.transport.stats().peers[0]?.framesIn ?? 0;
      tick();
      await peer.until(() => pings() === round);
      peer.write(frameOf('pong'));
      await dialAndClose(node);
      expect(node.transport.stats().peers[0]?.framesIn).toBe(before + 1);
      // The tick that follows an answer finds the peer alive and says nothing.
      tick();
      expect(pings()).toBe(round);
    }
    expect(node.events).toEqual(['up 2']);
  });

  it('answers a ping', async () => {
    const { peer } = await idleLink();
    const pongs = () => peer.received.filter(({ type }) => type === 'pong').length;
    const before = pongs();
    peer.write(frameOf('ping'));
    await peer.until(() => pongs() === before + 1);
  });
});

/** A connection that came and went: what was written to the node before has been read by then. */
async function dialAndClose(node: TestNode): Promise<void> {
  const probe = dialRaw(node.transport.port);
  probe.write(Buffer.alloc(12, 0xff));
  await probe.until(() => probe.closed);
}

describe('a bad message', () => {
  it('closes its link only, is logged, and the others go on', async () => {
    const node = await startNode({
      id: 1,
      peers: { 2: NO_PORT, 3: NO_PORT },
      onFrame(_peer, frame) {
        if (frame.toString() === 'bad') throw new RaftkvError('MESSAGE_INVALID', 'no such message');
      },
    });
    const bad = await dialAs(2, 1, node.transport.port);
    const good = await dialAs(3, 1, node.transport.port);
    await node.until(() => node.events.length === 2);
    bad.write(frameOf('data', Buffer.from('bad')), frameOf('data', Buffer.from('after')));
    await bad.until(() => bad.closed);
    good.write(frameOf('data', Buffer.from('good')));
    await node.until(() => node.frames.length === 1);
    expect(node.events).toEqual(['up 2', 'up 3', 'lost 2']);
    expect(node.frames.map(({ frame }) => frame.toString())).toEqual(['good']);
    expect(warnings(node)[0]).toMatchObject({
      message: 'no such message',
      fields: { code: 'MESSAGE_INVALID', peer: 2 },
    });
  });

  it('is told from a defect of this node, which is not swallowed', () => {
    for (const defect of [new TypeError('a defect'), new RaftkvError('INVARIANT_BROKEN', 'a defect')]) {
      const socket = new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() }) as Socket;
      const owner = {
        onUp() {},
        onData() {
          throw defect;
        },
        onClosed() {},
      };
      const connection = new Connection(socket, null, owner, {
        local: {
          selfId: 1,
          clusterName: 'test',
          clusterId: '',
          incarnation: 1,
          isPeer: () => true,
          isRemoved: () => false,
        },
        clock: systemClock,
        limits: DEFAULT_LIMITS,
        sockets: plainSockets,
        events: { onUnknownPeer() {}, onForeignPeer() {} },
      });
      socket.emit('data', Buffer.concat([helloFrom(2, 1), frameOf('ping')]));
      expect(() => socket.emit('data', frameOf('data', Buffer.from('x')))).toThrow('a defect');
      connection.close(null);
    }
  });
});

describe('unknown peers', () => {
  /** One node with a true link, over which a round trip can be made at any time. */
  async function besieged() {
    const one = await startNode({
      id: 1,
      peers: { 2: NO_PORT },
      onFrame: (peer, frame) => one.transport.send(peer, [frame]),
    });
    const two = await startNode({ id: 2, peers: { 1: one.transport.port } });
    await two.until(() => two.events.length === 1);
    let trips = 0;
    return {
      one,
      two,
      port: one.transport.port,
      async roundTrip() {
        trips += 1;
        expect(two.transport.send(1, [Buffer.from(`trip ${trips}`)])).toBe(true);
        await two.until(() => two.frames.length === trips);
        expect(two.frames.at(-1)?.frame.toString()).toBe(`trip ${trips}`);
      },
    };
  }

  function throwAt(port: number, bytes: Buffer): Promise<void> {
    return new Promise((resolve) => {
      const socket = connectSocket({ host: HOST, port });
      socket.on('error', () => {});
      socket.on('close', () => resolve());
      socket.resume();
      socket.end(bytes);
    });
  }

  it('that send garbage of any kind get nothing but the door, and the true link goes on', async () => {
    const { one, two, port, roundTrip } = await besieged();
    const hello = helloFrom(2, 1);
    const longFrame = frameOf('data', Buffer.alloc(16));
    longFrame.writeUInt32LE(0xffff_ffff, 4);
    const garbage = fc.oneof(
      fc.uint8Array({ maxLength: 2000 }).map((bytes) => Buffer.from(bytes)),
      fc.nat({ max: hello.length - 1 }).map((length) => hello.subarray(0, length)),
      fc.uint8Array({ minLength: 1, maxLength: 2000 }).map((bytes) => Buffer.concat([hello, Buffer.from(bytes)])),
      fc.constantFrom(longFrame, Buffer.concat([hello, longFrame]), Buffer.from('GET / HTTP/1.1\r\n\r\n')),
      fc.constantFrom(Buffer.alloc(300_000), Buffer.alloc(300_000, 1)),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(garbage, { minLength: 1, maxLength: 10 }), async (thrown) => {
        await Promise.all(thrown.map((bytes) => throwAt(port, bytes)));
        await roundTrip();
      }),
      { numRuns: 60 },
    );
    expect([one.events, two.events]).toEqual([['up 2'], ['up 1']]);
    expect(one.transport.stats().rejected).toBeGreaterThan(100);
    // Hundreds of failures, a handful of lines.
    expect(warnings(one).length).toBeLessThan(6);
  });

  it('that say nothing, by the thousand, are held to a few, the oldest going first, and a true peer still gets in', async () => {
    const { one, port, roundTrip } = await besieged();
    const before = process.memoryUsage().rss;
    const silent: RawPeer[] = [];
    const accepted = () => one.transport.stats().rejected + one.transport.stats().pendingHandshakes;
    for (let wave = 0; wave < 15; wave++) {
      const crowd = Array.from({ length: 200 }, () => dialRaw(port));
      silent.push(...crowd);
      // One connection is accepted per turn of the event loop; a crowd beyond the backlog would be kept out for a second.
      while (accepted() < silent.length) {
        await roundTrip();
        expect(one.transport.stats().pendingHandshakes).toBeLessThanOrEqual(DEFAULT_LIMITS.pendingHandshakesMax);
      }
      await Promise.all(
        crowd.map(({ socket }) => socket.connecting && new Promise((done) => socket.once('connect', done))),
      );
    }
    const last = silent.at(-1);
    await Promise.all(silent.slice(0, 2800).map((peer) => peer.until(() => peer.closed)));
    expect(last?.closed).toBe(false);
    expect(one.transport.stats().evictions).toBeGreaterThanOrEqual(2800);

    const newer = await dialAs(2, 1, port);
    newer.socket.destroy();
    expect(process.memoryUsage().rss - before).toBeLessThan(128 * 1024 * 1024);
  });

  it('that know the cluster but announce the longest frame and never send it cost no more than that', async () => {
    const one = await startNode({ id: 1, peers: { 2: NO_PORT } });
    const header = frameOf('data', Buffer.alloc(FRAME_BYTES_MAX)).subarray(0, 12);
    const bytesMax = (await bufferBytesAtMost(0)) + 1.5 * FRAME_BYTES_MAX;
    for (let i = 0; i < 20; i++) {
      const peer = await dialAs(2, 1, one.transport.port);
      peer.write(header);
      await dialAndClose(one);
    }
    expect(one.events.length).toBe(39);
    expect(await bufferBytesAtMost(bytesMax)).toBeLessThanOrEqual(bytesMax);
    header.writeUInt32LE(FRAME_BYTES_MAX + 1, 4);
    const greedy = await dialAs(2, 1, one.transport.port);
    greedy.write(header);
    await greedy.until(() => greedy.closed);
  });
});
