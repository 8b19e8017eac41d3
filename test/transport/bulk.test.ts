import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { RaftkvError } from '../../src/base/errors.ts';
import { nodeUri } from '../../src/base/node-names.ts';
import { encodeHello } from '../../src/transport/handshake.ts';
import { DEFAULT_LIMITS } from '../../src/transport/types.ts';
import { newAuthority } from '../support/certificates.ts';
import { createManualClock } from '../support/manual-clock.ts';
import {
  cleanUp,
  dialAs,
  dialRaw,
  dialTls,
  frameOf,
  HOST,
  helloFrom,
  NO_PORT,
  pattern,
  startNode,
  type TestNode,
} from './support.ts';

afterEach(cleanUp);

const has = (node: TestNode, ...events: string[]) => node.until(() => events.every((e) => node.allEvents.includes(e)));
const UP = (peer: number) => [`up ${peer}`, `bulk up ${peer}`];
const bulkHello = helloFrom(2, 1, 'test', 1, 'bulk');

async function startPair(one: Partial<Parameters<typeof startNode>[0]> = {}) {
  const first = await startNode({ id: 1, peers: { 2: NO_PORT }, ...one });
  const second = await startNode({ id: 2, peers: { 1: first.transport.port } });
  await Promise.all([has(first, ...UP(2)), has(second, ...UP(1))]);
  return { one: first, two: second };
}

/** Node 1 with a peer made by hand at the other end of both links. */
async function withRawPeer(options: Partial<Parameters<typeof startNode>[0]> = {}) {
  const node = await startNode({ id: 1, peers: { 2: NO_PORT }, ...options });
  const main = await dialAs(2, 1, node.transport.port);
  const bulk = await dialAs(2, 1, node.transport.port, 'bulk');
  await has(node, ...UP(2));
  return { node, main, bulk, port: node.transport.port };
}

describe('a bulk link', () => {
  it('comes up behind the main link on both ends, and carries frames of its own both ways in order', async () => {
    const { one, two } = await startPair();
    expect([one.allEvents, two.allEvents]).toEqual([UP(2), UP(1)]);
    const frame = (i: number) => pattern((i * 7919) % 200_000, i);
    for (let i = 0; i < 100; i++) {
      expect(one.transport.sendBulk(2, [frame(i)])).toBe(true);
      expect(two.transport.sendBulk(1, [frame(i), pattern(5, i)])).toBe(true);
    }
    await Promise.all([one, two].map((node) => node.until(() => node.bulkFrames.length === 100)));
    for (let i = 0; i < 100; i++) {
      expect(two.bulkFrames[i]?.frame.equals(frame(i))).toBe(true);
      expect(one.bulkFrames[i]?.frame.equals(Buffer.concat([frame(i), pattern(5, i)]))).toBe(true);
    }
    expect([one.frames, two.frames]).toEqual([[], []]);
    expect(one.transport.stats().peers[0]?.bulk).toMatchObject({ up: true, framesIn: 102, framesOut: 102 });
  });

  it('that breaks, by itself or on a bad frame, leaves the main link alone and is made again', async () => {
    const { one, two } = await startPair({
      onBulkFrame() {
        throw new RaftkvError('MESSAGE_INVALID', 'not today');
      },
    });
    for (let round = 1; round <= 3; round++) {
      two.transport.sendBulk(1, [Buffer.from('bad')]);
      await Promise.all([one, two].map((node) => node.until(() => node.allEvents.length === 2 + 2 * round)));
    }
    expect(one.allEvents.slice(2, 4)).toEqual(['bulk lost 2', 'bulk up 2']);
    expect([one.events, two.events]).toEqual([['up 2'], ['up 1']]);
    two.transport.send(1, [Buffer.from('still here')]);
    await one.until(() => one.frames.length === 1);
  });

  it('is lost with the main link, and is back behind it', async () => {
    const { node, main, bulk, port } = await withRawPeer();
    main.socket.destroy();
    await bulk.until(() => bulk.closed);
    expect(node.allEvents).toEqual([...UP(2), 'bulk lost 2', 'lost 2']);
    expect(node.transport.sendBulk(2, [Buffer.alloc(1)])).toBe(false);
    await dialAs(2, 1, port);
    await dialAs(2, 1, port, 'bulk');
    expect(node.allEvents.slice(4)).toEqual(UP(2));
  });

  it('is lost with a main link that is replaced, and replaced itself without it', async () => {
    const { node, bulk, port } = await withRawPeer();
    const newerBulk = await dialAs(2, 1, port, 'bulk');
    await bulk.until(() => bulk.closed);
    expect(node.allEvents.slice(2)).toEqual(['bulk lost 2', 'bulk up 2']);
    await dialAs(2, 1, port);
    await newerBulk.until(() => newerBulk.closed);
    expect(node.allEvents.slice(4)).toEqual(['bulk lost 2', 'lost 2', 'up 2']);
  });

  it('does not stand without a main link, nor beside that of another incarnation of the peer', async () => {
    const node = await startNode({ id: 1, peers: { 2: NO_PORT } });
    const port = node.transport.port;
    for (const incarnation of [1, 2]) {
      const early = dialRaw(port);
      early.write(helloFrom(2, 1, 'test', incarnation, 'bulk'), frameOf('ping'));
      await early.until(() => early.closed);
      expect(node.allEvents).toEqual(incarnation === 1 ? [] : ['up 2']);
      if (incarnation === 1) await dialAs(2, 1, port);
    }
  });

  it('has a buffer of its own: full, it takes no more, while the main link does', async () => {
    const { node, main, bulk } = await withRawPeer({ limits: { bulkBufferBytesMax: 1024 * 1024 } });
    bulk.socket.pause();
    const piece = pattern(256 * 1024, 1);
    let taken = 0;
    while (node.transport.sendBulk(2, [piece])) {
      taken += 1;
      await new Promise(setImmediate);
    }
    const { drops, bufferedBytes } = node.transport.stats().peers[0]?.bulk ?? {};
    expect([drops, bufferedBytes]).toEqual([1, expect.any(Number)]);
    expect(bufferedBytes).toBeLessThanOrEqual(1024 * 1024);
    expect(node.transport.send(2, [Buffer.alloc(8 * 1024 * 1024)])).toBe(true);
    await main.until(() => main.received.length === 3);
    bulk.socket.resume();
    await bulk.until(() => bulk.received.length === 2 + taken);
    expect(bulk.received.at(-1)?.payload.equals(piece)).toBe(true);
    expect(node.transport.sendBulk(2, [piece])).toBe(true);
  });

  it('has a keep-alive of its own', async () => {
    const manual = createManualClock();
    const { node, main, bulk } = await withRawPeer({ clock: manual.clock });
    const pings = () => bulk.received.filter(({ type }) => type === 'ping').length;
    for (let silent = 0; silent <= DEFAULT_LIMITS.silentKeepAlivesMax; silent++) {
      manual.advance(DEFAULT_LIMITS.keepAliveMs);
      const before = node.transport.stats().peers[0]?.framesIn ?? 0;
      main.write(frameOf('data', Buffer.from('alive')));
      await node.until(() => (node.transport.stats().peers[0]?.framesIn ?? 0) > before);
    }
    await bulk.until(() => bulk.closed);
    expect(pings()).toBe(DEFAULT_LIMITS.silentKeepAlivesMax - 1);
    expect(node.allEvents).toEqual([...UP(2), 'bulk lost 2']);
  });

  it('under a flood lets main frames through between two of its own', async () => {
    const { one, two } = await startPair({ onFrame: (peer, frame) => one.transport.send(peer, [frame]) });
    const flood = pattern(30 * 1024 * 1024, 1);
    expect(two.transport.sendBulk(1, [flood])).toBe(true);
    expect(two.transport.send(1, [Buffer.from('quick')])).toBe(true);
    await two.until(() => two.frames.length === 1);
    // Sent later, there and back again while the flood was still on its way.
    expect(one.bulkFrames.length).toBe(0);
    await one.until(() => one.bulkFrames.length === 1);
    expect(one.bulkFrames[0]?.frame.equals(flood)).toBe(true);
  });
});

describe('unknown peers on the bulk channel', () => {
  it('are refused as on the main one', async () => {
    const { node, port } = await withRawPeer();
    const hellos = [
      helloFrom(3, 1, 'test', 1, 'bulk'),
      helloFrom(1, 1, 'test', 1, 'bulk'),
      helloFrom(2, 1, 'other', 1, 'bulk'),
      helloFrom(2, 7, 'test', 1, 'bulk'),
    ];
    const unknown = encodeHello({ selfId: 2, clusterName: 'test', incarnation: 1, clusterId: '' }, 1);
    unknown[unknown.length - 1] = 9;
    hellos.push(frameOf('hello', unknown));
    for (const hello of hellos) {
      const unknown = dialRaw(port);
      unknown.write(hello, frameOf('ping'), frameOf('data', Buffer.from('x')));
      await unknown.until(() => unknown.closed);
      expect(unknown.received.map(({ type }) => type)).toEqual(['refuse']);
    }
    expect(node.allEvents).toEqual([...UP(2), 'unknown peer 3']);
  });

  it('that send garbage of any kind never touch a link', async () => {
    const { one, two } = await startPair();
    const garbage = fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 2000 }).map((bytes) => Buffer.concat([bulkHello, Buffer.from(bytes)])),
      fc.nat({ max: bulkHello.length - 1 }).map((length) => bulkHello.subarray(0, length)),
      fc.nat({ max: bulkHello.length * 8 - 1 }).map((bit) => {
        const bytes = Buffer.from(bulkHello);
        bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        return bytes;
      }),
    );
    let trips = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(garbage, { minLength: 1, maxLength: 8 }), async (thrown) => {
        const connections = thrown.map((bytes) => {
          const unknown = dialRaw(one.transport.port);
          unknown.write(bytes);
          unknown.socket.end();
          return unknown;
        });
        await Promise.all(connections.map((each) => each.until(() => each.closed)));
        trips += 1;
        two.transport.send(1, [Buffer.from('main')]);
        two.transport.sendBulk(1, [Buffer.from('bulk')]);
        await one.until(() => one.frames.length === trips && one.bulkFrames.length === trips);
      }),
      { numRuns: 40 },
    );
    expect([one.allEvents, two.allEvents]).toEqual([UP(2), UP(1)]);
  });
});

describe('a bulk link with TLS', () => {
  it('carries frames both ways beside a main link with TLS', async () => {
    const authority = await newAuthority();
    const one = await startNode({ id: 1, peers: { 2: NO_PORT }, tls: await authority.node(1) });
    const two = await startNode({ id: 2, peers: { 1: one.transport.port }, tls: await authority.node(2) });
    await Promise.all([has(one, ...UP(2)), has(two, ...UP(1))]);
    const large = pattern(3_000_000, 1);
    expect(two.transport.sendBulk(1, [large])).toBe(true);
    expect(one.transport.sendBulk(2, [large])).toBe(true);
    await Promise.all([one, two].map((node) => node.until(() => node.bulkFrames.length === 1)));
    expect([one, two].map(({ bulkFrames }) => bulkFrames[0]?.frame.equals(large))).toEqual([true, true]);
  });

  it('is refused without the certificate of the node, though that node has a main link', async () => {
    const authority = await newAuthority();
    const one = await startNode({ id: 1, peers: { 2: NO_PORT }, tls: await authority.node(1) });
    const two = await startNode({ id: 2, peers: { 1: one.transport.port }, tls: await authority.node(2) });
    await has(two, ...UP(1));
    const impostors = [
      await authority.node(3),
      await authority.client(),
      await authority.node(2, 'other'),
      await authority.issue({ commonName: nodeUri('test', 2), hosts: [HOST] }),
    ];
    for (const identity of impostors) {
      const impostor = dialTls(one.transport.port, identity);
      impostor.write(bulkHello, frameOf('ping'));
      await impostor.until(() => impostor.closed);
      expect(impostor.received.map(({ type }) => type)).toEqual(['refuse']);
    }
    const plain = dialRaw(one.transport.port);
    plain.write(bulkHello, frameOf('ping'));
    await plain.until(() => plain.closed);
    expect(plain.received).toEqual([]);
    expect([one.allEvents, two.allEvents]).toEqual([UP(2), UP(1)]);
  });
});
