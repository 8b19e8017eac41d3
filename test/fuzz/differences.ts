/**
 * Where this server means to differ from memcached 1.6.18, the version that Debian has. Each rule turns what both say
 * into one form; what it can't is not asked of them (`avoided`).
 */
export interface Rule {
  readonly name: string;
  readonly reason: string;
  readonly pattern: RegExp;
  readonly form: string;
}

export const RULES: readonly Rule[] = [
  {
    name: 'cas unique',
    reason: 'each server counts by itself; memcached also where nothing is stored',
    pattern: / c\d+(?=[ \r])/g,
    form: ' c#',
  },
  {
    name: 'cas unique of gets',
    reason: 'as above',
    pattern: /^(VALUE [^ ]+ \d+ \d+) \d+(?=\r)/gm,
    form: '$1 #',
  },
  {
    name: 'time to live',
    reason: 'memcached prints a time that has passed as a number near 2^32, and its clock has whole seconds',
    pattern: / t\d+(?=[ \r])/g,
    form: ' t#',
  },
  {
    name: 'accesses',
    reason: 'memcached counts touch as a fetch, and keeps the note where it counts up in place',
    pattern: / ([hl])\d+(?=[ \r])/g,
    form: ' $1#',
  },
  {
    name: 'encoded keys',
    reason: 'memcached 1.6.18 encodes a key in the reply where the item was stored by one that was encoded',
    pattern: / k(?:bin1|YmluMQ== b)(?=[ \r])/g,
    form: ' k#',
  },
  {
    name: 'error texts of md and ma',
    reason: 'memcached 1.6.18 has one text for all mistakes in their flags; from 1.6.45 they have the texts of mg',
    pattern:
      /CLIENT_ERROR (?:invalid or duplicate flag|duplicate flag|invalid flag|bad token in command line format|invalid numeric (?:initial|delta) value|error decoding key|options flags (?:are )?too long)/g,
    form: 'CLIENT_ERROR flag',
  },
];

export const AVOIDED: readonly string[] = [
  'E and x, ms with s, and N for ms A and P: unknown to 1.6.18',
  'M with no or several letters: 1.6.18 has an error for them that 1.6.45 has not',
  'F of more than 32 bits: 1.6.18 truncates it, 1.6.45 refuses it',
  'ms with more than 17 flags: 1.6.18 has another text, and reads the data as commands',
  'a multi-get with a key over 250 bytes: 1.6.18 drops replies to earlier requests along with it',
  'mg and ma with an opaque that is too long: 1.6.18 finds that after it has made or counted the item',
  'numbers from 2^63 on: 1.6.18 refuses them where a minus sign is in the memory behind them',
  'numbers while a reply or the LRU holds the item: memcached then replaces it unpadded (run one by one, without LRU)',
  'numbers on values of white space: 1.6.18 reads on into the memory behind them',
  'bare newlines behind data: memcached refuses them, this server does not where the line had one, too',
  'data behind a bad key, flags, exptime or unique: 1.6.18 reads it as commands, 1.6.45 swallows it',
  'numbers on items with tokens: memcached keeps the tokens where it counts in place',
  'ma with T: 1.6.18 sets the time of the item that a longer number has just replaced',
  'a cas unique that could be met: it differs from server to server (only older and newer ones are tried)',
  'times close enough to pass while the streams run',
];

export function normalized(replies: string): string {
  return RULES.reduce((text, { pattern, form }) => text.replaceAll(pattern, form), replies);
}

/** How often each rule had something to do. */
export function tally(replies: string): Record<string, number> {
  return Object.fromEntries(RULES.map(({ name, pattern }) => [name, replies.match(pattern)?.length ?? 0]));
}
