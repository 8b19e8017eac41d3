import type { Segment } from '../segments/files.ts';
import {
  BLOCK_HEADER_BYTES,
  countBlankSectors,
  encodeBlockHeader,
  encodeRecord,
  paddedToSector,
  RECORD_HEADER_BYTES,
  SECTOR_BYTES,
} from '../segments/format.ts';

/** The buffer starts at this size and doubles as blocks need it. */
const BYTES_INITIAL = 64 * 1024;

/** The block that is written next, record by record. Its buffer is used again for the block after it. */
export class BlockStaging {
  #bytes = Buffer.allocUnsafeSlow(BYTES_INITIAL);
  /** Where the next record goes in the block. */
  #end = BLOCK_HEADER_BYTES;
  #records = 0;
  /** CRC of the last record put into this block or one before; and as it was when this block began. */
  #chain: number;
  #chainBefore: number;

  constructor(chain: number) {
    this.#chain = chain;
    this.#chainBefore = chain;
  }

  get bytes(): Buffer {
    return this.#bytes;
  }

  get end(): number {
    return this.#end;
  }

  get chain(): number {
    return this.#chain;
  }

  /** Begins a block without records. */
  begin(): void {
    this.#end = BLOCK_HEADER_BYTES;
    this.#records = 0;
    this.#chainBefore = this.#chain;
  }

  put(type: number, index: number, body: Buffer): void {
    const after = this.#end + RECORD_HEADER_BYTES + body.length;
    if (paddedToSector(after) > this.#bytes.length) this.#grow(paddedToSector(after));
    this.#chain = encodeRecord(this.#bytes, this.#end, type, index, body, this.#chain);
    this.#records++;
    this.#end = after;
  }

  /** Completes the block for its place: header and padding. Returns how many bytes of `bytes` it takes. */
  finish(segment: Segment, position: number, sequence: number, seal: boolean): number {
    const padded = paddedToSector(this.#end);
    this.#bytes.fill(0, this.#end, padded);
    encodeBlockHeader(this.#bytes, segment.saltCrc, segment.number, position, {
      sequence,
      byteLength: this.#end,
      records: this.#records,
      blankSectors: countBlankSectors(this.#bytes, SECTOR_BYTES, padded),
      chainBefore: this.#chainBefore,
      seal,
    });
    return padded;
  }

  /** Releases a buffer that one large record has stretched beyond `bytesMax`. */
  shrink(bytesMax: number): void {
    if (this.#bytes.length > bytesMax) this.#bytes = Buffer.allocUnsafeSlow(BYTES_INITIAL);
  }

  #grow(bytes: number): void {
    let size = this.#bytes.length;
    while (size < bytes) size *= 2;
    const larger = Buffer.allocUnsafeSlow(size);
    this.#bytes.copy(larger, 0, 0, this.#end);
    this.#bytes = larger;
  }
}
