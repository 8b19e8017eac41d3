import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import type { Clock } from '../../base/clock.ts';
import type { Output } from '../../memcached/output.ts';
import { beginsBinary, type RequestParser } from '../../memcached/parser.ts';
import { OK, OUT_OF_INPUT_MEMORY, TOO_MANY_WATCHERS } from '../../memcached/replies.ts';
import { Command } from '../../memcached/request.ts';
import type { Failure, Replica } from '../../replica/types.ts';
import type { Counters } from '../counters.ts';
import type { AnswerContext } from '../requests/answer-context.ts';
import { writeAnswer } from '../requests/answers.ts';
import { copyKeys, kindOf, propose } from '../requests/requests.ts';
import { type Slot, type SlotOwner, type SlotPool, SlotQueue } from '../requests/slots.ts';
import type { Authenticator } from './authenticator.ts';
import type { InputMemory } from './input.ts';
import type { ClientLimits } from './limits.ts';
import { RequestReader } from './request-reader.ts';
import type { Watch, Watchers } from './watchers.ts';

/** The state that the connections of a port share. */
export interface ConnectionHost {
  readonly clock: Clock;
  readonly replica: Replica;
  readonly limits: ClientLimits;
  readonly counters: Counters;
  readonly parser: RequestParser;
  /** Holds the replies of the one connection that is being served. */
  readonly output: Output;
  readonly watchers: Watchers;
  readonly slots: SlotPool;
  /** Null if clients need not log in. */
  readonly authenticator: Authenticator | null;
  readonly inputMemory: InputMemory;
  /** Calls `serve` at the end of the present callback. */
  serveSoon(connection: Connection): void;
  /** Calls `serve` when the other connections had their turn. */
  serveNextTurn(connection: Connection): void;
  /** Calls `serve` when the replica accepts again. */
  serveOnceAccepting(connection: Connection): void;
  writeStats(output: Output, subject: string): void;
  closed(connection: Connection): void;
}

/**
 * One client.
 *
 *   chunk ─▶ input ─▶ take: parse, give each request a slot ─▶ propose / read ─▶ replica
 *                      ▲ waits where order or a limit asks                         │ results, in bursts
 *   socket ◀── output ◀── serve: answer the slots from the front, in order ◀──── slots
 *
 * Order: commands take effect as they were sent. The replica keeps the order of writes. A read is executed from the
 * front of the row, after its own confirmation and behind every answered write. A write behind a read that was not
 * executed is not taken yet: it stays in the input, and so does all that follows.
 */
export class Connection implements SlotOwner, AnswerContext {
  readonly output: Output;
  readonly replica: Replica;
  readonly counters: Counters;
  nowMs = 0;
  /** In the port's list of those to be served. */
  listed = false;
  /** In the port's list of those to be served when the replica accepts again. */
  awaitsReplica = false;
  readonly #socket: Socket;
  readonly #host: ConnectionHost;
  readonly #reader: RequestReader;
  readonly #queue = new SlotQueue();
  #cancelLogin: (() => void) | null = null;
  /** Not null once this client watches: nothing more that it sends is looked at. */
  #watch: Watch | null = null;
  /** Reads in the queue; each is there until its last byte is written. */
  #unexecutedReads = 0;
  /** This pass of `#take` has asked the replica to confirm a read: later reads of the pass use the same confirmation. */
  #readAsked = false;
  /** Why the last read could not be confirmed; null if it was. */
  #readFailure: Failure | null = null;
  /** Whether a complete request is in the buffer but has to wait for something other than bytes. */
  #blocked = false;
  #paused = false;
  /** The client has closed its side, or the port is stopping: only requests that have arrived are answered. */
  #inputOver = false;
  /** No further request is taken. */
  #closing = false;
  /** Our side is ended. */
  #ended = false;
  #gone = false;
  #heardBefore = false;
  /** Anything came, or went out after a wait, since silence was last counted. */
  #stirred = true;
  #silences = 0;
  #keysLeft = 0;
  #cancelLinger: (() => void) | null = null;

  constructor(socket: Socket, host: ConnectionHost) {
    this.#socket = socket;
    this.#host = host;
    this.output = host.output;
    this.replica = host.replica;
    this.counters = host.counters;
    this.#reader = new RequestReader(host.parser, host.authenticator, host.limits.refusalsMax, host.inputMemory);
    if (host.authenticator !== null) {
      this.#cancelLogin = host.clock.after(host.limits.loginMsMax, () => socket.destroy());
    }
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => this.#received(chunk));
    socket.on('end', () => this.#inputEnded());
    socket.on('drain', () => {
      this.#stirred = true;
      host.serveSoon(this);
    });
    // A client that resets its connection is everyday; 'close' follows and says all there is to do.
    socket.on('error', () => {});
    socket.on('close', () => this.#closed());
  }

  get remoteAddress(): string {
    return `${this.#socket.remoteAddress ?? ''}:${this.#socket.remotePort ?? ''}`;
  }

  get state(): string {
    if (this.#closing || this.#ended) return 'conn_closing';
    if (this.#watch !== null) return 'conn_watch';
    if (this.#reader.isSwallowing) return 'conn_swallow';
    if (this.#socket.writableLength > 0) return 'conn_mwrite';
    return this.#queue.length > 0 ? 'conn_io_pending' : 'conn_read';
  }

  /** Answers what has come so far, then closes. */
  finish(): void {
    this.#inputOver = true;
    this.#host.serveSoon(this);
  }

  destroy(): void {
    this.#socket.destroy();
  }

  /** Called at even intervals: how many of them in a row were silent, though nothing was owed to this client. */
  countSilence(): number {
    const listens = this.#watch !== null && this.#socket.writableLength === 0;
    const owed = listens || this.awaitsReplica || (this.#queue.head?.awaited ?? 0) > 0;
    this.#silences = this.#stirred || owed ? 0 : this.#silences + 1;
    this.#stirred = false;
    return this.#silences;
  }

  slotAnswered(slot: Slot): void {
    if (slot === this.#queue.head) this.#host.serveSoon(this);
  }

  /** Writes what can be answered, takes what could not be taken before, sends it all as one. */
  serve(): void {
    if (this.#gone) return;
    this.#keysLeft = this.#host.limits.keysPerTurnMax;
    this.nowMs = this.#host.clock.wallMs();
    this.#answer();
    while (this.#blocked && this.#take()) this.#answer();
    if (this.#watch !== null) this.#relay(this.#watch);
    this.#send();
    this.#applyStateChange();
  }

  writeStats(subject: string): void {
    this.#host.writeStats(this.output, subject);
  }

  mayWriteMore(): boolean {
    this.#keysLeft--;
    if (!this.#hasRoom()) return false;
    if (this.#keysLeft > 0) return true;
    this.#host.serveNextTurn(this);
    return false;
  }

  #received(chunk: Buffer): void {
    this.counters.bytes_read += chunk.length;
    this.#stirred = true;
    if (!this.#heardBefore && beginsBinary(chunk[0])) {
      this.#reset();
      return;
    }
    this.#heardBefore = true;
    if (this.#inputOver || this.#closing || this.#watch !== null) return;
    this.#reader.input.append(chunk);
    if (!this.#blocked) this.#take();
    if (this.#queue.head?.awaited === 0) this.#host.serveSoon(this);
    this.#applyStateChange();
  }

  /** Clients of the binary protocol take a reset for an error, but an orderly end for nothing: they would wait on. */
  #reset(): void {
    // TLS has no such thing.
    if (this.#socket instanceof TLSSocket) this.#socket.destroy();
    else this.#socket.resetAndDestroy();
  }

  #inputEnded(): void {
    this.#inputOver = true;
    this.#host.serveSoon(this);
  }

  /** Gives every whole request of the input its slot, up to the first that must wait. True where it took anything. */
  #take(): boolean {
    const { parser, limits } = this.#host;
    const { input } = this.#reader;
    let taken = false;
    this.#blocked = false;
    this.#readAsked = false;
    for (let { buffer } = input; buffer !== null && !this.#closing && this.#watch === null; { buffer } = input) {
      if (this.#queue.length >= limits.pendingRequestsMax || !this.#hasRoom()) {
        this.#blocked = true;
        break;
      }
      const found = this.#reader.next(buffer);
      if (found === 'incomplete') break;
      if (found === 'request') {
        if (!this.#place(parser, buffer)) {
          this.#blocked = true;
          break;
        }
        this.#reader.accept();
      }
      if (found === 'login') this.#answerLogin();
      taken = true;
    }
    if (this.#closing || this.#watch !== null) input.clear();
    return taken;
  }

  #answerLogin(): void {
    this.#say(this.#reader.loginReply);
    if (this.#reader.isLoggedIn) this.#cancelLogin?.();
    if (this.#reader.isRejected) this.#closing = true;
  }

  /** Queues a reply to something that never was a request. */
  #say(reply: Buffer): void {
    const slot = this.#host.slots.take(this, Command.reply);
    slot.reply = reply;
    this.#queue.push(slot);
  }

  /** Puts the parsed request in its place; false where it may not be taken yet. */
  #place(parser: RequestParser, input: Buffer): boolean {
    const kind = kindOf(parser.command);
    if (kind === 'end') {
      this.#closing = true;
      return true;
    }
    if (kind === 'write' && this.#unexecutedReads > 0) return false;
    if (kind !== 'local' && !this.replica.accepting()) {
      this.#host.serveOnceAccepting(this);
      return false;
    }
    const slot = this.#host.slots.take(this, parser.command);
    this.#queue.push(slot);
    if (kind === 'local') {
      slot.reply = parser.command === Command.watch ? this.#beginWatch() : parser.reply;
      slot.text = parser.subject;
    } else if (kind === 'read') {
      this.#placeRead(slot, parser, input);
    } else {
      slot.noreply = parser.noreply;
      propose(slot, parser, input, this.replica);
    }
    return true;
  }

  #beginWatch(): Buffer {
    this.#watch = this.#host.watchers.add(() => this.#host.serveSoon(this));
    return this.#watch === null ? TOO_MANY_WATCHERS : OK;
  }

  /** Lines go out behind all replies, as far as there is room: 'drain' goes on. */
  #relay(watch: Watch): void {
    if (this.#queue.head !== null) return;
    while (this.#hasRoom()) {
      const line = watch.take();
      if (line === null) return;
      this.output.latin1(line);
    }
  }

  /**
   * All reads of one pass had arrived before the first of them asked for its confirmation, so that the one moment it
   * stands for is within each of them.
   */
  #placeRead(slot: Slot, parser: RequestParser, input: Buffer): void {
    if (slot.command !== Command.listKeys) copyKeys(slot, parser, input);
    this.#unexecutedReads++;
    slot.followsRead = this.#readAsked;
    if (this.#readAsked) return;
    this.#readAsked = true;
    slot.awaited = 1;
    this.replica.read(slot);
  }

  #answer(): void {
    for (let slot = this.#queue.head; slot !== null && slot.awaited === 0; slot = this.#queue.head) {
      if (!this.#hasRoom()) return;
      const isRead = kindOf(slot.command) === 'read';
      if (isRead && slot.followsRead) slot.failure = this.#readFailure;
      else if (isRead && !slot.escalated) this.#readFailure = slot.failure;
      if (!writeAnswer(slot, this)) return;
      if (isRead) this.#unexecutedReads--;
      this.#queue.shift();
      this.#host.slots.give(slot);
    }
  }

  /** False while the client has too many replies to read: 'drain' goes on. */
  #hasRoom(): boolean {
    if (this.output.isFull) this.#send();
    return this.#socket.writableLength <= this.#host.limits.unsentBytesMax;
  }

  #send(): void {
    const { output } = this;
    if (output.length === 0) return;
    this.counters.bytes_written += output.length;
    if (this.#ended || !this.#socket.writable) {
      output.clear();
      return;
    }
    if (this.#socket.writableLength > 0) {
      this.#socket.write(Buffer.from(output.gathered()));
      output.clear();
      return;
    }
    this.#socket.write(output.gathered());
    // Nothing is left to write: the kernel has a copy, and the memory may be used again.
    if (this.#socket.writableLength === 0) output.clear();
    else output.giveAway();
  }

  /** Applies a state change: releases input memory, pauses or resumes the socket, closes it when done. */
  #applyStateChange(): void {
    if (!this.#blocked) this.#releaseInput();
    if (this.#isFinished()) this.#end();
    this.#pauseOrResume();
  }

  #releaseInput(): void {
    const { input } = this.#reader;
    if (input.buffer === null) return;
    input.shrink();
    if (this.#host.inputMemory.bytes <= this.#host.limits.inputBytesMax) return;
    input.clear();
    this.#closing = true;
    this.#say(OUT_OF_INPUT_MEMORY);
    this.#host.serveSoon(this);
  }

  #isFinished(): boolean {
    if (this.#ended || this.#queue.head !== null) return false;
    return this.#closing || (this.#inputOver && !this.#blocked);
  }

  #end(): void {
    this.#ended = true;
    this.#socket.end(() => {
      if (this.#gone) return;
      this.#cancelLinger = this.#host.clock.after(this.#host.limits.lingerMsMax, () => this.#socket.destroy());
    });
  }

  #pauseOrResume(): void {
    const { limits, inputMemory } = this.#host;
    const full = this.#reader.input.length >= limits.heldInputBytesMax || inputMemory.bytes > limits.inputBytesMax;
    const pause = this.#blocked && full && !this.#inputOver;
    if (pause === this.#paused) return;
    this.#paused = pause;
    if (pause) this.#socket.pause();
    else this.#socket.resume();
  }

  #closed(): void {
    this.#gone = true;
    if (this.#watch !== null) this.#host.watchers.remove(this.#watch);
    this.#cancelLogin?.();
    this.#cancelLinger?.();
    this.#reader.input.clear();
    for (let slot = this.#queue.head; slot !== null; slot = this.#queue.head) {
      this.#queue.shift();
      // A slot whose write the replica has not answered yet is freed when the answer comes.
      if (slot.awaited > 0) slot.owner = null;
      else this.#host.slots.give(slot);
    }
    this.#host.closed(this);
  }
}
