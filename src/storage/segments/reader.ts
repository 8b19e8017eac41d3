import { readOfDisk, type Segment } from './files.ts';
import { isZero, readBlockHeader, SECTOR_BYTES } from './format.ts';

/** The bytes of one read: large enough for few reads, small enough for memory. A longer block makes the window grow. */
const WINDOW_BYTES = 1024 * 1024;

/** Reads a segment from front to back through a window in memory. */
export class SegmentReader {
  readonly #segment: Pick<Segment, 'path' | 'plain' | 'filledTo'>;
  #start = 0;
  #length = 0;
  /** The buffer with the bytes that were read last; valid until the next `load`. */
  window: Buffer;

  /** @param window the window of a reader that is not used any more, to save an allocation */
  constructor(segment: Pick<Segment, 'path' | 'plain' | 'filledTo'>, window: Buffer = Buffer.alloc(0)) {
    this.#segment = segment;
    const bytes = Math.min(WINDOW_BYTES, segment.filledTo);
    this.window = window.length >= bytes ? window : Buffer.allocUnsafeSlow(bytes);
  }

  /** Returns where the byte at `position` of the file is in `window`. Only valid if `has` returned true for it. */
  offsetOf(position: number): number {
    return position - this.#start;
  }

  /** Whether the window contains `length` bytes from `position`. */
  has(position: number, length: number): boolean {
    return position >= this.#start && position + length <= this.#start + this.#length;
  }

  /**
   * Reads at least `length` bytes from `position` into the window. The file must be that long.
   * @throws RaftkvError WAL_DAMAGED if the disk can't read it
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
  /** The position of the first valid block header; -1 if there is none. */
  readonly blockAt: number;
  /** The end of the last sector that is not blank, before that block; 0 if there is none. */
  readonly nonZeroEnd: number;
}

/** Searches the sectors from `from` on for bytes that were written there. Stops at the first valid block header. */
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
