import type { Connection } from './connection.ts';
import type { Channel, Refusal } from './handshake.ts';
import { createPeerLink, type LinkStats, type PeerLink, type PeerLinkContext } from './peer-link.ts';
import type { PeerAddress, TransportEvents } from './types.ts';

/** `LinkStats` of the main link, and those of the bulk link beside them. */
export interface PeerStats extends LinkStats {
  readonly peer: number;
  /** As of the last main link; 0 before the first. */
  readonly incarnation: number;
  readonly bulk: LinkStats;
}

/**
 * A peer and its two links. The bulk link stands only while the main one does: it is dialed once that is up, by the same
 * end, and closed when that is lost.
 */
export interface Peer {
  readonly main: PeerLink;
  readonly bulk: PeerLink;
  address(): PeerAddress;
  open(): void;
  /** Hands over an accepted connection of this peer. False, and it should be closed, where it has no place here. */
  take(connection: Connection): boolean;
  /** Closes both links after what was sent has left, and opens them again at `address`. */
  readdress(address: PeerAddress): Promise<void>;
  /** Closes both links after what was sent has left, and `reason` after it. */
  release(reason: Refusal | null): Promise<void>;
  stats(): PeerStats;
}

export interface PeerContext extends PeerLinkContext {
  readonly events: TransportEvents;
  /** A link that was up was released: the layers above must be told, but only after the current callback returns. */
  readonly onReleased: (peerId: number, channel: Channel) => void;
  /** Reports them now, because a link is about to come up. */
  readonly reportReleased: () => void;
}

export function createPeer(initial: PeerAddress, context: PeerContext): Peer {
  const { events } = context;
  const { id } = initial;
  let address = initial;

  const main = createPeerLink(
    id,
    'main',
    {
      address: () => address,
      beforeUp: context.reportReleased,
      onUp() {
        events.onLinkUp(id);
        if (main.isUp()) bulk.open();
      },
      onLost() {
        bulk.drop(new Error('the main link was lost'));
        events.onLinkLost(id);
      },
      onFrame: (frame) => events.onFrame(id, frame),
      onRefused(code) {
        if (code === 'removed') events.onRemoved(id);
      },
    },
    context,
  );
  const bulk: PeerLink = createPeerLink(
    id,
    'bulk',
    {
      address: () => address,
      beforeUp: context.reportReleased,
      onUp: () => events.onBulkUp(id),
      onLost: () => events.onBulkLost(id),
      onFrame: (frame) => events.onBulkFrame(id, frame),
      onRefused() {},
    },
    context,
  );

  async function release(reason: Refusal | null): Promise<void> {
    if (bulk.isUp()) context.onReleased(id, 'bulk');
    if (main.isUp()) context.onReleased(id, 'main');
    await Promise.all([bulk.release(null), main.release(reason)]);
  }

  return {
    main,
    bulk,
    address: () => address,
    open: main.open,
    take(connection) {
      if (connection.channel === 'main') {
        main.take(connection);
        return true;
      }
      // The bulk link of a main link that is gone, or of another incarnation of the peer.
      if (!main.isUp() || main.incarnation() !== connection.incarnation) return false;
      bulk.take(connection);
      return true;
    },
    readdress(other) {
      const gone = release(null);
      address = other;
      main.open();
      return gone;
    },
    release,
    stats: () => ({ peer: id, incarnation: main.incarnation(), ...main.stats(), bulk: bulk.stats() }),
  };
}
