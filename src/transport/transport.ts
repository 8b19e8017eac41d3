import type { AddressInfo, Server, Socket } from 'node:net';
import type { Clock } from '../base/clock.ts';
import { RaftkvError } from '../base/errors.ts';
import { createRateLimitedLog, type Logger, type RateLimitedLog } from '../base/logger.ts';
import type { TlsIdentity } from '../base/tls.ts';
import { Connection, type ConnectionContext, type ConnectionOwner } from './connection.ts';
import { encodeHello, type LocalIdentity } from './handshake.ts';
import { PeerSet, type PeerStats } from './peers.ts';
import { createTlsSockets, plainSockets, type Sockets } from './sockets.ts';
import {
  DEFAULT_LIMITS,
  type PeerAddress,
  type Transport,
  type TransportEvents,
  type TransportLimits,
} from './types.ts';

/**
 * The links between the nodes of a cluster. What this folder promises:
 *
 * - There is one main link (a TCP connection) per pair of nodes, which is made again when it is lost. Frames arrive
 *   complete, verified, once and in order, or the link is lost. If the process of a peer dies, its link is lost at
 *   once; if a peer is silent, within a few seconds.
 * - While the main link is up, there is a second one, the bulk link, so that long frames don't delay urgent ones. The
 *   loss of the bulk link doesn't affect the main link. When the main link is lost, the bulk link is closed.
 * - Peers and their addresses may change at any time. The links of unchanged peers stay up.
 * - Only the expected node of the same cluster and with the same protocol version gets a link. Otherwise both ends log
 *   why.
 * - A node of this cluster that is no peer gets no link, but is reported, because an uninitialized node must know of
 *   it.
 * - Unknown clients, invalid bytes and slow readers use a bounded number of sockets and bytes, and affect no other
 *   link.
 *
 * ```
 *   send ─▶ outbox ── one write per callback ─▶ socket ═══▶ peer            connection.ts: one socket, first byte to last
 *                                                                          peer-link.ts:  one channel to one peer
 *   onFrame ◀─ decoder ◀──────────────────────  socket ◀═══ peer            peers.ts: all peers, with both links of each
 *   onLinkUp, onLinkLost ◀─ peer link ◀─ handshake ◀─ dialed (from the higher id) or accepted (by the lower)
 * ```
 *
 * With `tls`, links are encrypted and each end must have a certificate of its node. Without it, nothing proves the
 * identity of a peer, so such peer ports must be in a private network.
 */
export interface TcpTransportOptions {
  readonly selfId: number;
  readonly clusterName: string;
  /** The cluster id of this node's data directory; empty if it has none. */
  readonly clusterId: string;
  /** The number of this node's incarnation (`Meta.incarnation`). */
  readonly incarnation: number;
  /** With port 0, the system chooses a free port; see `port`. */
  readonly listen: { readonly host: string; readonly port: number };
  /** The peers until `setPeers` is called. An entry for this node itself is ignored. */
  readonly peers: readonly PeerAddress[];
  readonly clock: Clock;
  /** Returns random numbers, uniform in [0, 1). */
  readonly random: () => number;
  readonly logger: Logger;
  readonly limits?: Partial<TransportLimits>;
  /** If it is null or absent, links are not encrypted. */
  readonly tls?: TlsIdentity | null;
}

interface TransportStats {
  readonly peers: readonly PeerStats[];
  /** The number of accepted connections with unfinished handshakes. */
  readonly pendingHandshakes: number;
  /** The number of accepted connections that ended before their handshake was complete, for any reason. */
  readonly rejected: number;
  /** How many of them were refused by one of the ends, and how many were closed because there were too many. */
  readonly refusals: number;
  readonly evictions: number;
}

export class TcpTransport implements Transport {
  readonly #options: TcpTransportOptions;
  readonly #limits: TransportLimits;
  readonly #local: LocalIdentity & { clusterId: string };
  readonly #rateLimitedLog: RateLimitedLog;
  #initialPeers: readonly PeerAddress[];
  #removedIds: ReadonlySet<number> = new Set();
  /** Null until `start`. */
  #peers: PeerSet | null = null;
  #listener: Server | null = null;
  #sockets: Sockets = plainSockets;
  #stopping = false;

  /** The accepted connections with unfinished handshakes, oldest first. At most `pendingHandshakesMax`. */
  readonly #pending = new Set<Connection>();
  readonly #pendingOwner: ConnectionOwner = {
    onUp: (connection) => this.#accepted(connection),
    onData() {},
    onClosed: (connection, why) => this.#rejected(connection, why),
  };
  readonly #counters = { rejected: 0, refusals: 0, evictions: 0 };

  /** @throws RaftkvError CONFIG_INVALID if the cluster name is too long for a hello */
  constructor(options: TcpTransportOptions) {
    const { selfId, clusterName, incarnation, clock, logger } = options;
    this.#options = options;
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#initialPeers = options.peers;
    this.#local = {
      selfId,
      clusterName,
      incarnation,
      isPeer: (id) => this.#peers?.get(id) !== undefined,
      isRemoved: (id) => this.#removedIds.has(id),
      clusterId: options.clusterId,
    };
    encodeHello(this.#local, selfId);
    this.#rateLimitedLog = createRateLimitedLog(clock, logger, this.#limits.repeatedWarningMs);
  }

  async start(events: TransportEvents): Promise<void> {
    const { clock, random, logger, tls, clusterName, listen } = this.#options;
    const limits = this.#limits;
    const rateLimitedLog = this.#rateLimitedLog;
    if (tls) {
      const guard = { clock, rateLimitedLog, portName: 'the peer port', handshakeMsMax: limits.handshakeMsMax };
      this.#sockets = await createTlsSockets(tls, clusterName, guard);
    }
    const sockets = this.#sockets;
    const context = { local: this.#local, clock, limits, sockets, random, logger, rateLimitedLog, events };
    this.#listener = await listenOn(sockets, listen, limits.backlog, (socket) => this.#accept(socket, context));
    this.#listener.on('error', (error) => rateLimitedLog.warn('listener', error, {}));
    this.#peers = new PeerSet(context);
    this.#peers.set(this.#initialPeers, this.#removedIds);
  }

  send(peer: number, parts: readonly Buffer[]): boolean {
    return this.#peers?.get(peer)?.main.send(parts) ?? false;
  }

  isUp(peer: number): boolean {
    return this.#peers?.get(peer)?.main.isUp ?? false;
  }

  sendBulk(peer: number, parts: readonly Buffer[]): boolean {
    return this.#peers?.get(peer)?.bulk.send(parts) ?? false;
  }

  setPeers(wanted: readonly PeerAddress[], removedIds: readonly number[]): void {
    this.#initialPeers = wanted;
    this.#removedIds = new Set(removedIds);
    this.#peers?.set(wanted, this.#removedIds);
  }

  setClusterId(clusterId: string): void {
    this.#local.clusterId = clusterId;
    for (const connection of [...this.#pending]) connection.close(null);
    this.#peers?.remake(
      new Error('this node has become part of a cluster: its links are made again under the cluster id'),
    );
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    for (const connection of [...this.#pending]) connection.close(null);
    const closed = this.#listener === null ? null : closing(this.#listener);
    this.#listener = null;
    this.#sockets.endHandshakes();
    await this.#peers?.stop();
    await closed;
  }

  /** The port on which the transport listens; 0 if it doesn't. */
  get port(): number {
    const address = this.#listener?.address() as AddressInfo | null | undefined;
    return address?.port ?? 0;
  }

  stats(): TransportStats {
    return { peers: this.#peers?.stats() ?? [], pendingHandshakes: this.#pending.size, ...this.#counters };
  }

  /** Uses this certificate for new links. Has no effect if links are not encrypted. */
  replaceIdentity(identity: TlsIdentity): void {
    this.#sockets.replaceIdentity(identity);
  }

  #accept(socket: Socket, context: ConnectionContext): void {
    const [oldest] = this.#pending;
    if (oldest !== undefined && this.#pending.size >= this.#limits.pendingHandshakesMax) {
      this.#counters.evictions += 1;
      oldest.close(new Error('too many unfinished handshakes at the peer port'));
    }
    this.#pending.add(new Connection(socket, null, this.#pendingOwner, context));
  }

  #accepted(connection: Connection): void {
    this.#pending.delete(connection);
    if (this.#peers?.get(connection.peerId)?.take(connection)) return;
    connection.close(new Error(`node ${connection.peerId} is no longer a peer`));
  }

  #rejected(connection: Connection, why: Error | null): void {
    this.#pending.delete(connection);
    if (this.#stopping) return;
    this.#counters.rejected += 1;
    const code = why instanceof RaftkvError ? why.code : 'none';
    if (code === 'PEER_REFUSED') this.#counters.refusals += 1;
    if (why === null) return;
    this.#rateLimitedLog.warn(`rejected connection ${code}`, why, { claimedPeer: connection.peerId });
  }
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
