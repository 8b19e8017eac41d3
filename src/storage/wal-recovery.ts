import { RaftkvError } from '../base/errors.ts';
import { readUint64 } from '../base/uint64.ts';
import { type Disk, writeFully } from './disk.ts';
import type { EntryLocations } from './entry-locations.ts';
import {
  closeSegment,
  isTemporary,
  openSegment,
  type Segment,
  segmentName,
  segmentNumbers,
  walDamaged,
  writeZeros,
} from './segment-files.ts';
import { findRemains, SegmentReader } from './segment-reader.ts';
import {
  BATCH_HEADER_BYTES,
  type BatchHeader,
  countBlankSectors,
  isZero,
  paddedToSector,
  RECORD_ENTRY,
  RECORD_HARD_STATE,
  RECORD_HEADER_BYTES,
  readBatchHeader,
  SECTOR_BYTES,
  verifyRecord,
} from './wal-format.ts';

/**
 * Reads the log after a start and tells a torn end from damage.
 *
 * Batch k + 1 is issued only once batch k is durable, and into sectors that are durably zero. So whatever power loss
 * may do, it can spoil the last batch only, and only by leaving some of its sectors zero. Hence:
 *
 * - A batch that does not verify, with any valid batch behind it in this segment or a later one, was durable: damage.
 * - The last batch is torn if more of its sectors are blank than its header says are so by right, or if its header's
 *   own sector is blank. Nobody was promised it; it is cut. Any other fault in it is damage.
 * - A segment that is followed by another ends with a seal, so a lost segment leaves a gap in the numbers or a seal
 *   that leads nowhere: damage. A file that ends before a zero sector or a seal was seen was cut short: damage.
 *
 * Where there is damage nothing on the disk is changed.
 *
 * One fault escapes: the disk turning a whole sector of the last batch into zeros looks as if it had been torn.
 */
export interface RecoverySink {
  /** `bytes` is a view that is good only until this call returns. An index that was seen before cuts the log there. */
  onEntry(index: number, bytes: Buffer): void;
  /** The last call counts. `bytes` is a view that is good only until this call returns. */
  onHardState(bytes: Buffer): void;
}

export interface RecoveryReport {
  readonly segments: number;
  readonly batches: number;
  /** Entries read, with those that later ones replaced. */
  readonly entries: number;
  /** Bytes of an unfinished last write that were cut; 0 where the log ended cleanly. */
  readonly tornBytes: number;
}

export interface RecoveredLog {
  readonly active: Segment;
  readonly spares: readonly Segment[];
  /** Where the next batch goes in the active segment. */
  readonly position: number;
  readonly nextSequence: number;
  readonly chain: number;
  /** A copy of the newest; null where none was written yet. */
  readonly hardState: Buffer | null;
  /** Bytes of the segments before the active one. */
  readonly sealedBytes: number;
  readonly report: RecoveryReport;
}

/** Null where the folder holds no log. @throws RaftkvError WAL_DAMAGED, FORMAT_UNSUPPORTED, DATA_DIR_FOREIGN. */
export async function recoverLog(
  disk: Disk,
  directory: string,
  clusterId: string,
  locations: EntryLocations,
  sink: RecoverySink,
): Promise<RecoveredLog | null> {
  const names = await disk.list(directory);
  const numbers = segmentNumbers(names);
  for (const [place, number] of numbers.entries()) {
    if (number !== place + 1) throw walDamaged(directory, 0, `the segment ${segmentName(place + 1)} is missing`);
  }
  const recovery = new Recovery(disk, directory, clusterId, locations, sink);
  const log = numbers.length === 0 ? null : await recovery.run(numbers);
  // Only now: where there is damage, everything stays as it was found.
  for (const name of names.filter(isTemporary)) await disk.remove(`${directory}/${name}`);
  return log;
}

/** A batch that verifies, by its place. */
interface BatchPlace {
  readonly segment: number;
  readonly position: number;
  readonly byteLength: number;
}

type Judgement =
  | { readonly kind: 'valid' }
  | { readonly kind: 'invalid'; readonly what: string; readonly torn: boolean };

const VALID: Judgement = { kind: 'valid' };
const NOT_TORN = false;

class Recovery {
  readonly #disk: Disk;
  readonly #directory: string;
  readonly #clusterId: string;
  readonly #locations: EntryLocations;
  readonly #sink: RecoverySink;

  #sequence = 1;
  /** CRC of the last record read. The first batch of all may say what it likes. */
  #chain = 0;
  #hardState: Buffer | null = null;
  #last: BatchPlace | null = null;
  #batches = 0;
  #entries = 0;
  #sealedBytes = 0;
  #window: Buffer | undefined;
  readonly #open: Segment[] = [];

  constructor(disk: Disk, directory: string, clusterId: string, locations: EntryLocations, sink: RecoverySink) {
    this.#disk = disk;
    this.#directory = directory;
    this.#clusterId = clusterId;
    this.#locations = locations;
    this.#sink = sink;
  }

  async run(numbers: readonly number[]): Promise<RecoveredLog> {
    try {
      return await this.#readSegments(numbers);
    } catch (error) {
      for (const segment of this.#open) await closeSegment(segment);
      throw error;
    }
  }

  async #readSegments(numbers: readonly number[]): Promise<RecoveredLog> {
    for (const number of numbers) {
      const segment = await this.#openSegment(number);
      const reader = this.#readerOf(segment);
      const end = await this.#readBatches(segment, reader);
      this.#window = reader.window;
      if (end.sealed && number !== numbers.length) {
        this.#sealedBytes += segment.filledTo;
        await this.#closeSegment(segment);
        continue;
      }
      if (end.sealed) {
        const next = segmentName(number + 1);
        throw walDamaged(segment.path, end.position - SECTOR_BYTES, `the log goes on in ${next}, which is missing`);
      }
      const spares = await this.#openSpares(numbers.slice(number));
      const tornBytes = await this.#settleEnd(segment, spares, end.position, end.judgement);
      return {
        active: segment,
        spares,
        position: end.position,
        nextSequence: this.#sequence,
        chain: this.#chain,
        hardState: this.#hardState,
        sealedBytes: this.#sealedBytes,
        report: { segments: numbers.length, batches: this.#batches, entries: this.#entries, tornBytes },
      };
    }
    throw new RaftkvError('INVARIANT_BROKEN', 'a log without segments was recovered');
  }

  async #openSegment(number: number): Promise<Segment> {
    const segment = await openSegment(this.#disk, this.#directory, number, this.#clusterId);
    this.#open.push(segment);
    return segment;
  }

  async #closeSegment(segment: Segment): Promise<void> {
    this.#open.splice(this.#open.indexOf(segment), 1);
    await closeSegment(segment);
  }

  #readerOf(segment: Segment): SegmentReader {
    return new SegmentReader(segment.plain, segment.filledTo, this.#window);
  }

  /** Hands over every valid batch of a segment; stops behind its seal, or at the first place without a valid batch. */
  async #readBatches(
    segment: Segment,
    reader: SegmentReader,
  ): Promise<{ readonly sealed: boolean; readonly position: number; readonly judgement: Judgement }> {
    let position = SECTOR_BYTES;
    for (;;) {
      if (position + SECTOR_BYTES > segment.filledTo) {
        throw walDamaged(
          segment.path,
          position,
          'the file was cut short: it ends where a batch or zeros should follow',
        );
      }
      if (!reader.has(position, SECTOR_BYTES)) await reader.load(position, SECTOR_BYTES);
      const offset = reader.offsetOf(position);
      const header = readBatchHeader(reader.window, offset, segment.saltCrc, segment.number, position);
      if (header === null) {
        const blank = isZero(reader.window, offset, offset + SECTOR_BYTES);
        const what = blank ? 'no batch is here' : 'the header of a batch does not verify';
        return { sealed: false, position, judgement: { kind: 'invalid', what, torn: blank } };
      }
      const padded = paddedToSector(header.byteLength);
      let judgement = this.#judgeHeader(header, position + padded, segment);
      if (judgement.kind === 'valid') {
        if (!reader.has(position, padded)) await reader.load(position, padded);
        judgement = this.#judgeRecords(header, reader.window, reader.offsetOf(position));
      }
      if (judgement.kind === 'invalid') return { sealed: false, position, judgement };
      this.#takeBatch(header, reader.window, reader.offsetOf(position), segment, position);
      position += padded;
      if (header.seal) return { sealed: true, position, judgement };
    }
  }

  #judgeHeader(header: BatchHeader, end: number, segment: Segment): Judgement {
    const invalid = (what: string): Judgement => ({ kind: 'invalid', what, torn: NOT_TORN });
    if (header.sequence !== this.#sequence) {
      return invalid(`batch ${header.sequence} is where batch ${this.#sequence} should be`);
    }
    if (header.byteLength < BATCH_HEADER_BYTES) return invalid('a batch is shorter than its header');
    if (end > segment.filledTo) return invalid('the file was cut short: it ends inside a batch');
    if (header.sequence > 1 && header.chainBefore !== this.#chain) {
      return invalid(`batch ${header.sequence} does not follow the batch before it`);
    }
    return VALID;
  }

  #judgeRecords(header: BatchHeader, window: Buffer, start: number): Judgement {
    const end = start + header.byteLength;
    const paddedEnd = start + paddedToSector(header.byteLength);
    const what = this.#faultOfRecords(header, window, start + BATCH_HEADER_BYTES, end, paddedEnd);
    if (what === null) return VALID;
    const torn = countBlankSectors(window, start, paddedEnd) > header.blankSectors;
    return { kind: 'invalid', what: `batch ${header.sequence}: ${what}`, torn };
  }

  #faultOfRecords(header: BatchHeader, window: Buffer, start: number, end: number, paddedEnd: number): string | null {
    let chain = header.chainBefore;
    let offset = start;
    let lastIndex = this.#locations.lastIndex;
    for (let record = 1; record <= header.records; record++) {
      const length = verifyRecord(window, offset, end, chain);
      if (length === 0) return `record ${record} of ${header.records} does not verify`;
      const type = window.readUInt32LE(offset + 8);
      if (type !== RECORD_ENTRY && type !== RECORD_HARD_STATE) return `record ${record} is of unknown type ${type}`;
      if (type === RECORD_ENTRY) {
        const index = readUint64(window, offset + 12);
        if (index < 1 || index > lastIndex + 1) return `entry ${index} follows entry ${lastIndex}`;
        lastIndex = index;
      }
      chain = window.readUInt32LE(offset);
      offset += length;
    }
    if (offset !== end) return 'its records do not fill it';
    if (!isZero(window, end, paddedEnd)) return 'the zeros after its records are not all zero';
    return null;
  }

  #takeBatch(header: BatchHeader, window: Buffer, start: number, segment: Segment, position: number): void {
    this.#chain = header.chainBefore;
    let offset = start + BATCH_HEADER_BYTES;
    for (let record = 0; record < header.records; record++) {
      const length = RECORD_HEADER_BYTES + window.readUInt32LE(offset + 4);
      const body = window.subarray(offset + RECORD_HEADER_BYTES, offset + length);
      if (window.readUInt32LE(offset + 8) === RECORD_ENTRY) {
        const index = readUint64(window, offset + 12);
        this.#locations.put(index, segment.number, position + offset - start, length, this.#chain);
        this.#entries++;
        this.#sink.onEntry(index, body);
      } else {
        this.#hardState = Buffer.from(body);
        this.#sink.onHardState(body);
      }
      this.#chain = window.readUInt32LE(offset);
      offset += length;
    }
    this.#sequence++;
    this.#batches++;
    this.#last = { segment: segment.number, position, byteLength: header.byteLength };
  }

  async #openSpares(numbers: readonly number[]): Promise<Segment[]> {
    const spares: Segment[] = [];
    for (const number of numbers) {
      spares.push(await this.#openSegment(number));
    }
    return spares;
  }

  /**
   * Makes sure that the log really ends at `position`, cuts a torn batch there, and makes durable all that was read.
   * Returns how many bytes were cut.
   */
  async #settleEnd(
    segment: Segment,
    spares: readonly Segment[],
    position: number,
    judgement: Judgement,
  ): Promise<number> {
    const what = judgement.kind === 'invalid' ? judgement.what : '';
    const remains: { readonly segment: Segment; readonly from: number; readonly to: number }[] = [];
    for (const each of [segment, ...spares]) {
      const from = each === segment ? position : SECTOR_BYTES;
      // The header at `position` itself, where there is one, belongs to the batch that is judged.
      const scanFrom = each === segment ? position + SECTOR_BYTES : SECTOR_BYTES;
      const { batchAt, nonZeroEnd } = await findRemains(each, this.#readerOf(each), scanFrom);
      if (batchAt >= 0) {
        const proof = `a whole batch follows at byte ${batchAt} of ${each.path}`;
        throw walDamaged(segment.path, position, `${what}, yet ${proof}, so what was here had been durable`);
      }
      if (nonZeroEnd > 0) remains.push({ segment: each, from, to: nonZeroEnd });
    }
    if (judgement.kind === 'invalid' && !judgement.torn) throw walDamaged(segment.path, position, what);
    if (!(await this.#isBlankAt(segment, position)) && remains[0]?.segment !== segment) {
      remains.unshift({ segment, from: position, to: position + SECTOR_BYTES });
    }
    let tornBytes = 0;
    for (const { segment: cut, from, to } of remains) {
      await writeZeros(cut.plain, from, to);
      tornBytes += to - from;
    }
    await this.#makeDurable(segment, spares);
    return tornBytes;
  }

  async #isBlankAt(segment: Segment, position: number): Promise<boolean> {
    const sector = Buffer.alloc(SECTOR_BYTES);
    await segment.plain.read(sector, 0, SECTOR_BYTES, position);
    return isZero(sector, 0, SECTOR_BYTES);
  }

  /**
   * What was read may be in the system's cache only: the process before this one may have died during its last write,
   * or stopped because its sync failed. The log below the last batch is durable, or that one would not have been
   * issued; so the last batch is written once more, with the same bytes.
   */
  async #makeDurable(segment: Segment, spares: readonly Segment[]): Promise<void> {
    for (const each of [segment, ...spares]) await each.plain.sync();
    await this.#disk.syncDirectory(this.#directory);
    const last = this.#last;
    if (last === null) return;
    const home = last.segment === segment.number ? segment : await this.#openSegment(last.segment);
    const bytes = Buffer.alloc(paddedToSector(last.byteLength));
    await home.plain.read(bytes, 0, bytes.length, last.position);
    await writeFully(home.durable, bytes, bytes.length, last.position);
    if (home !== segment) await this.#closeSegment(home);
  }
}
