/**
 * What the transport reports: received frames, and links that come up or are lost. A frame arrives completely and once,
 * in the order in which frames were sent on its link, or not at all. The transport doesn't look into frames.
 */
export interface TransportEvents {
  /**
   * A frame of a peer was received. The callee owns `frame`, which doesn't change any more. If it throws
   * MESSAGE_INVALID, the link is closed; any other error is a bug and ends the process.
   */
  onFrame(peer: number, frame: Buffer): void;
  /**
   * A link is up: both ends have accepted the handshake. Frames that were sent on earlier links may have been lost.
   * `clusterId` is the cluster id of the peer's data directory while this link is up; empty if it has none.
   */
  onLinkUp(peer: number, clusterId: string): void;
  /** The link was lost. If a new connection of the peer replaces the link, this is called before `onLinkUp`. */
  onLinkLost(peer: number): void;
  /**
   * The same for the bulk link: a second connection to the same peer for long frames that are not urgent, so that the
   * frames of the main link never wait for them. The bulk link may be lost while the main link stays up.
   */
  onBulkFrame(peer: number, frame: Buffer): void;
  onBulkUp(peer: number): void;
  onBulkLost(peer: number): void;
  /** The peer refused or closed a link because this node was removed from the cluster. */
  onRemoved(peer: number): void;
  /**
   * A node asked for a link and was refused, because it is neither a peer nor a removed member. Its cluster name,
   * cluster id and certificate are those of this cluster. Called each time that it asks.
   */
  onUnknownPeer(peer: number): void;
  /**
   * A link was refused because the data directory of the peer belongs to another history than that of this node. `text`
   * names both cluster ids. Called each time that one of the two nodes asks for a link.
   */
  onForeignPeer(peer: number, text: string): void;
}

/** A node with which links are kept. */
export interface PeerAddress {
  readonly id: number;
  readonly host: string;
  readonly port: number;
}

export interface Transport {
  /**
   * Begins to listen and to dial.
   * @throws RaftkvError PORT_UNAVAILABLE
   */
  start(events: TransportEvents): Promise<void>;
  /**
   * Sends one frame that consists of `parts`, which the caller must not change afterwards. Returns false and drops the
   * frame if the link is down or its buffer is full. All frames that one callback of the event loop sends are written
   * together when the callback has returned.
   * @throws RaftkvError FRAME_INVALID if the frame is longer than `FRAME_BYTES_MAX`
   */
  send(peer: number, parts: readonly Buffer[]): boolean;
  isUp(peer: number): boolean;
  /** Sends a frame on the bulk link; otherwise like `send`. */
  sendBulk(peer: number, parts: readonly Buffer[]): boolean;
  /**
   * Sets the nodes with which links are kept. Links to other nodes are closed after the frames sent to them were
   * written. A node of `removedIds` that asks for a link is told that it was removed. An entry for this node itself is
   * ignored.
   */
  setPeers(peers: readonly PeerAddress[], removedIds: readonly number[]): void;
  /**
   * To be called when the data directory of this node, which had no cluster id, has received one. All connections are
   * closed and made again. So both ends of every link know each other's cluster id.
   */
  setClusterId(clusterId: string): void;
  /**
   * Stops listening, and closes all links after the sent frames were written or `stopMsMax` has passed. Reports no
   * events.
   */
  stop(): Promise<void>;
}

/** The limits of the peer links. */
export interface TransportLimits {
  /**
   * The time limit of opening a connection: a peer on the same network takes a few ms. After it, the peer is dialed
   * again.
   */
  readonly connectMsMax: number;
  /** The time limit of a handshake on an open connection: two round trips, with room for a busy event loop. */
  readonly handshakeMsMax: number;
  /**
   * The number of accepted connections with unfinished handshakes. At the limit the oldest one is closed: a peer
   * finishes within a few ms, so the oldest is most likely not a peer. Bounds the file descriptors of unknown clients.
   */
  readonly pendingHandshakesMax: number;
  /** The number of connections that the system keeps until they are accepted: enough for many at the same time. */
  readonly backlog: number;
  /**
   * The bytes that wait to be sent on one link. Room for seven of the largest batches (9 MiB), which take about half a
   * second on a gigabit network. If a peer is further behind, frames are dropped, and later it gets the entries from
   * the log.
   */
  readonly linkBufferBytesMax: number;
  /**
   * The same for a bulk link, on which the receiver requests piece after piece: room for one frame of the maximum
   * length and some pieces of a snapshot.
   */
  readonly bulkBufferBytesMax: number;
  /**
   * The bytes that a bulk connection reads, and those that it writes, in one turn of the event loop: about 0.1 ms of
   * work. Without a limit, reading up to 2 MiB or encrypting a long frame would delay everything else for many ms.
   */
  readonly bulkTurnBytes: number;
  /** If nothing was received on a link for this long, a ping is sent. */
  readonly keepAliveMs: number;
  /**
   * A link is closed after this many intervals of `keepAliveMs` in a row in which nothing was received. Intervals are
   * counted rather than time measured, so that a process that was paused itself doesn't close its links.
   */
  readonly silentKeepAlivesMax: number;
  /**
   * The first wait before dialing again, doubled after each failure. Short, because a restarting process is back soon.
   */
  readonly redialMsMin: number;
  /**
   * The longest wait before dialing again. Shorter than the default election timeout (300 ms), and still a dead peer is
   * dialed only four to eight times a second.
   */
  readonly redialMsMax: number;
  /**
   * The longest wait after a refusal. It is longer, because only a change of the configuration or a restart can help.
   * It is below three default election timeouts (900 ms), for which a node that would bootstrap a cluster alone listens
   * for others.
   */
  readonly refusedRedialMs: number;
  /**
   * The longest wait of a node that waits to be dialed before it sends a probe (dials by itself). If it was removed
   * while it was down, no peer dials it, and the refusal of the probe says why. The shortest wait, half of it, is
   * longer than `redialMsMax`, so that a peer that dials comes first. It is not longer than `refusedRedialMs`, for the
   * same reason.
   */
  readonly probeMs: number;
  /**
   * If a link was up for this long, its loss resets the wait before dialing again. A shorter one counts as a failure.
   */
  readonly soundLinkMs: number;
  /** How long sent frames may take to be written when the node stops or the peer is removed. */
  readonly stopMsMax: number;
  /** A warning of the same kind about the same peer is logged at most this often. */
  readonly repeatedWarningMs: number;
}

export const DEFAULT_LIMITS: TransportLimits = {
  connectMsMax: 1000,
  handshakeMsMax: 2000,
  pendingHandshakesMax: 64,
  backlog: 1024,
  linkBufferBytesMax: 64 * 1024 * 1024,
  bulkBufferBytesMax: 40 * 1024 * 1024,
  bulkTurnBytes: 256 * 1024,
  keepAliveMs: 1000,
  silentKeepAlivesMax: 5,
  redialMsMin: 10,
  redialMsMax: 250,
  refusedRedialMs: 800,
  probeMs: 800,
  soundLinkMs: 5000,
  stopMsMax: 1000,
  repeatedWarningMs: 10_000,
};
