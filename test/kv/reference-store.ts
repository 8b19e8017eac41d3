import { Op, type ResultCode } from '../../src/kv/types.ts';
import { applyCommand, type WriteCommand } from '../support/reference-model.ts';
import type { Command, Item, Result } from './harness.ts';

const CODES: Readonly<Record<string, ResultCode>> = {
  STORED: 'stored',
  NOT_STORED: 'notStored',
  EXISTS: 'exists',
  NOT_FOUND: 'notFound',
  DELETED: 'deleted',
  TOUCHED: 'touched',
  'CLIENT_ERROR cannot increment or decrement non-numeric value': 'nonNumeric',
};
/** Written out here rather than imported: the model must not share a mistake with what it checks. */
const ITEM_OVERHEAD = 59;
const STORE_OVERHEAD = 200;

/**
 * The reference model of a whole store, for the property test of the state machine: what a command does to one value is
 * said by ../support/reference-model.ts; here are many items in a Map, time, flags, limits, and a filter for all that
 * has expired.
 */
export class ReferenceStore {
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
    if (op === Op.flushAll) {
      const atMs = arg === 0n ? 0 : this.#expiry({ op, exptime: Number(arg) });
      if (atMs <= this.timeMs) this.items.clear();
      this.flushAtMs = atMs <= this.timeMs ? Number.POSITIVE_INFINITY : atMs;
      return 'ok';
    }
    // A command whose own value is too large is refused whatever the item is; a `set` then removes it.
    const tooLarge = (length: number) => key.length + length + ITEM_OVERHEAD > itemBytesMax;
    if (op <= Op.cas && op !== Op.set && tooLarge(value.length)) return 'tooLarge';
    const unique = old === undefined ? null : Number(old.cas);
    const { reply, after } = applyCommand(old?.value ?? null, unique, writeCommandOf(op, value, arg));
    const code = CODES[reply] ?? `number ${reply}`;
    if (after === null) this.items.delete(key);
    if (old !== undefined && (op === Op.touch || op === Op.getAndTouch)) {
      this.items.set(key, { ...old, expiresAtMs: this.#expiry(command) });
      return op === Op.touch ? code : 'value';
    }
    if (typeof after !== 'string') return code;

    const changes = old !== undefined && [Op.append, Op.prepend, Op.incr, Op.decr].some((one) => one === op);
    const item = changes ? { ...old, value: after } : { value, flags, expiresAtMs: this.#expiry(command) };
    const refusal = tooLarge(after.length)
      ? 'tooLarge'
      : this.#lacksRoom(key, item, storeBytesMax)
        ? 'outOfMemory'
        : null;
    if (refusal !== null) {
      if (op === Op.set) this.items.delete(key);
      return refusal;
    }
    this.items.set(key, { ...item, cas: ++this.lastCas });
    if (op !== Op.incr && op !== Op.decr) this.totalItems++;
    return code;
  }

  #lacksRoom(key: string, item: Omit<Item, 'cas'>, storeBytesMax: number): boolean {
    if (item.expiresAtMs <= this.timeMs) return false;
    const trial = new ReferenceStore();
    trial.items = new Map(this.items).set(key, { ...item, cas: 0 });
    return trial.bytes > this.bytes && trial.bytes > storeBytesMax;
  }
}

function writeCommandOf(op: Op, value: string, arg: bigint): WriteCommand {
  switch (op) {
    case Op.set:
      return { kind: 'set', value };
    case Op.add:
      return { kind: 'add', value };
    case Op.replace:
      return { kind: 'replace', value };
    case Op.append:
      return { kind: 'append', value };
    case Op.prepend:
      return { kind: 'prepend', value };
    case Op.cas:
      // The uniques of this store are far below 2^53, so none is equal to a number that is rounded here.
      return { kind: 'cas', value, unique: Number(arg) };
    case Op.delete:
      return { kind: 'delete' };
    case Op.incr:
      return { kind: 'incr', delta: arg };
    case Op.decr:
      return { kind: 'decr', delta: arg };
    case Op.touch:
    case Op.getAndTouch:
      return { kind: 'touch' };
    default:
      throw new RangeError(`operation ${op} is not a classic command`);
  }
}
