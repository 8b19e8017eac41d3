import type { Connection } from './connection.ts';
import { type Channel, type Refusal, removedRefusal } from './handshake.ts';
import { type LinkStats, PeerLink, type PeerLinkContext, type PeerLinkOwner } from './peer-link.ts';
import type { PeerAddress, TransportEvents } from './types.ts';

/** The statistics of the main link and, in `bulk`, those of the bulk link. */
export interface PeerStats extends LinkStats {
  readonly peer: number;
  /** The peer's incarnation on its last main link; 0 before the first. */
  readonly incarnation: number;
  readonly bulk: LinkStats;
}

interface PeerContext extends PeerLinkContext {
  readonly events: TransportEvents;
  /** A link that was up was released. Its loss must be reported, but only after the current callback has returned. */
  readonly onReleased: (peerId: number, channel: Channel) => void;
  /** Reports released links at once, because a link is about to come up. */
  readonly reportReleased: () => void;
}

/**
 * A peer and its two links. The bulk link is only up while the main link is: the same end dials it when the main link
 * is up, and it is closed when the main link is lost.
 */
export class Peer {
  readonly main: PeerLink;
  readonly bulk: PeerLink;
  readonly #id: number;
  #address: PeerAddress;
  readonly #onReleased: PeerContext['onReleased'];

  constructor(address: PeerAddress, context: PeerContext) {
    const { id } = address;
    const { events, reportReleased } = context;
    this.#id = id;
    this.#address = address;
    this.#onReleased = context.onReleased;
    const mainOwner: PeerLinkOwner = {
      address: () => this.#address,
      beforeUp: reportReleased,
      onUp: (connection) => {
        events.onLinkUp(id, connection.peerClusterId);
        if (this.main.isUp) this.bulk.open();
      },
      onLost: () => {
        this.bulk.drop(new Error('the main link was lost'));
        events.onLinkLost(id);
      },
      onFrame: (frame) => events.onFrame(id, frame),
      onRefused({ code, text }) {
        if (code === 'removed') events.onRemoved(id);
        else if (code === 'history') events.onForeignPeer(id, text);
      },
    };
    const bulkOwner: PeerLinkOwner = {
      address: () => this.#address,
      beforeUp: reportReleased,
      onUp: () => events.onBulkUp(id),
      onLost: () => events.onBulkLost(id),
      onFrame: (frame) => events.onBulkFrame(id, frame),
      onRefused() {},
    };
    this.main = new PeerLink(id, 'main', mainOwner, context);
    this.bulk = new PeerLink(id, 'bulk', bulkOwner, context);
  }

  get address(): PeerAddress {
    return this.#address;
  }

  open(): void {
    this.main.open();
  }

  /** Closes both links and makes them again. */
  remake(why: Error): void {
    this.bulk.drop(why);
    this.main.remake(why);
  }

  /** Makes an accepted connection of this peer one of its links. Returns false if it must be closed instead. */
  take(connection: Connection): boolean {
    if (connection.channel === 'main') {
      this.main.take(connection);
      return true;
    }
    // A bulk connection belongs to a main link of the same incarnation of the peer, which may have been lost.
    if (!this.main.isUp || this.main.incarnation !== connection.incarnation) return false;
    this.bulk.take(connection);
    return true;
  }

  /** Closes both links after the sent frames were written, and opens them again at `address`. */
  readdress(address: PeerAddress): Promise<void> {
    const gone = this.release(null);
    this.#address = address;
    this.main.open();
    return gone;
  }

  /** Closes both links after the sent frames, and `reason` on the main link, were written. */
  async release(reason: Refusal | null): Promise<void> {
    if (this.bulk.isUp) this.#onReleased(this.#id, 'bulk');
    if (this.main.isUp) this.#onReleased(this.#id, 'main');
    await Promise.all([this.bulk.release(null), this.main.release(reason)]);
  }

  stats(): PeerStats {
    const { main, bulk } = this;
    return { peer: this.#id, incarnation: main.incarnation, ...main.stats(), bulk: bulk.stats() };
  }
}

interface ReleasedLink {
  readonly peerId: number;
  readonly channel: Channel;
}

/** The present peers and their links. */
export class PeerSet {
  readonly #context: PeerContext;
  readonly #peers = new Map<number, Peer>();
  /** The released links whose last frames are still being written. */
  readonly #parting = new Set<Promise<void>>();
  /** The released links whose loss was not reported yet, in the order of their release. */
  #released: ReleasedLink[] = [];
  #stopped = false;

  constructor(base: PeerLinkContext & { readonly events: TransportEvents }) {
    this.#context = {
      ...base,
      onReleased: (peerId, channel) => this.#recordReleased({ peerId, channel }),
      reportReleased: () => this.#reportReleased(),
    };
  }

  get(id: number): Peer | undefined {
    return this.#peers.get(id);
  }

  /** See `Transport.setPeers`. */
  set(wanted: readonly PeerAddress[], removedIds: ReadonlySet<number>): void {
    if (this.#stopped) return;
    const { selfId } = this.#context.local;
    const addresses = new Map(wanted.filter(({ id }) => id !== selfId).map((address) => [address.id, address]));
    for (const [id, peer] of [...this.#peers]) {
      if (addresses.has(id)) continue;
      this.#peers.delete(id);
      this.#seeOff(peer.release(removedIds.has(id) ? removedRefusal(id) : null));
    }
    for (const [id, address] of addresses) {
      const known = this.#peers.get(id);
      if (known === undefined) {
        const peer = new Peer(address, this.#context);
        this.#peers.set(id, peer);
        peer.open();
      } else if (isElsewhere(address, known.address)) this.#seeOff(known.readdress(address));
    }
  }

  /** Closes all links at once and makes them again. */
  remake(why: Error): void {
    for (const peer of [...this.#peers.values()]) peer.remake(why);
  }

  /** Closes all links after the sent frames were written. Reports no further losses. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#released = [];
    for (const peer of this.#peers.values()) this.#seeOff(peer.release(null));
    await Promise.all(this.#parting);
  }

  stats(): PeerStats[] {
    return [...this.#peers.values()].map((peer) => peer.stats());
  }

  #recordReleased(link: ReleasedLink): void {
    if (this.#stopped) return;
    if (this.#released.length === 0) this.#context.clock.endOfTurn(() => this.#reportReleased());
    this.#released.push(link);
  }

  /** Takes the links from the list one by one, because a report may release further links. */
  #reportReleased(): void {
    const { events } = this.#context;
    for (let lost = this.#released.shift(); lost !== undefined; lost = this.#released.shift()) {
      if (lost.channel === 'main') events.onLinkLost(lost.peerId);
      else events.onBulkLost(lost.peerId);
    }
  }

  #seeOff(gone: Promise<void>): void {
    this.#parting.add(gone);
    void gone.then(() => this.#parting.delete(gone));
  }
}

function isElsewhere(address: PeerAddress, before: PeerAddress): boolean {
  return address.host !== before.host || address.port !== before.port;
}
