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
  /** Closes all links and stops listening; what was sent before is flushed first, within a short limit. No event follows. */
  stop(): Promise<void>;
}
