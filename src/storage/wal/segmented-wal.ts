import { RaftkvError } from '../../base/errors.ts';
import { closeSegment, type Segment, SegmentRetention } from '../segments/files.ts';
import { type FillOptions, SegmentFiller } from '../segments/filler.ts';
import {
  BLOCK_HEADER_BYTES,
  encodeLogReset,
  paddedToSector,
  RECORD_ENTRY,
  RECORD_HARD_STATE,
  RECORD_HEADER_BYTES,
  RECORD_LOG_RESET,
  SECTOR_BYTES,
} from '../segments/format.ts';
import { BlockStaging, bytesOfNext, bytesOfStep, checkWrite, keptBy, writeFailed } from './blocks.ts';
import { type EntryLocations, readEntries } from './entries.ts';
import type { RecoveredLog, Wal, WalWrite } from './types.ts';

export interface SegmentedWalOptions {
  readonly onFatal: (error: RaftkvError) => void;
  readonly fill: FillOptions;
  readonly blockBytesMax: number;
  readonly entryBytesMax: number;
  readonly log: RecoveredLog;
}

type State = 'open' | 'closing' | 'closed' | 'failed';

/**
 * The write path of the log. At most one block is being written at any time. Writes that are appended in the meantime
 * wait, and go into the next block together. Buffers, callbacks and arrays are reused, so that a write needs no promise
 * and no closure.
 */
export class SegmentedWal implements Wal {
  readonly #onFatal: (error: RaftkvError) => void;
  readonly #fillOptions: FillOptions;
  readonly #filler: SegmentFiller;
  readonly #blockBytesMax: number;
  readonly #entryBytesMax: number;
  readonly #locations: EntryLocations;
  #state: State = 'open';

  #active: Segment;
  /** The position of the next block; always a sector boundary. */
  #position: number;
  #nextSequence: number;
  /** The newest hard state in a block; null if there was none. */
  #hardState: Buffer | null;
  readonly #retention: SegmentRetention;

  #lastIndex: number;
  /** The index of the newest log reset that was appended. Entries up to it must not be read any more. */
  #resetIndex: number;
  /** All entries of the log up to this index are durable. Never above `#locations.lastIndex`. */
  #durableIndex: number;
  /** The segment of the newest durable log reset, and that of the log reset being written; 0 for none. */
  #resetSegment: number;
  #resetInFlight = 0;
  /** The number of waiting writes that truncate or reset the log. */
  #truncationsWaiting = 0;

  /** The writes that are not yet completely in a block. `#stepsTaken` steps of the first one are. */
  #waiting: WalWrite[] = [];
  #stepsTaken = 0;

  /** Whether a block or a seal is being written. */
  #busy = false;
  #sealing = false;
  #blockBytes = 0;
  /**
   * The writes that are durable when the present block is. `#landed` is the empty array of the previous block, for
   * reuse.
   */
  #flying: WalWrite[] = [];
  #landed: WalWrite[] = [];

  readonly #staging: BlockStaging;
  #onDrained: (() => void) | null = null;
  #pumpIsDue = false;
  #closed: Promise<void> | null = null;
  readonly #reads = new Set<Promise<unknown>>();
  #compacting: Promise<void> | null = null;

  constructor(options: SegmentedWalOptions) {
    const { log } = options;
    const { locations } = log;
    this.#onFatal = options.onFatal;
    this.#fillOptions = options.fill;
    this.#blockBytesMax = options.blockBytesMax;
    this.#entryBytesMax = options.entryBytesMax;
    this.#locations = locations;
    this.#active = log.active;
    this.#position = log.position;
    this.#nextSequence = log.nextSequence;
    this.#staging = new BlockStaging(log.chain);
    this.#hardState = log.hardState;
    this.#retention = new SegmentRetention(options.fill.disk, options.fill.directory, log.sealed);
    this.#resetSegment = log.resetSegment;
    this.#resetIndex = locations.firstIndex - 1;
    this.#lastIndex = locations.lastIndex;
    this.#durableIndex = locations.lastIndex;
    this.#filler = new SegmentFiller(
      options.fill,
      log.active,
      log.spares,
      () => this.#pump(),
      (error) => this.#fail('preallocating the log', error),
    );
    this.#filler.check(this.#position, 0);
  }

  get firstIndex(): number {
    // A log reset that still waits is not in `#locations` yet.
    return Math.max(this.#resetIndex + 1, Math.min(this.#locations.firstIndex, this.#lastIndex + 1));
  }

  get lastIndex(): number {
    return this.#lastIndex;
  }

  get byteLength(): number {
    let bytes = this.#retention.byteLength + this.#active.filledTo;
    for (const spare of this.#filler.spares) bytes += spare.filledTo;
    return bytes;
  }

  append(write: WalWrite): void {
    this.#checkOpen();
    checkWrite(write, this.firstIndex, this.#lastIndex, this.#entryBytesMax);
    const keeps = keptBy(write);
    if (keeps < this.#lastIndex || write.reset !== null) {
      // Entries that this write replaces must not be read any more, even while it waits.
      this.#durableIndex = Math.min(this.#durableIndex, keeps);
      this.#truncationsWaiting++;
    }
    if (write.reset !== null) {
      this.#resetIndex = write.reset.index;
      this.#lastIndex = write.reset.index;
    }
    if (write.entries.length > 0) this.#lastIndex = write.firstIndex + write.entries.length - 1;
    this.#waiting.push(write);
    if (this.#busy || this.#pumpIsDue) return;
    this.#pumpIsDue = true;
    queueMicrotask(this.#pumpWhenIdle);
  }

  async read(fromIndex: number, toIndex: number, bytesMax: number): Promise<Buffer[]> {
    if (this.#state === 'closed') throw new RaftkvError('WAL_CLOSED', 'the log was read after it was closed');
    if (fromIndex > toIndex || fromIndex < this.firstIndex || toIndex > this.#durableIndex) {
      const has = `begins with ${this.firstIndex} and is durable to ${this.#durableIndex}`;
      throw new RaftkvError(
        'INVARIANT_BROKEN',
        `entries ${fromIndex} to ${toIndex} were requested from a log that ${has}`,
      );
    }
    const { disk, directory } = this.#fillOptions;
    const work = readEntries(disk, directory, this.#locations, fromIndex, toIndex, bytesMax);
    this.#reads.add(work);
    return work.finally(() => this.#reads.delete(work));
  }

  get full(): boolean {
    return this.#filler.full;
  }

  indexBehind(bytes: number): number {
    return this.#locations.indexBehind(bytes);
  }

  async compact(index: number): Promise<void> {
    this.#checkOpen();
    if (this.#compacting !== null)
      throw new RaftkvError('INVARIANT_BROKEN', 'two log compactions ran at the same time');
    const keepFrom = this.#oldestNeeded(index);
    if (!this.#retention.hasBelow(keepFrom)) return;
    this.#locations.forgetBelow(keepFrom);
    const work = this.#truncatePrefix(keepFrom);
    this.#compacting = work;
    const over = () => {
      this.#compacting = null;
    };
    work.then(over, over);
    return work;
  }

  /**
   * Returns the oldest segment that must be kept: that of the first entry above `index`, if it is durable. Otherwise
   * that of the newest durable entry, or that of the log reset if there is no such entry. So even after a power loss,
   * the log contains an entry or a log reset that tells where it begins.
   */
  #oldestNeeded(index: number): number {
    const oldest = this.#locations.get(Math.min(index + 1, this.#durableIndex));
    return oldest === null ? this.#resetSegment : oldest.segment;
  }

  async #truncatePrefix(keepFrom: number): Promise<void> {
    try {
      // A running read has looked up its locations and may still have to open the files.
      await Promise.allSettled(this.#reads);
      await this.#filler.whenClosed();
      await this.#retention.removeBelow(keepFrom);
    } catch (error) {
      throw this.#fail('removing old segments', error);
    }
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    if (this.#state === 'open' && (this.#busy || this.#waiting.length > 0)) {
      this.#state = 'closing';
      await new Promise<void>((resolve) => {
        this.#onDrained = resolve;
        if (!this.#busy) this.#pump();
      });
    }
    this.#state = 'closed';
    await this.#compacting?.catch(() => {});
    await this.#filler.stop();
    for (const segment of [this.#active, ...this.#filler.spares]) await closeSegment(segment);
  }

  #checkOpen(): void {
    if (this.#state === 'failed') {
      throw new RaftkvError('WAL_WRITE_FAILED', 'the log accepts no writes after a failed write', 'Restart the node.');
    }
    if (this.#state !== 'open') throw new RaftkvError('WAL_CLOSED', 'the log was written to after it was closed');
  }

  /**
   * A block is written after the callback that appended to it has returned. So all writes of one callback are in one
   * block, and its messages to the peers are sent first, whose disk writes take as long as this one.
   */
  readonly #pumpWhenIdle = (): void => {
    this.#pumpIsDue = false;
    if (!this.#busy) this.#pump();
  };

  /** Writes the next block if writes are waiting, no other block is being written, and there are zeros for it. */
  #pump(): void {
    const wanted = this.#state === 'failed' ? 0 : this.#sendNext();
    this.#filler.check(this.#position, wanted);
    // `close` must not wait for an operator to free space. The waiting writes were not acknowledged.
    if (wanted > 0 && this.#filler.waitsForRoom) this.#onDrained?.();
  }

  /** Returns the number of zero bytes that the next block waits for; 0 if it waits for none. */
  #sendNext(): number {
    if (this.#busy || this.#waiting.length === 0) return 0;
    if (this.#fillStaging()) {
      this.#writeBlock(false);
      return 0;
    }
    if (!this.#mustSeal()) return paddedToSector(this.#bytesOfFirst()) + SECTOR_BYTES;
    // The active segment is too short for the next record, so a spare segment is needed.
    if (this.#filler.spares.length === 0) return this.#active.segmentBytes - this.#position + SECTOR_BYTES;
    this.#staging.begin();
    this.#writeBlock(true);
    return 0;
  }

  /** Whether the first waiting record does not fit into the rest of this segment. */
  #mustSeal(): boolean {
    const room = this.#active.segmentBytes - SECTOR_BYTES - this.#position;
    return this.#bytesOfFirst() > room;
  }

  #bytesOfFirst(): number {
    const write = this.#waiting[0];
    const repeated = this.#position === SECTOR_BYTES ? this.#hardState : null;
    const repeatedBytes = repeated === null ? 0 : RECORD_HEADER_BYTES + repeated.length;
    return BLOCK_HEADER_BYTES + repeatedBytes + (write === undefined ? 0 : bytesOfNext(write, this.#stepsTaken));
  }

  /** Puts waiting records into the next block. Returns false if none fits. */
  #fillStaging(): boolean {
    const room = this.#active.filledTo - SECTOR_BYTES - this.#position;
    if (this.#bytesOfFirst() > room) return false;
    const staging = this.#staging;
    staging.begin();
    // A segment begins with the hard state, so that earlier segments can be removed.
    if (this.#position === SECTOR_BYTES && this.#hardState !== null) {
      staging.put(RECORD_HARD_STATE, 0, this.#hardState);
    }
    let taken = 0;
    let whole = 0;
    for (const write of this.#waiting) {
      const steps = 1 + write.entries.length;
      while (this.#stepsTaken < steps) {
        const step = this.#stepsTaken;
        const bytes = bytesOfStep(write, step);
        if (bytes > 0) {
          const after = staging.end + bytes;
          if (after > room || (taken > 0 && after > this.#blockBytesMax)) break;
          const body = write.entries[step - 1];
          if (body === undefined) this.#putHead(write);
          else this.#putEntry(write.firstIndex + step - 1, body);
          taken++;
        }
        this.#stepsTaken++;
      }
      if (this.#stepsTaken < steps) break;
      this.#stepsTaken = 0;
      this.#flying.push(write);
      whole++;
    }
    this.#takeOff(whole);
    return true;
  }

  /** Removes the first `whole` writes from the queue, because they are completely in the block. */
  #takeOff(whole: number): void {
    if (whole < this.#waiting.length) {
      this.#waiting.splice(0, whole);
      return;
    }
    this.#truncationsWaiting = 0;
    this.#waiting.length = 0;
  }

  #putHead({ reset, hardState }: WalWrite): void {
    if (reset !== null) {
      this.#locations.restart(reset.index);
      this.#durableIndex = reset.index;
      this.#resetInFlight = this.#active.number;
      this.#staging.put(RECORD_LOG_RESET, reset.index, encodeLogReset(reset.term));
    }
    if (hardState !== null) {
      this.#hardState = Buffer.from(hardState);
      this.#staging.put(RECORD_HARD_STATE, 0, hardState);
    }
  }

  #putEntry(index: number, body: Buffer): void {
    const { end, chain } = this.#staging;
    this.#locations.put(index, this.#active.number, this.#position + end, RECORD_HEADER_BYTES + body.length, chain);
    if (index <= this.#durableIndex) this.#durableIndex = index - 1;
    this.#staging.put(RECORD_ENTRY, index, body);
  }

  #writeBlock(seal: boolean): void {
    const padded = this.#staging.finish(this.#active, this.#position, this.#nextSequence, seal);
    this.#busy = true;
    this.#sealing = seal;
    this.#blockBytes = padded;
    this.#active.durable.write(this.#staging.bytes, 0, padded, this.#position, this.#written);
  }

  readonly #written = (error: Error | null): void => {
    if (this.#state === 'failed' || this.#state === 'closed') return;
    if (error !== null) {
      this.#fail(`writing to ${this.#active.path}`, error);
      return;
    }
    this.#busy = false;
    this.#nextSequence++;
    this.#position += this.#blockBytes;
    if (this.#sealing) this.#advance();
    else this.#recordDurable();
    const landed = this.#flying;
    this.#flying = this.#landed;
    this.#landed = landed;
    this.#staging.shrink(this.#blockBytesMax * 2);
    // The next block is started first, so that the disk works while the callbacks run.
    this.#pump();
    for (const write of landed) write.done();
    landed.length = 0;
    if (!this.#busy && this.#waiting.length === 0) this.#onDrained?.();
  };

  #recordDurable(): void {
    this.#durableIndex = this.#locations.lastIndex;
    if (this.#truncationsWaiting > 0) {
      for (const write of this.#waiting) this.#durableIndex = Math.min(this.#durableIndex, keptBy(write));
    }
    if (this.#resetInFlight > 0) this.#resetSegment = this.#resetInFlight;
    this.#resetInFlight = 0;
  }

  /** Makes the spare the active segment, after the seal of the previous one is durable. */
  #advance(): void {
    this.#retention.add({ number: this.#active.number, bytes: this.#active.filledTo });
    this.#active = this.#filler.advance();
    this.#position = SECTOR_BYTES;
  }

  #fail(doing: string, cause: unknown): RaftkvError {
    const error = writeFailed(doing, cause);
    if (this.#state !== 'failed' && this.#state !== 'closed') {
      this.#state = 'failed';
      this.#onFatal(error);
      this.#onDrained?.();
    }
    return error;
  }
}
