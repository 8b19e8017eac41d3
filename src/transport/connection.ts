import type { Socket } from 'node:net';
import type { Clock } from '../base/clock.ts';
import { RaftkvError } from '../base/errors.ts';
import { createFrameDecoder, FRAME_BYTES_MAX, type FrameType } from './frame.ts';
import {
  type Channel,
  checkHello,
  type Dialed,
  decodeHello,
  decodeRefusal,
  encodeHello,
  encodeRefusal,
  HANDSHAKE_PAYLOAD_BYTES_MAX,
  type LocalIdentity,
  type Refusal,
  type RefusalCode,
  refusalError,
} from './handshake.ts';
import { createOutbox } from './outbox.ts';
import type { Sockets } from './sockets.ts';
import type { TransportEvents, TransportLimits } from './types.ts';

/**
 * Where a connection stands. `greeting`: waits for the other's hello. `confirming`: has accepted the dialer's hello and
 * waits to hear that its own was accepted. `parting`: says no more, lets what was sent leave, and ignores what comes.
 */
type State = 'opening' | 'greeting' | 'confirming' | 'up' | 'parting' | 'closed';

export interface Connection {
  /** Who is at the other end: certain once up; 0 before the hello. */
  readonly peerId: number;
  /** What it is for: certain once up. */
  readonly channel: Channel;
  /** Why the other end refused this connection, if it did. */
  readonly refusedFor: RefusalCode | null;
  readonly incarnation: number;
  readonly framesIn: number;
  readonly bytesIn: number;
  readonly framesOut: number;
  readonly bytesOut: number;
  bufferedBytes(): number;
  /** For a dialed connection: the socket is open. */
  opened(): void;
  /** False where the connection is not up or its buffer is full. */
  send(parts: readonly Buffer[]): boolean;
  /** From now on `owner` hears of what happens. */
  handTo(owner: ConnectionOwner): void;
  /**
   * Lets what was sent leave, and after it the reason where there is one, then closes; the owner hears of it as of any
   * other end.
   */
  part(reason: Refusal | null): void;
  /** Closes at once. */
  close(why: Error | null): void;
}

export interface ConnectionOwner {
  onUp(connection: Connection): void;
  onData(connection: Connection, frame: Buffer): void;
  /** Called once, whatever the state was. `why` is null where the other end simply closed, or this end was told to. */
  onClosed(connection: Connection, why: Error | null): void;
}

export interface ConnectionContext {
  readonly local: LocalIdentity;
  readonly clock: Clock;
  readonly limits: TransportLimits;
  readonly sockets: Sockets;
  readonly events: Pick<TransportEvents, 'onUnknownPeer'>;
}

/**
 * One TCP connection to a peer, from its first byte to its last: handshake, frames, keep-alive, end. `dialed` is null
 * where it was accepted.
 */
export function createConnection(
  socket: Socket,
  dialed: Dialed | null,
  initialOwner: ConnectionOwner,
  context: ConnectionContext,
): Connection {
  const { local, clock, limits, sockets, events } = context;
  let owner = initialOwner;
  let state: State = dialed === null ? 'greeting' : 'opening';
  let peerId = dialed?.id ?? 0;
  let channel: Channel = dialed?.channel ?? 'main';
  let refusedFor: RefusalCode | null = null;
  let incarnation = 0;
  let framesIn = 0;
  let bytesIn = 0;
  let bytesThisTurn = 0;
  let partingWith: Error | null = null;

  /** Whether anything arrived since the last keep-alive, and for how many of them in a row nothing did. */
  let heard = false;
  let silentKeepAlives = 0;

  const outbox = createOutbox(socket, clock, limits.linkBufferBytesMax);
  const decoder = createFrameDecoder(HANDSHAKE_PAYLOAD_BYTES_MAX, onFrame);
  let cancelTimer = clock.after(
    dialed === null ? limits.handshakeMsMax : limits.connectMsMax,
    dialed === null ? handshakeTimedOut : () => finish(new Error(`not connected within ${limits.connectMsMax} ms`)),
  );

  function onFrame(type: FrameType, payload: Buffer): void {
    framesIn += 1;
    switch (state) {
      case 'up':
        onFrameWhenUp(type, payload);
        break;
      case 'greeting':
        onGreeting(type, payload);
        break;
      case 'confirming':
        onConfirmation(type, payload);
        break;
      case 'opening':
      case 'parting':
      case 'closed':
        break;
    }
  }

  function onFrameWhenUp(type: FrameType, payload: Buffer): void {
    switch (type) {
      case 'data':
        owner.onData(connection, payload);
        break;
      case 'ping':
        outbox.send('pong', []);
        break;
      case 'pong':
        break;
      case 'refuse':
        refusedByPeer(payload);
        break;
      case 'hello':
        throw unexpected(type);
    }
  }

  function onGreeting(type: FrameType, payload: Buffer): void {
    if (type === 'refuse' && dialed !== null) {
      refusedByPeer(payload);
      return;
    }
    if (type !== 'hello') throw unexpected(type);
    const hello = decodeHello(payload);
    const refusal = checkHello(hello, local, dialed) ?? checkProof(hello.fromId);
    if (refusal !== null) {
      outbox.send('refuse', [encodeRefusal(refusal)]);
      partFor(refusalError(refusal, 'us'));
      const isUnknownPeer = refusal.code === 'unknownPeer' && checkProof(hello.fromId) === null;
      if (isUnknownPeer) events.onUnknownPeer(hello.fromId);
      return;
    }
    peerId = hello.fromId;
    incarnation = hello.incarnation;
    channel = hello.channel ?? channel;
    if (dialed !== null) {
      goUp('ping');
      return;
    }
    outbox.send('hello', [encodeHello(local, peerId, channel)]);
    state = 'confirming';
  }

  function refusedByPeer(payload: Buffer): void {
    const refusal = decodeRefusal(payload);
    refusedFor = refusal.code;
    finish(refusalError(refusal, 'peer'));
  }

  function checkProof(claimedId: number): Refusal | null {
    if (sockets.proves(socket, claimedId)) return null;
    return { code: 'certificate', text: `the certificate of the peer does not name node ${claimedId}` };
  }

  function onConfirmation(type: FrameType, payload: Buffer): void {
    if (type === 'refuse') {
      refusedByPeer(payload);
      return;
    }
    if (type !== 'ping') throw unexpected(type);
    goUp('pong');
  }

  function goUp(say: 'ping' | 'pong'): void {
    outbox.send(say, []);
    state = 'up';
    decoder.setPayloadBytesMax(FRAME_BYTES_MAX);
    if (channel === 'bulk') {
      outbox.setBufferedBytesMax(limits.bulkBufferBytesMax);
      outbox.setTurnBytes(limits.bulkTurnBytes);
    }
    cancelTimer();
    cancelTimer = clock.after(limits.keepAliveMs, keepAlive);
    owner.onUp(connection);
  }

  function keepAlive(): void {
    silentKeepAlives = heard ? 0 : silentKeepAlives + 1;
    if (silentKeepAlives >= limits.silentKeepAlivesMax) {
      finish(new Error(`no data received for ${silentKeepAlives * limits.keepAliveMs} ms`));
      return;
    }
    if (!heard) outbox.send('ping', []);
    heard = false;
    cancelTimer = clock.after(limits.keepAliveMs, keepAlive);
  }

  function handshakeTimedOut(): void {
    finish(partingWith ?? new Error(`no handshake within ${limits.handshakeMsMax} ms`));
  }

  /** Ends once what is queued has been sent, or when the timer that runs says so. */
  function partFor(why: Error | null): void {
    if (state === 'closed' || state === 'parting') return;
    state = 'parting';
    partingWith = why;
    decoder.close();
    outbox.flush();
    // A refused peer may never close its end, so ours does not wait for it.
    if (why === null) socket.end();
    else socket.end(() => finish(why));
  }

  function finish(why: Error | null): void {
    if (state === 'closed') return;
    state = 'closed';
    cancelTimer();
    decoder.close();
    socket.destroy();
    owner.onClosed(connection, why);
  }

  /** What a bulk connection reads in one turn of the event loop is bounded: the others have their turn then. */
  function takeTurns(bytes: number): void {
    bytesThisTurn += bytes;
    if (bytesThisTurn < limits.bulkTurnBytes || socket.isPaused()) return;
    socket.pause();
    clock.endOfTurn(() => {
      bytesThisTurn = 0;
      socket.resume();
    });
  }

  socket.on('data', (chunk: Buffer) => {
    heard = true;
    bytesIn += chunk.length;
    if (channel === 'bulk') takeTurns(chunk.length);
    try {
      decoder.push(chunk);
    } catch (error) {
      if (!isPeersFault(error)) throw error;
      finish(error);
    }
  });
  socket.on('end', () => finish(partingWith));
  socket.on('error', (error) => finish(partingWith ?? error));
  socket.on('close', () => finish(partingWith));

  const connection: Connection = {
    get peerId() {
      return peerId;
    },
    get channel() {
      return channel;
    },
    get refusedFor() {
      return refusedFor;
    },
    get incarnation() {
      return incarnation;
    },
    get framesIn() {
      return framesIn;
    },
    get bytesIn() {
      return bytesIn;
    },
    get framesOut() {
      return outbox.framesOut;
    },
    get bytesOut() {
      return outbox.bytesOut;
    },
    bufferedBytes: outbox.bufferedBytes,
    opened() {
      if (state !== 'opening' || dialed === null) return;
      state = 'greeting';
      cancelTimer();
      cancelTimer = clock.after(limits.handshakeMsMax, handshakeTimedOut);
      outbox.send('hello', [encodeHello(local, dialed.id, channel)]);
      outbox.flush();
    },
    send: (parts) => state === 'up' && outbox.send('data', parts),
    handTo(other) {
      owner = other;
    },
    part(reason) {
      if (reason !== null) outbox.send('refuse', [encodeRefusal(reason)]);
      partFor(null);
    },
    close: finish,
  };
  return connection;
}

/** Bytes that a peer should not have sent end its connection; anything else thrown is a defect here, and ends the process. */
function isPeersFault(error: unknown): error is RaftkvError {
  return error instanceof RaftkvError && (error.code === 'FRAME_INVALID' || error.code === 'MESSAGE_INVALID');
}

function unexpected(type: FrameType): RaftkvError {
  return new RaftkvError('FRAME_INVALID', `unexpected ${type} frame`);
}
