import { RaftkvError } from '../base/errors.ts';
import type { Logger, RateLimitedLog } from '../base/logger.ts';
import { Connection, type ConnectionContext, type ConnectionOwner } from './connection.ts';
import type { Channel, Refusal, RefusalCode } from './handshake.ts';
import type { PeerAddress } from './types.ts';

/**
 * Counters of one link, summed over all its connections. Bytes and frames include those of handshakes and keep-alives.
 */
export interface LinkStats {
  readonly up: boolean;
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly framesIn: number;
  readonly framesOut: number;
  /** The number of frames that `send` dropped, because the link was down or its buffer was full. */
  readonly drops: number;
  /** How often the link came up again after the first time. */
  readonly reconnects: number;
  /** How often one of the ends refused the link. */
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
  /** Called before the link comes up. It may release the link, which then stays down. */
  beforeUp(): void;
  onUp(connection: Connection): void;
  onLost(): void;
  onFrame(frame: Buffer): void;
  /** The peer refused this node. The link continues to dial. */
  onRefused(refusal: Refusal): void;
}

/**
 * The number of failed dials in a row from which on a warning is logged. They take up to a second; a peer that starts
 * at the same time may be unreachable for that long.
 */
const QUIET_DIALS = 8;
/** The limit of the exponent of the wait, so that the power stays finite. The wait is at `redialMsMax` long before. */
const DOUBLINGS_MAX = 16;

/**
 * One link to a peer. If this node has the higher id, it dials the peer again and again; otherwise it waits for a
 * connection of the peer. Reports when the link comes up and when it is lost.
 */
export class PeerLink {
  readonly #peerId: number;
  readonly #channel: Channel;
  readonly #owner: PeerLinkOwner;
  readonly #context: PeerLinkContext;
  readonly #connectionOwner: ConnectionOwner;
  /**
   * Whether this node dials the peer. The node with the higher id does, so that a pair never makes two links at once.
   */
  readonly #dials: boolean;
  readonly #counters = { bytesIn: 0, bytesOut: 0, framesIn: 0, framesOut: 0, drops: 0, refusals: 0, links: 0 };
  #incarnation = 0;

  /** The connection that is up, and the one that is being dialed. At most one of them is not null. */
  #current: Connection | null = null;
  #dialing: Connection | null = null;
  #cancelRedial: (() => void) | null = null;
  /** Whether the link is made again when it is lost. */
  #wanted = false;

  #upSinceMs = 0;
  /** The number of failed dials and of links shorter than `soundLinkMs` in a row. */
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

  /** The peer's incarnation when the link came up last; 0 before the first time. */
  get incarnation(): number {
    return this.#incarnation;
  }

  /** Makes the link, and makes it again whenever it is lost, until `drop` or `release`. */
  open(): void {
    this.#wanted = true;
    this.#failures = 0;
    if (this.#current !== null || this.#dialing !== null) return;
    if (this.#dials) this.#dial();
    else this.#redialLater(false);
  }

  /** Makes an accepted connection the link, after its handshake. It replaces the present connection. */
  take(connection: Connection): void {
    connection.handTo(this.#connectionOwner);
    // This reports the loss of the link before it is reported up again.
    this.#current?.close(new Error('replaced by a newer connection of the peer'));
    this.#owner.beforeUp();
    // These reports may have made the owner release the peer.
    if (this.#wanted) this.#up(connection);
    else connection.close(null);
  }

  send(parts: readonly Buffer[]): boolean {
    if (this.#current?.send(parts)) return true;
    this.#counters.drops += 1;
    return false;
  }

  /** Closes the present connection and makes the link again, if it is wanted. */
  remake(why: Error): void {
    this.#abandonDial();
    if (this.#current !== null) this.#current.close(why);
    else if (this.#wanted) this.open();
  }

  /** Closes the link at once, and reports its loss if it was up. It stays down until `open`. */
  drop(why: Error): void {
    this.#wanted = false;
    this.#abandonDial();
    this.#current?.close(why);
  }

  /**
   * Closes the link without reporting its loss, after the sent frames and `reason` were written or `stopMsMax` has
   * passed. Resolves when the connection is closed. The link can be opened again before that.
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
    // A node that waits to be dialed sends a probe. If the node was removed, the refusal says so.
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
    // A member refuses a probe because of its direction. That is expected, and so is a probe that fails.
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

/** Closes a connection that is no link any more. Resolves when both ends have closed it or `stopMsMax` has passed. */
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
