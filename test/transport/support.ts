import { connect, createServer, type Server, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { type Clock, systemClock } from '../../src/base/clock.ts';
import type { Logger } from '../../src/base/logger.ts';
import type { TlsIdentity } from '../../src/base/tls.ts';
import {
  FRAME_BYTES_MAX,
  FRAME_HEADER_BYTES,
  FrameDecoder,
  type FrameType,
  writeFrameHeader,
} from '../../src/transport/frame.ts';
import { type Channel, encodeHello } from '../../src/transport/handshake.ts';
import { TcpTransport } from '../../src/transport/transport.ts';
import type { TransportLimits } from '../../src/transport/types.ts';
import { createSignal } from '../support/manual-clock.ts';

export const HOST = '127.0.0.1';
/** For peers that this node never dials. */
export const NO_PORT = 1;

export function frameOf(type: FrameType, ...parts: Buffer[]): Buffer {
  const payload = Buffer.concat(parts);
  const header = Buffer.alloc(FRAME_HEADER_BYTES);
  writeFrameHeader(header, 0, type, parts, payload.length);
  return Buffer.concat([header, payload]);
}

/** Bytes that differ from one seed and place to the next, so that a lost or swapped piece shows. */
export function pattern(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * 31 + (i >>> 8) * 7 + seed) & 0xff;
  return bytes;
}

interface LogRecord {
  readonly level: string;
  readonly message: string;
  readonly fields: Record<string, unknown>;
}

export interface NodeOptions {
  readonly id: number;
  /** Port by id of the other nodes. */
  readonly peers: Readonly<Record<number, number>>;
  readonly clusterName?: string;
  readonly incarnation?: number;
  readonly port?: number;
  readonly clock?: Clock;
  readonly limits?: Partial<TransportLimits>;
  readonly random?: () => number;
  readonly tls?: TlsIdentity;
  readonly onFrame?: (peer: number, frame: Buffer) => void;
  readonly onBulkFrame?: (peer: number, frame: Buffer) => void;
  readonly clusterId?: string;
  readonly beforeStart?: (transport: TcpTransport) => void;
  /** Called at each event, after it was recorded. */
  readonly onEvent?: (event: string, node: TestNode) => void;
}

export interface TestNode {
  readonly transport: TcpTransport;
  /** 'up 2', 'lost 2', 'removed 2', in order. */
  readonly events: string[];
  /** What each link that came up said of the other end's cluster id. */
  readonly clusterIds: string[];
  /** Those, and 'bulk up 2' and 'bulk lost 2' among them. */
  readonly allEvents: string[];
  readonly frames: { readonly peer: number; readonly frame: Buffer }[];
  readonly bulkFrames: { readonly peer: number; readonly frame: Buffer }[];
  readonly logs: LogRecord[];
  until(condition: () => boolean): Promise<void>;
}

const cleanups: (() => Promise<void> | void)[] = [];

/** For afterEach: ends all that the helpers of this file have started. */
export async function cleanUp(): Promise<void> {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
}

export async function startNode(options: NodeOptions): Promise<TestNode> {
  const signal = createSignal();
  const events: string[] = [];
  const allEvents: string[] = [];
  const clusterIds: string[] = [];
  const frames: TestNode['frames'] = [];
  const bulkFrames: TestNode['bulkFrames'] = [];
  const logs: LogRecord[] = [];
  const record = (level: string) => (fields: object, message: string) => {
    logs.push({ level, message, fields: { ...fields } });
    signal.changed();
  };
  const logger: Logger = {
    debug: record('debug'),
    info: record('info'),
    warn: record('warn'),
    error: record('error'),
  };
  const transport = new TcpTransport({
    selfId: options.id,
    clusterName: options.clusterName ?? 'test',
    clusterId: options.clusterId ?? '',
    incarnation: options.incarnation ?? 1,
    listen: { host: HOST, port: options.port ?? 0 },
    peers: Object.entries(options.peers).map(([id, port]) => ({ id: Number(id), host: HOST, port })),
    clock: options.clock ?? systemClock,
    random: options.random ?? (() => 0.5),
    logger,
    limits: options.limits ?? {},
    tls: options.tls ?? null,
  });
  const node: TestNode = { transport, events, clusterIds, allEvents, frames, bulkFrames, logs, until: signal.until };
  const recordEvent = (event: string) => {
    allEvents.push(event);
    if (!event.startsWith('bulk')) events.push(event);
    options.onEvent?.(event, node);
    signal.changed();
  };
  cleanups.push(() => transport.stop());
  options.beforeStart?.(transport);
  await transport.start({
    onFrame(peer, frame) {
      options.onFrame?.(peer, frame);
      frames.push({ peer, frame });
      signal.changed();
    },
    onLinkUp(peer, clusterId) {
      clusterIds.push(clusterId);
      recordEvent(`up ${peer}`);
    },
    onLinkLost: (peer) => recordEvent(`lost ${peer}`),
    onBulkFrame(peer, frame) {
      options.onBulkFrame?.(peer, frame);
      bulkFrames.push({ peer, frame });
      signal.changed();
    },
    onBulkUp: (peer) => recordEvent(`bulk up ${peer}`),
    onBulkLost: (peer) => recordEvent(`bulk lost ${peer}`),
    onRemoved: (peer) => recordEvent(`removed ${peer}`),
    onUnknownPeer: (peer) => recordEvent(`unknown peer ${peer}`),
    onForeignPeer: (peer) => recordEvent(`foreign peer ${peer}`),
  });
  return node;
}

export interface RawPeer {
  readonly socket: Socket;
  readonly received: { readonly type: FrameType; readonly payload: Buffer }[];
  /** Sizes of the chunks in which bytes came. */
  readonly chunks: number[];
  closed: boolean;
  write(...frames: Buffer[]): void;
  until(condition: () => boolean): Promise<void>;
}

/** A peer made by hand, to say what a well-behaved one never would. It answers nothing by itself. */
function rawPeer(socket: Socket): RawPeer {
  const signal = createSignal();
  const received: { type: FrameType; payload: Buffer }[] = [];
  const decoder = new FrameDecoder(FRAME_BYTES_MAX, (type, payload) => received.push({ type, payload }));
  const peer: RawPeer = {
    socket,
    received,
    chunks: [],
    closed: false,
    write: (...frames) => {
      socket.write(Buffer.concat(frames));
    },
    until: signal.until,
  };
  cleanups.push(() => {
    socket.destroy();
    return peer.until(() => peer.closed);
  });
  socket.on('data', (chunk: Buffer) => {
    peer.chunks.push(chunk.length);
    decoder.push(chunk);
    signal.changed();
  });
  socket.on('error', () => {});
  socket.on('close', () => {
    peer.closed = true;
    signal.changed();
  });
  return peer;
}

export function helloFrom(
  fromId: number,
  toId: number,
  clusterName = 'test',
  incarnation = 1,
  channel: Channel = 'main',
): Buffer {
  return frameOf('hello', encodeHello({ selfId: fromId, clusterName, incarnation, clusterId: '' }, toId, channel));
}

export function dialRaw(port: number): RawPeer {
  return rawPeer(connect({ host: HOST, port, noDelay: true }));
}

/** Dials with TLS, trusting any server. */
export function dialTls(port: number, identity: Partial<TlsIdentity>): RawPeer {
  return rawPeer(connectTls({ host: HOST, port, ...identity, rejectUnauthorized: false }));
}

/** Dials as node `fromId` would and passes the handshake; resolves when the other end has answered the ping. */
export async function dialAs(
  fromId: number,
  toId: number,
  port: number,
  channel: Channel = 'main',
  incarnation = 1,
): Promise<RawPeer> {
  const peer = dialRaw(port);
  peer.write(helloFrom(fromId, toId, 'test', incarnation, channel));
  await peer.until(() => peer.received.length === 1);
  peer.write(frameOf('ping'));
  await peer.until(() => peer.received.length === 2);
  return peer;
}

/** A listener made by hand. */
export async function listenRaw(onPeer: (peer: RawPeer) => void): Promise<{ port: number; server: Server }> {
  const server = createServer((socket) => onPeer(rawPeer(socket)));
  await new Promise<void>((resolve) => server.listen({ host: HOST, port: 0 }, resolve));
  // Not awaited: it closes once its connections have, which are cleaned up by themselves.
  cleanups.push(() => {
    server.close();
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return { port: address.port, server };
}
