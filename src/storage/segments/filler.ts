import type { Clock } from '../../base/clock.ts';
import { RaftkvError } from '../../base/errors.ts';
import type { Disk } from '../disk/disk.ts';
import { closeSegment, createSegment, extendSegment, isDiskFull, type Segment } from './files.ts';

/**
 * Keeps zero-filled room ahead of the log. An O_DSYNC write into allocated blocks costs one trip to the disk; one that
 * must allocate, or make the file longer, also costs the file system's journal. So zeros go first, in the background,
 * in small synced steps: first to the end of the active segment, then into a spare that will be active after it.
 *
 * A disk without room for a step is no failure: nothing in the log rests on that step. It is done again from where the
 * last good one ended, zeros and sync, until there is room. Meanwhile the log lives on what is ready.
 */
export interface FillOptions {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly directory: string;
  readonly clusterName: string;
  readonly random: () => number;
  readonly segmentBytes: number;
  /** The number of bytes of a new segment that are filled before its name appears. */
  readonly firstFillBytes: number;
  /** The number of zero bytes that are kept ahead of the write position. */
  readonly fillAheadBytes: number;
  /** The smallest and largest number of bytes between two syncs. A log write waits behind one such step at most. */
  readonly fillStepBytes: number;
  readonly fillStepBytesMax: number;
  /** The disk ran out of room, or has all again that is to be kept ahead. */
  readonly onFull: (full: boolean) => void;
}

/** The pause after a try that found the disk full: short for an operator who waits, long compared with the cost of a try. */
const DISK_FULL_RETRY_MS = 500;

export class SegmentFiller {
  readonly #options: FillOptions;
  /** Called when there is more room than before. */
  readonly #onRoom: () => void;
  /** Called with the error that ends the log. */
  readonly #onFailure: (error: unknown) => void;

  active: Segment;
  /** The segments after the active one. None contains a block, and there are none while the active one is not full. */
  readonly spares: Segment[];
  #running: Promise<void> | null = null;
  /** Resolves when the segments that were active before are closed. */
  #closing: Promise<void> = Promise.resolve();
  #stopped = false;
  #full = false;
  /** Not null from when the disk had no room until the next try. */
  #cancelRetry: (() => void) | null = null;

  constructor(
    options: FillOptions,
    active: Segment,
    spares: readonly Segment[],
    onRoom: () => void,
    onFailure: (error: unknown) => void,
  ) {
    this.#options = options;
    this.active = active;
    this.spares = [...spares];
    this.#onRoom = onRoom;
    this.#onFailure = onFailure;
  }

  get full(): boolean {
    return this.#full;
  }

  /** Whether the last try found no room and the next one is not due yet. */
  get waitsForRoom(): boolean {
    return this.#cancelRetry !== null;
  }

  /**
   * To be called when the write position has moved. Starts filling where too little is ahead of it.
   * @param wantedBytes what must be ahead before the log can go on; 0 where it waits for nothing.
   */
  check(position: number, wantedBytes: number): void {
    if (this.#running !== null || this.#stopped || this.#cancelRetry !== null) return;
    const shortBytes = this.#shortBytes(position, Math.max(wantedBytes, this.#options.fillAheadBytes));
    if (shortBytes === 0) {
      this.#setFull(false);
      return;
    }
    this.#running = this.#guard(this.#fillOrWait(shortBytes)).then(() => {
      this.#running = null;
      if (!this.#stopped) this.#onRoom();
    });
  }

  async #fillOrWait(shortBytes: number): Promise<void> {
    try {
      await this.#fill(shortBytes);
    } catch (error) {
      if (!isDiskFull(error)) throw error;
      this.#tryLater();
    }
  }

  #tryLater(): void {
    if (this.#stopped) return;
    this.#cancelRetry = this.#options.clock.after(DISK_FULL_RETRY_MS, () => {
      this.#cancelRetry = null;
      if (!this.#stopped) this.#onRoom();
    });
    this.#setFull(true);
  }

  #setFull(full: boolean): void {
    if (this.#full === full) return;
    this.#full = full;
    this.#options.onFull(full);
  }

  /** Makes the first spare active, and closes the segment that was. */
  advance(): Segment {
    const spare = this.spares.shift();
    if (spare === undefined)
      throw new RaftkvError('INVARIANT_BROKEN', 'a segment was sealed before its successor existed');
    const previous = this.active;
    this.active = spare;
    // Nothing fills it any more: a spare is made only once the active segment is full.
    this.#closing = this.#guard(this.#closing.then(() => closeSegment(previous)));
    return spare;
  }

  /** Waits for the step that runs, and starts no other. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#cancelRetry?.();
    this.#cancelRetry = null;
    await this.#running;
    await this.#closing;
  }

  /** Resolves once no file of a segment before the active one is open any more. */
  async whenClosed(): Promise<void> {
    await this.#closing;
  }

  #guard(work: Promise<void>): Promise<void> {
    return work.catch((error: unknown) => {
      this.#stopped = true;
      this.#onFailure(error);
    });
  }

  /** The number of zero bytes that are missing ahead of the log; 0 if none are, or if nothing can be done about it. */
  #shortBytes(position: number, aheadBytes: number): number {
    let ahead = this.active.filledTo - position;
    for (const spare of this.spares) ahead += spare.filledTo;
    // One full spare is enough, however small segments are.
    if (this.spares.length > 0 && this.#nextToExtend() === null) return 0;
    return Math.max(0, aheadBytes - ahead);
  }

  #nextToExtend(): Segment | null {
    if (this.active.filledTo < this.active.segmentBytes) return this.active;
    return this.spares.find((spare) => spare.filledTo < spare.segmentBytes) ?? null;
  }

  /** One step: small if little is missing, large if a burst is about to use up the zeros. */
  async #fill(shortBytes: number): Promise<void> {
    const { disk, directory, segmentBytes, firstFillBytes, clusterName, random } = this.#options;
    const segment = this.#nextToExtend();
    if (segment !== null) {
      const { fillStepBytes, fillStepBytesMax } = this.#options;
      const steps = Math.ceil(Math.min(shortBytes, fillStepBytesMax) / fillStepBytes);
      return extendSegment(segment, Math.min(segment.segmentBytes, segment.filledTo + steps * fillStepBytes));
    }
    const number = this.active.number + this.spares.length + 1;
    const fillBytes = firstFillBytes;
    this.spares.push(await createSegment(disk, directory, number, { segmentBytes, fillBytes, clusterName, random }));
  }
}
