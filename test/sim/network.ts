import { RaftkvError } from '../../src/base/errors.ts';
import type { PeerAddress, Transport, TransportEvents } from '../../src/transport/types.ts';
import type { Random } from '../support/random.ts';
import type { Incarnation } from './incarnation.ts';
import { CHANNELS, type ChannelName, type Chunk, Link, Port, type Side } from './links.ts';
import type { World } from './world.ts';

/**
 * The links between the nodes, as `Transport` promises them: frames arrive whole, once and in order, or the link breaks.
 * A partitioned direction holds what was sent until it heals or somebody loses patience, as TCP does. A lossy network
 * keeps less than that promise: it drops, repeats and reorders frames on links that stand.
 *
 *   send ─▶ chunk (what one callback sends) ─ delay ─▶ partitioned? held : onFrame … of the other side, in one callback
 *
 * Each pair has two links, the main one and one for bulk, which is dialed once the main one stands and comes and goes by
 * itself. Two nodes are linked while each takes the other for its peer; a node that knows the other to be removed refuses the link with that reason.
 */

/** Of each chunk. All 0 for a network that keeps the promise of `Transport`. */
interface Losses {
  readonly dropped: number;
  readonly repeated: number;
  readonly reordered: number;
}

export interface NetworkHabits extends Losses {
  readonly delayMs: { readonly min: number; readonly max: number };
  readonly redialMs: number;
  /** Silence after which a side takes the link for lost. */
  readonly silenceMs: number;
  /** With more than this under way in one direction, frames are refused. */
  readonly bufferBytesMax: number;
  readonly bulk: BulkHabits;
}

export interface BulkHabits extends Losses {
  /** How much slower than the main link. */
  readonly slowness: number;
  /** Chance, with each chunk that is sent, that the link breaks there. */
  readonly breaks: number;
}

export class Network {
  lossy = true;
  delayFactor = 1;
  readonly #world: World;
  readonly #random: Random;
  readonly #habits: NetworkHabits;
  readonly #ports = new Map<number, Port>();
  /** Directions in which nothing gets through, as `from>to`. */
  readonly #partitions = new Set<string>();
  /** Bulk frames delivered, and bulk links broken on purpose with something under way. */
  bulkFrames = 0;
  bulkBreaks = 0;
  /** Told of each frame that is delivered, for the trace. */
  onDelivery: (from: number, to: number, frame: Buffer, channel: ChannelName) => void = () => {};

  constructor(world: World, random: Random, habits: NetworkHabits) {
    this.#world = world;
    this.#random = random;
    this.#habits = habits;
  }

  /** The transport of one incarnation of a node. */
  transportOf(incarnation: Incarnation, peers: readonly number[], clusterId: string): Transport {
    const port = new Port(incarnation, peers, clusterId);
    return {
      start: async (events: TransportEvents) => {
        // It may have died in the very callback in which its start goes on.
        if (!incarnation.alive) return;
        port.events = events;
        this.#ports.set(incarnation.nodeId, port);
        this.#dialAll(port);
      },
      send: (peer, parts) => this.#send(port, 'main', peer, parts),
      isUp: (peer) => port.isUp('main', peer),
      sendBulk: (peer, parts) => this.#send(port, 'bulk', peer, parts),
      setPeers: (now, removedIds) => this.#setPeers(port, now, removedIds),
      setClusterId: (now) => this.#setClusterId(port, now),
      stop: async () => this.#leave(port, true),
    };
  }

  /** The process is gone. `quietly`: with its machine, so the other ends are not told. */
  lifeEnded(incarnation: Incarnation, quietly: boolean): void {
    const port = this.#ports.get(incarnation.nodeId);
    if (port?.incarnation === incarnation) this.#leave(port, !quietly);
  }

  #leave(port: Port, tell: boolean): void {
    port.events = null;
    if (this.#ports.get(port.id) === port) this.#ports.delete(port.id);
    for (const name of CHANNELS) {
      const { links } = port[name];
      for (const link of links.values()) {
        if (tell) this.#part(link, port);
        else this.#loseAfter(link, link.otherThan(port), this.#silence());
      }
      links.clear();
    }
  }

  /** What was sent is on its way already, and so is the news that nothing follows. */
  #part(link: Link, port: Port): void {
    const other = link.otherThan(port);
    this.#loseAfter(link, other, Math.max(0, other.lastArrivalMs - this.#world.nowMs) + this.#delay());
  }

  #setPeers(port: Port, peers: readonly PeerAddress[], removedIds: readonly number[]): void {
    port.peers = new Set(peers.map(({ id }) => id).filter((id) => id !== port.id));
    port.removed = new Set(removedIds);
    if (port.events === null) return;
    this.#world.say(() => `${port.id}: peers ${[...port.peers].join(' ')}, removed ${removedIds.join(' ')}`);
    for (const name of CHANNELS) {
      for (const [peer, link] of [...port[name].links]) {
        if (port.peers.has(peer)) continue;
        this.#part(link, port);
        if (name === 'main' && port.removed.has(peer)) this.#tellRemoved(link.otherThan(port).port, port.id, link);
        // Not from inside the call that asked for it.
        this.#loseAfter(link, link.sideOf(port), 0);
      }
    }
    this.#dialAll(port);
  }

  /** All links of this end are closed, and dialed again under the id. */
  #setClusterId(port: Port, clusterId: string): void {
    port.clusterId = clusterId;
    if (port.events === null) return;
    this.#world.say(() => `${port.id}: is part of cluster id ${clusterId} now`);
    for (const name of CHANNELS) {
      for (const link of port[name].links.values()) {
        this.#part(link, port);
        // Not from inside the call that asked for it.
        this.#loseAfter(link, link.sideOf(port), 0);
      }
    }
  }

  get hasPartitions(): boolean {
    return this.#partitions.size > 0;
  }

  isPartitioned(from: number, to: number): boolean {
    return this.#partitions.has(`${from}>${to}`);
  }

  /** From now on nothing gets from one to the other. */
  partition(from: number, to: number): void {
    if (this.isPartitioned(from, to)) return;
    this.#partitions.add(`${from}>${to}`);
    const port = this.#ports.get(to);
    if (port === undefined) return;
    for (const name of CHANNELS) {
      const link = port[name].links.get(from);
      if (link === undefined) continue;
      this.#world.after(this.#silence(), () => {
        if (this.isPartitioned(from, to) && port[name].links.get(from) === link) this.#break(link, link.sideOf(port));
      });
    }
  }

  heal(from: number, to: number): void {
    if (!this.#partitions.delete(`${from}>${to}`)) return;
    const receiver = this.#ports.get(to);
    for (const name of CHANNELS) {
      const link = receiver?.[name].links.get(from);
      if (receiver !== undefined && link !== undefined) {
        const side = link.sideOf(receiver);
        for (const chunk of side.held.splice(0)) this.#arrive(link, side, chunk, this.#world.nowMs);
      }
      this.#dial(name, from, to);
    }
  }

  healAll(): void {
    for (const partition of [...this.#partitions]) {
      const [from = 0, to = 0] = partition.split('>').map(Number);
      this.heal(from, to);
    }
  }

  /** From now on nothing is partitioned, slow or lossy. What had been sent before takes its time, if somebody has the patience. */
  calmDown(): void {
    this.healAll();
    this.lossy = false;
    this.delayFactor = 1;
    for (const port of this.#ports.values()) {
      for (const name of CHANNELS) {
        for (const link of port[name].links.values()) this.#giveUpWhereSilent(link, link.sideOf(port));
      }
    }
  }

  /** A link over which a slow network still brings nothing for longer than anybody waits. */
  #giveUpWhereSilent(link: Link, side: Side): void {
    const { lastArrivalMs } = side;
    if (lastArrivalMs - this.#world.nowMs <= this.#habits.silenceMs) return;
    this.#world.after(this.#silence(), () => {
      if (lastArrivalMs > this.#world.nowMs && !link.broken) this.#break(link, side);
    });
  }

  /** Breaks a link between two nodes; both notice, each in its own time, and dial again. False if there is no link. */
  reset(channel: ChannelName, a: number, b: number): boolean {
    const port = this.#ports.get(a);
    const link = port?.[channel].links.get(b);
    if (port === undefined || link === undefined) return false;
    this.#break(link, link.sideOf(port));
    return true;
  }

  /** A process that hears nothing, or says nothing, for so long that its links are given up. */
  wasSilent(nodeId: number): void {
    const port = this.#ports.get(nodeId);
    if (port === undefined) return;
    for (const name of CHANNELS) {
      for (const link of [...port[name].links.values()]) this.#break(link, link.otherThan(port));
    }
  }

  #delay(channel: ChannelName = 'main'): number {
    const { delayMs, bulk } = this.#habits;
    const factor = channel === 'bulk' && this.lossy ? bulk.slowness : 1;
    return this.#random.skewed(delayMs.min, delayMs.max) * this.delayFactor * factor;
  }

  #silence(): number {
    return this.#habits.silenceMs * this.#random.between(1, 1.3);
  }

  #send(from: Port, channel: ChannelName, peer: number, parts: readonly Buffer[]): boolean {
    const { links, open } = from[channel];
    const link = links.get(peer);
    if (link === undefined || !link.sideOf(from).up || !from.incarnation.effect()) return false;
    const bytes = Buffer.concat(parts);
    const side = link.otherThan(from);
    if (side.bytesUnderWay > this.#habits.bufferBytesMax) return false;
    side.bytesUnderWay += bytes.length;
    const frame = { bytes, parts };
    const last = open.get(peer);
    if (last !== undefined && last.event === this.#world.events) {
      last.chunk.frames.push(frame);
      last.chunk.bytes += bytes.length;
      return true;
    }
    const chunk = { frames: [frame], bytes: bytes.length };
    open.set(peer, { event: this.#world.events, chunk });
    this.#depart(link, side, chunk);
    return true;
  }

  #depart(link: Link, side: Side, chunk: Chunk): void {
    const { channel } = link;
    const { dropped, repeated, reordered } = channel === 'bulk' ? this.#habits.bulk : this.#habits;
    const atMs = this.#world.nowMs + this.#delay(channel);
    if (channel === 'bulk' && this.lossy && this.#random.chance(this.#habits.bulk.breaks)) {
      this.bulkBreaks++;
      this.#world.after(this.#delay(), () => this.#break(link, link.sides[this.#random.below(2)] as Side));
    }
    if (this.lossy && dropped + repeated + reordered > 0) {
      const draw = this.#random.next();
      if (draw < dropped) {
        this.#world.after(0, () => {
          side.bytesUnderWay -= chunk.bytes;
        });
        return;
      }
      if (draw < dropped + repeated) this.#arrive(link, side, { ...chunk, bytes: 0 }, atMs + this.#delay() * 5);
      else if (draw < dropped + repeated + reordered) {
        this.#arrive(link, side, chunk, Math.max(atMs, side.lastArrivalMs) + this.#delay() * 5);
        return;
      }
    }
    side.lastArrivalMs = Math.max(atMs, side.lastArrivalMs);
    this.#arrive(link, side, chunk, side.lastArrivalMs);
  }

  #arrive(link: Link, side: Side, chunk: Chunk, atMs: number): void {
    side.port.incarnation.post(atMs - this.#world.nowMs, () => {
      const { port } = side;
      const from = link.otherThan(port).port.id;
      if (port[link.channel].links.get(from) !== link) return;
      if (this.isPartitioned(from, port.id) || side.held.length > 0) side.held.push(chunk);
      else this.#deliver(link, side, chunk, from);
    });
  }

  #deliver(link: Link, side: Side, chunk: Chunk, from: number): void {
    const { port } = side;
    const { channel } = link;
    const to = port.id;
    side.bytesUnderWay -= chunk.bytes;
    for (const { bytes, parts } of chunk.frames) {
      if (!isUnchanged(bytes, parts)) {
        this.#world.fail('sent bytes stay as they are', `node ${from} changed a frame to node ${to} after sending it`);
      }
      if (port.events === null || port[channel].links.get(from) !== link) return;
      this.#world.hash(bytes.length * 64 + from * 8 + to);
      this.onDelivery(from, to, bytes, channel);
      try {
        // A copy: what the receiver keeps must not be what another receiver keeps.
        if (channel === 'main') port.events.onFrame(from, Buffer.from(bytes));
        else {
          this.bulkFrames++;
          port.events.onBulkFrame(from, Buffer.from(bytes));
        }
      } catch (error) {
        if (!(error instanceof RaftkvError) || error.code !== 'MESSAGE_INVALID') throw error;
        this.#world.fail('messages are understood', `node ${to} refuses a message of node ${from}: ${error.message}`);
      }
    }
  }

  #dialAll(port: Port): void {
    for (const [id, { peers }] of this.#ports) {
      if (id !== port.id && (peers.has(port.id) || port.peers.has(id))) this.#dial('main', port.id, id);
    }
  }

  /** Tries to connect two nodes after a while; whatever stands in the way then will dial again itself when it goes. */
  #dial(channel: ChannelName, a: number, b: number, inMs = this.#random.next() * this.#habits.redialMs): void {
    this.#world.after(inMs + this.#delay(), () => {
      const [one, other] = [this.#ports.get(a), this.#ports.get(b)];
      if (one === undefined || other === undefined || this.isPartitioned(a, b) || this.isPartitioned(b, a)) return;
      if (one.incarnation.paused || other.incarnation.paused) {
        this.#dial(channel, a, b);
        return;
      }
      if (!one.peers.has(b) || !other.peers.has(a)) {
        if (channel === 'main') this.#refuse(one, other);
        return;
      }
      if (isForeign(one, other)) {
        if (channel === 'main') this.#refuseForeign(one, other);
        return;
      }
      // The main link's coming up dials the other.
      if (channel === 'bulk' && !(one.isUp('main', b) && other.isUp('main', a))) return;
      for (const [port, peer] of [
        [one, b],
        [other, a],
      ] as const) {
        const old = port[channel].links.get(peer);
        if (old === undefined) continue;
        // Both still hold to a link that works: nothing to do. One that only this side holds to is replaced.
        if (!old.broken && old.otherThan(port).port[channel].links.get(port.id) === old) return;
        port.incarnation.call(() => this.#lose(old, old.sideOf(port)));
      }
      this.#connect(channel, one, other);
    });
  }

  /** One of the two does not know the other, who hears why, and tries again after a while. */
  #refuse(one: Port, other: Port): void {
    for (const [port, refuser] of [
      [one, other],
      [other, one],
    ] as const) {
      if (!port.peers.has(refuser.id)) continue;
      if (!refuser.removed.has(port.id)) {
        refuser.incarnation.post(0, () => {
          this.#world.say(() => `${refuser.id}: is asked for a link by ${port.id}, which it does not know`);
          refuser.events?.onUnknownPeer(port.id);
        });
        continue;
      }
      this.#tellRemoved(port, refuser.id);
      this.#dial('main', port.id, refuser.id, this.#habits.silenceMs);
    }
  }

  /** Their data directories belong to two histories. Both hear so, and try again after a while. */
  #refuseForeign(one: Port, other: Port): void {
    for (const [port, peer] of [
      [one, other],
      [other, one],
    ] as const) {
      port.incarnation.post(0, () => {
        this.#world.say(() => `${port.id}: gets no link to ${peer.id}, which belongs to another history`);
        port.events?.onForeignPeer(peer.id, `cluster id ${port.clusterId} here, ${peer.clusterId} there`);
      });
    }
    this.#dial('main', one.id, other.id, this.#habits.silenceMs);
  }

  /** In a refused handshake, or as the last that comes over a link that is closed because of it. */
  #tellRemoved(port: Port, by: number, link?: Link): void {
    const arrivalMs = link === undefined ? 0 : Math.max(0, link.sideOf(port).lastArrivalMs - this.#world.nowMs);
    port.incarnation.post(arrivalMs, () => {
      if (port.events === null || this.isPartitioned(by, port.id)) return;
      this.#world.say(() => `${port.id}: is told by ${by} that it was removed`);
      port.events.onRemoved(by);
    });
  }

  #connect(channel: ChannelName, one: Port, other: Port): void {
    const sideOf = (port: Port): Side => ({
      port,
      up: false,
      lastArrivalMs: this.#world.nowMs + this.#delay(),
      bytesUnderWay: 0,
      held: [],
    });
    const link = new Link(channel, [sideOf(one), sideOf(other)]);
    one[channel].links.set(other.id, link);
    other[channel].links.set(one.id, link);
    for (const side of link.sides) {
      const { port } = side;
      const peer = link.otherThan(port).port.id;
      port.incarnation.post(side.lastArrivalMs - this.#world.nowMs, () => {
        if (port[channel].links.get(peer) !== link || port.events === null) return;
        side.up = true;
        this.#world.say(() => `${port.id}: ${channel} link to ${peer} up`);
        if (channel === 'bulk') {
          port.events.onBulkUp(peer);
          return;
        }
        this.#dial('bulk', port.id, peer);
        port.events.onLinkUp(peer, link.otherThan(port).port.clusterId);
      });
    }
  }

  /** `first` notices now, the other when it is told, or by the silence. */
  #break(link: Link, first: Side): void {
    link.broken = true;
    const other = link.otherThan(first.port);
    const told = !this.isPartitioned(first.port.id, other.port.id);
    this.#loseAfter(link, first, 0);
    this.#loseAfter(link, other, told ? this.#delay() : this.#silence());
  }

  #loseAfter(link: Link, side: Side, delayMs: number): void {
    side.port.incarnation.post(delayMs, () => this.#lose(link, side));
  }

  #lose(link: Link, { port }: Side): void {
    const { channel } = link;
    const peer = link.otherThan(port).port.id;
    const { links } = port[channel];
    if (links.get(peer) !== link) return;
    links.delete(peer);
    this.#dial(channel, port.id, peer);
    // The bulk link stands only while the main one does.
    const bulk = channel === 'main' ? port.bulk.links.get(peer) : undefined;
    if (bulk !== undefined) {
      bulk.broken = true;
      this.#lose(bulk, bulk.sideOf(port));
    }
    if (port.events === null || !link.sideOf(port).up) return;
    this.#world.say(() => `${port.id}: ${channel} link to ${peer} lost`);
    if (channel === 'main') port.events.onLinkLost(peer);
    else port.events.onBulkLost(peer);
  }
}

function isForeign(one: Port, other: Port): boolean {
  return one.clusterId !== '' && other.clusterId !== '' && one.clusterId !== other.clusterId;
}

function isUnchanged(bytes: Buffer, parts: readonly Buffer[]): boolean {
  let at = 0;
  for (const part of parts) {
    if (bytes.compare(part, 0, part.length, at, at + part.length) !== 0) return false;
    at += part.length;
  }
  return true;
}
