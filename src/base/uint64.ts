/**
 * Unsigned 64-bit little-endian integers as JavaScript numbers, which are exact below 2^53. Terms, indexes and
 * sequences stay below that. A larger integer is read as a number that is not a safe integer, so a decoder can refuse
 * it.
 */

const HIGH = 0x1_0000_0000;

export function writeUint64(buffer: Buffer, value: number, offset: number): void {
  buffer.writeUInt32LE(value >>> 0, offset);
  buffer.writeUInt32LE(Math.floor(value / HIGH), offset + 4);
}

export function readUint64(buffer: Buffer, offset: number): number {
  return buffer.readUInt32LE(offset) + buffer.readUInt32LE(offset + 4) * HIGH;
}
