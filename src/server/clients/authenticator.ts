import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { LoginParser } from '../../memcached/login.ts';
import { AUTHENTICATION_FAILURE, NOTHING, STORED } from '../../memcached/replies.ts';
import type { Counters } from '../counters.ts';

/** A name and its password, one character per byte. */
export interface Credential {
  readonly user: string;
  readonly password: string;
}

/** The users of the client port. Only digests of their passwords are kept. */
export interface Credentials {
  /** `token` is user and password with one space between them; neither can hold one. */
  accept(token: string): boolean;
  /** Replaces the users. Connections that are logged in stay logged in. */
  replace(entries: readonly Credential[]): void;
}

export function createCredentials(entries: readonly Credential[]): Credentials {
  // The key lives as long as the process: digests of one run tell nothing about another's, or about equal passwords.
  const key = randomBytes(32);
  const digestOf = (token: string) => createHmac('sha256', key).update(token, 'latin1').digest();
  const digestsOf = (from: readonly Credential[]) => from.map(({ user, password }) => digestOf(`${user} ${password}`));
  let digests = digestsOf(entries);
  return {
    accept(token) {
      const digest = digestOf(token);
      // Every entry is compared to its end, so that time tells neither whether a user exists nor how near a guess was.
      let accepted = false;
      for (const known of digests) if (timingSafeEqual(known, digest)) accepted = true;
      return accepted;
    },
    replace(others) {
      digests = digestsOf(others);
    },
  };
}

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
