import { Op, type ResultCode } from '../../src/kv/types.ts';
import type { Command, Item, Result } from './harness.ts';

const UINT64 = 2n ** 64n;
/** Written out here rather than imported: the model must not share a mistake with what it checks. */
const ITEM_OVERHEAD = 59;
const STORE_OVERHEAD = 200;

/** What the state machine should do, as plainly as can be: a Map, BigInt, and a filter for whatever has expired. */
export class NaiveModel {
  items = new Map<string, Item>();
  timeMs = 0;
  flushAtMs = Number.POSITIVE_INFINITY;
  lastCas = 0;
  totalItems = 0;

  apply(timeMs: number, commands: readonly Command[], itemBytesMax: number, storeBytesMax: number): Result[] {
    this.timeMs = Math.max(this.timeMs, timeMs);
    if (this.flushAtMs <= this.timeMs) {
      this.items.clear();
      this.flushAtMs = Number.POSITIVE_INFINITY;
    }
    this.#sweep();
    return commands.map((command) => {
      const before = this.items.get(command.key ?? '');
      const said = this.#run(command, itemBytesMax, storeBytesMax);
      this.#sweep();
      const [code, text = ''] = said.split(' ') as [ResultCode, string?];
      if (code !== 'value' || before === undefined) return { code, item: null, text };
      // An item that is touched into the past goes as it was.
      const touchedMs = this.#expiry(command);
      const expiresAtMs = touchedMs > this.timeMs ? touchedMs : before.expiresAtMs;
      return { code, item: { ...before, expiresAtMs }, text };
    });
  }

  get bytes(): number {
    return [...this.items].reduce((sum, [key, { value }]) => sum + key.length + value.length + STORE_OVERHEAD, 0);
  }

  get nextEventMs(): number {
    return Math.min(this.flushAtMs, ...[...this.items.values()].map(({ expiresAtMs }) => expiresAtMs));
  }

  #sweep(): void {
    this.items = new Map([...this.items].filter(([, item]) => item.expiresAtMs > this.timeMs));
  }

  #expiry({ exptime = 0 }: Command): number {
    if (exptime === 0) return Number.POSITIVE_INFINITY;
    if (exptime < 0) return 0;
    return exptime <= 30 * 24 * 3600 ? this.timeMs + exptime * 1000 : exptime * 1000;
  }

  #run(command: Command, itemBytesMax: number, storeBytesMax: number): string {
    const { op, key = '', value = '', flags = 0, arg = 0n } = command;
    const old = this.items.get(key);
    const tooLarge = (length: number) => key.length + length + ITEM_OVERHEAD > itemBytesMax;
    const write = (item: Omit<Item, 'cas'>): string => {
      if (tooLarge(item.value.length)) return 'tooLarge';
      const bytesBefore = this.bytes;
      const trial = new NaiveModel();
      trial.items = new Map(this.items).set(key, { ...item, cas: 0 });
      const isGone = item.expiresAtMs <= this.timeMs;
      if (!isGone && trial.bytes > bytesBefore && trial.bytes > storeBytesMax) return 'outOfMemory';
      this.items.set(key, { ...item, cas: ++this.lastCas });
      return 'stored';
    };
    const store = (item: Omit<Item, 'cas'>): string => {
      const code = write(item);
      if (code === 'stored') this.totalItems++;
      else if (op === Op.set) this.items.delete(key);
      return code;
    };
    const fresh = { value, flags, expiresAtMs: this.#expiry(command) };

    if (op === Op.flushAll) {
      const atMs = arg === 0n ? 0 : this.#expiry({ op, exptime: Number(arg) });
      if (atMs <= this.timeMs) this.items.clear();
      this.flushAtMs = atMs <= this.timeMs ? Number.POSITIVE_INFINITY : atMs;
      return 'ok';
    }
    if (op === Op.set) return store(fresh);
    if (op <= Op.cas && tooLarge(value.length)) return 'tooLarge';
    if (op === Op.add) return old ? 'notStored' : store(fresh);
    if (op === Op.replace) return old ? store(fresh) : 'notStored';
    if (op === Op.append) return old ? store({ ...old, value: old.value + value }) : 'notStored';
    if (op === Op.prepend) return old ? store({ ...old, value: value + old.value }) : 'notStored';
    if (old === undefined) return 'notFound';
    if (op === Op.cas) return BigInt(old.cas) === arg ? store(fresh) : 'exists';
    if (op === Op.delete) {
      this.items.delete(key);
      return 'deleted';
    }
    if (op === Op.touch || op === Op.getAndTouch) {
      this.items.set(key, { ...old, expiresAtMs: this.#expiry(command) });
      return op === Op.touch ? 'touched' : 'value';
    }
    const digits = /^[ \t-\r]*\+?(\d+)(?:[ \t-\r\0]|$)/.exec(old.value)?.[1];
    if (digits === undefined || BigInt(digits) >= UINT64) return 'nonNumeric';
    const number = BigInt(digits);
    const down = arg > number ? 0n : number - arg;
    const text = String(op === Op.incr ? (number + arg) % UINT64 : down);
    const code = write({ ...old, value: text.padEnd(old.value.length) });
    return code === 'stored' ? `number ${text}` : code;
  }
}
