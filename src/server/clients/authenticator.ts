import { LoginParser } from '../../memcached/login.ts';
import { AUTHENTICATION_FAILURE, NOTHING, STORED } from '../../memcached/replies.ts';
import type { Counters } from '../counters.ts';
import type { Credentials } from './credentials.ts';

/** `refused` ones may try again, up to a limit. */
export type Verdict = 'admitted' | 'refused' | 'hangUp';

/** Checks the login of a connection. One object serves all connections of a port, as their parser does. */
export class Authenticator {
  verdict: Verdict = 'refused';
  reply: Buffer = NOTHING;
  readonly #parser = new LoginParser();
  readonly #credentials: Credentials;
  readonly #counters: Counters;

  constructor(credentials: Credentials, counters: Counters) {
    this.#credentials = credentials;
    this.#counters = counters;
  }

  /** Returns how many bytes were consumed, or 0 if more are needed. */
  examine(buffer: Buffer, start: number, end: number): number {
    const parser = this.#parser;
    const bytes = parser.parse(buffer, start, end);
    if (bytes === 0) return 0;
    if (parser.outcome !== 'attempt') {
      this.verdict = parser.outcome;
      this.reply = parser.reply;
      return bytes;
    }
    const accepted = this.#credentials.accept(parser.token);
    parser.token = '';
    this.#counters.auth_cmds++;
    if (!accepted) this.#counters.auth_errors++;
    this.verdict = accepted ? 'admitted' : 'refused';
    this.reply = accepted ? STORED : AUTHENTICATION_FAILURE;
    return bytes;
  }
}
