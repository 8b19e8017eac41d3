import { RaftkvError } from '../base/errors.ts';
import type { Logger, RateLimitedLog } from '../base/logger.ts';
import { Connection, type ConnectionContext, type ConnectionOwner } from './connection.ts';
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

export interface PeerLinkContext extends ConnectionContext {
  readonly random: () => number;
  readonly logger: Logger;
  readonly rateLimitedLog: RateLimitedLog;
}

export interface PeerLinkOwner {
  /** The present address of the peer. */
  address(): PeerAddress;
  /** Called before a connection becomes the link: the last moment to release it. */
  beforeUp(): void;
  onUp(connection: Connection): void;
  onLost(): void;
  onFrame(frame: Buffer): void;
  /** The peer refused this node; the link goes on trying. */
  onRefused(refusal: Refusal): void;
}

/** A peer that starts at the same time is unreachable for a moment: so many failed dials in a row are no news yet. */
const QUIET_DIALS = 8;
/** Above this exponent every wait is at its maximum anyway. */
const DOUBLINGS_MAX = 16;

/**
 * One channel to a peer: dials it and dials it again where that is this node's part, takes over an accepted connection
 * where it is the peer's, and says when the link comes and goes.
 */
export class PeerLink {
  readonly #peerId: number;
  readonly #channel: Channel;
  readonly #owner: PeerLinkOwner;
  readonly #context: PeerLinkContext;
  readonly #connectionOwner: ConnectionOwner;
  /** The higher id dials, so that a pair of nodes never makes two links at once. */
  readonly #dials: boolean;
  readonly #counters = { bytesIn: 0, bytesOut: 0, framesIn: 0, framesOut: 0, drops: 0, refusals: 0, links: 0 };
  #incarnation = 0;

  /** Never the same connection, and at most one of them is set. */
  #current: Connection | null = null;
  #dialing: Connection | null = null;
  #cancelRedial: (() => void) | null = null;
  /** Whether the link is to be made again. */
  #wanted = false;

  #upSinceMs = 0;
  /** Dials and unsound connections in a row. */
  #failures = 0;

  constructor(peerId: number, channel: Channel, owner: PeerLinkOwner, context: PeerLinkContext) {
    this.#peerId = peerId;
    this.#channel = channel;
    this.#owner = owner;
    this.#context = context;
    this.#dials = context.local.selfId > peerId;
    this.#connectionOwner = {
      onUp: (connection) => this.#dialed(connection),
      onData: (_, frame) => owner.onFrame(frame),
      onClosed: (connection, why) => this.#closed(connection, why),
    };
  }

  get isUp(): boolean {
    return this.#current !== null;
  }

  /** The peer's incarnation as of its last connection; 0 before the first. */
  get incarnation(): number {
    return this.#incarnation;
  }

  /** Makes the link, and makes it again whenever it breaks, until `drop` or `release`. */
  open(): void {
    this.#wanted = true;
    this.#failures = 0;
    if (this.#current !== null || this.#dialing !== null) return;
    if (this.#dials) this.#dial();
    else this.#redialLater(false);
  }

  /** An accepted connection has passed its handshake; it replaces the one before. */
  take(connection: Connection): void {
    connection.handTo(this.#connectionOwner);
    // Closing it reports it lost, before the new one is reported up.
    this.#current?.close(new Error('replaced by a newer connection of the peer'));
    this.#owner.beforeUp();
    // The report of a lost link may have released the peer.
    if (this.#wanted) this.#up(connection);
    else connection.close(null);
  }

  send(parts: readonly Buffer[]): boolean {
    if (this.#current?.send(parts)) return true;
    this.#counters.drops += 1;
    return false;
  }

  /** Closes the connection, if there is one, and makes the link again. */
  remake(why: Error): void {
    this.#abandonDial();
    if (this.#current !== null) this.#current.close(why);
    else if (this.#wanted) this.open();
  }

  /** Closes at once, and says that the link is lost where it was up. */
  drop(why: Error): void {
    this.#wanted = false;
    this.#abandonDial();
    this.#current?.close(why);
  }

  /**
   * Leaves the connection to itself, without a word to the owner: what was sent has `stopMsMax` to leave, and `reason`
   * after it. Resolves once it is closed. The link can be opened again at once.
   */
  release(reason: Refusal | null): Promise<void> {
    this.#wanted = false;
    this.#abandonDial();
    const last = this.#current;
    this.#current = null;
    if (last === null) return Promise.resolve();
    this.#count(last);
    return parting(last, reason, this.#context);
  }

  stats(): LinkStats {
    const counters = this.#counters;
    const current = this.#current;
    return {
      up: current !== null,
      bytesIn: counters.bytesIn + (current?.bytesIn ?? 0),
      bytesOut: counters.bytesOut + (current?.bytesOut ?? 0),
      framesIn: counters.framesIn + (current?.framesIn ?? 0),
      framesOut: counters.framesOut + (current?.framesOut ?? 0),
      drops: counters.drops,
      reconnects: Math.max(0, counters.links - 1),
      refusals: counters.refusals,
      bufferedBytes: current?.bufferedBytes ?? 0,
    };
  }

  readonly #dial = (): void => {
    this.#cancelRedial = null;
    const dialed = { id: this.#peerId, channel: this.#channel };
    const socket = this.#context.sockets.dial(this.#owner.address(), () => connection.opened());
    const connection = new Connection(socket, dialed, this.#connectionOwner, this.#context);
    this.#dialing = connection;
  };

  #redialLater(refused: boolean): void {
    const { limits } = this.#context;
    const doubled = limits.redialMsMin * 2 ** Math.min(this.#failures, DOUBLINGS_MAX);
    const longest = refused ? limits.refusedRedialMs : Math.min(limits.redialMsMax, doubled);
    this.#failures += 1;
    if (this.#dials) this.#redialAfter(longest);
    // A node that waits to be dialed sends a probe: if it was removed, the refusal says so.
    else if (this.#channel === 'main') this.#redialAfter(limits.probeMs);
  }

  #redialAfter(longestMs: number): void {
    const { clock, random } = this.#context;
    this.#cancelRedial?.();
    this.#cancelRedial = clock.after(longestMs * (0.5 + random() / 2), this.#dial);
  }

  #abandonDial(): void {
    this.#cancelRedial?.();
    this.#cancelRedial = null;
    const abandoned = this.#dialing;
    this.#dialing = null;
    abandoned?.close(null);
  }

  #dialed(connection: Connection): void {
    this.#owner.beforeUp();
    if (connection !== this.#dialing) return;
    this.#dialing = null;
    this.#up(connection);
  }

  #up(connection: Connection): void {
    this.#abandonDial();
    const { clock, logger } = this.#context;
    this.#current = connection;
    this.#upSinceMs = clock.monotonicMs();
    this.#counters.links += 1;
    const before = this.#incarnation;
    const { incarnation } = connection;
    this.#incarnation = incarnation;
    const peer = this.#peerId;
    if (incarnation < before) {
      logger.warn({ peer, incarnation, before }, 'a peer reconnected with an older or a new data directory');
    }
    logger[this.#channel === 'main' ? 'info' : 'debug']({ peer, incarnation }, `${this.#name} is up`);
    this.#owner.onUp(connection);
  }

  #closed(connection: Connection, why: Error | null): void {
    this.#count(connection);
    const wasCurrent = connection === this.#current;
    if (!wasCurrent && connection !== this.#dialing) return;
    this.#current = null;
    this.#dialing = null;
    const { clock, limits } = this.#context;
    if (wasCurrent && clock.monotonicMs() - this.#upSinceMs >= limits.soundLinkMs) this.#failures = 0;
    this.#report(why, wasCurrent, connection.refusedFor?.code ?? null);
    if (this.#wanted) this.#redialLater(isRefusal(why));
    if (wasCurrent) this.#owner.onLost();
    if (connection.refusedFor !== null) this.#owner.onRefused(connection.refusedFor);
  }

  #count(connection: Connection): void {
    this.#counters.bytesIn += connection.bytesIn;
    this.#counters.bytesOut += connection.bytesOut;
    this.#counters.framesIn += connection.framesIn;
    this.#counters.framesOut += connection.framesOut;
  }

  #report(why: Error | null, wasCurrent: boolean, refusedFor: RefusalCode | null): void {
    const { logger, rateLimitedLog } = this.#context;
    const address = this.#owner.address();
    const fields = { peer: this.#peerId, host: address.host, port: address.port };
    if (isRefusal(why)) this.#counters.refusals += 1;
    // The expected answer to a probe from a member.
    const wasProbe = !this.#dials && !wasCurrent && (!isRefusal(why) || refusedFor === 'wrongDirection');
    if (wasProbe) return;
    if (why instanceof RaftkvError) rateLimitedLog.warn(`peer ${this.#peerId} ${why.code}`, why, fields);
    if (wasCurrent) {
      logger.info({ ...fields, why: why?.message ?? 'closed by the peer' }, `${this.#name} is lost`);
      return;
    }
    if (why instanceof RaftkvError || this.#failures < QUIET_DIALS) return;
    rateLimitedLog.warn(`peer ${this.#peerId} unreachable`, unreachable(address, why), fields);
  }

  get #name(): string {
    return this.#channel === 'main' ? 'link to peer' : 'bulk link to peer';
  }
}

function isRefusal(why: Error | null): boolean {
  return why instanceof RaftkvError && why.code === 'PEER_REFUSED';
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
