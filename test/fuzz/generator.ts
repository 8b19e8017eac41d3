/**
 * Makes request streams of memcached's text protocol by its grammar: most of them valid, many nearly so, some hostile.
 * The same seed makes the same stream.
 */

export interface Dialect {
  /** Bare newlines, and lines and lengths at every limit. */
  readonly hostile: boolean;
  /** Cas uniques that may be met: with the real memcached there is no telling which. */
  readonly casUniques: readonly string[];
  readonly metaFlags: Readonly<Record<'mg' | 'ms' | 'md' | 'ma', readonly string[]>>;
  /** Keys of items that are invalidated and won; keys of numbers; keys that only base64 can name. */
  readonly keys: readonly string[];
  readonly numberKeys: readonly string[];
  readonly encodedKeys: readonly string[];
  /** Larger than an item may be. */
  readonly tooLargeBytes: number;
}

const EXPTIMES = ['0', '0', '0', '1000', '2000', '-1', '2592001'];

const ODD_FLAGS = ['!', 'a', '1', '\xfe', 'q', 'Tx', 'T', 'N', 'Cx', 'Jx', 'Dx', 'Z', 'w'];

export class Generator {
  readonly #random: () => number;
  readonly #dialect: Dialect;

  constructor(random: () => number, dialect: Dialect) {
    this.#random = random;
    this.#dialect = dialect;
  }

  request(): string {
    const choice = this.#random();
    if (choice < 0.22) return this.#storage();
    if (choice < 0.4) return this.#classic();
    if (choice < 0.62) return this.#metaGet();
    if (choice < 0.78) return this.#metaSet();
    if (choice < 0.86) return this.#metaDelete();
    if (choice < 0.95) return this.#metaArithmetic();
    return this.#odd();
  }

  #one<T>(from: readonly T[]): T {
    return from[Math.floor(this.#random() * from.length)] as T;
  }

  #chance(share: number): boolean {
    return this.#random() < share;
  }

  #line(fields: readonly string[]): string {
    const end = this.#dialect.hostile && this.#chance(0.1) ? '\n' : '\r\n';
    return fields.filter((field) => field !== '').join(this.#chance(0.02) ? '  ' : ' ') + end;
  }

  #block(value: string, line: string): string {
    if (this.#chance(0.03)) return `${value}${this.#one(['x\r\n', '\r', ''])}\r\n`;
    return value + (line.endsWith('\r\n') || this.#chance(0.5) ? '\r\n' : '\n');
  }

  #key(): string {
    if (this.#chance(0.03)) return this.#one(['k'.repeat(250), '\xff\t\x01', 'noreply']);
    return this.#one(this.#chance(0.25) ? this.#dialect.numberKeys : this.#dialect.keys);
  }

  #value(key: string): string {
    const { hostile, numberKeys, encodedKeys } = this.#dialect;
    if (numberKeys.includes(key) || (!hostile && encodedKeys.includes(key))) {
      const largest = hostile ? '18446744073709551615' : '9007199254740993';
      return this.#one(['0', '7', '10', '99', largest, '9007199254740993', ' 5', '5 ', 'x', '', '-1']);
    }
    return this.#one(['', 'v', 'value', 'two words', '\r\n', '\0\xff', 'get a\r\n', 'x'.repeat(300)]);
  }

  #number(usual: readonly string[]): string {
    if (this.#chance(0.04)) return this.#one(['x', '-', '+3', '5x', '18446744073709551616', '99999999999999999999999']);
    return this.#one(usual);
  }

  #exptime(): string {
    return this.#number(EXPTIMES);
  }

  /** memcached 1.6.18 reads the data behind a bad argument as commands. */
  #argument(usual: readonly string[]): string {
    return this.#dialect.hostile ? this.#number(usual) : this.#one(usual);
  }

  #storage(): string {
    const name = this.#one(['set', 'set', 'set', 'add', 'replace', 'append', 'prepend', 'cas']);
    const key = this.#dialect.hostile && this.#chance(0.01) ? 'k'.repeat(251) : this.#key();
    const value = this.#value(key);
    const mayBeMissing = this.#dialect.hostile || name !== 'cas';
    const bytes = mayBeMissing && this.#chance(0.02) ? this.#one(['-1', 'x', '']) : String(value.length);
    const unique = name === 'cas' ? this.#argument(this.#dialect.casUniques) : '';
    const noreply = this.#chance(0.1) ? 'noreply' : '';
    const line = this.#line([
      name,
      key,
      this.#argument(['0', '5', '4294967295']),
      this.#argument(EXPTIMES),
      bytes,
      unique,
      noreply,
    ]);
    return line + this.#block(value, line);
  }

  #classic(): string {
    const { hostile } = this.#dialect;
    const key = this.#key();
    const noreply = this.#chance(0.1) ? 'noreply' : '';
    switch (this.#one(['get', 'get', 'gets', 'gat', 'gats', 'delete', 'incr', 'decr', 'touch', 'flush'])) {
      case 'get': {
        const third = hostile && this.#chance(0.02) ? 'k'.repeat(251) : '';
        return this.#line(['get', key, this.#chance(0.5) ? this.#key() : '', third]);
      }
      case 'gets':
        return this.#line(['gets', key, this.#chance(0.5) ? this.#key() : '']);
      case 'gat':
        return this.#line(['gat', this.#exptime(), key, this.#chance(0.3) ? this.#key() : '']);
      case 'gats':
        return this.#line(['gats', this.#exptime(), key]);
      case 'delete':
        return this.#line(['delete', key, this.#chance(0.2) ? this.#one(['0', '1', '0 noreply', 'noreply']) : '']);
      case 'touch':
        return this.#line(['touch', key, this.#exptime(), noreply]);
      case 'flush':
        return this.#chance(0.1) ? this.#line(['flush_all', noreply]) : this.#line(['get', key]);
      default:
        return this.#arithmetic(noreply);
    }
  }

  #arithmetic(noreply: string): string {
    const largest = this.#dialect.hostile ? '18446744073709551615' : '9007199254740993';
    const delta = this.#number(['1', '5', '0', '100', largest]);
    const key = this.#chance(0.1) ? this.#one(['none', 'k'.repeat(251)]) : this.#one(this.#dialect.numberKeys);
    return this.#line([this.#one(['incr', 'decr']), key, delta, noreply]);
  }

  #flags(command: 'mg' | 'ms' | 'md' | 'ma'): string[] {
    const flags: string[] = [];
    for (let count = Math.floor(this.#random() * 6); count > 0; count--) {
      const flag = this.#one(this.#dialect.metaFlags[command]);
      if (!flags.some((other) => other[0] === flag[0])) flags.push(flag);
    }
    const { hostile } = this.#dialect;
    const mayBeTooLong = hostile || command === 'ms' || command === 'md';
    if (this.#chance(0.03)) flags.push(this.#one(ODD_FLAGS), hostile ? this.#one(['s', 'q']) : 'q');
    if (this.#chance(0.02)) flags.push(`O${'o'.repeat(this.#one(mayBeTooLong ? [30, 31, 32] : [30, 31]))}`);
    if ((hostile || command !== 'ms') && this.#chance(0.005)) flags.push(...'stcvfkqhlubOPLNTR'.split(''));
    return flags;
  }

  /** Key and flags; with a base64 key, its flag somewhere among them. */
  #keyed(flags: string[], keys: readonly string[]): [string, string[]] {
    if (this.#chance(0.01)) return [this.#one(['a', 'YQ', 'YQ===', '!!!!', '=', 'YWI*']), ['b']];
    if (this.#chance(0.1)) {
      const at = Math.floor(this.#random() * (flags.length + 1));
      return [this.#one(this.#dialect.encodedKeys), [...flags.slice(0, at), 'b', ...flags.slice(at)]];
    }
    return [this.#one(keys), flags];
  }

  #metaGet(): string {
    const [key, flags] = this.#keyed(this.#flags('mg'), [...this.#dialect.keys, ...this.#dialect.keys, 'none']);
    return this.#line(['mg', this.#chance(0.01) ? 'k'.repeat(251) : key, ...flags]);
  }

  #metaSet(): string {
    const { hostile, keys, tooLargeBytes } = this.#dialect;
    const [key, flags] = this.#keyed(this.#flags('ms'), keys);
    const value = this.#value(key);
    if (hostile && this.#chance(0.005)) {
      const line = this.#line(['ms', key, String(tooLargeBytes), ...flags]);
      return line + this.#block('x'.repeat(tooLargeBytes), line);
    }
    const bytes = this.#chance(0.02) ? this.#one(['-1', 'x', '', 'S2']) : String(value.length);
    const longKey = hostile && this.#chance(0.01);
    const line = this.#line(['ms', longKey ? 'k'.repeat(251) : key, bytes, ...flags]);
    return line + this.#block(value, line);
  }

  #metaDelete(): string {
    const [key, flags] = this.#keyed(this.#flags('md'), this.#dialect.keys);
    return this.#line(['md', key, ...flags]);
  }

  #metaArithmetic(): string {
    const [key, flags] = this.#keyed(this.#flags('ma'), [...this.#dialect.numberKeys, 'fresh']);
    return this.#line(['ma', key, ...flags]);
  }

  #odd(): string {
    return this.#one([
      '\r\n',
      'mn\r\n',
      'mn\r\n',
      'bogus\r\n',
      'GET a\r\n',
      'mg\r\n',
      'ms\r\n',
      'ms a\r\n',
      'set\r\n',
      'mq a\r\n',
    ]);
  }
}
