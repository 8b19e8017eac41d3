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
 *   onFrame ◀─ decoder ◀──────────────────────  socket ◀═══ peer            peers.ts: main and bulk of each, them all
 *   onLinkUp, onLinkLost ◀─ peer link ◀─ handshake ◀─ dialed (from the higher id) or accepted (by the lower)
 * ```
 *
 * With `tls`, links are encrypted, and each end has to show a certificate of its node. Without, they are known by the
 * cluster's name only: such peer ports belong on a private network.
 */
export interface TcpTransportOptions {
  readonly selfId: number;
  readonly clusterName: string;
  /** The cluster id of this node's data directory; empty while it has none. */
  readonly clusterId: string;
  /** The number of this start of the node. */
  readonly incarnation: number;
  /** Port 0 takes any free one; see `port`. */
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
  /** How many of `rejected` were refused with a reason, and how many had to make room for others. */
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

  /** Accepted and not yet through the handshake, oldest first; never more than `pendingHandshakesMax`. */
  readonly #pending = new Set<Connection>();
  readonly #pendingOwner: ConnectionOwner = {
    onUp: (connection) => this.#accepted(connection),
    onData() {},
    onClosed: (connection, why) => this.#rejected(connection, why),
  };
  readonly #counters = { rejected: 0, refusals: 0, evictions: 0 };

  /** @throws RaftkvError CONFIG_INVALID where the cluster name is too long to be told. */
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

  /** The port it listens on, once started; 0 before. */
  get port(): number {
    const address = this.#listener?.address() as AddressInfo | null | undefined;
    return address?.port ?? 0;
  }

  stats(): TransportStats {
    return { peers: this.#peers?.stats() ?? [], pendingHandshakes: this.#pending.size, ...this.#counters };
  }

  /** For links made from now on; where links are plain it changes nothing. */
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
