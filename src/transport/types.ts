/**
 * Peers as the floors above see them: frames out, frames in, links that come and go. A frame arrives whole, once, and
 * in the order sent on one link, or not at all. What is inside a frame is not the transport's business.
 */
export interface TransportEvents {
  /** `frame` is owned by the receiver and is never written to again. Throwing a RaftkvError closes the link. */
  onFrame(peer: number, frame: Buffer): void;
  /** A link stands and the handshake is done. Nothing sent before has arrived unless its effect was seen. */
  onLinkUp(peer: number): void;
  /** The link broke. */
  onLinkLost(peer: number): void;
}

export interface Transport {
  /** Listens and starts to dial. Rejects with PORT_UNAVAILABLE. */
  start(events: TransportEvents): Promise<void>;
  /**
   * Sends one frame made of `parts` in order. False where there is no link or its buffer is full: the frame is dropped.
   * Frames of one turn leave together.
   */
  send(peer: number, parts: readonly Buffer[]): boolean;
  isUp(peer: number): boolean;
  /** Closes all links and stops listening; what was sent before is flushed first, within a short limit. */
  stop(): Promise<void>;
}
