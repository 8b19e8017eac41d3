import type { RequestParser } from '../../memcached/parser.ts';
import { NOTHING } from '../../memcached/replies.ts';
import { SwallowedBlock } from '../../memcached/request.ts';
import type { Authenticator } from './authenticator.ts';
import { Input, type InputMemory } from './input.ts';

/**
 * `request`: the parser holds one. `login`: a line of a client that is not logged in, which is answered by `loginReply`.
 * `skipped`: bytes that need no answer. `incomplete`: more bytes are needed.
 */
export type Found = 'request' | 'login' | 'skipped' | 'incomplete';

/** Reads one client's input: its login, where it has to log in, then requests, whose refused data it skips. */
export class RequestReader {
  readonly input: Input;
  loginReply: Buffer = NOTHING;
  /** The client is not to try again. */
  isRejected = false;
  readonly #parser: RequestParser;
  /** Not null until the client has logged in, if it has to: until then nothing it sends reaches the parser. */
  #authenticator: Authenticator | null;
  readonly #refusalsMax: number;
  #refusals = 0;
  #swallowed: SwallowedBlock | null = null;
  /** The length of the request that was found last. */
  #requestBytes = 0;

  constructor(parser: RequestParser, authenticator: Authenticator | null, refusalsMax: number, memory: InputMemory) {
    this.#parser = parser;
    this.#authenticator = authenticator;
    this.#refusalsMax = refusalsMax;
    this.input = new Input(memory);
  }

  get isLoggedIn(): boolean {
    return this.#authenticator === null;
  }

  get isSwallowing(): boolean {
    return this.#swallowed !== null;
  }

  /** Looks at what comes next in `buffer`, the input's. A request stays there until `accept`. */
  next(buffer: Buffer): Found {
    const { input } = this;
    if (this.#authenticator !== null) return this.#readLogin(buffer, this.#authenticator);
    if (this.#swallowed !== null) {
      input.consume(this.#swallowed.take(buffer, input.start, input.end));
      if (this.#swallowed.done) this.#swallowed = null;
      return 'skipped';
    }
    if (input.length < input.needBytes) return 'incomplete';
    const parser = this.#parser;
    this.#requestBytes = parser.parse(buffer, input.start, input.end, input.scanned);
    if (this.#requestBytes > 0) return 'request';
    input.needBytes = parser.needBytes;
    input.scanned = parser.scannedBytes;
    return 'incomplete';
  }

  /** Takes the request that was found out of the input. */
  accept(): void {
    const { swallowBytes, swallowBareNewline } = this.#parser;
    if (swallowBytes >= 0) this.#swallowed = new SwallowedBlock(swallowBytes, swallowBareNewline);
    this.input.consume(this.#requestBytes);
  }

  #readLogin(buffer: Buffer, authenticator: Authenticator): Found {
    const bytes = authenticator.examine(buffer, this.input.start, this.input.end);
    if (bytes === 0) return 'incomplete';
    this.input.consume(bytes);
    this.loginReply = authenticator.reply;
    if (authenticator.verdict === 'admitted') {
      this.#authenticator = null;
      return 'login';
    }
    this.#refusals++;
    this.isRejected = authenticator.verdict === 'hangUp' || this.#refusals >= this.#refusalsMax;
    return 'login';
  }
}
