/**
 * Peers as the floors above see them: frames out, frames in, links that come and go. A frame arrives whole, once, and
 * in the order sent on one link, or not at all. What is inside a frame is not the transport's business.
 */
export interface TransportEvents {
  /**
   * `frame` is owned by the receiver and is never written to again. Throwing a RaftkvError MESSAGE_INVALID closes the
   * link; anything else thrown is a defect and ends the process.
   */
  onFrame(peer: number, frame: Buffer): void;
  /**
   * A link stands and the handshake is done. Nothing sent before has arrived unless its effect was seen. `clusterId` is that
   * of the peer's data directory, for as long as this link stands; empty where it has none yet.
   */
  onLinkUp(peer: number, clusterId: string): void;
  /** The link broke. A link that is replaced by a newer one of the same peer is first reported lost. */
  onLinkLost(peer: number): void;
  /**
   * The same for the bulk link: a second connection to the same peer, for what is long and can wait, so that nothing on
   * the first ever waits for it. It comes and goes by itself.
   */
  onBulkFrame(peer: number, frame: Buffer): void;
  onBulkUp(peer: number): void;
  onBulkLost(peer: number): void;
  /** The peer does not take this node for a member of the cluster: it was removed. */
  onRemoved(peer: number): void;
  /**
   * A node of this very cluster, by all that it can show, asked for a link and was refused: it is no peer of this one,
   * nor one that was removed. Called each time it asks.
   */
  onUnknownPeer(peer: number): void;
  /**
   * The data directory of the peer belongs to another history than this node's, so there is no link. `text` names both
   * cluster ids. Called each time one of the two asks.
   */
  onForeignPeer(peer: number, text: string): void;
}

/** A node to keep a link with. */
export interface PeerAddress {
  readonly id: number;
  readonly host: string;
  readonly port: number;
}

export interface Transport {
  /** Listens and starts to dial. Rejects with PORT_UNAVAILABLE. */
  start(events: TransportEvents): Promise<void>;
  /**
   * Sends one frame made of `parts` in order, which the caller must not change afterwards. False where there is no
   * link or its buffer is full: the frame is dropped. What one callback of the event loop sends leaves together, as
   * soon as that callback returns.
   * @throws RaftkvError FRAME_INVALID where the frame is longer than `FRAME_BYTES_MAX`.
   */
  send(peer: number, parts: readonly Buffer[]): boolean;
  isUp(peer: number): boolean;
  /** Sends a frame on the bulk link; otherwise like `send`. */
  sendBulk(peer: number, parts: readonly Buffer[]): boolean;
  /**
   * Whom to keep links with from now on; links to others are closed, after what was sent to them has left. `removedIds`
   * are told that they are no longer members when they come. An entry for this node itself is ignored.
   */
  setPeers(peers: readonly PeerAddress[], removedIds: readonly number[]): void;
  /**
   * This node's data directory has got a cluster id; it had none. All connections are closed, and made again under the id, so
   * that each link joins two ends that know of each other's ids.
   */
  setClusterId(clusterId: string): void;
  /** Closes all links and stops listening; frames that were sent before leave first, within a short limit. No event follows. */
  stop(): Promise<void>;
}

/** Every limit of the peer links, with its reason. */
export interface TransportLimits {
  /** A peer on the same network answers in a few ms; one that does not within this is dialed afresh. */
  readonly connectMsMax: number;
  /** The time limit of a handshake on an open connection: two round trips, with room for a busy event loop. */
  readonly handshakeMsMax: number;
  /**
   * Connections that have not shown who they are. At the limit the oldest makes room: a true peer needs a few ms, so
   * unauthenticated connections are closed, and they hold at most this many file descriptors.
   */
  readonly pendingHandshakesMax: number;
  /** Connections that the system holds until they are accepted, one per turn: room for a crowd that all come at once. */
  readonly backlog: number;
  /**
   * Bytes that wait to leave on one link. Room for eight of the largest batches, about half a second of a gigabit
   * network: a peer further behind than that is better served from the log when it has caught its breath.
   */
  readonly linkBufferBytesMax: number;
  /**
   * The same for a bulk link, whose frames are asked for piece by piece: room for one of the longest, and some pieces.
   */
  readonly bulkBufferBytesMax: number;
  /**
   * A bulk connection reads and writes so many bytes, then lets the rest of the event loop have its turn: about 0.1 ms
   * of work, where the system would hand over 2 MiB at once, and encrypting a long frame would take many ms.
   */
  readonly bulkTurnBytes: number;
  /** A link on which nothing arrived for this long gets a ping. */
  readonly keepAliveMs: number;
  /**
   * So many silent `keepAliveMs` in a row, and the link is taken for lost. Counted rather than read off a clock, so
   * that a process that was itself paused does not blame its peers.
   */
  readonly silentKeepAlivesMax: number;
  /** The first wait before dialing again, doubled at each failure: a process that restarts is back quickly. */
  readonly redialMsMin: number;
  /** The longest wait between dials: small beside an election, yet a dead peer costs only four dials a second. */
  readonly redialMsMax: number;
  /**
   * The wait after a refusal, which only a change of configuration or a restart will heal. Below three election timeouts
   * (900 ms): for so long a node that begins a cluster alone listens for others.
   */
  readonly refusedRedialMs: number;
  /**
   * A node that waits to be dialed sends a probe (dials by itself) after this time: if it was removed while it was
   * down, no peer dials it, and the refusal of the probe tells it why. Longer than any redial wait of a peer that does
   * dial; as short as `refusedRedialMs`, for the same reason.
   */
  readonly probeMs: number;
  /** A link must have stood this long to count as sound; until then its loss makes the waits longer. */
  readonly soundLinkMs: number;
  /** When the node stops or the peer leaves, sent frames have so long to leave. */
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
