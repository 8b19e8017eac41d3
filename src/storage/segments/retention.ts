import { join } from 'node:path';
import type { Disk } from '../disk/disk.ts';
import { segmentName } from './files.ts';

/**
 * The segments before the active one, and how they are removed. What is left must always be a log that a start can
 * read: without a gap in the numbers, and with something in its oldest segments that tells where it begins.
 */
export interface SealedSegment {
  readonly number: number;
  /** Of its file. */
  readonly bytes: number;
}

export class SegmentRetention {
  readonly #disk: Disk;
  readonly #directory: string;
  /** Oldest first, without a gap. */
  readonly #sealed: SealedSegment[];
  #byteLength = 0;

  constructor(disk: Disk, directory: string, sealed: readonly SealedSegment[]) {
    this.#disk = disk;
    this.#directory = directory;
    this.#sealed = [];
    for (const each of sealed) this.add(each);
  }

  get byteLength(): number {
    return this.#byteLength;
  }

  add(segment: SealedSegment): void {
    this.#sealed.push(segment);
    this.#byteLength += segment.bytes;
  }

  hasBelow(number: number): boolean {
    const oldest = this.#sealed[0];
    return oldest !== undefined && oldest.number < number;
  }

  /** Removes the segments below `number`, oldest first, each durably before the next: power loss must leave no gap. */
  async removeBelow(number: number): Promise<void> {
    for (let oldest = this.#sealed[0]; oldest !== undefined && oldest.number < number; oldest = this.#sealed[0]) {
      await this.#disk.remove(join(this.#directory, segmentName(oldest.number)));
      await this.#disk.syncDirectory(this.#directory);
      this.#sealed.shift();
      this.#byteLength -= oldest.bytes;
    }
  }
}
