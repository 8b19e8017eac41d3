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
  /** A link stands and the handshake is done. Nothing sent before has arrived unless its effect was seen. */
  onLinkUp(peer: number): void;
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
  /** As `send`, on the bulk link. */
  sendBulk(peer: number, parts: readonly Buffer[]): boolean;
  /**
   * Whom to keep links with from now on; links to others are closed, after what was sent to them has left. `removedIds`
   * are told that they are no longer members when they come. An entry for this node itself is ignored.
   */
  setPeers(peers: readonly PeerAddress[], removedIds: readonly number[]): void;
  /** Closes all links and stops listening; what was sent before is flushed first, within a short limit. No event follows. */
  stop(): Promise<void>;
}
