import { readOfDisk, type Segment } from './files.ts';
import { isZero, readBlockHeader, SECTOR_BYTES } from './format.ts';

/** Reads a segment from front to back through a window, so that a log of any length is read with few large reads. */

const WINDOW_BYTES = 1024 * 1024;

export class SegmentReader {
  readonly #segment: Pick<Segment, 'path' | 'plain' | 'filledTo'>;
  #start = 0;
  #length = 0;
  /** The bytes that were read last; valid until the next `load`. */
  window: Buffer;

  /** @param window that of another reader, to be used again. */
  constructor(segment: Pick<Segment, 'path' | 'plain' | 'filledTo'>, window: Buffer = Buffer.alloc(0)) {
    this.#segment = segment;
    const bytes = Math.min(WINDOW_BYTES, segment.filledTo);
    this.window = window.length >= bytes ? window : Buffer.allocUnsafeSlow(bytes);
  }

  /** The place of the file's byte `position` in `window`. Only valid once `has` returned true for it. */
  offsetOf(position: number): number {
    return position - this.#start;
  }

  has(position: number, length: number): boolean {
    return position >= this.#start && position + length <= this.#start + this.#length;
  }

  /**
   * Makes the window hold `length` bytes from `position`, and what follows them. The file must be that long.
   * @throws RaftkvError WAL_DAMAGED where the disk cannot read it.
   */
  async load(position: number, length: number): Promise<void> {
    if (length > this.window.length) this.window = Buffer.allocUnsafeSlow(length);
    const { path, plain, filledTo } = this.#segment;
    const wanted = Math.min(this.window.length, filledTo - position);
    this.#length = 0;
    const bytes = await readOfDisk(path, plain, this.window, wanted, position);
    if (bytes < length) throw new Error(`the file ended at byte ${position + bytes} while it was read`);
    this.#start = position;
    this.#length = bytes;
  }
}

export interface Remains {
  /** Position of the first valid block header; -1 if there is none. */
  readonly blockAt: number;
  /** The end of the last byte that is not zero; 0 if all are zero. */
  readonly nonZeroEnd: number;
}

/** Looks at every sector from `from` on for anything that was written there. Stops at the first block. */
export async function findRemains(segment: Segment, reader: SegmentReader, from: number): Promise<Remains> {
  let nonZeroEnd = 0;
  for (let position = from; position < segment.filledTo; ) {
    const length = Math.min(WINDOW_BYTES, segment.filledTo - position);
    if (!reader.has(position, length)) await reader.load(position, length);
    const start = reader.offsetOf(position);
    if (!isZero(reader.window, start, start + length)) {
      for (let sector = 0; sector < length; sector += SECTOR_BYTES) {
        const offset = start + sector;
        if (isZero(reader.window, offset, offset + SECTOR_BYTES)) continue;
        const at = position + sector;
        if (readBlockHeader(reader.window, offset, segment.saltCrc, segment.number, at) !== null) {
          return { blockAt: at, nonZeroEnd };
        }
        nonZeroEnd = at + SECTOR_BYTES;
      }
    }
    position += length;
  }
  return { blockAt: -1, nonZeroEnd };
}
