import type { Message, NodeId } from '../../raft/state/types.ts';
import type { Transport } from '../../transport/types.ts';
import { encodeMessage, type PeerMessage } from './wire.ts';

/** Sends messages to the peers. A `commit` message waits for the end of the turn; it is dropped if an append carries the same news. */
export class Sender {
  readonly #transport: Pick<Transport, 'send'>;
  readonly #scheduleTurn: () => void;
  /** The newest for each follower, until the end of the turn. */
  readonly #commitNews = new Map<NodeId, Message>();

  constructor(transport: Pick<Transport, 'send'>, scheduleTurn: () => void) {
    this.#transport = transport;
    this.#scheduleTurn = scheduleTurn;
  }

  /** A message of the core. */
  send(message: Message): void {
    if (message.kind === 'commit') {
      this.#commitNews.set(message.to, message);
      this.#scheduleTurn();
      return;
    }
    if (message.kind === 'append') this.#commitNews.delete(message.to);
    this.#transport.send(message.to, encodeMessage(message));
  }

  /** False where the message was dropped. */
  tell(to: NodeId, message: PeerMessage): boolean {
    return this.#transport.send(to, encodeMessage(message));
  }

  endTurn(): void {
    if (this.#commitNews.size === 0) return;
    for (const [peer, message] of this.#commitNews) this.#transport.send(peer, encodeMessage(message));
    this.#commitNews.clear();
  }
}
