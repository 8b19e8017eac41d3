/** Every limit of the peer links, with its reason. */
export interface TransportLimits {
  /** A peer on the same network answers in a few ms; one that does not within this is dialed afresh. */
  readonly connectMsMax: number;
  /** From an open connection to the end of the handshake: two round trips, with room for a busy event loop. */
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
  /** How long frames that were sent may take to leave when the node stops or the peer leaves. */
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
