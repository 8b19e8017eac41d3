/**
 * Unsigned 64-bit little-endian integers as JavaScript numbers. Terms, indexes and sequences stay below 2^53, where a
 * number is exact; reading a larger one gives a number that is not a safe integer, which decoders refuse.
 */

const HIGH = 0x1_0000_0000;

export function writeUint64(buffer: Buffer, value: number, offset: number): void {
  buffer.writeUInt32LE(value >>> 0, offset);
  buffer.writeUInt32LE(Math.floor(value / HIGH), offset + 4);
}

export function readUint64(buffer: Buffer, offset: number): number {
  return buffer.readUInt32LE(offset) + buffer.readUInt32LE(offset + 4) * HIGH;
}
