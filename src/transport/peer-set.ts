import { type Channel, removedRefusal } from './handshake.ts';
import { createPeer, type Peer, type PeerContext, type PeerStats } from './peer.ts';
import type { PeerLinkContext } from './peer-link.ts';
import type { PeerAddress, TransportEvents } from './types.ts';

/** All peers, as they come, move and go. */
export interface PeerSet {
  get(id: number): Peer | undefined;
  /** See `Transport.setPeers`. */
  set(wanted: readonly PeerAddress[], removedIds: ReadonlySet<number>): void;
  /** Closes all links after what was sent has left. Nothing is reported from now on. */
  stop(): Promise<void>;
  stats(): PeerStats[];
}

export function createPeerSet(base: PeerLinkContext & { readonly events: TransportEvents }): PeerSet {
  const { local, clock, events } = base;
  const peers = new Map<number, Peer>();
  /** Links of before that let their last bytes leave. */
  const parting = new Set<Promise<void>>();
  /** Links that were released, in order, and are still to be reported lost. */
  let released: { readonly peerId: number; readonly channel: Channel }[] = [];
  let stopped = false;

  /** Reports them one by one, because a report may release more. */
  function reportReleased(): void {
    for (let lost = released.shift(); lost !== undefined; lost = released.shift()) {
      if (lost.channel === 'main') events.onLinkLost(lost.peerId);
      else events.onBulkLost(lost.peerId);
    }
  }

  const context: PeerContext = {
    ...base,
    onReleased(peerId, channel) {
      if (stopped) return;
      if (released.length === 0) clock.endOfTurn(reportReleased);
      released.push({ peerId, channel });
    },
    reportReleased,
  };

  function seeOff(gone: Promise<void>): void {
    parting.add(gone);
    void gone.then(() => parting.delete(gone));
  }

  return {
    get: (id) => peers.get(id),
    set(wanted, removedIds) {
      if (stopped) return;
      const addresses = new Map(wanted.filter(({ id }) => id !== local.selfId).map((address) => [address.id, address]));
      for (const [id, peer] of [...peers]) {
        if (addresses.has(id)) continue;
        peers.delete(id);
        seeOff(peer.release(removedIds.has(id) ? removedRefusal(id) : null));
      }
      for (const [id, address] of addresses) {
        const known = peers.get(id);
        if (known === undefined) {
          const peer = createPeer(address, context);
          peers.set(id, peer);
          peer.open();
        } else if (isElsewhere(address, known.address())) seeOff(known.readdress(address));
      }
    },
    async stop() {
      stopped = true;
      released = [];
      for (const peer of peers.values()) seeOff(peer.release(null));
      await Promise.all(parting);
    },
    stats: () => [...peers.values()].map((peer) => peer.stats()),
  };
}

function isElsewhere(address: PeerAddress, before: PeerAddress): boolean {
  return address.host !== before.host || address.port !== before.port;
}
