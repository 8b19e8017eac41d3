import { BatchBuilder, clockBatch, stampBatchTime } from '../../src/kv/batch.ts';
import { META_BLOCK_BYTES, MetaBlock } from '../../src/kv/meta.ts';
import { StateMachine } from '../../src/kv/state-machine.ts';
import type { ApplyOutcome, Op, ResultCode, Item as StoredItem } from '../../src/kv/types.ts';
import { commandOf } from '../support/write-command.ts';

/** A command as tests write it. Keys and values are latin1. */
export interface Command {
  readonly op: Op;
  readonly key?: string;
  readonly value?: string;
  readonly flags?: number;
  readonly exptime?: number;
  readonly arg?: bigint;
}

/** What classic commands know of an item. */
export type Item = Pick<StoredItem, 'value' | 'flags' | 'expiresAtMs' | 'cas'>;

export interface Result {
  readonly code: ResultCode;
  /** A copy, as of the moment of the result. */
  readonly item: Item | null;
  readonly text: string;
}

export interface BatchFields {
  readonly timeMs: number;
  readonly proposer: number;
  readonly sessionId: number;
  readonly sequence: number;
  readonly itemBytesMax: number;
  readonly storeBytesMax: number;
}

export const START_MS = 1_700_000_000_000;
export const HEADROOM_BYTES = 24;

/** The value of a meta command: its block, then its data. */
export function metaValue(fields: Partial<Omit<MetaBlock, 'has' | 'read' | 'write'>> = {}, data = ''): string {
  const bytes = Buffer.alloc(META_BLOCK_BYTES);
  Object.assign(new MetaBlock(), fields).write(bytes, 0);
  return bytes.toString('latin1') + data;
}

export function addTo(builder: BatchBuilder, command: Command): void {
  const { op, key = '', value = '', flags = 0, exptime = 0, arg = 0n } = command;
  const high = Number(arg >> 32n);
  const low = Number(arg & 0xffff_ffffn);
  builder.add(commandOf(op, key, value, { flags, exptimeSeconds: exptime, high, low }));
}

export function batchOf(commands: readonly Command[], fields: BatchFields): Buffer {
  const builder = new BatchBuilder(HEADROOM_BYTES);
  for (const command of commands) addTo(builder, command);
  const { proposer, sessionId, sequence, itemBytesMax, storeBytesMax, timeMs } = fields;
  const bytes = builder.seal(proposer, sessionId, sequence, itemBytesMax, storeBytesMax);
  stampBatchTime(bytes, HEADROOM_BYTES, timeMs);
  return bytes;
}

export function clockBatchAt(timeMs: number): Buffer {
  const bytes = clockBatch(HEADROOM_BYTES);
  stampBatchTime(bytes, HEADROOM_BYTES, timeMs);
  return bytes;
}

export function applyTo(machine: StateMachine, bytes: Buffer): { outcome: ApplyOutcome; results: Result[] } {
  const results: Result[] = [];
  const outcome = machine.apply(bytes, HEADROOM_BYTES, {
    result(position, code, item, text) {
      if (position !== results.length) throw new Error(`result ${position} came out of order`);
      results.push({ code, item: item && plain(item), text });
    },
  });
  return { outcome, results };
}

export function plain({ value, flags, expiresAtMs, cas }: Item): Item {
  return { value, flags, expiresAtMs, cas };
}

/** A state machine with one proposer that never loses a batch, and a clock that the test moves. */
export class Driver {
  readonly machine = new StateMachine();
  timeMs = START_MS;
  itemBytesMax = 1024 * 1024;
  storeBytesMax = 64 * 1024 * 1024;
  #sequence = 0;

  runAll(commands: readonly Command[]): Result[] {
    const { timeMs, itemBytesMax, storeBytesMax } = this;
    const sequence = ++this.#sequence;
    const fields = { timeMs, proposer: 1, sessionId: 1, sequence, itemBytesMax, storeBytesMax };
    return applyTo(this.machine, batchOf(commands, fields)).results;
  }

  run(command: Command): Result {
    const [result] = this.runAll([command]);
    if (result === undefined) throw new Error('the command had no result');
    return result;
  }

  /** The result in short: its code, or the number. */
  say(command: Command): string {
    const { code, text } = this.run(command);
    return code === 'number' ? text : code;
  }

  pass(ms: number): void {
    this.timeMs += ms;
    applyTo(this.machine, clockBatchAt(this.timeMs));
  }

  value(key: string): string | undefined {
    return this.machine.get(key)?.value;
  }

  item(key: string): Item {
    const item = this.machine.get(key);
    if (item === undefined) throw new Error(`there is no item ${key}`);
    return plain(item);
  }
}
