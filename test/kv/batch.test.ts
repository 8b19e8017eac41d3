import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RaftkvError } from '../../src/base/errors.ts';
import {
  BATCH_HEADER_BYTES,
  BatchBuilder,
  COMMAND_HEADER_BYTES,
  CommandReader,
  clockBatch,
  readBatchHeader,
  stampBatchTime,
  validateBatch,
} from '../../src/kv/batch.ts';
import { StateMachine } from '../../src/kv/state-machine.ts';
import { Op } from '../../src/kv/types.ts';
import {
  addTo,
  type BatchFields,
  batchOf,
  type Command,
  Driver,
  HEADROOM_BYTES,
  metaValue,
  START_MS,
} from './harness.ts';

const FIELDS: BatchFields = {
  timeMs: START_MS,
  proposer: 3,
  sessionId: 7,
  sequence: 9,
  itemBytesMax: 1024 * 1024,
  storeBytesMax: 2 ** 40,
};

const latin1 = (constraints: { minLength?: number; maxLength: number }) =>
  fc.uint8Array(constraints).map((bytes) => Buffer.from(bytes).toString('latin1'));
const command: fc.Arbitrary<Required<Command>> = fc
  .record({
    op: fc.constantFrom(...Object.values(Op)),
    key: latin1({ minLength: 1, maxLength: 250 }),
    value: latin1({ maxLength: 400 }),
    flags: fc.integer({ min: 0, max: 0xffff_ffff }),
    exptime: fc.oneof(fc.constant(0), fc.maxSafeInteger()),
    arg: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  })
  .map((one) => (one.op <= Op.flushAll ? one : { ...one, value: metaValue({ asked: 5 }, one.value) }));

function commandsIn(bytes: Buffer, offset: number): Required<Command>[] {
  const reader = new CommandReader();
  const commands: Required<Command>[] = [];
  let at = offset + BATCH_HEADER_BYTES;
  while (at < bytes.length) {
    at = reader.read(bytes, at);
    const arg = (BigInt(reader.argHigh) << 32n) | BigInt(reader.argLow);
    const { op, flags, exptimeSeconds: exptime } = reader;
    commands.push({ op, key: reader.key(bytes), value: reader.value(bytes), flags, exptime, arg });
  }
  return commands;
}

const codeOf = (act: () => unknown): string => {
  try {
    act();
  } catch (error) {
    if (error instanceof RaftkvError) return error.code;
    throw error;
  }
  return 'none';
};

describe('a batch', () => {
  it('reads back as it was built', () => {
    const roundTrip = (commands: Required<Command>[]) => {
      const bytes = batchOf(commands, FIELDS);
      expect(validateBatch(bytes, HEADROOM_BYTES)).toEqual({ ...FIELDS, count: commands.length });
      expect(commandsIn(bytes, HEADROOM_BYTES)).toEqual(commands);
    };
    fc.assert(fc.property(fc.array(command, { maxLength: 20 }), roundTrip), { numRuns: 200 });
  });

  it('has the documented layout', () => {
    const bytes = batchOf(
      [{ op: Op.cas, key: 'k', value: 'vw', flags: 5, exptime: -1, arg: (6n << 32n) | 7n }],
      FIELDS,
    );
    const expected = Buffer.alloc(HEADROOM_BYTES + 40 + 28 + 3);
    const header = expected.subarray(HEADROOM_BYTES);
    header.writeDoubleLE(START_MS, 0);
    header.writeUInt32LE(3, 8);
    header.writeUInt32LE(7, 12);
    header.writeBigUInt64LE(9n, 16);
    header.writeUInt32LE(1, 24);
    header.writeUInt32LE(1024 * 1024, 28);
    header.writeDoubleLE(2 ** 40, 32);
    const command = header.subarray(40);
    command.set([6, 1, 0, 0]);
    command.writeUInt32LE(5, 4);
    command.writeDoubleLE(-1, 8);
    command.writeUInt32LE(2, 16);
    command.writeUInt32LE(6, 20);
    command.writeUInt32LE(7, 24);
    command.write('kvw', 28);
    expect(bytes.equals(expected)).toBe(true);
  });

  it('has its exact size in a buffer of its own, and what was built before stays as it was', () => {
    const builder = new BatchBuilder(HEADROOM_BYTES);
    const seal = (value: string) => {
      addTo(builder, { op: Op.set, key: 'k', value });
      const size = builder.byteLength;
      const bytes = builder.seal(1, 1, 1, 1000, 1000);
      expect(bytes.length).toBe(size);
      expect(bytes.buffer.byteLength).toBe(size);
      return bytes;
    };
    const first = seal('first');
    const copy = Buffer.from(first);
    // Larger than the builder's buffer and than what it keeps.
    const huge = seal('x'.repeat(3_000_000));
    const last = seal('last');
    expect(first.equals(copy)).toBe(true);
    expect(commandsIn(huge, HEADROOM_BYTES)[0]?.value.length).toBe(3_000_000);
    expect(commandsIn(last, HEADROOM_BYTES).map(({ value }) => value)).toEqual(['last']);
    expect(builder.count).toBe(0);
    expect(builder.byteLength).toBe(HEADROOM_BYTES + BATCH_HEADER_BYTES);
  });

  it('can be stamped where it lies', () => {
    const bytes = clockBatch(HEADROOM_BYTES);
    expect(readBatchHeader(bytes, HEADROOM_BYTES).timeMs).toBe(0);
    stampBatchTime(bytes, HEADROOM_BYTES, START_MS);
    const header = validateBatch(bytes, HEADROOM_BYTES);
    expect(header).toMatchObject({ timeMs: START_MS, proposer: 0, count: 0 });
  });

  it('is not built of a key that is too long', () => {
    const builder = new BatchBuilder(0);
    expect(codeOf(() => addTo(builder, { op: Op.set, key: 'k'.repeat(251) }))).toBe('INVARIANT_BROKEN');
    expect(builder.count).toBe(0);
  });
});

describe('a malformed batch is refused', () => {
  const valid = (): Buffer => batchOf([{ op: Op.set, key: 'key', value: 'value' }], FIELDS);
  const COMMAND = HEADROOM_BYTES + BATCH_HEADER_BYTES;
  const mutations: Record<string, (bytes: Buffer) => Buffer | undefined> = {
    'truncated within its header': (b) => b.subarray(0, COMMAND - 1),
    'truncated within a command': (b) => b.subarray(0, COMMAND + COMMAND_HEADER_BYTES - 1),
    'truncated within a value': (b) => b.subarray(0, b.length - 1),
    'with bytes after its last command': (b) => Buffer.concat([b, Buffer.alloc(1)]),
    'of more commands than it holds': (b) => void b.writeUInt32LE(0xffff_ffff, HEADROOM_BYTES + 24),
    'with a value that is longer than the batch': (b) => void b.writeUInt32LE(0xffff_ffff, COMMAND + 16),
    'with operation 0': (b) => void b.writeUInt8(0, COMMAND),
    'with an operation that is not known yet': (b) => void b.writeUInt8(13, COMMAND),
    'without a key': (b) => void b.writeUInt8(0, COMMAND + 1),
    'with a key of 251 bytes': (b) => void b.writeUInt8(251, COMMAND + 1),
    'with reserved bits set': (b) => void b.writeUInt8(1, COMMAND + 3),
    'with a fraction as exptime': (b) => void b.writeDoubleLE(0.5, COMMAND + 8),
    'with no number as exptime': (b) => void b.writeDoubleLE(Number.NaN, COMMAND + 8),
    'with an infinite exptime': (b) => void b.writeDoubleLE(Number.NEGATIVE_INFINITY, COMMAND + 8),
    'with no number as time': (b) => void b.writeDoubleLE(Number.NaN, HEADROOM_BYTES),
    'with a time that no clock shows': (b) => void b.writeDoubleLE(1e16, HEADROOM_BYTES),
    'with a time before the epoch': (b) => void b.writeDoubleLE(-1, HEADROOM_BYTES),
    'with no number as store limit': (b) => void b.writeDoubleLE(Number.NaN, HEADROOM_BYTES + 32),
    'with a sequence beyond 2^53': (b) => void b.writeUInt32LE(1 << 21, HEADROOM_BYTES + 20),
    'with sequence 0': (b) => void b.writeUInt32LE(0, HEADROOM_BYTES + 16),
    'of the clock with commands': (b) => void b.writeUInt32LE(0, HEADROOM_BYTES + 8),
  };
  for (const [name, mutate] of Object.entries(mutations)) {
    it(`${name}, before it has any effect`, () => {
      const original = valid();
      const bytes = mutate(original) ?? original;
      expect(codeOf(() => validateBatch(bytes, HEADROOM_BYTES))).toBe('MESSAGE_INVALID');
      const machine = new StateMachine();
      const before = machine.hash();
      expect(codeOf(() => machine.apply(bytes, HEADROOM_BYTES, null))).toBe('MESSAGE_INVALID');
      expect(machine.hash()).toBe(before);
    });
  }

  it('whatever its bytes are', () => {
    const driver = new Driver();
    driver.runAll([
      { op: Op.set, key: 'a', value: '1', exptime: 100 },
      { op: Op.set, key: 'b', value: '2' },
    ]);
    const { machine } = driver;
    const judge = (bytes: Buffer) => {
      const before = machine.hash();
      const verdict = codeOf(() => validateBatch(bytes, 0));
      expect(verdict === 'none' || verdict === 'MESSAGE_INVALID').toBe(true);
      expect(codeOf(() => machine.apply(bytes, 0, null))).toBe(verdict);
      if (verdict !== 'none') expect(machine.hash()).toBe(before);
      const entries = [...machine.entries()];
      expect(machine.items).toBe(entries.length);
      expect(entries.every(([, item]) => item.expiresAtMs > machine.timeMs)).toBe(true);
    };
    const junk = fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes));
    fc.assert(fc.property(junk, judge), { numRuns: 300 });
    const edit = fc.record({ at: fc.nat(400), byte: fc.nat(255) });
    const mutated = fc
      .tuple(
        fc.array(command, { minLength: 1, maxLength: 4 }),
        fc.array(edit, { minLength: 1, maxLength: 3 }),
        fc.nat(3),
      )
      .map(([commands, edits, missing]) => {
        const bytes = batchOf(commands, FIELDS).subarray(HEADROOM_BYTES);
        for (const { at, byte } of edits) bytes[at % bytes.length] = byte;
        return bytes.subarray(0, bytes.length - missing);
      });
    fc.assert(fc.property(mutated, judge), { numRuns: 1000 });
  });
});
