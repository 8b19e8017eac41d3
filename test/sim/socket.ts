import { EventEmitter } from 'node:events';
import type { Random } from '../support/random.ts';
import type { Incarnation } from './incarnation.ts';

/**
 * A TCP connection between a client of the simulation and a node. The node's side has of a node:net socket what
 * src/server/clients/connection.ts uses; the client's side is three calls. Bytes arrive late, in order and split anywhere.
 */
export interface SocketHabits {
  readonly delayMs: { readonly min: number; readonly max: number };
  /** Chance that what one write sends arrives in several pieces. */
  readonly splitChance: number;
}

export interface ClientSide {
  onBytes: (bytes: Buffer) => void;
  /** The node closed, reset, or died. */
  onClosed: () => void;
}

export class NodeSocket extends EventEmitter {
  readonly remoteAddress = '10.0.0.1';
  readonly remotePort: number;
  writable = true;
  /** Bytes that the client has not taken. Always 0 at the end of a write, as where the system's buffer has room. */
  writableLength = 0;
  readonly #incarnation: Incarnation;
  readonly #random: Random;
  readonly #habits: SocketHabits;
  readonly #client: ClientSide;
  #toNodeMs = 0;
  #toClientMs = 0;
  #paused = false;
  readonly #unread: Buffer[] = [];
  #clientEnded = false;
  #inputOver = false;
  #ended = false;
  #closed = false;

  constructor(incarnation: Incarnation, random: Random, habits: SocketHabits, client: ClientSide, port: number) {
    super();
    this.remotePort = port;
    this.#incarnation = incarnation;
    this.#random = random;
    this.#habits = habits;
    this.#client = client;
  }

  // What the node does.

  setNoDelay(): this {
    return this;
  }

  write(bytes: Buffer): boolean {
    if (this.#closed || this.#ended || !this.#incarnation.effect()) return false;
    const copy = Buffer.from(bytes);
    this.#toClient(() => this.#client.onBytes(copy));
    return true;
  }

  end(done?: () => void): this {
    this.#ended = true;
    this.writable = false;
    this.#incarnation.post(0, () => {
      done?.();
      this.#closeIfBothEnded();
    });
    // The client closes its side as soon as it sees ours closed.
    this.#toClient(() => {
      this.#client.onClosed();
      this.hangUp();
    });
    return this;
  }

  destroy(): this {
    this.#close();
    this.#toClient(() => this.#client.onClosed());
    return this;
  }

  pause(): this {
    this.#paused = true;
    return this;
  }

  resume(): this {
    this.#paused = false;
    this.#incarnation.post(0, () => this.#read());
    return this;
  }

  // What the client does.

  /** Sends bytes to the node, which may find them in pieces. */
  send(bytes: Buffer): void {
    let rest = bytes;
    while (rest.length > 1 && this.#random.chance(this.#habits.splitChance)) {
      const length = 1 + this.#random.below(rest.length - 1);
      this.#toNode(rest.subarray(0, length));
      rest = rest.subarray(length);
    }
    this.#toNode(rest);
  }

  /** The client has said its last; the node answers what has come. */
  hangUp(): void {
    this.#toNodeMs = Math.max(this.#toNodeMs, this.#incarnation.world.nowMs + this.#delay());
    this.#incarnation.post(this.#toNodeMs - this.#incarnation.world.nowMs, () => {
      this.#clientEnded = true;
      this.#read();
    });
  }

  /** The client's machine or process is gone: the node is told by a reset. */
  abort(): void {
    this.#incarnation.post(this.#delay(), () => this.#close());
  }

  /** The node's process is gone: its system resets the connection, after what was sent. */
  nodeDied(): void {
    this.#closed = true;
    this.#toClient(() => this.#client.onClosed());
  }

  #delay(): number {
    const { min, max } = this.#habits.delayMs;
    return this.#random.skewed(min, max);
  }

  #toNode(piece: Buffer): void {
    const { world } = this.#incarnation;
    this.#toNodeMs = Math.max(this.#toNodeMs, world.nowMs + this.#delay());
    const copy = Buffer.from(piece);
    this.#incarnation.post(this.#toNodeMs - world.nowMs, () => {
      this.#unread.push(copy);
      this.#read();
    });
  }

  #toClient(deliver: () => void): void {
    const { world } = this.#incarnation;
    this.#toClientMs = Math.max(this.#toClientMs, world.nowMs + this.#delay());
    world.after(this.#toClientMs - world.nowMs, deliver);
  }

  #read(): void {
    while (!this.#paused && !this.#closed) {
      const bytes = this.#unread.shift();
      if (bytes === undefined) break;
      this.emit('data', bytes);
    }
    if (!this.#clientEnded || this.#paused || this.#closed || this.#unread.length > 0) return;
    this.#clientEnded = false;
    this.#inputOver = true;
    this.emit('end');
    this.#closeIfBothEnded();
  }

  #closeIfBothEnded(): void {
    if (this.#ended && this.#inputOver) this.#close();
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.writable = false;
    this.#incarnation.post(0, () => this.emit('close'));
  }
}
