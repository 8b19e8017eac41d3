import type { Clock } from '../base/clock.ts';
import { RaftkvError } from '../base/errors.ts';
import type { EntryLocations } from './entry-locations.ts';
import { closeSegment, type Segment } from './segment-files.ts';
import { type FillOptions, SegmentFiller } from './segment-filler.ts';
import {
  BATCH_HEADER_BYTES,
  countBlankSectors,
  encodeBatchHeader,
  encodeRecord,
  paddedToSector,
  RECORD_ENTRY,
  RECORD_HARD_STATE,
  RECORD_HEADER_BYTES,
  SECTOR_BYTES,
} from './wal-format.ts';
import { readEntries } from './wal-reader.ts';
import type { RecoveredLog } from './wal-recovery.ts';
import type { Wal, WalWrite } from './wal-types.ts';

/**
 * The write path. At any moment one write at most is on its way to the disk; what is appended meanwhile waits, and
 * goes out together as soon as it is durable. Buffers, callbacks and arrays are used again, so that a write costs
 * neither a promise nor a closure.
 */
export interface SegmentedWalOptions {
  readonly clock: Clock;
  readonly onFatal: (error: RaftkvError) => void;
  readonly fill: FillOptions;
  readonly batchBytesMax: number;
  readonly entryBytesMax: number;
  readonly locations: EntryLocations;
  readonly log: RecoveredLog;
}

/** The staging buffer starts at this size and doubles as batches need it. */
const STAGING_BYTES = 64 * 1024;
/** Twenty bytes today; the bound keeps the repeated hard state within the one sector that is reserved for it. */
const HARD_STATE_BYTES_MAX = 256;

type State = 'open' | 'closing' | 'closed' | 'failed';

export class SegmentedWal implements Wal {
  readonly #clock: Clock;
  readonly #onFatal: (error: RaftkvError) => void;
  readonly #fillOptions: FillOptions;
  readonly #filler: SegmentFiller;
  readonly #batchBytesMax: number;
  readonly #entryBytesMax: number;
  readonly #locations: EntryLocations;
  #state: State = 'open';

  #active: Segment;
  /** Where the next batch goes; always a sector boundary. */
  #position: number;
  #nextSequence: number;
  /** CRC of the last record put into a batch. */
  #chain: number;
  /** The newest put into a batch; null where there was none yet. */
  #hardState: Buffer | null;
  #sealedBytes: number;

  #lastIndex: number;
  /** Every entry up to here that the log holds is durable. Never above `#locations.lastIndex`. */
  #durableIndex: number;

  /** Writes not yet wholly in a batch, with the times they came; of the first, `#stepsTaken` parts are in one. */
  #waiting: WalWrite[] = [];
  #waitingSinceMs: number[] = [];
  #stepsTaken = 0;

  /** A batch, or a seal, is on its way to the disk. */
  #busy = false;
  #sealing = false;
  #batchBytes = 0;
  #flyingSinceMs = 0;
  /** Writes that will be durable with the batch in flight. `#landed` is the same array of the batch before, emptied. */
  #flying: WalWrite[] = [];
  #landed: WalWrite[] = [];

  #staging = Buffer.allocUnsafeSlow(STAGING_BYTES);
  #batchRecords = 0;
  #batchChainBefore = 0;
  #onDrained: (() => void) | null = null;
  #pumpIsDue = false;
  #closed: Promise<void> | null = null;

  constructor(options: SegmentedWalOptions) {
    const { log, locations } = options;
    this.#clock = options.clock;
    this.#onFatal = options.onFatal;
    this.#fillOptions = options.fill;
    this.#batchBytesMax = options.batchBytesMax;
    this.#entryBytesMax = options.entryBytesMax;
    this.#locations = locations;
    this.#active = log.active;
    this.#position = log.position;
    this.#nextSequence = log.nextSequence;
    this.#chain = log.chain;
    this.#hardState = log.hardState;
    this.#sealedBytes = log.sealedBytes;
    this.#lastIndex = locations.lastIndex;
    this.#durableIndex = locations.lastIndex;
    this.#filler = new SegmentFiller(
      options.fill,
      log.active,
      log.spares,
      () => this.#pump(),
      (error) => this.#fail('making room ahead of the log', error),
    );
    this.#filler.check(this.#position, 0);
  }

  get firstIndex(): number {
    return this.#lastIndex === 0 ? 0 : this.#locations.firstIndex || 1;
  }

  get lastIndex(): number {
    return this.#lastIndex;
  }

  get byteLength(): number {
    let bytes = this.#sealedBytes + this.#active.filledTo;
    for (const spare of this.#filler.spares) bytes += spare.filledTo;
    return bytes;
  }

  oldestPendingMs(): number {
    const sinceMs = this.#flying.length > 0 ? this.#flyingSinceMs : this.#waitingSinceMs[0];
    return sinceMs === undefined ? 0 : this.#clock.monotonicMs() - sinceMs;
  }

  append(write: WalWrite): void {
    this.#checkAppend(write);
    if (write.entries.length > 0) {
      this.#lastIndex = write.firstIndex + write.entries.length - 1;
      // What is about to be replaced is no longer to be read.
      this.#durableIndex = Math.min(this.#durableIndex, write.firstIndex - 1);
    }
    this.#waiting.push(write);
    this.#waitingSinceMs.push(this.#clock.monotonicMs());
    if (this.#busy || this.#pumpIsDue) return;
    this.#pumpIsDue = true;
    queueMicrotask(this.#pumpWhenIdle);
  }

  async read(fromIndex: number, toIndex: number, bytesMax: number): Promise<Buffer[]> {
    if (this.#state === 'closed') throw new RaftkvError('WAL_CLOSED', 'the log was read after it was closed');
    if (fromIndex > toIndex || toIndex > this.#durableIndex) {
      const what = `entries ${fromIndex} to ${toIndex} were asked of a log that is durable to ${this.#durableIndex}`;
      throw new RaftkvError('INVARIANT_BROKEN', what);
    }
    const { disk, directory } = this.#fillOptions;
    return readEntries(disk, directory, this.#locations, fromIndex, toIndex, bytesMax);
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
      });
    }
    this.#state = 'closed';
    await this.#filler.stop();
    for (const segment of [this.#active, ...this.#filler.spares]) await closeSegment(segment);
  }

  #checkAppend(write: WalWrite): void {
    if (this.#state === 'failed') {
      throw new RaftkvError('WAL_WRITE_FAILED', 'the log takes nothing after a failed write', 'Restart the node.');
    }
    if (this.#state !== 'open') throw new RaftkvError('WAL_CLOSED', 'the log was written to after it was closed');
    const { hardState, firstIndex, entries } = write;
    if (hardState === null && entries.length === 0) throw new RaftkvError('INVARIANT_BROKEN', 'an empty log write');
    if (hardState !== null && hardState.length > HARD_STATE_BYTES_MAX) {
      throw new RaftkvError('INVARIANT_BROKEN', `a hard state of ${hardState.length} bytes`);
    }
    if (entries.length > 0 && (firstIndex < 1 || firstIndex > this.#lastIndex + 1)) {
      const what = `entry ${firstIndex} was appended to a log that ends at ${this.#lastIndex}`;
      throw new RaftkvError('INVARIANT_BROKEN', what);
    }
    for (let i = 0; i < entries.length; i++) {
      const bytes = entries[i]?.length ?? 0;
      if (bytes <= this.#entryBytesMax) continue;
      const what = `entry ${firstIndex + i} has ${bytes} bytes; the log takes ${this.#entryBytesMax}`;
      throw new RaftkvError('INVARIANT_BROKEN', what);
    }
  }

  /** Sends the next batch on its way, where there is one, there is room for it, and none is on its way. */
  /**
   * A write starts when the callback that asked for it is over, not within it: all that one callback appends goes into
   * one write, and what it sent to the peers, whose disks take as long as this one, has left before.
   */
  readonly #pumpWhenIdle = (): void => {
    this.#pumpIsDue = false;
    if (!this.#busy) this.#pump();
  };

  #pump(): void {
    const wanted = this.#state === 'failed' ? 0 : this.#sendNext();
    this.#filler.check(this.#position, wanted);
  }

  /** Returns how much room ahead it is that the next batch waits for; 0 where it waits for none. */
  #sendNext(): number {
    if (this.#busy || this.#waiting.length === 0) return 0;
    const end = this.#fillStaging();
    if (end > 0) {
      this.#writeBatch(end, false);
      return 0;
    }
    if (!this.#mustSeal()) return paddedToSector(this.#bytesOfFirst()) + SECTOR_BYTES;
    // More than this segment will ever have: a spare.
    if (this.#filler.spares.length === 0) return this.#active.segmentBytes - this.#position + SECTOR_BYTES;
    this.#writeBatch(BATCH_HEADER_BYTES, true);
    return 0;
  }

  /** The first waiting record fits into no batch that this segment, filled to its end, could still take. */
  #mustSeal(): boolean {
    const room = this.#active.segmentBytes - SECTOR_BYTES - this.#position;
    return this.#bytesOfFirst() > room;
  }

  #bytesOfFirst(): number {
    const write = this.#waiting[0];
    const body = write === undefined ? null : partOf(write, this.#stepsTaken || (write.hardState === null ? 1 : 0));
    const repeated = this.#position === SECTOR_BYTES ? this.#hardState : null;
    const repeatedBytes = repeated === null ? 0 : RECORD_HEADER_BYTES + repeated.length;
    return BATCH_HEADER_BYTES + repeatedBytes + RECORD_HEADER_BYTES + (body?.length ?? 0);
  }

  /** Puts waiting records into the staging buffer; returns where they end in it, 0 where not one fits. */
  #fillStaging(): number {
    const room = this.#active.filledTo - SECTOR_BYTES - this.#position;
    if (this.#bytesOfFirst() > room) return 0;
    this.#batchRecords = 0;
    this.#batchChainBefore = this.#chain;
    let end = BATCH_HEADER_BYTES;
    // A segment begins with the hard state, so that the ones before it are not needed for theirs.
    if (this.#position === SECTOR_BYTES && this.#hardState !== null) {
      end = this.#putRecord(end, RECORD_HARD_STATE, 0, this.#hardState);
    }
    let taken = 0;
    let whole = 0;
    for (const write of this.#waiting) {
      const steps = 1 + write.entries.length;
      while (this.#stepsTaken < steps) {
        const step = this.#stepsTaken;
        const body = partOf(write, step);
        if (body !== null) {
          const after = end + RECORD_HEADER_BYTES + body.length;
          if (after > room || (taken > 0 && after > this.#batchBytesMax)) break;
          if (step === 0) {
            this.#hardState = Buffer.from(body);
            end = this.#putRecord(end, RECORD_HARD_STATE, 0, body);
          } else {
            end = this.#putEntry(end, write.firstIndex + step - 1, body);
          }
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
    return end;
  }

  /** The first `whole` waiting writes are wholly in the batch. */
  #takeOff(whole: number): void {
    this.#flyingSinceMs = this.#waitingSinceMs[0] ?? 0;
    if (whole === this.#waiting.length) {
      this.#waiting.length = 0;
      this.#waitingSinceMs.length = 0;
    } else {
      this.#waiting.splice(0, whole);
      this.#waitingSinceMs.splice(0, whole);
    }
  }

  #putEntry(end: number, index: number, body: Buffer): number {
    const length = RECORD_HEADER_BYTES + body.length;
    this.#locations.put(index, this.#active.number, this.#position + end, length, this.#chain);
    if (index <= this.#durableIndex) this.#durableIndex = index - 1;
    return this.#putRecord(end, RECORD_ENTRY, index, body);
  }

  #putRecord(end: number, type: number, index: number, body: Buffer): number {
    const after = end + RECORD_HEADER_BYTES + body.length;
    if (paddedToSector(after) > this.#staging.length) this.#growStaging(paddedToSector(after), end);
    this.#chain = encodeRecord(this.#staging, end, type, index, body, this.#chain);
    this.#batchRecords++;
    return after;
  }

  #growStaging(bytes: number, used: number): void {
    let size = this.#staging.length;
    while (size < bytes) size *= 2;
    const larger = Buffer.allocUnsafeSlow(size);
    this.#staging.copy(larger, 0, 0, used);
    this.#staging = larger;
  }

  #writeBatch(byteLength: number, seal: boolean): void {
    const staging = this.#staging;
    const padded = paddedToSector(byteLength);
    staging.fill(0, byteLength, padded);
    encodeBatchHeader(staging, this.#active.saltCrc, this.#active.number, this.#position, {
      sequence: this.#nextSequence,
      byteLength,
      records: seal ? 0 : this.#batchRecords,
      blankSectors: countBlankSectors(staging, SECTOR_BYTES, padded),
      chainBefore: seal ? this.#chain : this.#batchChainBefore,
      seal,
    });
    this.#busy = true;
    this.#sealing = seal;
    this.#batchBytes = padded;
    this.#active.durable.write(staging, 0, padded, this.#position, this.#written);
  }

  readonly #written = (error: Error | null): void => {
    if (this.#state === 'failed' || this.#state === 'closed') return;
    if (error !== null) {
      this.#fail(`writing to ${this.#active.path}`, error);
      return;
    }
    this.#busy = false;
    this.#nextSequence++;
    this.#position += this.#batchBytes;
    if (this.#sealing) this.#advance();
    else this.#durableIndex = this.#locations.lastIndex;
    const landed = this.#flying;
    this.#flying = this.#landed;
    this.#landed = landed;
    if (this.#staging.length > this.#batchBytesMax * 2) this.#staging = Buffer.allocUnsafeSlow(STAGING_BYTES);
    // The disk first: it works on the next batch while the writers of this one hear of it.
    this.#pump();
    for (const write of landed) write.done();
    landed.length = 0;
    if (!this.#busy && this.#waiting.length === 0) this.#onDrained?.();
  };

  /** The seal is durable: the log goes on in the spare. */
  #advance(): void {
    this.#sealedBytes += this.#active.filledTo;
    this.#active = this.#filler.advance();
    this.#position = SECTOR_BYTES;
  }

  #fail(doing: string, cause: unknown): void {
    if (this.#state === 'failed' || this.#state === 'closed') return;
    this.#state = 'failed';
    const reason = cause instanceof Error ? cause.message : String(cause);
    const remedy =
      (cause as NodeJS.ErrnoException).code === 'ENOSPC'
        ? 'Make room on the disk of the data directory, then restart the node. Nothing acknowledged is lost.'
        : 'Check the disk, then restart the node. Nothing acknowledged is lost.';
    this.#onFatal(new RaftkvError('WAL_WRITE_FAILED', `${doing} failed: ${reason}`, remedy, cause));
    this.#onDrained?.();
  }
}

/** Part 0 of a write is its hard state, part n its n-th entry. */
function partOf(write: WalWrite, step: number): Buffer | null {
  return step === 0 ? write.hardState : (write.entries[step - 1] ?? null);
}
