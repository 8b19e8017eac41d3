import { connect } from 'node:net';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { nodeUri } from '../../src/base/node-names.ts';
import type { TlsIdentity } from '../../src/base/tls.ts';
import { EXPIRED, newAuthority, type TestAuthority } from '../support/certificates.ts';
import { createManualClock } from '../support/manual-clock.ts';
import { cleanUp, dialRaw, dialTls, frameOf, HOST, helloFrom, NO_PORT, type RawPeer, startNode } from './support.ts';

let authority: TestAuthority;
let node1: TlsIdentity;
let node2: TlsIdentity;
beforeAll(async () => {
  authority = await newAuthority();
  [node1, node2] = await Promise.all([authority.node(1), authority.node(2)]);
});
afterEach(cleanUp);

/** The lower id listens, the higher dials. */
const listening = () => startNode({ id: 1, peers: { 2: NO_PORT }, tls: node1 });

/** Greets as node 2 would. */
async function greet(peer: RawPeer): Promise<void> {
  peer.write(helloFrom(2, 1));
  await peer.until(() => peer.closed || peer.received.length > 0);
}

describe('links with TLS', () => {
  it('stand between two nodes that show their own certificates, and carry frames both ways', async () => {
    const one = await listening();
    const two = await startNode({ id: 2, peers: { 1: one.transport.port }, tls: node2 });
    await Promise.all([one.until(() => one.events.length > 0), two.until(() => two.events.length > 0)]);
    expect([one.events, two.events]).toEqual([['up 2'], ['up 1']]);
    const large = Buffer.alloc(3_000_000, 'x');
    expect(two.transport.send(1, [large])).toBe(true);
    expect(one.transport.send(2, [Buffer.from('back')])).toBe(true);
    await one.until(() => one.frames.length === 1);
    await two.until(() => two.frames.length === 1);
    expect(one.frames[0]?.frame.equals(large)).toBe(true);
    expect(two.frames[0]?.frame.toString()).toBe('back');
  });

  const untrusted: readonly [who: string, identity: () => Promise<Partial<TlsIdentity>>, logged: RegExp][] = [
    ['nothing to show', async () => ({}), /the client sent no certificate/],
    ['a certificate of another authority', async () => (await newAuthority()).node(2), /certificate was rejected/],
    [
      'an expired one',
      async () => authority.issue({ commonName: 'x', uris: [nodeUri('test', 2)], hosts: [HOST], validity: EXPIRED }),
      /CERT_HAS_EXPIRED/,
    ],
  ];
  it.each(untrusted)('are refused to one with %s before it can say a word', async (_, identity, logged) => {
    const one = await listening();
    const unknown = dialTls(one.transport.port, await identity());
    await greet(unknown);
    await unknown.until(() => unknown.closed);
    expect(unknown.received).toEqual([]);
    await one.until(() => one.logs.some(({ message }) => logged.test(message)));
    expect(one.events).toEqual([]);
  });

  const impostors: readonly [who: string, identity: () => Promise<TlsIdentity>][] = [
    ['a client of the cluster', () => authority.client()],
    ['another node of the cluster', () => authority.node(3)],
    ['the node of that id in another cluster', () => authority.node(2, 'other')],
    ['one whose common name says so', () => authority.issue({ commonName: nodeUri('test', 2), hosts: [HOST] })],
    [
      'one whose DNS name looks like it',
      () => authority.issue({ commonName: 'x', hosts: [`a, URI:${nodeUri('test', 2)}, b`] }),
    ],
    [
      'one whose URI looks like it',
      () => authority.issue({ commonName: 'x', uris: [`x:y, URI:${nodeUri('test', 2)}, x:z`] }),
    ],
    ['one whose URI begins like it', () => authority.issue({ commonName: 'x', uris: [`${nodeUri('test', 2)}2`] })],
  ];
  it.each(impostors)('are refused to %s that claims to be node 2', async (_, identity) => {
    const one = await listening();
    const impostor = dialTls(one.transport.port, await identity());
    await greet(impostor);
    expect(impostor.received.map(({ type }) => type)).toEqual(['refuse']);
    await impostor.until(() => impostor.closed);
    await one.until(() => one.logs.length > 0);
    expect(one.logs[0]).toMatchObject({ level: 'warn', fields: { code: 'PEER_REFUSED', claimedPeer: 0 } });
    expect(one.logs[0]?.message).toMatch(/certificate of the peer does not name node 2/);
    expect(one.events).toEqual([]);
  });

  it('are refused to a node that is no peer; it is heard of only where its certificate names it', async () => {
    const one = await startNode({ id: 1, peers: {}, tls: node1 });
    for (const [identity, heard] of [
      [await authority.node(3), []],
      [node2, ['unknown peer 2']],
    ] as const) {
      const unknown = dialTls(one.transport.port, identity);
      await greet(unknown);
      expect(unknown.received.map(({ type }) => type)).toEqual(['refuse']);
      await unknown.until(() => unknown.closed);
      expect(one.events).toEqual(heard);
    }
  });

  it('are granted to the certificate of the node itself', async () => {
    const one = await listening();
    const peer = dialTls(one.transport.port, node2);
    await greet(peer);
    expect(peer.received.map(({ type }) => type)).toEqual(['hello']);
    peer.write(frameOf('ping'));
    await one.until(() => one.events.includes('up 2'));
  });

  it('are refused to plain text', async () => {
    const one = await listening();
    const plain = dialRaw(one.transport.port);
    await greet(plain);
    expect(plain.received).toEqual([]);
    await one.until(() => one.logs.some(({ message }) => /the handshake failed/.test(message)));
  });

  it('are not made to a node that cannot show that it is the one dialed', async () => {
    const impostor = await startNode({ id: 1, peers: { 2: NO_PORT }, tls: await authority.node(3) });
    const two = await startNode({ id: 2, peers: { 1: impostor.transport.port }, tls: node2 });
    await two.until(() => two.logs.some(({ fields }) => fields['code'] === 'PEER_REFUSED'));
    expect(two.logs[0]?.message).toMatch(/the certificate is not that of node 1 of cluster "test"/);
    expect([two.events, impostor.events]).toEqual([[], []]);
  });

  it('are not made to a plain port, nor by a plain node', async () => {
    const plain = await startNode({ id: 1, peers: { 2: NO_PORT, 3: NO_PORT } });
    const two = await startNode({ id: 2, peers: { 1: plain.transport.port }, tls: node2 });
    await two.until(() => two.logs.length > 0);
    expect(two.events).toEqual([]);
    const secure = await startNode({ id: 1, peers: { 3: NO_PORT }, tls: node1 });
    const three = await startNode({ id: 3, peers: { 1: secure.transport.port } });
    await secure.until(() => secure.logs.length > 0);
    expect([secure.events, three.events]).toEqual([[], []]);
  });

  it('end a handshake that takes too long', async () => {
    const one = await startNode({ id: 1, peers: { 2: NO_PORT }, tls: node1, limits: { handshakeMsMax: 50 } });
    const silent = dialRaw(one.transport.port);
    await silent.until(() => silent.closed);
    expect(one.logs[0]?.message).toMatch(/no handshake within 50 ms/);
  });

  it('let the oldest unfinished handshake make room', async () => {
    const one = await listening();
    const first = dialRaw(one.transport.port);
    await new Promise((resolve) => first.socket.once('connect', resolve));
    const crowd = Array.from({ length: 256 }, () => connect({ host: HOST, port: one.transport.port }));
    await first.until(() => first.closed);
    const peer = dialTls(one.transport.port, node2);
    await greet(peer);
    expect(peer.received.map(({ type }) => type)).toEqual(['hello']);
    for (const socket of crowd) socket.destroy();
  });

  it('show another certificate from when it is replaced', async () => {
    const one = await listening();
    const other = await newAuthority();
    one.transport.replaceIdentity(await other.node(1));
    const two = await startNode({ id: 2, peers: { 1: one.transport.port }, tls: node2 });
    await two.until(() => two.logs.some(({ fields }) => fields['code'] === 'PEER_UNREACHABLE'));
    expect(two.events).toEqual([]);
    two.transport.replaceIdentity(await other.node(2));
    await one.until(() => one.events.includes('up 2'));
  });

  it('do not hold up a stop while a handshake is unfinished', async () => {
    const manual = createManualClock();
    const one = await startNode({ id: 1, peers: { 2: NO_PORT }, tls: node1, clock: manual.clock });
    const before = manual.pending();
    dialRaw(one.transport.port);
    await manual.until(() => manual.pending() > before);
    await one.transport.stop();
  });
});
