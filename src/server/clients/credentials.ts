import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';

/** A name and its password, one character per byte. */
export interface Credential {
  readonly user: string;
  readonly password: string;
}

/** Who may use the client port. Only digests are kept. */
export interface Credentials {
  /** `token` is user and password with one space between them; neither can hold one. */
  accept(token: string): boolean;
  /** From now on these and no others. Who is in stays in. */
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
