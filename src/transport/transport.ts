import type { AddressInfo, Server, Socket } from 'node:net';
import type { Clock } from '../base/clock.ts';
import { RaftkvError } from '../base/errors.ts';
import { createRateLimitedLog, type Logger } from '../base/logger.ts';
import type { TlsIdentity } from '../base/tls.ts';
import { type Connection, type ConnectionContext, type ConnectionOwner, createConnection } from './connection.ts';
import { encodeHello, type LocalIdentity } from './handshake.ts';
import type { PeerStats } from './peer.ts';
import { createPeerSet, type PeerSet } from './peer-set.ts';
import { createTlsSockets, plainSockets, type Sockets } from './sockets.ts';
import { DEFAULT_LIMITS, type PeerAddress, type Transport, type TransportLimits } from './types.ts';

/**
 * The links between the nodes of a cluster. What this folder promises:
 *
 * - One TCP link per pair of nodes, made again whenever it breaks; frames arrive whole, checked, once, in order, or the
 *   link is lost. A peer whose process dies is reported lost at once, one that falls silent within a few seconds.
 * - Beside it a bulk link of the same kind while the first stands, so that what is long never holds up what is urgent.
 *   Its loss is its own; when the main link is lost, the bulk link is lost with it.
 * - Who is a peer, and where, may change at any time; the links of those that stay are not touched.
 * - Only the expected node of the same cluster, speaking the same protocol, gets a link. Otherwise both ends log why.
 * - A node of this cluster that is no peer gets no link, but is reported: an uninitialized node must know of it.
 * - Unknown peers, garbage and slow readers cost a bounded number of sockets and bytes, and never another peer's link.
 *
 * ```
 *   send ─▶ outbox ── one write per callback ─▶ socket ═══▶ peer            connection.ts: one socket, first byte to last
 *                                                                          peer-link.ts:  one channel to one peer
 *   onFrame ◀─ decoder ◀──────────────────────  socket ◀═══ peer            peers.ts: both channels of a peer, all peers
 *   onLinkUp, onLinkLost ◀─ peer link ◀─ handshake ◀─ dialed (from the higher id) or accepted (by the lower)
 * ```
 *
 * With `tls`, links are encrypted, and each end has to show a certificate of its node. Without, they are known by the
 * cluster's name only: such peer ports belong on a private network.
 */
export interface TcpTransportOptions {
  readonly selfId: number;
  readonly clusterId: string;
  /** How often this node has started on its data directory. */
  readonly incarnation: number;
  /** Port 0 takes any free one; see `port()`. */
  readonly listen: { readonly host: string; readonly port: number };
  /** The other nodes, until `setPeers` says otherwise. An entry for this node itself is ignored. */
  readonly peers: readonly PeerAddress[];
  readonly clock: Clock;
  /** At least 0, below 1. */
  readonly random: () => number;
  readonly logger: Logger;
  readonly limits?: Partial<TransportLimits>;
  /** Null or absent: links are plain. */
  readonly tls?: TlsIdentity | null;
}

interface TransportStats {
  readonly peers: readonly PeerStats[];
  /** Accepted connections that have not shown who they are yet. */
  readonly pendingHandshakes: number;
  /** Accepted connections that ended before they did, for whatever reason. */
  readonly rejected: number;
  /** Those of `rejected` that were refused by name, and those that had to make room for others. */
  readonly refusals: number;
  readonly evictions: number;
}

export interface TcpTransport extends Transport {
  /** The port it listens on, once started; 0 before. */
  port(): number;
  stats(): TransportStats;
  /** For links made from now on; where links are plain it changes nothing. */
  replaceIdentity(identity: TlsIdentity): void;
}

export function createTcpTransport(options: TcpTransportOptions): TcpTransport {
  const { selfId, clock, logger } = options;
  const limits: TransportLimits = { ...DEFAULT_LIMITS, ...options.limits };
  /** Null until `start`. */
  let peers: PeerSet | null = null;
  let initialPeers = options.peers;
  let removedIds: ReadonlySet<number> = new Set();
  const local: LocalIdentity = {
    selfId,
    clusterId: options.clusterId,
    incarnation: options.incarnation,
    isPeer: (id) => peers?.get(id) !== undefined,
    isRemoved: (id) => removedIds.has(id),
  };
  encodeHello(local, selfId);
  const rateLimitedLog = createRateLimitedLog(clock, logger, limits.repeatedWarningMs);

  /** Accepted and not yet through the handshake, oldest first; never more than `pendingHandshakesMax`. */
  const pending = new Set<Connection>();
  const counters = { rejected: 0, refusals: 0, evictions: 0 };
  let listener: Server | null = null;
  let sockets: Sockets = plainSockets;
  let stopping = false;

  const pendingOwner: ConnectionOwner = {
    onUp(connection) {
      pending.delete(connection);
      if (peers?.get(connection.peerId)?.take(connection)) return;
      connection.close(new Error(`node ${connection.peerId} is no longer a peer`));
    },
    onData() {},
    onClosed(connection, why) {
      pending.delete(connection);
      rejected(connection, why);
    },
  };

  function rejected(connection: Connection, why: Error | null): void {
    if (stopping) return;
    counters.rejected += 1;
    const code = why instanceof RaftkvError ? why.code : 'none';
    if (code === 'PEER_REFUSED') counters.refusals += 1;
    if (why !== null) rateLimitedLog.warn(`rejected connection ${code}`, why, { claimedPeer: connection.peerId });
  }

  function accept(socket: Socket, context: ConnectionContext): void {
    const [oldest] = pending;
    if (oldest !== undefined && pending.size >= limits.pendingHandshakesMax) {
      counters.evictions += 1;
      oldest.close(new Error('too many unfinished handshakes at the peer port'));
    }
    pending.add(createConnection(socket, null, pendingOwner, context));
  }

  return {
    async start(events) {
      if (options.tls) {
        const guard = { clock, rateLimitedLog, portName: 'the peer port', handshakeMsMax: limits.handshakeMsMax };
        sockets = await createTlsSockets(options.tls, options.clusterId, guard);
      }
      const context = { local, clock, limits, sockets, random: options.random, logger, rateLimitedLog, events };
      listener = await listenOn(sockets, options.listen, limits.backlog, (socket) => accept(socket, context));
      listener.on('error', (error) => rateLimitedLog.warn('listener', error, {}));
      peers = createPeerSet(context);
      peers.set(initialPeers, removedIds);
    },
    send: (peer, parts) => peers?.get(peer)?.main.send(parts) ?? false,
    isUp: (peer) => peers?.get(peer)?.main.isUp() ?? false,
    sendBulk: (peer, parts) => peers?.get(peer)?.bulk.send(parts) ?? false,
    setPeers(wanted, removed) {
      initialPeers = wanted;
      removedIds = new Set(removed);
      peers?.set(wanted, removedIds);
    },
    async stop() {
      stopping = true;
      for (const connection of [...pending]) connection.close(null);
      const closed = listener === null ? null : closing(listener);
      listener = null;
      sockets.endHandshakes();
      await peers?.stop();
      await closed;
    },
    port() {
      const address = listener?.address() as AddressInfo | null | undefined;
      return address?.port ?? 0;
    },
    replaceIdentity: (identity) => sockets.replaceIdentity(identity),
    stats: () => ({
      peers: peers?.stats() ?? [],
      pendingHandshakes: pending.size,
      ...counters,
    }),
  };
}

function listenOn(
  sockets: Sockets,
  { host, port }: { host: string; port: number },
  backlog: number,
  onSocket: (socket: Socket) => void,
): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = sockets.createListener(onSocket);
    const fail = (cause: Error) =>
      reject(
        new RaftkvError(
          'PORT_UNAVAILABLE',
          `cannot listen on ${host}:${port} for the peer port: ${cause.message}`,
          'Free the port, or give this node another host or peerPort in cluster.json.',
          cause,
        ),
      );
    server.once('error', fail);
    server.listen({ host, port, backlog }, () => {
      server.off('error', fail);
      resolve(server);
    });
  });
}

function closing(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
  });
}
