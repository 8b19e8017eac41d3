import { RaftkvError } from '../base/errors.ts';
import type { Logger, RateLimitedLog } from '../base/logger.ts';
import { type Connection, type ConnectionContext, type ConnectionOwner, createConnection } from './connection.ts';
import type { Channel, Refusal, RefusalCode } from './handshake.ts';
import type { PeerAddress } from './types.ts';

/** Counters of one link, over all its connections. Bytes and frames include hellos and pings. */
export interface LinkStats {
  readonly up: boolean;
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly framesIn: number;
  readonly framesOut: number;
  /** Frames that `send` did not take: no connection, or its buffer was full. */
  readonly drops: number;
  /** Connections after the first. */
  readonly reconnects: number;
  /** Dialed connections that either end refused. */
  readonly refusals: number;
  readonly bufferedBytes: number;
}

/**
 * One channel to a peer: dials it and dials it again where that is this node's part, takes over an accepted connection
 * where it is the peer's, and says when the link comes and goes.
 */
export interface PeerLink {
  /** Makes the link, and makes it again whenever it breaks, until `drop` or `release`. */
  open(): void;
  /** An accepted connection has passed its handshake; it replaces the one before. */
  take(connection: Connection): void;
  isUp(): boolean;
  /** The peer's incarnation as of its last connection; 0 before the first. */
  incarnation(): number;
  send(parts: readonly Buffer[]): boolean;
  /** Closes at once, and says that the link is lost where it was up. */
  drop(why: Error): void;
  /**
   * Leaves the connection to itself, without a word to the owner: what was sent has `stopMsMax` to leave, and `reason`
   * after it. Resolves once it is closed. The link can be opened again at once.
   */
  release(reason: Refusal | null): Promise<void>;
  stats(): LinkStats;
}

export interface PeerLinkContext extends ConnectionContext {
  readonly random: () => number;
  readonly logger: Logger;
  readonly rateLimitedLog: RateLimitedLog;
}

export interface PeerLinkOwner {
  /** Where the peer is now. */
  address(): PeerAddress;
  /** Called before a connection becomes the link: the last moment to release it. */
  beforeUp(): void;
  onUp(): void;
  onLost(): void;
  onFrame(frame: Buffer): void;
  /** The peer refused this node; the link goes on trying. */
  onRefused(code: RefusalCode): void;
}

/** A peer that starts at the same time is unreachable for a moment: so many failed dials in a row are no news yet. */
const QUIET_DIALS = 8;
/** Above this exponent every wait is at its maximum anyway. */
const DOUBLINGS_MAX = 16;

export function createPeerLink(
  peerId: number,
  channel: Channel,
  owner: PeerLinkOwner,
  context: PeerLinkContext,
): PeerLink {
  const { local, clock, limits, sockets, random, logger, rateLimitedLog } = context;
  const name = channel === 'main' ? 'link to peer' : 'bulk link to peer';
  /** The higher id dials, so that a pair of nodes never makes two links at once. */
  const dials = local.selfId > peerId;
  const counters = { bytesIn: 0, bytesOut: 0, framesIn: 0, framesOut: 0, drops: 0, refusals: 0, links: 0 };
  let incarnation = 0;

  /** Never the same connection, and at most one of them is set. */
  let current: Connection | null = null;
  let dialing: Connection | null = null;
  let cancelRedial: (() => void) | null = null;
  /** Whether the link is to be made again. */
  let wanted = false;

  let upSinceMs = 0;
  /** Dials and unsound connections in a row. */
  let failures = 0;

  const connectionOwner: ConnectionOwner = {
    onUp: dialed,
    onData: (_, frame) => owner.onFrame(frame),
    onClosed: closed,
  };

  function dial(): void {
    cancelRedial = null;
    const socket = sockets.dial(owner.address(), () => connection.opened());
    const connection = createConnection(socket, { id: peerId, channel }, connectionOwner, context);
    dialing = connection;
  }

  function redialLater(refused: boolean): void {
    const doubled = limits.redialMsMin * 2 ** Math.min(failures, DOUBLINGS_MAX);
    const longest = refused ? limits.refusedRedialMs : Math.min(limits.redialMsMax, doubled);
    failures += 1;
    if (dials) redialAfter(longest);
    // A node that waits to be dialed sends a probe: if it was removed, the refusal says so.
    else if (channel === 'main') redialAfter(limits.probeMs);
  }

  function redialAfter(longestMs: number): void {
    cancelRedial?.();
    cancelRedial = clock.after(longestMs * (0.5 + random() / 2), dial);
  }

  function abandonDial(): void {
    cancelRedial?.();
    cancelRedial = null;
    const abandoned = dialing;
    dialing = null;
    abandoned?.close(null);
  }

  function dialed(connection: Connection): void {
    owner.beforeUp();
    if (connection !== dialing) return;
    dialing = null;
    up(connection);
  }

  function up(connection: Connection): void {
    abandonDial();
    current = connection;
    upSinceMs = clock.monotonicMs();
    counters.links += 1;
    const before = incarnation;
    incarnation = connection.incarnation;
    if (incarnation < before) {
      logger.warn({ peer: peerId, incarnation, before }, 'a peer reconnected with an older or a new data directory');
    }
    logger[channel === 'main' ? 'info' : 'debug']({ peer: peerId, incarnation }, `${name} is up`);
    owner.onUp();
  }

  function closed(connection: Connection, why: Error | null): void {
    count(connection);
    const wasCurrent = connection === current;
    if (!wasCurrent && connection !== dialing) return;
    current = null;
    dialing = null;
    if (wasCurrent && clock.monotonicMs() - upSinceMs >= limits.soundLinkMs) failures = 0;
    report(why, wasCurrent, connection.refusedFor);
    if (wanted) redialLater(why instanceof RaftkvError && why.code === 'PEER_REFUSED');
    if (wasCurrent) owner.onLost();
    if (connection.refusedFor !== null) owner.onRefused(connection.refusedFor);
  }

  function count(connection: Connection): void {
    counters.bytesIn += connection.bytesIn;
    counters.bytesOut += connection.bytesOut;
    counters.framesIn += connection.framesIn;
    counters.framesOut += connection.framesOut;
  }

  function report(why: Error | null, wasCurrent: boolean, refusedFor: RefusalCode | null): void {
    const { host, port } = owner.address();
    const fields = { peer: peerId, host, port };
    const isRefusal = why instanceof RaftkvError && why.code === 'PEER_REFUSED';
    if (isRefusal) counters.refusals += 1;
    // The expected answer to a probe from a member.
    const wasProbe = !dials && !wasCurrent && (!isRefusal || refusedFor === 'wrongDirection');
    if (wasProbe) return;
    if (why instanceof RaftkvError) rateLimitedLog.warn(`peer ${peerId} ${why.code}`, why, fields);
    if (wasCurrent) {
      logger.info({ ...fields, why: why?.message ?? 'closed by the peer' }, `${name} is lost`);
      return;
    }
    if (why instanceof RaftkvError || failures < QUIET_DIALS) return;
    rateLimitedLog.warn(`peer ${peerId} unreachable`, unreachable(owner.address(), why), fields);
  }

  return {
    open() {
      wanted = true;
      failures = 0;
      if (current !== null || dialing !== null) return;
      if (dials) dial();
      else redialLater(false);
    },
    take(connection) {
      connection.handTo(connectionOwner);
      // Closing it reports it lost, before the new one is reported up.
      current?.close(new Error('replaced by a newer connection of the peer'));
      owner.beforeUp();
      // The report of a lost link may have released the peer.
      if (wanted) up(connection);
      else connection.close(null);
    },
    isUp: () => current !== null,
    incarnation: () => incarnation,
    send(parts) {
      if (current?.send(parts)) return true;
      counters.drops += 1;
      return false;
    },
    drop(why) {
      wanted = false;
      abandonDial();
      current?.close(why);
    },
    release(reason) {
      wanted = false;
      abandonDial();
      const last = current;
      current = null;
      if (last === null) return Promise.resolve();
      count(last);
      return parting(last, reason, context);
    },
    stats: () => ({
      up: current !== null,
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

/** Sees a connection to its end, which comes when both ends have closed it or its time is over. */
function parting(
  connection: Connection,
  reason: Refusal | null,
  { clock, limits }: Pick<ConnectionContext, 'clock' | 'limits'>,
): Promise<void> {
  return new Promise((resolve) => {
    const cancel = clock.after(limits.stopMsMax, () => connection.close(null));
    connection.handTo({
      onUp() {},
      onData() {},
      onClosed() {
        cancel();
        resolve();
      },
    });
    connection.part(reason);
  });
}

function unreachable(peer: PeerAddress, why: Error | null): RaftkvError {
  const detail = why?.message ?? 'the peer closed the connection during the handshake';
  return new RaftkvError(
    'PEER_UNREACHABLE',
    `node ${peer.id} cannot be reached at ${peer.host}:${peer.port}: ${detail}`,
    'Start that node, or check its host and peerPort and the firewall between the two.',
  );
}
