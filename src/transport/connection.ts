import type { Socket } from 'node:net';
import type { Clock } from '../base/clock.ts';
import { RaftkvError } from '../base/errors.ts';
import { FRAME_BYTES_MAX, FrameDecoder, type FrameType } from './frame.ts';
import {
  type Channel,
  checkHello,
  type Dialed,
  decodeHello,
  decodeRefusal,
  encodeHello,
  encodeRefusal,
  HANDSHAKE_PAYLOAD_BYTES_MAX,
  type Hello,
  type LocalIdentity,
  type Refusal,
  refusalError,
} from './handshake.ts';
import { Outbox } from './outbox.ts';
import type { Sockets } from './sockets.ts';
import type { TransportEvents, TransportLimits } from './types.ts';

/**
 * The state of a connection. `opening`: the dialed socket is not open yet. `greeting`: waits for the hello of the other
 * end. `confirming`: has accepted the hello of the dialer and waits until the dialer has accepted the own one.
 * `parting`: sends nothing new, writes what was sent, and ignores what is received.
 */
type State = 'opening' | 'greeting' | 'confirming' | 'up' | 'parting' | 'closed';

export interface ConnectionOwner {
  onUp(connection: Connection): void;
  onData(connection: Connection, frame: Buffer): void;
  /**
   * Called once, from any state. `why` is null if the other end closed the connection without an error, or `close` got
   * null.
   */
  onClosed(connection: Connection, why: Error | null): void;
}

export interface ConnectionContext {
  readonly local: LocalIdentity;
  readonly clock: Clock;
  readonly limits: TransportLimits;
  readonly sockets: Sockets;
  readonly events: Pick<TransportEvents, 'onUnknownPeer' | 'onForeignPeer'>;
}

/** One TCP connection to a peer: handshake, frames, keep-alive and end. */
export class Connection {
  readonly #socket: Socket;
  readonly #context: ConnectionContext;
  /** Null if the connection was accepted. */
  readonly #dialed: Dialed | null;
  readonly #outbox: Outbox;
  readonly #decoder: FrameDecoder;
  #owner: ConnectionOwner;
  #state: State;

  #peerId: number;
  #channel: Channel;
  #incarnation = 0;
  #peerClusterId = '';
  #refusedFor: Refusal | null = null;
  #partingWith: Error | null = null;

  #framesIn = 0;
  #bytesIn = 0;
  /** The bytes that a bulk connection has read in this turn of the event loop. */
  #bytesThisTurn = 0;

  /** Whether anything was received since the last keep-alive, and after how many keep-alives in a row nothing was. */
  #heard = false;
  #silentKeepAlives = 0;
  /** Cancels the present timer: the time limit of opening or of the handshake, or the next keep-alive. */
  #cancelTimer: () => void;

  /** @param dialed null if the connection was accepted */
  constructor(socket: Socket, dialed: Dialed | null, owner: ConnectionOwner, context: ConnectionContext) {
    const { clock, limits } = context;
    this.#socket = socket;
    this.#context = context;
    this.#dialed = dialed;
    this.#owner = owner;
    this.#state = dialed === null ? 'greeting' : 'opening';
    this.#peerId = dialed?.id ?? 0;
    this.#channel = dialed?.channel ?? 'main';
    this.#outbox = new Outbox(socket, clock, limits.linkBufferBytesMax);
    this.#decoder = new FrameDecoder(HANDSHAKE_PAYLOAD_BYTES_MAX, (type, payload) => this.#onFrame(type, payload));
    this.#cancelTimer =
      dialed === null
        ? clock.after(limits.handshakeMsMax, () => this.#handshakeTimedOut())
        : clock.after(limits.connectMsMax, () =>
            this.close(new Error(`not connected within ${limits.connectMsMax} ms`)),
          );
    socket.on('data', (chunk: Buffer) => this.#received(chunk));
    socket.on('end', () => this.close(this.#partingWith));
    socket.on('error', (error) => this.close(this.#partingWith ?? error));
    socket.on('close', () => this.close(this.#partingWith));
  }

  /**
   * The id of the other end: the dialed one or, if the connection was accepted, the one in the hello; 0 before the
   * hello.
   */
  get peerId(): number {
    return this.#peerId;
  }

  /** The channel of the connection. Unknown before the hello if the connection was accepted; it is then `main`. */
  get channel(): Channel {
    return this.#channel;
  }

  /** Why the other end refused this connection, if it did. */
  get refusedFor(): Refusal | null {
    return this.#refusedFor;
  }

  get incarnation(): number {
    return this.#incarnation;
  }

  /** The cluster id in the peer's hello; empty if its directory has none. */
  get peerClusterId(): string {
    return this.#peerClusterId;
  }

  get framesIn(): number {
    return this.#framesIn;
  }

  get bytesIn(): number {
    return this.#bytesIn;
  }

  get framesOut(): number {
    return this.#outbox.framesOut;
  }

  get bytesOut(): number {
    return this.#outbox.bytesOut;
  }

  get bufferedBytes(): number {
    return this.#outbox.bufferedBytes;
  }

  /** Must be called when the socket of a dialed connection is open. Sends the hello. */
  opened(): void {
    if (this.#state !== 'opening' || this.#dialed === null) return;
    const { local, clock, limits } = this.#context;
    this.#state = 'greeting';
    this.#cancelTimer();
    this.#cancelTimer = clock.after(limits.handshakeMsMax, () => this.#handshakeTimedOut());
    this.#outbox.send('hello', [encodeHello(local, this.#dialed.id, this.#channel)]);
    this.#outbox.flush();
  }

  /** Returns false and drops the frame if the connection is not up or its buffer is full. */
  send(parts: readonly Buffer[]): boolean {
    return this.#state === 'up' && this.#outbox.send('data', parts);
  }

  /** Gives the connection to another owner, which receives all later events. */
  handTo(owner: ConnectionOwner): void {
    this.#owner = owner;
  }

  /**
   * Closes the connection after the sent frames, and `reason` if it is not null, were written. `onClosed` is called
   * then, as after any other end.
   */
  part(reason: Refusal | null): void {
    if (reason !== null) this.#outbox.send('refuse', [encodeRefusal(reason)]);
    this.#partFor(null);
  }

  /** Closes at once. */
  close(why: Error | null): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#cancelTimer();
    this.#decoder.close();
    this.#socket.destroy();
    this.#owner.onClosed(this, why);
  }

  #received(chunk: Buffer): void {
    this.#heard = true;
    this.#bytesIn += chunk.length;
    if (this.#channel === 'bulk') this.#takeTurns(chunk.length);
    try {
      this.#decoder.push(chunk);
    } catch (error) {
      if (!isPeersFault(error)) throw error;
      this.close(error);
    }
  }

  /**
   * Pauses a bulk connection that has read `bulkTurnBytes` in this turn of the event loop, so that other work is not
   * delayed.
   */
  #takeTurns(bytes: number): void {
    const { clock, limits } = this.#context;
    this.#bytesThisTurn += bytes;
    if (this.#bytesThisTurn < limits.bulkTurnBytes || this.#socket.isPaused()) return;
    this.#socket.pause();
    clock.endOfTurn(() => {
      this.#bytesThisTurn = 0;
      this.#socket.resume();
    });
  }

  #onFrame(type: FrameType, payload: Buffer): void {
    this.#framesIn += 1;
    switch (this.#state) {
      case 'up':
        this.#onFrameWhenUp(type, payload);
        break;
      case 'greeting':
        this.#onGreeting(type, payload);
        break;
      case 'confirming':
        this.#onConfirmation(type, payload);
        break;
      case 'opening':
      case 'parting':
      case 'closed':
        break;
    }
  }

  #onFrameWhenUp(type: FrameType, payload: Buffer): void {
    switch (type) {
      case 'data':
        this.#owner.onData(this, payload);
        break;
      case 'ping':
        this.#outbox.send('pong', []);
        break;
      case 'pong':
        break;
      case 'refuse':
        this.#refusedByPeer(payload);
        break;
      case 'hello':
        throw unexpected(type);
    }
  }

  #onGreeting(type: FrameType, payload: Buffer): void {
    if (type === 'refuse' && this.#dialed !== null) {
      this.#refusedByPeer(payload);
      return;
    }
    if (type !== 'hello') throw unexpected(type);
    const { local } = this.#context;
    const hello = decodeHello(payload);
    const refusal = checkHello(hello, local, this.#dialed) ?? this.#checkProof(hello.fromId);
    if (refusal !== null) {
      this.#refuse(refusal, hello);
      return;
    }
    this.#peerId = hello.fromId;
    this.#incarnation = hello.incarnation;
    this.#peerClusterId = hello.clusterId;
    this.#channel = hello.channel ?? this.#channel;
    if (this.#dialed !== null) {
      this.#goUp('ping');
      return;
    }
    this.#outbox.send('hello', [encodeHello(local, this.#peerId, this.#channel)]);
    this.#state = 'confirming';
  }

  #refuse(refusal: Refusal, { fromId }: Hello): void {
    this.#outbox.send('refuse', [encodeRefusal(refusal)]);
    this.#partFor(refusalError(refusal, 'us'));
    if (this.#checkProof(fromId) !== null) return;
    if (refusal.code === 'unknownPeer') this.#context.events.onUnknownPeer(fromId);
    else if (refusal.code === 'history') this.#context.events.onForeignPeer(fromId, refusal.text);
  }

  #refusedByPeer(payload: Buffer): void {
    const refusal = decodeRefusal(payload);
    this.#refusedFor = refusal;
    this.close(refusalError(refusal, 'peer'));
  }

  #checkProof(claimedId: number): Refusal | null {
    if (this.#context.sockets.proves(this.#socket, claimedId)) return null;
    return { code: 'certificate', text: `the certificate of the peer does not name node ${claimedId}` };
  }

  #onConfirmation(type: FrameType, payload: Buffer): void {
    if (type === 'refuse') {
      this.#refusedByPeer(payload);
      return;
    }
    if (type !== 'ping') throw unexpected(type);
    this.#goUp('pong');
  }

  #goUp(say: 'ping' | 'pong'): void {
    const { clock, limits } = this.#context;
    this.#outbox.send(say, []);
    this.#state = 'up';
    this.#decoder.setPayloadBytesMax(FRAME_BYTES_MAX);
    if (this.#channel === 'bulk') {
      this.#outbox.setBufferedBytesMax(limits.bulkBufferBytesMax);
      this.#outbox.setTurnBytes(limits.bulkTurnBytes);
    }
    this.#cancelTimer();
    this.#cancelTimer = clock.after(limits.keepAliveMs, this.#keepAlive);
    this.#owner.onUp(this);
  }

  readonly #keepAlive = (): void => {
    const { clock, limits } = this.#context;
    this.#silentKeepAlives = this.#heard ? 0 : this.#silentKeepAlives + 1;
    if (this.#silentKeepAlives >= limits.silentKeepAlivesMax) {
      this.close(new Error(`no data received for ${this.#silentKeepAlives * limits.keepAliveMs} ms`));
      return;
    }
    if (!this.#heard) this.#outbox.send('ping', []);
    this.#heard = false;
    this.#cancelTimer = clock.after(limits.keepAliveMs, this.#keepAlive);
  };

  #handshakeTimedOut(): void {
    this.close(this.#partingWith ?? new Error(`no handshake within ${this.#context.limits.handshakeMsMax} ms`));
  }

  /** Closes the connection when everything queued was written, or when the present timer expires. */
  #partFor(why: Error | null): void {
    if (this.#state === 'closed' || this.#state === 'parting') return;
    this.#state = 'parting';
    this.#partingWith = why;
    this.#decoder.close();
    this.#outbox.flush();
    // A refused peer may never close its end, so this end doesn't wait for it.
    if (why === null) this.#socket.end();
    else this.#socket.end(() => this.close(why));
  }
}

/** Whether the peer sent invalid bytes, which closes its connection. Any other error is a bug and ends the process. */
function isPeersFault(error: unknown): error is RaftkvError {
  return error instanceof RaftkvError && (error.code === 'FRAME_INVALID' || error.code === 'MESSAGE_INVALID');
}

function unexpected(type: FrameType): RaftkvError {
  return new RaftkvError('FRAME_INVALID', `unexpected ${type} frame`);
}
