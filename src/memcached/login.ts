import { LINE_BYTES_MAX } from './parser.ts';
import { BAD_TERMINATION, BAD_TOKEN_FORMAT, NOTHING, UNAUTHENTICATED } from './replies.ts';
import { readUint32, startsWith, Tokens } from './tokens.ts';

/** The limits on the entries of the file of users. With them, the length of a token is bounded. */
export const USER_BYTES_MAX = 256;
export const PASSWORD_BYTES_MAX = 256;
/**
 * The length of the longest token. A longer one is refused at once, so it needs no memory. Allows a few extra spaces.
 */
const TOKEN_BYTES_MAX = USER_BYTES_MAX + PASSWORD_BYTES_MAX + 16;

const NEWLINE = 0x0a;
const RETURN = 0x0d;

/**
 * Parses what a client sends before it is logged in, as with memcached's option -Y: `set <any> <any> <any> <length>`,
 * and the token `<user> <password>` as its data block. Every other line is refused.
 */
export class LoginParser {
  /**
   * `attempt`: `token` must be checked. `refused`: `reply` says why. `hangUp`: the connection must be closed after
   * `reply`, which may be empty.
   */
  outcome: 'attempt' | 'refused' | 'hangUp' = 'refused';
  /** The user and the password, separated by one space. One character per byte. */
  token = '';
  reply: Buffer = NOTHING;
  readonly #tokens = new Tokens();

  /** Parses the request that begins at `start`. Returns its length, or 0 if it is incomplete. */
  parse(buffer: Buffer, start: number, end: number): number {
    const tokens = this.#tokens;
    const next = tokens.split(buffer, start, end);
    if (next === -1) return end - start > LINE_BYTES_MAX ? this.#hangUp(NOTHING, end - start) : 0;
    const consumed = next - start;
    const last = tokens.count - 1;
    if (last >= 0 && startsWith(buffer, tokens.start(last), tokens.end(last), 'HTTP/')) {
      return this.#hangUp(NOTHING, consumed);
    }
    if (tokens.count < 5 || !tokens.is(0, buffer, 'set')) return this.#refuse(UNAUTHENTICATED, consumed);
    const bytes = readUint32(buffer, tokens.start(4), tokens.end(4));
    if (bytes < 0) return this.#refuse(UNAUTHENTICATED, consumed);
    if (bytes > TOKEN_BYTES_MAX) return this.#hangUp(BAD_TOKEN_FORMAT, end - start);
    return this.#block(buffer, start, next, next + bytes, end);
  }

  /** Reads the data block. It ends in `\r\n`, or in a bare `\n` if the command line did. */
  #block(buffer: Buffer, start: number, valueStart: number, valueEnd: number, end: number): number {
    const shortEnd = !this.#tokens.endsInReturn && valueEnd < end && buffer[valueEnd] === NEWLINE;
    const blockEnd = valueEnd + (shortEnd ? 1 : 2);
    if (blockEnd > end) return 0;
    const consumed = blockEnd - start;
    const ended = shortEnd || (buffer[valueEnd] === RETURN && buffer[valueEnd + 1] === NEWLINE);
    if (!ended) return this.#refuse(BAD_TERMINATION, consumed);
    const fields = buffer.toString('latin1', valueStart, valueEnd).split(' ');
    const [user, password] = fields.filter((field) => field !== '');
    if (user === undefined || password === undefined) return this.#refuse(BAD_TOKEN_FORMAT, consumed);
    this.outcome = 'attempt';
    this.token = `${user} ${password}`;
    return consumed;
  }

  #refuse(reply: Buffer, consumed: number): number {
    this.outcome = 'refused';
    this.reply = reply;
    return consumed;
  }

  #hangUp(reply: Buffer, consumed: number): number {
    this.outcome = 'hangUp';
    this.reply = reply;
    return consumed;
  }
}
