import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RaftkvError } from '../../src/base/errors.ts';
import { SnapshotLoader } from '../../src/kv/snapshot.ts';
import { StateMachine } from '../../src/kv/state-machine.ts';
import { Op } from '../../src/kv/types.ts';
import { Driver, START_MS } from './harness.ts';
import { applyAll, CHUNK_BYTES_MIN, drain, FILLING, LogWriter, load, portrait, turn } from './snapshot-harness.ts';

const DAMAGED = expect.objectContaining({ code: 'SNAPSHOT_DAMAGED' });

function chunksOf(turns: Parameters<LogWriter['batch']>[0][], bytesMax: number): Buffer[] {
  const log = new LogWriter();
  const machine = new StateMachine();
  applyAll(
    machine,
    [FILLING, ...turns].map((one) => log.batch(one)),
  );
  return drain(machine.beginSnapshot(), bytesMax);
}

/** What somebody would have to write whose chunks verify and are wrong all the same. */
function resealed(chunks: readonly Buffer[]): Buffer[] {
  let crc = 0;
  return chunks.map((chunk) => {
    const copy = Buffer.from(chunk);
    crc = crc32(copy.subarray(4), crc);
    copy.writeUInt32LE(crc, 0);
    return copy;
  });
}

const SAMPLE = chunksOf([], 500);
const [HEADER = Buffer.alloc(0)] = SAMPLE;

describe('a damaged snapshot', () => {
  it('is refused wherever a byte has changed', () => {
    const everywhere = SAMPLE.flatMap((chunk, at) => Array.from(chunk, (_, offset) => ({ at, offset })));
    const mask = fc.integer({ min: 1, max: 255 });
    fc.assert(
      fc.property(fc.constantFrom(...everywhere), mask, ({ at, offset }, bits) => {
        const chunks = SAMPLE.map((chunk) => Buffer.from(chunk));
        const byte = chunks[at]?.[offset];
        if (byte === undefined) throw new Error('no such byte');
        chunks[at]?.writeUInt8(byte ^ bits, offset);
        expect(() => load(chunks)).toThrow(DAMAGED);
      }),
      { numRuns: 1000 },
    );
  });

  it('is refused where a chunk is missing, there twice, out of place, truncated or of another snapshot', () => {
    const other = chunksOf([{ ...FILLING, commands: [{ op: Op.delete, key: 'key 1' }] }], 500);
    const spliced = (at: number, remove: number, ...more: Buffer[]) => {
      const chunks = [...SAMPLE];
      chunks.splice(at, remove, ...more);
      return chunks;
    };
    expect(SAMPLE.length).toBeGreaterThan(5);
    for (const [at, chunk] of SAMPLE.entries()) {
      expect(() => load(spliced(at, 1))).toThrow(DAMAGED);
      expect(() => load(spliced(at, 0, chunk))).toThrow(DAMAGED);
      expect(() => load(spliced(at, 1, chunk.subarray(0, -1)))).toThrow(DAMAGED);
      expect(() => load(spliced(at, 1, chunk.subarray(0, 3)))).toThrow(DAMAGED);
      expect(() => load(SAMPLE.slice(0, at))).toThrow(DAMAGED);
      if (at > 0) expect(() => load(spliced(at - 1, 2, chunk, SAMPLE[at - 1] ?? chunk))).toThrow(DAMAGED);
      if (at < other.length) expect(() => load(spliced(at, 1, other[at] ?? chunk))).toThrow(DAMAGED);
    }
    expect(load(SAMPLE).items).toBe(40);
  });

  it('with checksums that fit is refused, or is a state like any other', () => {
    let refused = 0;
    let taken = 0;
    const change = fc.record({ at: fc.nat(), offset: fc.nat(80), byte: fc.nat(255), drop: fc.nat(12) });
    const mangled = (chunks: Buffer[], changes: { at: number; offset: number; byte: number; drop: number }[]) => {
      for (const { at, offset, byte, drop } of changes) {
        const index = at % chunks.length;
        const chunk = chunks[index];
        if (chunk === undefined || chunk.length <= 5) continue;
        chunk.writeUInt8(byte, 4 + (offset % (chunk.length - 4)));
        if (drop === 0) chunks[index] = chunk.subarray(0, chunk.length - 1);
        if (drop === 1) chunks.splice(index, 1);
      }
      return chunks.length === 0 ? SAMPLE : resealed(chunks);
    };
    fc.assert(
      fc.property(
        fc.array(turn, { maxLength: 4 }),
        fc.integer({ min: CHUNK_BYTES_MIN, max: 900 }),
        fc.array(change, { minLength: 1, maxLength: 2 }),
        (turns, bytesMax, changes) => {
          try {
            const machine = load(mangled(chunksOf(turns, bytesMax), changes));
            taken++;
            expect(portrait(load(drain(machine.beginSnapshot())))).toEqual(portrait(machine));
            expect(machine.nextEventMs()).toBeGreaterThan(machine.timeMs);
          } catch (error) {
            if (!(error instanceof RaftkvError)) throw error;
            refused++;
            expect(['SNAPSHOT_DAMAGED', 'FORMAT_UNSUPPORTED']).toContain(error.code);
          }
        },
      ),
      { numRuns: 500 },
    );
    expect(refused).toBeGreaterThan(50);
    expect(taken).toBeGreaterThan(10);
  });

  it('with checksums that fit is refused for whatever no state can hold', () => {
    const [, first = HEADER] = SAMPLE;
    const header = (write: (bytes: Buffer) => void) => resealedWith(HEADER, write, ...SAMPLE.slice(1));
    const item = (write: (bytes: Buffer) => void) => [HEADER, ...resealedWith(first, write, ...SAMPLE.slice(2))];
    const resealedWith = (chunk: Buffer, write: (bytes: Buffer) => void, ...rest: Buffer[]) => {
      const copy = Buffer.from(chunk);
      write(copy);
      return [copy, ...rest];
    };
    const wrong: Buffer[][] = [
      header((bytes) => bytes.writeDoubleLE(Number.NaN, 8)),
      header((bytes) => bytes.writeDoubleLE(-1, 8)),
      header((bytes) => bytes.writeDoubleLE(START_MS, 16)),
      header((bytes) => bytes.writeUInt32LE(0x20_0000, 28)),
      header((bytes) => bytes.writeUInt32LE(41, 40)),
      header((bytes) => bytes.writeUInt32LE(1, 48)),
      header((bytes) => bytes.writeUInt32LE(2, 56)),
      header((bytes) => bytes.writeUInt32LE(1, 60)),
      header((bytes) => bytes.writeUInt32LE(0, 64)),
      header((bytes) => bytes.writeUInt32LE(0, 72)),
      item((bytes) => bytes.writeUInt8(0, 4)),
      item((bytes) => bytes.writeUInt8(251, 4)),
      item((bytes) => bytes.writeUInt8(4, 5)),
      item((bytes) => bytes.writeUInt8(1, 6)),
      item((bytes) => bytes.writeDoubleLE(START_MS, 24)),
      item((bytes) => bytes.writeDoubleLE(Number.NaN, 24)),
      item((bytes) => bytes.writeDoubleLE(Number.POSITIVE_INFINITY, 32)),
    ];
    for (const chunks of wrong) expect(() => load(resealed(chunks))).toThrow(DAMAGED);

    const withoutItems = header((bytes) => bytes.fill(0, 40, 56)).slice(0, 1);
    const brokenOff = item((bytes) => bytes.writeUInt32LE(1000, 12)).slice(1, 2);
    expect(load(resealed(withoutItems)).items).toBe(0);
    expect(() => load(resealed([...withoutItems, ...brokenOff]))).toThrow(DAMAGED);

    const twice = Buffer.concat([HEADER, HEADER.subarray(64)]);
    twice.writeUInt32LE(2, 56);
    expect(() => load(resealed([twice, ...SAMPLE.slice(1)]))).toThrow(DAMAGED);
    twice.writeUInt32LE(8, 64);
    expect(load(resealed([twice, ...SAMPLE.slice(1)])).items).toBe(40);

    const ofAnotherVersion = header((bytes) => bytes.writeUInt32LE(2, 4));
    expect(() => load(resealed(ofAnotherVersion))).toThrow(expect.objectContaining({ code: 'FORMAT_UNSUPPORTED' }));
  });

  it('with two items of one key is refused', () => {
    const driver = new Driver();
    driver.runAll(['a', 'b'].map((key) => ({ op: Op.set, key, value: 'x' })));
    const [header = HEADER, items = HEADER] = drain(driver.machine.beginSnapshot());
    const keyAt = items.indexOf('b', 4, 'latin1');
    items.write('a', keyAt);
    expect(() => load(resealed([header, items]))).toThrow(DAMAGED);
  });

  it('that is empty or has not begun is refused', () => {
    expect(() => new SnapshotLoader().finish()).toThrow(DAMAGED);
    expect(() => load(SAMPLE.slice(0, 1))).toThrow(DAMAGED);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(() => load([Buffer.from(bytes)])).toThrow(DAMAGED);
      }),
    );
  });

  it('costs nothing: neither memory for what it only claims to have, nor the state that there is', () => {
    const driver = new Driver();
    driver.run({ op: Op.set, key: 'mine', value: 'x' });
    const before = portrait(driver.machine);
    const claims = Buffer.from(SAMPLE[1] ?? HEADER);
    claims.writeUInt32LE(255 * 1024 * 1024, 12);
    const loader = new SnapshotLoader();
    const bytesBefore = process.memoryUsage.rss();
    for (const chunk of resealed([HEADER, claims])) loader.push(chunk);
    expect(loader.items).toBe(0);
    expect(() => loader.finish()).toThrow(DAMAGED);
    claims.writeUInt32LE(0xffff_ffff, 12);
    const another = new SnapshotLoader();
    another.push(HEADER);
    expect(() => another.push(resealed([HEADER, claims])[1] ?? HEADER)).toThrow(DAMAGED);
    expect(process.memoryUsage.rss() - bytesBefore).toBeLessThan(50e6);
    expect(portrait(driver.machine)).toEqual(before);
  });

  it('tells how far the loading has come', () => {
    const loader = new SnapshotLoader();
    expect(loader.items).toBe(0);
    for (const chunk of SAMPLE.slice(0, -1)) loader.push(chunk);
    expect(loader.items).toBeGreaterThan(30);
  });
});

describe('the layout', () => {
  it('of version 1 stays as it is', () => {
    const driver = new Driver();
    driver.run({ op: Op.set, key: 'key', value: 'value', flags: 7, exptime: 60 });
    driver.run({ op: Op.flushAll, arg: 90n });
    const chunks = drain(driver.machine.beginSnapshot()).map((chunk) => chunk.toString('hex'));
    expect(chunks).toEqual([
      '570d1cac0100000000008056febc78420000796cfebc7842' +
        '0100000000000000010000000000000001000000000000000800000000000000' +
        '0100000000000000' +
        '01000000010000000200000000000000',
      '1a320900' + '0300000007000000050000000000000001000000' + '00002665febc784200000040fc54d9c1' + '6b657976616c7565',
    ]);
    expect(load(chunks.map((hex) => Buffer.from(hex, 'hex'))).hash()).toBe(driver.machine.hash());
  });
});
