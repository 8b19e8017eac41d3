import type { Cas } from './types.ts';

/**
 * The arguments of a meta command that have no field in the command header: a block before its value. Little-endian:
 *
 * ```
 *  0  u16 asked        a MetaFlag for each argument that the client gave
 *  2  u8  mode         MetaMode; metaSet only
 *  3  u8  zero
 *  4  u32 zero
 *  8  f64 vivify       N: exptime of an item that is made on a miss, in seconds
 * 16  f64 recache      R: a client that finds less time to live than this wins the token, in seconds
 * 24  u32 high, low    E: the new cas unique
 * 32  u32 high, low    J: the initial value of a counter that is made on a miss
 * 40  u32 high, low    D: the delta
 * 48  the value; metaSet only
 * ```
 *
 * The command header has the arguments of F (flags), T (exptime) and C (arg).
 */
export const META_BLOCK_BYTES = 48;

export const MetaFlag = {
  exptime: 1,
  vivify: 2,
  recache: 4,
  cas: 8,
  newCas: 16,
  invalidate: 32,
  removeValue: 64,
  decrement: 128,
  /** R comes before T in the request, so R compares with the time to live before T changes it. */
  recacheFirst: 256,
  /** N comes after T in the request, so N sets the time to live of an item that is made. */
  vivifyLast: 512,
} as const;

const META_FLAGS_ALL = 1023;

export const MetaMode = { set: 0, add: 1, replace: 2, append: 3, prepend: 4 } as const;
export type MetaMode = (typeof MetaMode)[keyof typeof MetaMode];

/** Bits of `Item.tokens`. STALE: the item was invalidated. WON: a client has won the right to recache it. */
export const STALE = 1;
export const WON = 2;

/** The decoded block of one command. Callers reuse one object for all commands. */
export class MetaBlock {
  asked = 0;
  mode: MetaMode = MetaMode.set;
  vivifySeconds = 0;
  recacheSeconds = 0;
  newCasHigh = 0;
  newCasLow = 0;
  initialHigh = 0;
  initialLow = 0;
  deltaHigh = 0;
  deltaLow = 0;

  has(flag: number): boolean {
    return (this.asked & flag) !== 0;
  }

  read(bytes: Buffer, offset: number): void {
    this.asked = bytes.readUInt16LE(offset);
    this.mode = bytes.readUInt8(offset + 2) as MetaMode;
    this.vivifySeconds = bytes.readDoubleLE(offset + 8);
    this.recacheSeconds = bytes.readDoubleLE(offset + 16);
    this.newCasHigh = bytes.readUInt32LE(offset + 24);
    this.newCasLow = bytes.readUInt32LE(offset + 28);
    this.initialHigh = bytes.readUInt32LE(offset + 32);
    this.initialLow = bytes.readUInt32LE(offset + 36);
    this.deltaHigh = bytes.readUInt32LE(offset + 40);
    this.deltaLow = bytes.readUInt32LE(offset + 44);
  }

  write(bytes: Buffer, offset: number): void {
    bytes.writeUInt16LE(this.asked, offset);
    bytes.writeUInt8(this.mode, offset + 2);
    bytes.fill(0, offset + 3, offset + 8);
    bytes.writeDoubleLE(this.vivifySeconds, offset + 8);
    bytes.writeDoubleLE(this.recacheSeconds, offset + 16);
    bytes.writeUInt32LE(this.newCasHigh, offset + 24);
    bytes.writeUInt32LE(this.newCasLow, offset + 28);
    bytes.writeUInt32LE(this.initialHigh, offset + 32);
    bytes.writeUInt32LE(this.initialLow, offset + 36);
    bytes.writeUInt32LE(this.deltaHigh, offset + 40);
    bytes.writeUInt32LE(this.deltaLow, offset + 44);
  }
}

/** Returns what is wrong with the block, in words; empty if it is valid. `bytes` must contain a whole block. */
export function faultOfMetaBlock(bytes: Buffer, offset: number): string {
  if (bytes.readUInt16LE(offset) > META_FLAGS_ALL) return 'has an unknown flag';
  if (bytes.readUInt8(offset + 2) > MetaMode.prepend) return 'has an unknown mode';
  if (bytes.readUInt8(offset + 3) !== 0 || bytes.readUInt32LE(offset + 4) !== 0) return 'has reserved bits set';
  const wholeSeconds =
    Number.isInteger(bytes.readDoubleLE(offset + 8)) && Number.isInteger(bytes.readDoubleLE(offset + 16));
  return wholeSeconds ? '' : 'has an exptime that is not whole seconds';
}

/** Returns a number below 2^53, otherwise a bigint. */
export function casOf(high: number, low: number): Cas {
  return high < 0x20_0000 ? high * 0x1_0000_0000 + low : (BigInt(high) << 32n) | BigInt(low);
}
