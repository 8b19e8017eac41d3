import { afterEach, describe, expect, it } from 'vitest';
import { decodeRefusal } from '../../src/transport/handshake.ts';
import { DEFAULT_LIMITS, type PeerAddress } from '../../src/transport/types.ts';
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
  pattern,
  type RawPeer,
  startNode,
  type TestNode,
} from './support.ts';

afterEach(cleanUp);

const at = (id: number, port: number): PeerAddress => ({ id, host: HOST, port });
const nodeAt = (id: number, node: TestNode) => at(id, node.transport.port);
const has = (node: TestNode, ...events: string[]) => node.until(() => events.every((e) => node.allEvents.includes(e)));
const count = (node: TestNode, event: string) => node.allEvents.filter((each) => each === event).length;

/** Every refusal is logged, so that it can be awaited. */
const TALKATIVE = { repeatedWarningMs: 0 };

async function startPair() {
  const one = await startNode({ id: 1, peers: { 2: NO_PORT }, limits: TALKATIVE });
  const two = await startNode({ id: 2, peers: { 1: one.transport.port }, limits: TALKATIVE });
  await Promise.all([has(one, 'bulk up 2'), has(two, 'bulk up 1')]);
  return { one, two };
}

/** What the system still holds open; a closed socket is released at the end of the turn after. */
async function openSockets(): Promise<number> {
  for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate);
  return process.getActiveResourcesInfo().filter((name) => name.startsWith('TCP')).length;
}

describe('a peer that is added', () => {
  it('is dialed by the higher id and accepted by the lower', async () => {
    const one = await startNode({ id: 1, peers: {} });
    const two = await startNode({ id: 2, peers: {} });
    expect(two.transport.send(1, [Buffer.from('x')])).toBe(false);
    one.transport.setPeers([nodeAt(2, two)], []);
    two.transport.setPeers([nodeAt(1, one)], []);
    await Promise.all([has(one, 'up 2', 'bulk up 2'), has(two, 'up 1', 'bulk up 1')]);
    expect(one.allEvents).toEqual(['up 2', 'bulk up 2']);
    expect(two.transport.send(1, [Buffer.from('x')])).toBe(true);
    await one.until(() => one.frames.length === 1);
  });

  it('is let in where it came too early, and the node itself is no peer of its own', async () => {
    const one = await startNode({ id: 1, peers: {}, limits: { refusedRedialMs: 20 } });
    const two = await startNode({ id: 2, peers: { 1: one.transport.port }, limits: { refusedRedialMs: 20 } });
    await two.until(() => (two.transport.stats().peers[0]?.refusals ?? 0) > 0);
    one.transport.setPeers([at(1, NO_PORT), nodeAt(2, two)], []);
    await has(one, 'up 2');
    expect(one.transport.stats().peers.map(({ peer }) => peer)).toEqual([2]);
    expect(two.events).toEqual(['up 1']);
  });

  it('before the start counts as one from the start', async () => {
    const one = await startNode({ id: 1, peers: { 2: NO_PORT } });
    const two = await startNode({
      id: 2,
      peers: { 3: NO_PORT },
      beforeStart: (transport) => transport.setPeers([nodeAt(1, one)], [3]),
    });
    await has(two, 'up 1');
    expect(two.transport.stats().peers.map(({ peer }) => peer)).toEqual([1]);
  });
});

describe('a peer that stays', () => {
  it('keeps its links and loses nothing, however often the others change', async () => {
    const { one, two } = await startPair();
    let sent = 0;
    for (let round = 0; round < 200; round++) {
      one.transport.setPeers([at(2, NO_PORT), ...(round % 2 ? [at(3, NO_PORT)] : [])], round % 2 ? [] : [3]);
      two.transport.setPeers([nodeAt(1, one), at(3 + round, NO_PORT)], []);
      for (const transport of [one.transport, two.transport]) {
        const to = transport === one.transport ? 2 : 1;
        expect(transport.send(to, [pattern(3000, sent)])).toBe(true);
        expect(transport.sendBulk(to, [pattern(30_000, sent)])).toBe(true);
      }
      sent += 1;
      if (round % 10 === 0) await new Promise(setImmediate);
    }
    for (const node of [one, two]) {
      await node.until(() => node.frames.length === sent && node.bulkFrames.length === sent);
      for (const [i, { frame }] of node.frames.entries()) expect(frame.equals(pattern(3000, i))).toBe(true);
      for (const [i, { frame }] of node.bulkFrames.entries()) expect(frame.equals(pattern(30_000, i))).toBe(true);
      expect(node.allEvents.length).toBe(2);
    }
  });
});

describe('a peer that leaves', () => {
  it('gets what was sent to it, and each end hears of the loss once, but not within the call', async () => {
    const { one, two } = await startPair();
    const big = pattern(8 * 1024 * 1024, 1);
    for (let i = 0; i < 3; i++) expect(one.transport.send(2, [big])).toBe(true);
    expect(one.transport.sendBulk(2, [big])).toBe(true);
    one.transport.setPeers([], []);
    expect(one.allEvents).toEqual(['up 2', 'bulk up 2']);
    expect([one.transport.isUp(2), one.transport.send(2, [big]), one.transport.sendBulk(2, [big])]).toEqual([
      false,
      false,
      false,
    ]);
    await has(two, 'lost 1', 'bulk lost 1');
    expect(two.frames.map(({ frame }) => frame.equals(big))).toEqual([true, true, true]);
    await two.until(() => (two.transport.stats().peers[0]?.refusals ?? 0) > 0);
    expect(one.allEvents.slice(0, 5)).toEqual(['up 2', 'bulk up 2', 'bulk lost 2', 'lost 2', 'unknown peer 2']);
    expect(two.events).toEqual(['up 1', 'lost 1']);
  });

  it('and comes back is lost before it is up, though it comes back at once', async () => {
    const { one, two } = await startPair();
    for (let round = 1; round <= 20; round++) {
      const [node, other, id] = round % 2 ? [one, two, 2] : [two, one, 1];
      node.transport.setPeers([], []);
      node.transport.setPeers([nodeAt(id, other)], []);
      await Promise.all([one, two].map((each) => each.until(() => each.allEvents.length >= 2 + 4 * round)));
      for (const each of [one, two]) {
        const [peer] = each === one ? [2] : [1];
        expect(each.events).toEqual(
          Array.from({ length: 2 * round + 1 }, (_, i) => `${i % 2 ? 'lost' : 'up'} ${peer}`),
        );
      }
    }
  });

  it('and comes back before the end of the turn is still lost first', async () => {
    const { clock } = createManualClock();
    const endless = { ...clock, endOfTurn: () => {} };
    const one = await startNode({ id: 1, peers: { 2: NO_PORT }, clock: endless });
    const two = await startNode({ id: 2, peers: { 1: one.transport.port }, clock: endless });
    await Promise.all([has(one, 'bulk up 2'), has(two, 'bulk up 1')]);
    for (const node of [one, two]) node.transport.setPeers([], []);
    one.transport.setPeers([at(2, NO_PORT)], []);
    two.transport.setPeers([nodeAt(1, one)], []);
    await Promise.all([one, two].map((node) => node.until(() => node.allEvents.length === 6)));
    expect([one.events, two.events]).toEqual([
      ['up 2', 'lost 2', 'up 2'],
      ['up 1', 'lost 1', 'up 1'],
    ]);
  });

  it('by decision of the listener that hears that its link is replaced gets no other', async () => {
    const one = await startNode({
      id: 1,
      peers: { 2: NO_PORT },
      onEvent: (event, { transport }) => event === 'lost 2' && transport.setPeers([], []),
    });
    await dialAs(2, 1, one.transport.port);
    const newer = dialRaw(one.transport.port);
    newer.write(helloFrom(2, 1), frameOf('ping'));
    await newer.until(() => newer.closed);
    expect(one.allEvents).toEqual(['up 2', 'lost 2']);
  });

  it('while it is dialed is not dialed to the end', async () => {
    const dialed: RawPeer[] = [];
    const { port } = await listenRaw((peer) => dialed.push(peer));
    // Time stands still, so that nothing is closed for being late.
    const two = await startNode({ id: 2, peers: { 1: port }, clock: createManualClock().clock });
    const probe = dialRaw(port);
    await new Promise((done) => probe.socket.once('connect', done));
    while (dialed.length < 2) await new Promise(setImmediate);
    two.transport.setPeers([], []);
    await dialed[0]?.until(() => dialed[0]?.closed === true);
  });

  it('and never reads is disconnected when its time is over', async () => {
    const manual = createManualClock();
    const one = await startNode({ id: 1, peers: { 2: NO_PORT }, clock: manual.clock, limits: { stopMsMax: 777 } });
    const peer = await dialAs(2, 1, one.transport.port);
    await has(one, 'up 2');
    peer.socket.pause();
    one.transport.send(2, [Buffer.alloc(30 * 1024 * 1024)]);
    one.transport.setPeers([], []);
    await has(one, 'lost 2');
    expect(manual.pending()).toBe(2);
    manual.advance(777);
    expect(manual.pending()).toBe(0);
    peer.socket.resume();
    await peer.until(() => peer.closed);
  });

  it('during its handshake gets no link', async () => {
    const one = await startNode({ id: 1, peers: { 2: NO_PORT } });
    const peer = dialRaw(one.transport.port);
    peer.write(helloFrom(2, 1));
    await peer.until(() => peer.received.length === 1);
    one.transport.setPeers([], [2]);
    peer.write(frameOf('ping'));
    await peer.until(() => peer.closed);
    expect(one.allEvents).toEqual([]);
  });

  it('may be released by any listener of a link event, at any moment', async () => {
    for (const moment of ['up 1', 'bulk up 1', 'lost 1', 'bulk lost 1']) {
      const one = await startNode({ id: 1, peers: { 2: NO_PORT } });
      const two = await startNode({
        id: 2,
        peers: { 1: one.transport.port },
        onEvent: (event, { transport }) => event === moment && transport.setPeers([], []),
      });
      if (moment.includes('lost')) {
        await has(two, 'bulk up 1');
        one.transport.setPeers([], []);
      }
      await has(two, moment.includes('lost') || moment === 'up 1' ? 'lost 1' : 'bulk lost 1', 'lost 1');
      expect(two.transport.stats().peers).toEqual([]);
      expect(count(two, 'up 1')).toBe(1);
      expect(count(two, 'lost 1')).toBe(1);
      expect(count(two, 'bulk lost 1')).toBe(count(two, 'bulk up 1'));
    }
  });
});

describe('a peer that moves', () => {
  it('is dialed again at its new address, after what was sent to the old one has left', async () => {
    const { one, two } = await startPair();
    const elsewhere = await startNode({ id: 1, peers: { 2: NO_PORT } });
    const last = pattern(5_000_000, 3);
    expect(two.transport.send(1, [last])).toBe(true);
    two.transport.setPeers([nodeAt(1, elsewhere)], []);
    await Promise.all([has(elsewhere, 'up 2', 'bulk up 2'), has(one, 'lost 2')]);
    await two.until(() => two.allEvents.length === 6);
    expect(two.allEvents).toEqual(['up 1', 'bulk up 1', 'bulk lost 1', 'lost 1', 'up 1', 'bulk up 1']);
    expect(one.frames[0]?.frame.equals(last)).toBe(true);
    two.transport.send(1, [Buffer.from('new')]);
    await elsewhere.until(() => elsewhere.frames.length === 1);
    expect(one.frames.length).toBe(1);
    expect(two.transport.stats().peers[0]).toMatchObject({ up: true, reconnects: 1 });
  });

  it('is dialed there at once, though the dial before had not come to its end', async () => {
    const manual = createManualClock();
    const one = await startNode({ id: 1, peers: { 2: NO_PORT } });
    const two = await startNode({ id: 2, peers: { 1: NO_PORT }, clock: manual.clock });
    await manual.until(() => manual.scheduled.some((delay) => delay < 20));
    two.transport.setPeers([nodeAt(1, one)], []);
    await has(two, 'up 1');
    expect(two.events).toEqual(['up 1']);
  });
});

describe('a node that was removed', () => {
  for (const [removed, left] of [
    [1, 2],
    [2, 1],
  ] as const) {
    it(`hears so with the last of its link, as node ${removed} of two`, async () => {
      const { one, two } = await startPair();
      const [gone, other] = removed === 1 ? [one, two] : [two, one];
      expect(other.transport.send(removed, [Buffer.from('farewell')])).toBe(true);
      other.transport.setPeers([], [removed]);
      await has(gone, `removed ${left}`);
      expect(gone.frames.map(({ frame }) => frame.toString())).toEqual(['farewell']);
      expect(gone.events).toEqual([`up ${left}`, `lost ${left}`, `removed ${left}`]);
      expect(count(other, `removed ${removed}`)).toBe(0);
      const warning = gone.logs.find(({ fields }) => fields['code'] === 'PEER_REFUSED');
      expect(warning?.message).toContain(`node ${removed} was removed from the cluster`);
    });

    it(`and comes later hears so, as node ${removed} of two`, async () => {
      const limits = { probeMs: 20 };
      const other = await startNode({ id: left, peers: {}, limits });
      other.transport.setPeers([], [removed]);
      const gone = await startNode({ id: removed, peers: { [left]: other.transport.port }, limits });
      await has(gone, `removed ${left}`);
      expect(gone.events.includes(`up ${left}`)).toBe(false);
    });
  }

  it('and added again is a peer', async () => {
    const one = await startNode({ id: 1, peers: {} });
    one.transport.setPeers([at(2, NO_PORT)], [2]);
    await dialAs(2, 1, one.transport.port);
    await has(one, 'up 2');
  });

  it('is told from one that was never known', async () => {
    const one = await startNode({ id: 1, peers: {} });
    one.transport.setPeers([], [2]);
    for (const [id, code] of [
      [2, 'removed'],
      [3, 'unknownPeer'],
    ] as const) {
      const peer = dialRaw(one.transport.port);
      peer.write(helloFrom(id, 1));
      await peer.until(() => peer.closed);
      expect(peer.received.map(({ payload }) => decodeRefusal(payload).code)).toEqual([code]);
    }
    expect(one.events).toEqual(['unknown peer 3']);
  });
});

describe('a node that waits to be dialed', () => {
  it('probes after a while, is told that it is a peer and goes on waiting, without alarm', async () => {
    const manual = createManualClock();
    const two = await startNode({ id: 2, peers: { 1: NO_PORT }, limits: { redialMsMin: 1000, redialMsMax: 1000 } });
    const one = await startNode({ id: 1, peers: { 2: two.transport.port }, clock: manual.clock });
    const wait = DEFAULT_LIMITS.probeMs * 0.75;
    const waits = () => manual.scheduled.filter((delay) => delay === wait).length;
    expect(manual.scheduled).toEqual([wait]);
    for (let probe = 1; probe <= 3; probe++) {
      manual.advance(wait);
      await manual.until(() => waits() === probe + 1);
      expect(one.transport.stats().peers[0]?.refusals).toBe(probe);
    }
    expect(one.allEvents).toEqual([]);
    expect(one.logs.filter(({ level }) => level === 'warn')).toEqual([]);
    two.transport.setPeers([nodeAt(1, one)], []);
    await has(one, 'up 2', 'bulk up 2');
    // A node that has a link sends no probe: one timer for each of the two connections is all.
    expect(manual.pending()).toBe(2);
  });
});

describe('many changes of peers', () => {
  it('leave no socket and no timer behind', async () => {
    const before = await openSockets();
    const manual = createManualClock();
    const { clock } = manual;
    const listeners = await Promise.all([1, 2].map((id) => startNode({ id, peers: { 9: NO_PORT }, clock })));
    const node = await startNode({ id: 9, peers: {}, clock });
    const all = listeners.map((listener, i) => nodeAt(i + 1, listener));
    for (let round = 1; round <= 60; round++) {
      node.transport.setPeers(round % 3 ? all : [...all, at(3, NO_PORT), at(20, NO_PORT)], []);
      if (round % 2) await Promise.all([has(node, 'bulk up 1'), new Promise(setImmediate)]);
      node.transport.setPeers(round % 5 ? [] : all.map(({ id, port }) => ({ id, host: 'localhost', port })), [1]);
    }
    node.transport.setPeers([], []);
    await node.until(
      () => count(node, 'up 1') === count(node, 'lost 1') && count(node, 'up 2') === count(node, 'lost 2'),
    );
    await Promise.all(
      listeners.map((listener) => listener.until(() => listener.transport.stats().peers[0]?.up === false)),
    );
    for (const listener of listeners) listener.transport.setPeers([], []);
    const isQuiet = () => listeners.every(({ transport }) => transport.stats().pendingHandshakes === 0);
    while (manual.pending() > 0 || !isQuiet()) await new Promise(setImmediate);
    expect(await openSockets()).toBe(before + 3);
    await Promise.all([...listeners, node].map(({ transport }) => transport.stop()));
    expect([manual.pending(), await openSockets()]).toEqual([0, before]);
  });

  it('do nothing once the node stops', async () => {
    const { one, two } = await startPair();
    const stopped = two.transport.stop();
    two.transport.setPeers([nodeAt(1, one), at(7, NO_PORT)], []);
    await stopped;
    expect([two.transport.isUp(1), two.allEvents]).toEqual([false, ['up 1', 'bulk up 1']]);
  });
});
