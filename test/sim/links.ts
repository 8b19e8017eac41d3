import type { TransportEvents } from '../../src/transport/types.ts';
import type { Incarnation } from './incarnation.ts';

/** What the network is made of: ports of nodes, and links between two of them. */

/** `bulk` is the second connection of a pair, for what is long and can wait. */
export type ChannelName = 'main' | 'bulk';

interface Frame {
  readonly bytes: Buffer;
  /** What the sender gave, which it must leave alone. */
  readonly parts: readonly Buffer[];
}

export interface Chunk {
  readonly frames: Frame[];
  readonly bytes: number;
}

/** One side of a link: what arrives here. */
export interface Side {
  readonly port: Port;
  up: boolean;
  /** When the last of what is under way to here arrives; later sends come later. */
  lastArrivalMs: number;
  bytesUnderWay: number;
  readonly held: Chunk[];
}

export class Link {
  readonly channel: ChannelName;
  readonly sides: readonly [Side, Side];
  broken = false;

  constructor(channel: ChannelName, sides: readonly [Side, Side]) {
    this.channel = channel;
    this.sides = sides;
  }

  sideOf(port: Port): Side {
    return this.sides[0].port === port ? this.sides[0] : this.sides[1];
  }

  otherThan(port: Port): Side {
    return this.sides[0].port === port ? this.sides[1] : this.sides[0];
  }
}

interface Channel {
  readonly links: Map<number, Link>;
  /** What the callback that runs now has sent so far, by peer. */
  readonly open: Map<number, { readonly event: number; readonly chunk: { frames: Frame[]; bytes: number } }>;
}

/** The network as one incarnation of one node sees it. */
export class Port {
  readonly incarnation: Incarnation;
  events: TransportEvents | null = null;
  /** Whom it keeps links with, and who is no longer a member as far as it knows. */
  peers: ReadonlySet<number>;
  removed: ReadonlySet<number> = new Set();
  /** Of its data directory; empty where it has none yet. */
  clusterId: string;
  readonly main: Channel = { links: new Map(), open: new Map() };
  readonly bulk: Channel = { links: new Map(), open: new Map() };

  constructor(incarnation: Incarnation, peers: readonly number[], clusterId: string) {
    this.incarnation = incarnation;
    this.clusterId = clusterId;
    this.peers = new Set(peers);
  }

  get id(): number {
    return this.incarnation.nodeId;
  }

  /** Whether the link to `peer` stands, as this end sees it. */
  isUp(channel: ChannelName, peer: number): boolean {
    return this[channel].links.get(peer)?.sideOf(this).up === true;
  }
}

export const CHANNELS: readonly ChannelName[] = ['main', 'bulk'];
