import fc from 'fast-check';
import { type SnapshotIterator, SnapshotLoader } from '../../src/kv/snapshot.ts';
import type { StateMachine } from '../../src/kv/state-machine.ts';
import { Op } from '../../src/kv/types.ts';
import { applyTo, batchOf, type Command, clockBatchAt, metaValue, START_MS } from './harness.ts';

/** The smallest that an iterator takes: room for the head and the longest key of one item. */
export const CHUNK_BYTES_MIN = 290;

/** Copies: a chunk lasts until the next is asked for. */
export function drain(iterator: SnapshotIterator, bytesMax = 64 * 1024): Buffer[] {
  const chunks: Buffer[] = [];
  for (let chunk = iterator.next(bytesMax); chunk !== null; chunk = iterator.next(bytesMax))
    chunks.push(Buffer.from(chunk));
  return chunks;
}

export function load(chunks: readonly Buffer[]): StateMachine {
  const loader = new SnapshotLoader();
  for (const chunk of chunks) loader.push(chunk);
  return loader.finish();
}

/** Everything that there is to know of a state machine, node's own records included. */
export function portrait(machine: StateMachine): object {
  const { items, storeBytes, totalItems, timeMs, flushAtMs, casCounter } = machine;
  const entries = [...machine.entries()].map(([key, item]): [string, object] => {
    const { value, flags, expiresAtMs, cas, tokens, accessedAtSeconds } = item;
    return [key, { value, flags, expiresAtMs, cas, tokens, accessedAtSeconds }];
  });
  return {
    ...{ items, storeBytes, totalItems, timeMs, flushAtMs, casCounter },
    hash: machine.hash(),
    nextEventMs: machine.nextEventMs(),
    entries: new Map(entries),
    sessions: new Map([...machine.sessions()].map(([proposer, progress]) => [proposer, { ...progress }])),
  };
}

/** A batch before it has its place in the log. Without commands and proposer: a clock batch. */
export interface Turn {
  readonly proposer: number;
  readonly passMs: number;
  readonly boots: boolean;
  readonly repeats: boolean;
  readonly commands: readonly Command[];
}

/** Gives turns their time and their place in their sessions, and so makes a log of them. */
export class LogWriter {
  timeMs = START_MS;
  readonly #sessions = new Map<number, { sessionId: number; sequence: number }>();

  batch({ proposer, passMs, boots, repeats, commands }: Turn): Buffer {
    this.timeMs += passMs;
    if (proposer === 0) return clockBatchAt(this.timeMs);
    const before = this.#sessions.get(proposer) ?? { sessionId: 1, sequence: 0 };
    const sessionId = before.sessionId + (boots ? 1 : 0);
    const sequence = boots ? 1 : before.sequence + (repeats && before.sequence > 0 ? 0 : 1);
    this.#sessions.set(proposer, { sessionId, sequence });
    const limits = { itemBytesMax: 2000, storeBytesMax: 20_000 };
    return batchOf(commands, { timeMs: this.timeMs, proposer, sessionId, sequence, ...limits });
  }
}

export function applyAll(machine: StateMachine, batches: readonly Buffer[]): object[] {
  return batches.map((bytes) => applyTo(machine, bytes));
}

const key = fc.oneof(
  fc.nat(40).map((number) => `key ${number}`),
  fc.constantFrom('\xff', 'k'.repeat(250)),
);
const data = fc.oneof(
  fc.constantFrom('', '5', '18446744073709551615', '\0\xff\x80'),
  fc.integer({ min: 0, max: 60 }).map((length) => 'v'.repeat(length)),
  fc.integer({ min: 200, max: 1200 }).map((length) => 'long'.repeat(length / 4)),
);
const exptime = fc.constantFrom(0, 0, 1, 2, 2, 5, 100, -1, START_MS / 1000 + 3);
const word = fc.constantFrom(0, 1, 2, 0x20_0000, 0xffff_ffff);
const MASK = 1023;

const metaBlock = fc.record({
  asked: fc.nat(MASK),
  mode: fc.constantFrom(0, 1, 2, 3, 4),
  vivifySeconds: exptime,
  recacheSeconds: fc.constantFrom(0, 1, 3, 1000),
  newCasHigh: word,
  newCasLow: word,
  initialHigh: word,
  initialLow: word,
  deltaHigh: fc.constant(0),
  deltaLow: word,
});
const META_OPS = [Op.metaGet, Op.metaSet, Op.metaDelete, Op.metaArithmetic];
const CLASSIC_OPS = Object.values(Op).filter((one) => one < Op.flushAll);

const classic = fc.record({
  op: fc.constantFrom(...CLASSIC_OPS, Op.set, Op.set, Op.set),
  key,
  value: data,
  flags: fc.constantFrom(0, 7, 0xffff_ffff),
  exptime,
  arg: fc.bigInt({ min: 0n, max: 30n }),
});
const meta = fc
  .record({ op: fc.constantFrom(...META_OPS), key, block: metaBlock, value: data, exptime, arg: fc.constant(0n) })
  .map(({ block, value, ...rest }) => ({ ...rest, value: metaValue(block as never, value) }));
const flush = fc.record({ op: fc.constant(Op.flushAll), arg: fc.constantFrom(0n, 2n) });
const command: fc.Arbitrary<Command> = fc.oneof(
  { arbitrary: classic, weight: 20 },
  { arbitrary: meta, weight: 12 },
  { arbitrary: flush, weight: 1 },
);

export const turn: fc.Arbitrary<Turn> = fc.record({
  proposer: fc.constantFrom(0, 1, 1, 2, 2, 700_000),
  passMs: fc.constantFrom(0, 0, 0, 300, 1000, 2500),
  boots: fc.constantFrom(false, false, false, true),
  repeats: fc.constantFrom(false, false, false, false, true),
  commands: fc.array(command, { maxLength: 10 }),
});

/** Forty items, so that a snapshot has something to do. */
export const FILLING: Turn = {
  proposer: 1,
  passMs: 0,
  boots: false,
  repeats: false,
  commands: Array.from({ length: 40 }, (_, i) => ({
    op: Op.set,
    key: `key ${i}`,
    value: i % 3 === 0 ? String(i) : 'filling '.repeat(i),
    exptime: i % 4 === 0 ? 1 + (i % 8) : 0,
    flags: i,
  })),
};
