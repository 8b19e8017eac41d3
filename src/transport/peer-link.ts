import type { Complaints } from '../base/complaints.ts';
import { RaftkvError } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import { type Connection, type ConnectionContext, createConnection } from './connection.ts';
import type { TransportEvents } from './types.ts';

export interface PeerAddress {
  readonly id: number;
  readonly host: string;
  readonly port: number;
}

/** Counters of one peer, over all its links since this node started. Bytes and frames include hellos and pings. */
export interface PeerStats {
  readonly peer: number;
  readonly up: boolean;
  /** The peer's boot count as of its last link; 0 before the first. */
  readonly bootCount: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly framesIn: number;
  readonly framesOut: number;
  /** Frames that `send` did not take: no link, or its buffer was full. */
  readonly drops: number;
  /** Links after the first. */
  readonly reconnects: number;
  /** Dialed connections that either end refused. */
  readonly refusals: number;
  readonly bufferedBytes: number;
}

/**
 * The one link to a peer: dials it and dials it again where that is this node's part, takes over an accepted
 * connection where it is the peer's, and tells the floors above when the link comes and goes.
 */
export interface PeerLink {
  dial(): void;
  /** A connection to this peer has passed its handshake; it replaces the one before. */
  up(connection: Connection): void;
  /** A connection of this link has ended. */
  closed(connection: Connection, why: Error | null): void;
  isUp(): boolean;
  send(parts: readonly Buffer[]): boolean;
  /** Lets what was sent leave within `stopMsMax`, then closes for good. No event follows this call. */
  stop(): Promise<void>;
  stats(): PeerStats;
}

export interface PeerLinkContext extends ConnectionContext {
  readonly random: () => number;
  readonly logger: Logger;
  readonly complaints: Complaints;
  readonly events: TransportEvents;
}

/** A peer that starts at the same time is unreachable for a moment: so many failed dials in a row are no news yet. */
const QUIET_DIALS = 8;
/** Above this exponent every wait is at its maximum anyway. */
const DOUBLINGS_MAX = 16;

export function createPeerLink(peer: PeerAddress, context: PeerLinkContext): PeerLink {
  const { local, clock, limits, sockets, random, logger, complaints, events } = context;
  /** The higher id dials, so that a pair of nodes never makes two links at once. */
  const dials = local.selfId > peer.id;
  const counters = { bytesIn: 0, bytesOut: 0, framesIn: 0, framesOut: 0, drops: 0, refusals: 0, links: 0 };
  let bootCount = 0;

  /** Never the same connection, and `dialing` is only set while `current` is null. */
  let current: Connection | null = null;
  let dialing: Connection | null = null;
  let cancelRedial: (() => void) | null = null;

  let upSinceMs = 0;
  /** Dials and unsound links in a row. */
  let failures = 0;
  let stopping = false;
  let onStopped: (() => void) | null = null;

  function dial(): void {
    cancelRedial = null;
    const socket = sockets.dial(peer, () => connection.opened());
    const connection = createConnection(socket, peer.id, context);
    dialing = connection;
  }

  function redialLater(why: Error | null): void {
    const refused = why instanceof RaftkvError && why.code === 'PEER_REFUSED';
    const doubled = limits.redialMsMin * 2 ** Math.min(failures, DOUBLINGS_MAX);
    const longest = refused ? limits.refusedRedialMs : Math.min(limits.redialMsMax, doubled);
    failures += 1;
    cancelRedial = clock.after(longest * (0.5 + random() / 2), dial);
  }

  function up(connection: Connection): void {
    // Closing it reports it lost, before the new one is reported up.
    current?.close(new Error('a newer connection of the peer took its place'));
    if (connection === dialing) dialing = null;
    current = connection;
    upSinceMs = clock.monotonicMs();
    counters.links += 1;
    const before = bootCount;
    bootCount = connection.bootCount;
    if (bootCount < before) {
      logger.warn({ peer: peer.id, bootCount, before }, 'a peer came back with an older or a new data directory');
    }
    logger.info({ peer: peer.id, bootCount }, 'link to peer is up');
    events.onLinkUp(peer.id);
  }

  function closed(connection: Connection, why: Error | null): void {
    counters.bytesIn += connection.bytesIn;
    counters.bytesOut += connection.bytesOut;
    counters.framesIn += connection.framesIn;
    counters.framesOut += connection.framesOut;
    const wasCurrent = connection === current;
    if (wasCurrent) current = null;
    else dialing = null;
    if (stopping) {
      onStopped?.();
      return;
    }
    if (wasCurrent && clock.monotonicMs() - upSinceMs >= limits.soundLinkMs) failures = 0;
    report(why, wasCurrent);
    if (dials) redialLater(why);
    if (wasCurrent) events.onLinkLost(peer.id);
  }

  function report(why: Error | null, wasCurrent: boolean): void {
    const fields = { peer: peer.id, host: peer.host, port: peer.port };
    if (why instanceof RaftkvError) {
      if (why.code === 'PEER_REFUSED') counters.refusals += 1;
      complaints.warn(`peer ${peer.id} ${why.code}`, why, fields);
    }
    if (wasCurrent) {
      logger.info({ ...fields, why: why?.message ?? 'the peer closed it' }, 'link to peer is lost');
      return;
    }
    if (why instanceof RaftkvError || failures < QUIET_DIALS) return;
    complaints.warn(`peer ${peer.id} unreachable`, unreachable(peer, why), fields);
  }

  return {
    dial() {
      if (dials) dial();
    },
    up,
    closed,
    isUp: () => current !== null,
    send(parts) {
      if (current?.send(parts)) return true;
      counters.drops += 1;
      return false;
    },
    async stop() {
      stopping = true;
      cancelRedial?.();
      dialing?.close(null);
      const last = current;
      if (last === null) return;
      await new Promise<void>((resolve) => {
        const cancel = clock.after(limits.stopMsMax, () => last.close(null));
        onStopped = () => {
          cancel();
          resolve();
        };
        last.part();
      });
    },
    stats: () => ({
      peer: peer.id,
      up: current !== null,
      bootCount,
      bytesIn: counters.bytesIn + (current?.bytesIn ?? 0),
      bytesOut: counters.bytesOut + (current?.bytesOut ?? 0),
      framesIn: counters.framesIn + (current?.framesIn ?? 0),
      framesOut: counters.framesOut + (current?.framesOut ?? 0),
      drops: counters.drops,
      reconnects: Math.max(0, counters.links - 1),
      refusals: counters.refusals,
      bufferedBytes: current?.bufferedBytes() ?? 0,
    }),
  };
}

function unreachable(peer: PeerAddress, why: Error | null): RaftkvError {
  const detail = why?.message ?? 'it closed the connection during the handshake';
  return new RaftkvError(
    'PEER_UNREACHABLE',
    `node ${peer.id} cannot be reached at ${peer.host}:${peer.port}: ${detail}`,
    'Start that node, or check its host and peerPort and the firewall between the two.',
  );
}
