import type { Clock } from '../../base/clock.ts';
import { RaftkvError } from '../../base/errors.ts';
import type { Disk } from '../disk/disk.ts';
import { closeSegment, createSegment, extendSegment, isDiskFull, type Segment } from './files.ts';

/**
 * Keeps zero-filled space ahead of the log. An O_DSYNC write into allocated blocks costs one trip to the disk; one that
 * must allocate blocks or extend the file also writes the journal of the file system. So zeros are written before, in
 * the background, in small synced steps: first up to the end of the active segment, then into a spare segment for
 * later.
 *
 * A full disk is no failure, because no entry of the log depends on the step that failed. The step is repeated, with
 * its zeros and its sync, until there is space. In the meantime the log uses the zeros that are ready.
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
  /** Called with true when the disk is full, and with false when the wanted zeros are ahead of the log again. */
  readonly onFull: (full: boolean) => void;
}

/** The pause between attempts while the disk is full: short for a waiting operator, long compared with an attempt. */
const DISK_FULL_RETRY_MS = 500;

export class SegmentFiller {
  readonly #options: FillOptions;
  /** Called when a step has ended, or when an attempt on a full disk is due. */
  readonly #onRoom: () => void;
  /** Called with an error after which the log must not be written. */
  readonly #onFailure: (error: unknown) => void;

  active: Segment;
  /**
   * The segments after the active one. They contain no blocks. They are made when the active one is filled to its end.
   */
  readonly spares: Segment[];
  #running: Promise<void> | null = null;
  /** Resolves when all earlier active segments are closed. */
  #closing: Promise<void> = Promise.resolve();
  #stopped = false;
  #full = false;
  /** Not null while an attempt on a full disk is scheduled. */
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

  /** Whether the last attempt found the disk full and the next one is not due yet. */
  get waitsForRoom(): boolean {
    return this.#cancelRetry !== null;
  }

  /**
   * Starts a step if too few zeros are ahead. To be called when the write position has moved.
   * @param position the write position in the active segment
   * @param wantedBytes the number of zero bytes that the log waits for; 0 if it doesn't wait
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

  /** Makes the first spare the active segment and closes the previous one. */
  advance(): Segment {
    const spare = this.spares.shift();
    if (spare === undefined)
      throw new RaftkvError('INVARIANT_BROKEN', 'a segment was sealed before its successor existed');
    const previous = this.active;
    this.active = spare;
    // No step can still be writing to it, because a spare is only made when the active segment is filled to its end.
    this.#closing = this.#guard(this.#closing.then(() => closeSegment(previous)));
    return spare;
  }

  /** Waits for the running step and starts no further one. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#cancelRetry?.();
    this.#cancelRetry = null;
    await this.#running;
    await this.#closing;
  }

  /** Resolves when the files of all earlier active segments are closed. */
  async whenClosed(): Promise<void> {
    await this.#closing;
  }

  #guard(work: Promise<void>): Promise<void> {
    return work.catch((error: unknown) => {
      this.#stopped = true;
      this.#onFailure(error);
    });
  }

  /** Returns the number of zero bytes that are missing ahead of the log; 0 if no step is needed. */
  #shortBytes(position: number, aheadBytes: number): number {
    let ahead = this.active.filledTo - position;
    for (const spare of this.spares) ahead += spare.filledTo;
    // One spare that is filled to its end is enough, even if segments are small.
    if (this.spares.length > 0 && this.#nextToExtend() === null) return 0;
    return Math.max(0, aheadBytes - ahead);
  }

  #nextToExtend(): Segment | null {
    if (this.active.filledTo < this.active.segmentBytes) return this.active;
    return this.spares.find((spare) => spare.filledTo < spare.segmentBytes) ?? null;
  }

  /** Performs one step: small if few zeros are missing, large if a burst is about to use them up. */
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
