/**
 * The naive model of memcached's protocol, meta commands included: from the bytes of requests to the bytes of replies,
 * as plainly as can be, with strings, a Map, BigInt, and a clock that stands still. Written from the description of the
 * protocol; it shares nothing with the server, nor with reference-model.ts. The fuzz tests compare the port with it, and
 * it makes the histories with which the linearizability checker is tested (linearizability/perfect-history.ts).
 */

interface Item {
  value: string;
  flags: string;
  /** Milliseconds; Infinity for never. */
  expires: number;
  cas: bigint;
  stale: boolean;
  won: boolean;
  fetched: boolean;
}

const UINT64_MAX = 2n ** 64n - 1n;
const OVERHEAD = 59;
const BCLF = 'CLIENT_ERROR bad command line format';
const KNOWN_FLAGS = 'bkstcfvhluqxNTRLPOFCEMJDI';
const STORAGE = ['set', 'add', 'replace', 'append', 'prepend', 'cas'];

export class NaiveModel {
  readonly items = new Map<string, Item>();
  #lastCas = 0n;
  #input = '';
  #at = 0;
  #out = '';
  readonly #nowMs: number;
  readonly #itemBytesMax: number;

  constructor(nowMs: number, itemBytesMax: number) {
    this.#nowMs = nowMs;
    this.#itemBytesMax = itemBytesMax;
  }

  /** The replies to a whole stream. An unfinished request at its end has none. */
  converse(stream: string): string {
    this.#input = stream;
    this.#at = 0;
    this.#out = '';
    for (;;) {
      const end = stream.indexOf('\n', this.#at);
      if (end === -1) return this.#out;
      const bare = stream[end - 1] !== '\r' || end === this.#at;
      const line = stream.slice(this.#at, bare ? end : end - 1);
      this.#at = end + 1;
      this.#request(
        line.split(' ').filter((field) => field !== ''),
        bare,
      );
    }
  }

  #say(text: string, quiet = false): void {
    if (!quiet) this.#out += `${text}\r\n`;
  }

  /** The data, null where it is not ended as it must be, undefined where it is not all there. */
  #data(bytes: number, bare: boolean): string | null | undefined {
    const end = this.#at + bytes;
    if (bare && this.#input[end] === '\n') {
      const value = this.#input.slice(this.#at, end);
      this.#at = end + 1;
      return value;
    }
    if (end + 2 > this.#input.length) {
      this.#at = this.#input.length;
      return undefined;
    }
    const value = this.#input.slice(this.#at, end);
    this.#at = end + 2;
    return this.#input.slice(end, end + 2) === '\r\n' ? value : null;
  }

  #request(fields: string[], bare: boolean) {
    const [name = ''] = fields;
    if (STORAGE.includes(name)) this.#storage(name, fields, bare);
    else if (name === 'get' || name === 'gets') this.#get(fields.slice(1), name === 'gets');
    else if (name === 'gat' || name === 'gats') this.#gat(fields, name === 'gats');
    else if (name === 'delete') this.#delete(fields);
    else if (name === 'incr' || name === 'decr') this.#arithmetic(name, fields);
    else if (name === 'touch') this.#touch(fields);
    else if (name === 'flush_all') this.#flush(fields);
    else if (name === 'mn') this.#say('MN');
    else if (name === 'mg' || name === 'md' || name === 'ma') this.#meta(name, fields);
    else if (name === 'ms') this.#metaSet(fields, bare);
    else this.#say('ERROR');
  }

  #moment(exptime: bigint): number {
    if (exptime === 0n) return Number.POSITIVE_INFINITY;
    return exptime > 2_592_000n ? Number(exptime) * 1000 : this.#nowMs + Number(exptime) * 1000;
  }

  #put(key: string, item: Omit<Item, 'cas' | 'fetched'>, cas?: bigint): Item {
    const stored = { ...item, cas: cas ?? ++this.#lastCas, fetched: false };
    this.items.set(key, stored);
    this.#drop(key);
    return stored;
  }

  #drop(key: string) {
    const item = this.items.get(key);
    if (item !== undefined && item.expires <= this.#nowMs) this.items.delete(key);
  }

  #tooLarge(key: string, bytes: number): boolean {
    return key.length + bytes + OVERHEAD > this.#itemBytesMax;
  }

  #storage(name: string, fields: string[], bare: boolean) {
    const count = name === 'cas' ? 6 : 5;
    if (fields.length !== count && fields.length !== count + 1) return this.#say('ERROR');
    const [, key = '', flags = '', exptime = '', length = '', unique = ''] = fields;
    const quiet = fields.at(-1) === 'noreply';
    const bytes = unsigned(length);
    if (bytes === null || bytes > 2_147_483_645n) return this.#say(BCLF, quiet);
    const size = Number(bytes);
    const flagsNumber = unsigned(flags);
    const exptimeNumber = signed(exptime);
    const uniqueNumber = name === 'cas' ? unsigned(unique) : 0n;
    const bad = key.length > 250 || flagsNumber === null || flagsNumber >= 2n ** 32n || exptimeNumber === null;
    if (bad || uniqueNumber === null) {
      this.#data(size, bare);
      return this.#say(BCLF, quiet);
    }
    if (this.#tooLarge(key, size)) {
      this.#data(size, bare);
      if (name === 'set') this.items.delete(key);
      return this.#say('SERVER_ERROR object too large for cache', quiet);
    }
    const value = this.#data(size, bare);
    if (value === undefined) return;
    if (value === null) return this.#say('CLIENT_ERROR bad data chunk', quiet);
    const fresh = { value, flags: String(flagsNumber), expires: this.#moment(exptimeNumber), stale: false, won: false };
    this.#say(this.#store(name, key, fresh, uniqueNumber), quiet);
  }

  #store(name: string, key: string, fresh: Omit<Item, 'cas' | 'fetched'>, unique: bigint): string {
    const old = this.items.get(key);
    if (name === 'cas' && old === undefined) return 'NOT_FOUND';
    if (name === 'cas' && old?.cas !== unique) return 'EXISTS';
    if (name === 'add' && old !== undefined) return 'NOT_STORED';
    if (name !== 'set' && name !== 'add' && old === undefined) return 'NOT_STORED';
    if ((name === 'append' || name === 'prepend') && old !== undefined) {
      const value = name === 'append' ? old.value + fresh.value : fresh.value + old.value;
      if (this.#tooLarge(key, value.length)) return 'SERVER_ERROR object too large for cache';
      this.#put(key, { ...old, value, stale: false, won: false });
    } else {
      this.#put(key, fresh);
    }
    return 'STORED';
  }

  #value(key: string, item: Item, withCas: boolean) {
    this.#say(`VALUE ${key} ${item.flags} ${item.value.length}${withCas ? ` ${item.cas}` : ''}\r\n${item.value}`);
  }

  #get(keys: string[], withCas: boolean) {
    if (keys.length === 0) return this.#say('ERROR');
    if (keys.some((key) => key.length > 250)) return this.#say(BCLF);
    for (const key of keys) {
      const item = this.items.get(key);
      if (item === undefined) continue;
      this.#value(key, item, withCas);
      item.fetched = true;
    }
    this.#say('END');
  }

  #gat(fields: string[], withCas: boolean) {
    const keys = fields.slice(2);
    if (keys.length === 0) return this.#say('ERROR');
    const exptime = signed(fields[1] ?? '');
    if (exptime === null) return this.#say('CLIENT_ERROR invalid exptime argument');
    if (keys.some((key) => key.length > 250)) return this.#say(BCLF);
    for (const key of keys) {
      const item = this.items.get(key);
      if (item === undefined) continue;
      this.#value(key, item, withCas);
      item.expires = this.#moment(exptime);
      item.fetched = true;
      this.#drop(key);
    }
    this.#say('END');
  }

  #delete(fields: string[]) {
    if (fields.length < 2 || fields.length > 4) return this.#say('ERROR');
    const [, key = '', ...rest] = fields;
    const quiet = fields.length > 2 && rest.at(-1) === 'noreply';
    if (!['', '0', 'noreply', '0 noreply'].includes(rest.join(' '))) {
      return this.#say(`${BCLF}.  Usage: delete <key> [noreply]`, quiet);
    }
    if (key.length > 250) return this.#say(BCLF, quiet);
    this.#say(this.items.delete(key) ? 'DELETED' : 'NOT_FOUND', quiet);
  }

  #arithmetic(name: string, fields: string[]) {
    if (fields.length !== 3 && fields.length !== 4) return this.#say('ERROR');
    const [, key = '', delta = ''] = fields;
    const quiet = fields.at(-1) === 'noreply';
    if (key.length > 250) return this.#say(BCLF, quiet);
    const amount = unsigned(delta);
    if (amount === null) return this.#say('CLIENT_ERROR invalid numeric delta argument', quiet);
    const item = this.items.get(key);
    if (item === undefined) return this.#say('NOT_FOUND', quiet);
    const text = this.#counted(item, name === 'decr', amount);
    if (text === null) return this.#say('CLIENT_ERROR cannot increment or decrement non-numeric value', quiet);
    this.#recount(item, text);
    this.#say(text, quiet);
  }

  #counted(item: Item, down: boolean, amount: bigint): string | null {
    const digits = /^[ \t-\r]*\+?(\d+)(?:[ \t-\r\0]|$)/.exec(item.value)?.[1];
    if (digits === undefined || BigInt(digits) > UINT64_MAX) return null;
    const number = BigInt(digits);
    if (!down) return String((number + amount) & UINT64_MAX);
    return String(amount > number ? 0n : number - amount);
  }

  #recount(item: Item, text: string, cas?: bigint) {
    if (text.length > item.value.length) {
      item.stale = false;
      item.won = false;
    }
    item.value = text.padEnd(item.value.length);
    item.cas = cas ?? ++this.#lastCas;
    item.fetched = false;
  }

  #touch(fields: string[]) {
    if (fields.length !== 3 && fields.length !== 4) return this.#say('ERROR');
    const [, key = '', exptime = ''] = fields;
    const quiet = fields.at(-1) === 'noreply';
    if (key.length > 250) return this.#say(BCLF, quiet);
    const seconds = signed(exptime);
    if (seconds === null) return this.#say('CLIENT_ERROR invalid exptime argument', quiet);
    const item = this.items.get(key);
    if (item === undefined) return this.#say('NOT_FOUND', quiet);
    item.expires = this.#moment(seconds);
    this.#drop(key);
    this.#say('TOUCHED', quiet);
  }

  #flush(fields: string[]) {
    this.items.clear();
    this.#say('OK', fields.at(-1) === 'noreply');
  }

  /** What is wrong with the flags, or null. */
  #flagError(fields: string[], from: number): string | null {
    if (fields.length + 1 > 20) return 'CLIENT_ERROR options flags are too long';
    const seen = new Set<string>();
    let error: string | null = null;
    for (const field of fields.slice(from)) {
      const letter = field[0] ?? '';
      if (letter >= '\x7f' || seen.has(letter)) return 'CLIENT_ERROR duplicate flag';
      seen.add(letter);
      if (!KNOWN_FLAGS.includes(letter)) return 'CLIENT_ERROR invalid flag';
      const argument = field.slice(1);
      if ('TNR'.includes(letter) && signed(argument) === null) error = 'CLIENT_ERROR bad token in command line format';
      if ('CE'.includes(letter) && unsigned(argument) === null) error = 'CLIENT_ERROR bad token in command line format';
      if (letter === 'F' && (unsigned(argument) ?? 2n ** 32n) >= 2n ** 32n) error = BCLF;
      if (letter === 'J' && unsigned(argument) === null) error = 'CLIENT_ERROR invalid numeric initial value';
      if (letter === 'D' && unsigned(argument) === null) error = 'CLIENT_ERROR invalid numeric delta value';
    }
    if (error !== null) return error;
    return null;
  }

  /** What is wrong with a meta command's line, in the order in which it is found; or null. */
  #refusal(name: string, fields: string[], from: number): string | null {
    const flags = fields.slice(from);
    const error = this.#flagError(fields, from);
    if (error !== null) return error;
    if (this.#decoded(fields[1] ?? '', flags) === null) return 'CLIENT_ERROR error decoding key';
    const mode = flags.find((flag) => flag[0] === 'M');
    if (name === 'ms' && mode !== undefined && !/^M[SEAPR]/.test(mode)) {
      return 'CLIENT_ERROR invalid mode for ms M token';
    }
    if (name === 'ma' && mode !== undefined && !/^M[I+D-]/.test(mode)) {
      return 'CLIENT_ERROR invalid mode for ma M token';
    }
    const tooLong = flags.some((flag) => flag[0] === 'O' && flag.length > 32);
    return tooLong ? 'CLIENT_ERROR opaque token too long' : null;
  }

  #decoded(key: string, flags: readonly string[]): string | null {
    if (!flags.some((flag) => flag[0] === 'b')) return key;
    const bytes = Buffer.from(key, 'base64');
    return bytes.length > 0 && bytes.toString('base64') === key ? bytes.toString('latin1') : null;
  }

  #meta(name: string, fields: string[]) {
    const [, rawKey = '', ...flags] = fields;
    if (fields.length < 2) return this.#say('ERROR');
    if (rawKey.length > 250) return this.#say(BCLF);
    const error = this.#refusal(name, fields, 2);
    if (error !== null) return this.#say(error);
    const key = this.#decoded(rawKey, flags) ?? '';
    if (name === 'mg') this.#metaGet(key, flags);
    else if (name === 'md') this.#metaDelete(key, flags);
    else this.#metaArithmetic(key, flags);
  }

  #echo(key: string, flags: readonly string[], more: (flag: string) => string = () => ''): string {
    const encoded = flags.some((flag) => flag[0] === 'b');
    return flags
      .map((flag) => {
        if (flag[0] === 'O') return ` ${flag}`;
        if (flag[0] === 'k') return encoded ? ` k${Buffer.from(key, 'latin1').toString('base64')} b` : ` k${key}`;
        return more(flag);
      })
      .join('');
  }

  #left(expires: number): string {
    return expires === Number.POSITIVE_INFINITY ? '-1' : String(Math.max(0, Math.ceil((expires - this.#nowMs) / 1000)));
  }

  #metaGet(key: string, flags: readonly string[]) {
    const get = (letter: string) => flags.find((flag) => flag[0] === letter)?.slice(1);
    let item = this.items.get(key);
    const made = item === undefined;
    if (item === undefined) {
      if (get('N') === undefined) return this.#say(`EN${this.#echo(key, flags)}`, get('q') !== undefined);
      const empty = { value: '', flags: '0', expires: Number.POSITIVE_INFINITY, stale: false, won: false };
      item = this.#put(key, empty, optional(get('E')));
    }
    const found = item;
    const before = found.expires;
    let won = made || (found.stale && !found.won);
    for (const flag of flags) {
      const seconds = signed(flag.slice(1)) ?? 0n;
      if (flag[0] === 'T') found.expires = this.#moment(seconds);
      if (flag[0] === 'N' && made) found.expires = this.#moment(seconds);
      if (flag[0] !== 'R' || made || found.won || seconds === 0n || found.expires === Number.POSITIVE_INFINITY)
        continue;
      if (found.expires < this.#moment(seconds)) won = true;
    }
    let expires = before;
    const shown = this.#echo(key, flags, (flag) => {
      if (flag[0] === 'T' || (flag[0] === 'N' && made)) expires = this.#moment(signed(flag.slice(1)) ?? 0n);
      return this.#shown(flag[0] ?? '', found, expires);
    });
    const marks = (found.won ? ' Z' : '') + (found.stale ? ' X' : '') + (won ? ' W' : '');
    if (won) found.won = true;
    if (get('v') === undefined) this.#say(`HD${shown}${marks}`);
    else this.#say(`VA ${found.value.length}${shown}${marks}\r\n${found.value}`);
    if (get('u') === undefined) found.fetched = true;
    this.#drop(key);
  }

  #shown(letter: string, item: Item, expires: number): string {
    if (letter === 's') return ` s${item.value.length}`;
    if (letter === 't') return ` t${this.#left(expires)}`;
    if (letter === 'c') return ` c${item.cas}`;
    if (letter === 'f') return ` f${item.flags}`;
    if (letter === 'h') return ` h${item.fetched ? 1 : 0}`;
    return letter === 'l' ? ' l0' : '';
  }

  #metaSet(fields: string[], bare: boolean) {
    const [, rawKey = '', length = '', ...flags] = fields;
    if (fields.length < 2) return this.#say('ERROR');
    const bytes = unsigned(length);
    if (bytes === null || bytes > 2_147_483_645n) return this.#say(BCLF);
    const size = Number(bytes);
    const refuse = (error: string) => {
      this.#data(size, bare);
      this.#say(error);
    };
    if (rawKey.length > 250) return refuse(BCLF);
    const error = this.#refusal('ms', fields, 3);
    if (error !== null) return refuse(error);
    const key = this.#decoded(rawKey, flags) ?? '';
    const get = (letter: string) => flags.find((flag) => flag[0] === letter)?.slice(1);
    const mode = get('M')?.[0] ?? 'S';
    if (this.#tooLarge(key, size)) {
      if (mode === 'S' && get('C') === undefined) this.items.delete(key);
      return refuse('SERVER_ERROR object too large for cache');
    }
    const value = this.#data(size, bare);
    if (value === undefined) return;
    if (value === null) return this.#say('CLIENT_ERROR bad data chunk');
    const [status, item] = this.#metaStore(key, value, mode, get);
    if (status.length > 2) return this.#say(status);
    const shown = this.#echo(key, flags, (flag) => {
      if (flag[0] === 'c') return ` c${item?.cas ?? 0}`;
      return flag[0] === 's' ? ` s${(item?.value ?? value).length}` : '';
    });
    this.#say(status + shown, status === 'HD' && get('q') !== undefined);
  }

  #metaStore(key: string, value: string, mode: string, get: (letter: string) => string | undefined): [string, Item?] {
    const old = this.items.get(key);
    const joins = mode === 'A' || mode === 'P';
    const compare = optional(get('C'));
    const cas = optional(get('E'));
    const flags = String(optional(get('F')) ?? 0n);
    const fresh = { value, flags, expires: this.#moment(signed(get('T') ?? '0') ?? 0n), stale: false, won: false };
    if (old === undefined) {
      if (mode === 'E') return ['HD', this.#put(key, fresh, cas)];
      if (joins && get('N') === undefined) return ['NS'];
      if (joins) return ['HD', this.#put(key, { ...fresh, expires: this.#moment(signed(get('N') ?? '') ?? 0n) }, cas)];
      if (compare !== undefined) return ['NF'];
      return mode === 'R' ? ['NS'] : ['HD', this.#put(key, fresh, cas)];
    }
    if (mode === 'E') return ['NS'];
    if (compare !== undefined && compare !== old.cas && !(joins && compare === 0n)) {
      if (joins || get('I') === undefined || compare > old.cas || compare === 0n) return ['EX'];
      return ['HD', this.#put(key, { ...fresh, expires: old.expires, stale: true, won: old.won }, cas)];
    }
    if (!joins) return ['HD', this.#put(key, fresh, cas)];
    const joined = mode === 'A' ? old.value + value : value + old.value;
    if (this.#tooLarge(key, joined.length)) return ['SERVER_ERROR object too large for cache'];
    return ['HD', this.#put(key, { ...old, value: joined, stale: false, won: false }, cas)];
  }

  #metaDelete(key: string, flags: readonly string[]) {
    const get = (letter: string) => flags.find((flag) => flag[0] === letter)?.slice(1);
    const item = this.items.get(key);
    const compare = optional(get('C'));
    const echo = this.#echo(key, flags);
    if (item === undefined) return this.#say(`NF${echo}`);
    if (compare !== undefined && compare !== item.cas) return this.#say(`EX${echo}`);
    const empties = get('x') !== undefined;
    const invalidates = get('I') !== undefined;
    if (!empties && !invalidates) this.items.delete(key);
    else item.cas = optional(get('E')) ?? ++this.#lastCas;
    if (empties) {
      const flagsAfter = String(optional(get('F')) ?? 0n);
      Object.assign(item, {
        value: '',
        flags: flagsAfter,
        expires: Number.POSITIVE_INFINITY,
        stale: false,
        won: false,
      });
      item.fetched = false;
    }
    if (invalidates) Object.assign(item, { stale: true, won: false });
    if ((empties || invalidates) && get('T') !== undefined) item.expires = this.#moment(signed(get('T') ?? '') ?? 0n);
    this.#drop(key);
    this.#say(`HD${echo}`, get('q') !== undefined);
  }

  #metaArithmetic(key: string, flags: readonly string[]) {
    const get = (letter: string) => flags.find((flag) => flag[0] === letter)?.slice(1);
    const mode = get('M')?.[0] ?? 'I';
    let item = this.items.get(key);
    const compare = optional(get('C'));
    const cas = optional(get('E'));
    const made = item === undefined;
    if (item === undefined) {
      if (get('N') === undefined) return this.#say(`NF${this.#echo(key, flags)}`);
      const value = String(optional(get('J')) ?? 0n);
      item = this.#put(key, { value, flags: '0', expires: Number.POSITIVE_INFINITY, stale: false, won: false }, cas);
    } else {
      if (compare !== undefined && compare !== 0n && compare !== item.cas && item.value !== '') {
        return this.#say(`EX${this.#echo(key, flags)}`);
      }
      const text = this.#counted(item, mode === 'D' || mode === '-', optional(get('D')) ?? 1n);
      if (text === null) return this.#say('CLIENT_ERROR cannot increment or decrement non-numeric value');
      this.#recount(item, text, cas);
    }
    const counted = item;
    const before = counted.expires;
    for (const flag of flags) {
      if (flag[0] === 'T' || (flag[0] === 'N' && made)) counted.expires = this.#moment(signed(flag.slice(1)) ?? 0n);
    }
    let expires = before;
    const shown = this.#echo(key, flags, (flag) => {
      if (flag[0] === 'T' || (flag[0] === 'N' && made)) expires = this.#moment(signed(flag.slice(1)) ?? 0n);
      return 'tc'.includes(flag[0] ?? '') ? this.#shown(flag[0] ?? '', counted, expires) : '';
    });
    this.#drop(key);
    const number = counted.value.trimEnd();
    const quiet = get('q') !== undefined && !made;
    if (get('v') === undefined) this.#say(`HD${shown}`, quiet);
    else this.#say(`VA ${number.length}${shown}\r\n${number}`, quiet);
  }
}

function unsigned(text: string): bigint | null {
  if (!/^\+?\d+$/.test(text)) return null;
  const number = BigInt(text.replace('+', ''));
  return number > UINT64_MAX ? null : number;
}

function signed(text: string): bigint | null {
  if (!/^(?:-|\+)?\d+$/.test(text)) return null;
  const number = BigInt(text.replace('+', ''));
  return number >= 2n ** 63n || number <= -(2n ** 63n) ? null : number;
}

function optional(text: string | undefined): bigint | undefined {
  return text === undefined ? undefined : (unsigned(text) ?? undefined);
}
