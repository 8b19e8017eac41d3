import { RaftkvError } from '../../src/base/errors.ts';
import type { Transport, TransportEvents } from '../../src/transport/types.ts';
import type { Life } from './life.ts';
import type { Random } from './random.ts';
import type { World } from './world.ts';

/**
 * The links between the nodes, as `Transport` promises them: frames arrive whole, once and in order, or the link breaks.
 * A direction that is cut holds what was sent until it heals or somebody loses patience, as TCP does. A lossy network
 * keeps less than that promise: it drops, repeats and reorders frames on links that stand.
 *
 *   send ─▶ chunk (what one callback sends) ─ delay ─▶ cut? held : onFrame … of the other side, in one callback
 */

export interface NetworkHabits {
  readonly delayMs: { readonly min: number; readonly max: number };
  readonly redialMs: number;
  /** Silence after which a side takes the link for lost. */
  readonly silenceMs: number;
  /** With more than this under way in one direction, frames are refused. */
  readonly bufferBytesMax: number;
  /** Of each chunk. All 0 for a network that keeps the promise of `Transport`. */
  readonly dropped: number;
  readonly repeated: number;
  readonly reordered: number;
}

interface Frame {
  readonly bytes: Buffer;
  /** What the sender gave, which it must leave alone. */
  readonly parts: readonly Buffer[];
}

interface Chunk {
  readonly frames: Frame[];
  readonly bytes: number;
}

/** One side of a link: what arrives here. */
interface Side {
  readonly port: Port;
  up: boolean;
  /** When the last of what is under way to here arrives; later sends come later. */
  lastArrivalMs: number;
  bytesUnderWay: number;
  readonly held: Chunk[];
}

class Link {
  readonly sides: readonly [Side, Side];
  broken = false;

  constructor(sides: readonly [Side, Side]) {
    this.sides = sides;
  }

  sideOf(port: Port): Side {
    return this.sides[0].port === port ? this.sides[0] : this.sides[1];
  }

  otherThan(port: Port): Side {
    return this.sides[0].port === port ? this.sides[1] : this.sides[0];
  }
}

/** The network as one life of one node sees it. */
class Port {
  readonly life: Life;
  events: TransportEvents | null = null;
  readonly links = new Map<number, Link>();
  /** What the callback that runs now has sent so far, by peer. */
  readonly open = new Map<number, { readonly event: number; readonly chunk: { frames: Frame[]; bytes: number } }>();

  constructor(life: Life) {
    this.life = life;
  }
}

export class Network {
  lossy = true;
  delayFactor = 1;
  readonly #world: World;
  readonly #random: Random;
  readonly #habits: NetworkHabits;
  readonly #ports = new Map<number, Port>();
  /** Directions in which nothing gets through, as `from>to`. */
  readonly #cuts = new Set<string>();
  /** Told of each frame that is delivered, for the trace. */
  onDelivery: (from: number, to: number, frame: Buffer) => void = () => {};

  constructor(world: World, random: Random, habits: NetworkHabits) {
    this.#world = world;
    this.#random = random;
    this.#habits = habits;
  }

  /** The transport of one life of a node. */
  transportOf(life: Life): Transport {
    const port = new Port(life);
    return {
      start: async (events) => {
        port.events = events;
        this.#ports.set(life.nodeId, port);
        this.#dialAll(port);
      },
      send: (peer, parts) => this.#send(port, peer, parts),
      isUp: (peer) => port.links.get(peer)?.sideOf(port).up === true,
      stop: async () => this.#leave(port, true),
    };
  }

  /** The process is gone. `quietly`: with its machine, so nobody is told. */
  lifeEnded(life: Life, quietly: boolean): void {
    const port = this.#ports.get(life.nodeId);
    if (port?.life === life) this.#leave(port, !quietly);
  }

  #leave(port: Port, tell: boolean): void {
    port.events = null;
    if (this.#ports.get(port.life.nodeId) === port) this.#ports.delete(port.life.nodeId);
    for (const link of port.links.values()) {
      const other = link.otherThan(port);
      // What it had sent is on its way already, and so is the news that nothing follows.
      if (tell) this.#loseAfter(link, other, Math.max(0, other.lastArrivalMs - this.#world.nowMs) + this.#delay());
      else this.#loseAfter(link, other, this.#silence());
    }
    port.links.clear();
  }

  get hasCuts(): boolean {
    return this.#cuts.size > 0;
  }

  isCut(from: number, to: number): boolean {
    return this.#cuts.has(`${from}>${to}`);
  }

  /** From now on nothing gets from one to the other. */
  cut(from: number, to: number): void {
    if (this.isCut(from, to)) return;
    this.#cuts.add(`${from}>${to}`);
    const port = this.#ports.get(to);
    const link = port?.links.get(from);
    if (port === undefined || link === undefined) return;
    this.#world.after(this.#silence(), () => {
      if (this.isCut(from, to) && port.links.get(from) === link) this.#break(link, link.sideOf(port));
    });
  }

  heal(from: number, to: number): void {
    if (!this.#cuts.delete(`${from}>${to}`)) return;
    const receiver = this.#ports.get(to);
    const link = receiver?.links.get(from);
    if (receiver !== undefined && link !== undefined) {
      const side = link.sideOf(receiver);
      for (const chunk of side.held.splice(0)) this.#arrive(link, side, chunk, this.#world.nowMs);
    }
    this.#dial(from, to);
  }

  healAll(): void {
    for (const cut of [...this.#cuts]) {
      const [from = 0, to = 0] = cut.split('>').map(Number);
      this.heal(from, to);
    }
  }

  /** Breaks the link between two nodes; both notice, each in its own time, and dial again. */
  reset(a: number, b: number): void {
    const port = this.#ports.get(a);
    const link = port?.links.get(b);
    if (port !== undefined && link !== undefined) this.#break(link, link.sideOf(port));
  }

  /** A process that hears nothing, or says nothing, for so long that its links are given up. */
  wasSilent(nodeId: number): void {
    const port = this.#ports.get(nodeId);
    for (const link of [...(port?.links.values() ?? [])]) this.#break(link, link.otherThan(port as Port));
  }

  #delay(): number {
    const { min, max } = this.#habits.delayMs;
    return this.#random.skewed(min, max) * this.delayFactor;
  }

  #silence(): number {
    return this.#habits.silenceMs * this.#random.between(1, 1.3);
  }

  #send(from: Port, peer: number, parts: readonly Buffer[]): boolean {
    const link = from.links.get(peer);
    if (link === undefined || !link.sideOf(from).up || !from.life.effect()) return false;
    const bytes = Buffer.concat(parts);
    const side = link.otherThan(from);
    if (side.bytesUnderWay > this.#habits.bufferBytesMax) return false;
    side.bytesUnderWay += bytes.length;
    const frame = { bytes, parts };
    const open = from.open.get(peer);
    if (open !== undefined && open.event === this.#world.events) {
      open.chunk.frames.push(frame);
      open.chunk.bytes += bytes.length;
      return true;
    }
    const chunk = { frames: [frame], bytes: bytes.length };
    from.open.set(peer, { event: this.#world.events, chunk });
    this.#depart(link, side, chunk);
    return true;
  }

  #depart(link: Link, side: Side, chunk: Chunk): void {
    const { dropped, repeated, reordered } = this.#habits;
    const atMs = this.#world.nowMs + this.#delay();
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
    side.port.life.post(atMs - this.#world.nowMs, () => {
      const { port } = side;
      const from = link.otherThan(port).port.life.nodeId;
      if (port.links.get(from) !== link) return;
      if (this.isCut(from, port.life.nodeId) || side.held.length > 0) side.held.push(chunk);
      else this.#deliver(link, side, chunk, from);
    });
  }

  #deliver(link: Link, side: Side, chunk: Chunk, from: number): void {
    const { port } = side;
    const to = port.life.nodeId;
    side.bytesUnderWay -= chunk.bytes;
    for (const { bytes, parts } of chunk.frames) {
      if (!isUnchanged(bytes, parts)) {
        this.#world.fail('sent bytes stay as they are', `node ${from} changed a frame to node ${to} after sending it`);
      }
      if (port.events === null || port.links.get(from) !== link) return;
      this.#world.note(bytes.length * 64 + from * 8 + to);
      this.onDelivery(from, to, bytes);
      try {
        // A copy: what the receiver keeps must not be what another receiver keeps.
        port.events.onFrame(from, Buffer.from(bytes));
      } catch (error) {
        if (!(error instanceof RaftkvError) || error.code !== 'MESSAGE_INVALID') throw error;
        this.#world.fail('messages are understood', `node ${to} refuses a message of node ${from}: ${error.message}`);
      }
    }
  }

  #dialAll(port: Port): void {
    for (const peer of this.#ports.keys()) if (peer !== port.life.nodeId) this.#dial(port.life.nodeId, peer);
  }

  /** Tries to connect two nodes after a while; whatever stands in the way then will dial again itself when it goes. */
  #dial(a: number, b: number): void {
    this.#world.after(this.#random.next() * this.#habits.redialMs + this.#delay(), () => {
      const [one, other] = [this.#ports.get(a), this.#ports.get(b)];
      if (one === undefined || other === undefined || this.isCut(a, b) || this.isCut(b, a)) return;
      if (one.life.paused || other.life.paused) {
        this.#dial(a, b);
        return;
      }
      for (const [port, peer] of [
        [one, b],
        [other, a],
      ] as const) {
        const old = port.links.get(peer);
        if (old === undefined) continue;
        // Both still hold to a link that works: nothing to do. One that only this side holds to is replaced.
        if (!old.broken && old.otherThan(port).port.links.get(port.life.nodeId) === old) return;
        port.life.call(() => this.#lose(old, old.sideOf(port)));
      }
      this.#connect(one, other);
    });
  }

  #connect(one: Port, other: Port): void {
    const sideOf = (port: Port): Side => ({
      port,
      up: false,
      lastArrivalMs: this.#world.nowMs + this.#delay(),
      bytesUnderWay: 0,
      held: [],
    });
    const link = new Link([sideOf(one), sideOf(other)]);
    one.links.set(other.life.nodeId, link);
    other.links.set(one.life.nodeId, link);
    for (const side of link.sides) {
      const { port } = side;
      const peer = link.otherThan(port).port.life.nodeId;
      port.life.post(side.lastArrivalMs - this.#world.nowMs, () => {
        if (port.links.get(peer) !== link || port.events === null) return;
        side.up = true;
        this.#world.say(() => `${port.life.nodeId}: link to ${peer} up`);
        port.events.onLinkUp(peer);
      });
    }
  }

  /** `first` notices now, the other when it is told, or by the silence. */
  #break(link: Link, first: Side): void {
    link.broken = true;
    const other = link.otherThan(first.port);
    const told = !this.isCut(first.port.life.nodeId, other.port.life.nodeId);
    this.#loseAfter(link, first, 0);
    this.#loseAfter(link, other, told ? this.#delay() : this.#silence());
  }

  #loseAfter(link: Link, side: Side, delayMs: number): void {
    side.port.life.post(delayMs, () => this.#lose(link, side));
  }

  #lose(link: Link, { port }: Side): void {
    const peer = link.otherThan(port).port.life.nodeId;
    if (port.links.get(peer) !== link) return;
    port.links.delete(peer);
    this.#dial(port.life.nodeId, peer);
    if (port.events === null || !link.sideOf(port).up) return;
    this.#world.say(() => `${port.life.nodeId}: link to ${peer} lost`);
    port.events.onLinkLost(peer);
  }
}

function isUnchanged(bytes: Buffer, parts: readonly Buffer[]): boolean {
  let at = 0;
  for (const part of parts) {
    if (bytes.compare(part, 0, part.length, at, at + part.length) !== 0) return false;
    at += part.length;
  }
  return true;
}
