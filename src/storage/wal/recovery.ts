import type { RaftkvError } from '../../base/errors.ts';
import { readUint64 } from '../../base/uint64.ts';
import { type Disk, writeFully } from '../disk/disk.ts';
import {
  closeSegment,
  openSegment,
  type SealedSegment,
  type Segment,
  segmentName,
  walDamaged,
  writeZeros,
} from '../segments/files.ts';
import {
  BLOCK_HEADER_BYTES,
  type BlockHeader,
  countBlankSectors,
  isZero,
  LOG_RESET_BODY_BYTES,
  paddedToSector,
  RECORD_ENTRY,
  RECORD_HARD_STATE,
  RECORD_HEADER_BYTES,
  RECORD_LOG_RESET,
  readBlockHeader,
  SECTOR_BYTES,
  verifyRecord,
} from '../segments/format.ts';
import { findRemains, SegmentReader } from '../segments/reader.ts';
import { EntryLocations } from './entries.ts';
import type { GoodPart, LogBase, LogResetPlace, RecoveredLog } from './types.ts';

/**
 * Reads the log at a start, and distinguishes an unfinished last write (a torn block) from damage.
 *
 * Block k + 1 is written only after block k is durable, and into sectors that are durably zero. So a power loss can
 * affect only the last block, and only by leaving some of its sectors zero. Hence:
 *
 * - If a block doesn't verify, and a valid block follows in this segment or a later one, the first was durable: damage.
 * - The last block is torn if it has more blank sectors than its header says, or if the sector of its header is blank.
 *   It was not acknowledged, so it is truncated. If the last block is invalid in any other way, that is damage.
 * - A segment that is followed by another one with blocks ends with a seal. So a lost segment leaves a gap in the
 *   numbers, or a seal without a next segment: damage. A file that ends before a zero sector or a seal was truncated:
 *   damage.
 * - Old segments are removed oldest first, each one durably before the next, and the rest always contains an entry or a
 *   log reset. So removals leave no gap in the numbers. If the first segment is not number 1 and the log has neither an
 *   entry nor a log reset, something was lost: damage. If the log begins after the end of the newest snapshot, too many
 *   segments or a snapshot were lost: damage.
 *
 * Nothing on the disk is changed before the whole log was examined. If there is damage, the log stays as it is, or is
 * repaired after the caller was informed (`wal/salvage.ts`).
 *
 * One fault is not detected: if the disk turns a whole sector of the last block into zeros, the block looks torn.
 */

/** The position of a valid block. */
interface BlockPlace {
  readonly segment: number;
  readonly position: number;
  readonly byteLength: number;
}

type Judgement =
  | { readonly kind: 'valid' }
  | { readonly kind: 'invalid'; readonly what: string; readonly torn: boolean };

const VALID: Judgement = { kind: 'valid' };
const NOT_TORN = false;

/** One examination of the segments of a log. */
export class LogScan {
  readonly #disk: Disk;
  readonly #directory: string;
  readonly #clusterName: string;
  readonly #numbers: readonly number[];
  readonly #begin: LogBase;

  readonly #locations = new EntryLocations();
  /** The index before the first entry of the log; -1 if earlier segments were removed, so that it is unknown. */
  #base: number;
  #reset: LogResetPlace | null = null;
  /**
   * The sequence number of the next block. 0 means any: for the first block of a log whose earlier segments were
   * removed.
   */
  #sequence: number;
  /** The CRC of the last record that was read. The first block of the log may begin with any chain. */
  #chain = 0;
  #hasRead = false;
  #hardState: Buffer | null = null;
  #last: BlockPlace | null = null;
  #blocks = 0;
  #entries = 0;
  readonly #sealed: SealedSegment[] = [];
  #window: Buffer | undefined;
  readonly #open: Segment[] = [];
  #goodNumber: number;
  #goodBytes = 0;

  /** @param numbers the numbers of the existing segments, ascending; at least one */
  constructor(disk: Disk, directory: string, clusterName: string, numbers: readonly number[], begin: LogBase) {
    this.#disk = disk;
    this.#directory = directory;
    this.#clusterName = clusterName;
    this.#numbers = numbers;
    this.#begin = begin;
    this.#goodNumber = numbers[0] ?? 1;
    const isWhole = this.#goodNumber === 1;
    this.#base = isWhole ? 0 : -1;
    this.#sequence = isWhole ? 1 : 0;
  }

  /**
   * Examines all segments and truncates a torn block at the end.
   * @throws RaftkvError WAL_DAMAGED, FORMAT_UNSUPPORTED, DATA_DIR_FOREIGN. Then all files are closed and none was
   * changed.
   */
  async run(): Promise<RecoveredLog> {
    try {
      return await this.#readSegments();
    } catch (error) {
      for (const segment of this.#open) await closeSegment(segment);
      throw error;
    }
  }

  /** The part of the log that was intact when `run` ended. */
  get goodPart(): GoodPart {
    return {
      number: this.#goodNumber,
      bytes: this.#goodBytes,
      reachesBack: this.#faultOfBeginning() === null,
      hardState: this.#hardState,
    };
  }

  get reset(): LogResetPlace | null {
    return this.#reset;
  }

  async #readSegments(): Promise<RecoveredLog> {
    const [first = 1] = this.#numbers;
    const last = this.#numbers.at(-1) ?? first;
    for (let number = first; ; number++) {
      this.#goodNumber = number;
      this.#goodBytes = 0;
      if (!this.#numbers.includes(number)) throw this.#missing(number, last);
      const segment = await this.#openSegment(number);
      this.#goodBytes = SECTOR_BYTES;
      const reader = this.#readerOf(segment);
      const end = await this.#readBlocks(segment, reader);
      this.#window = reader.window;
      if (end.sealed) {
        this.#sealed.push({ number, bytes: segment.filledTo });
        await this.#closeSegment(segment);
        continue;
      }
      const spares: Segment[] = [];
      for (let spare = number + 1; spare <= last; spare++) {
        if (!this.#numbers.includes(spare)) throw this.#missing(spare, last);
        spares.push(await this.#openSegment(spare));
      }
      const tornBytes = await this.#truncateTail(segment, spares, end.position, end.judgement);
      return this.#recovered(segment, spares, end.position, tornBytes);
    }
  }

  #recovered(active: Segment, spares: readonly Segment[], position: number, tornBytes: number): RecoveredLog {
    return {
      active,
      spares,
      position,
      nextSequence: Math.max(1, this.#sequence),
      chain: this.#hasRead ? this.#chain : active.saltCrc,
      hardState: this.#hardState,
      sealed: this.#sealed,
      locations: this.#locations,
      resetSegment: this.#reset?.segment ?? 0,
      report: {
        segments: this.#numbers.length,
        blocks: this.#blocks,
        entries: this.#entries,
        tornBytes,
        damage: null,
      },
    };
  }

  #missing(number: number, last: number): RaftkvError {
    const name = segmentName(number);
    if (number < last) return walDamaged(this.#directory, 0, `the segment ${name} is missing`);
    return walDamaged(this.#directory, 0, `the next segment ${name} is missing`);
  }

  async #openSegment(number: number): Promise<Segment> {
    const segment = await openSegment(this.#disk, this.#directory, number, this.#clusterName);
    this.#open.push(segment);
    return segment;
  }

  async #closeSegment(segment: Segment): Promise<void> {
    this.#open.splice(this.#open.indexOf(segment), 1);
    await closeSegment(segment);
  }

  #readerOf(segment: Segment): SegmentReader {
    return new SegmentReader(segment, this.#window);
  }

  /** Records the valid blocks of a segment. Stops after the seal, or at the first position without a valid block. */
  async #readBlocks(
    segment: Segment,
    reader: SegmentReader,
  ): Promise<{ readonly sealed: boolean; readonly position: number; readonly judgement: Judgement }> {
    let position = SECTOR_BYTES;
    for (;;) {
      if (position + SECTOR_BYTES > segment.filledTo) {
        throw walDamaged(
          segment.path,
          position,
          'the file was truncated: it ends where a block or zeros should follow',
        );
      }
      if (!reader.has(position, SECTOR_BYTES)) await reader.load(position, SECTOR_BYTES);
      const offset = reader.offsetOf(position);
      const header = readBlockHeader(reader.window, offset, segment.saltCrc, segment.number, position);
      if (header === null) {
        const blank = isZero(reader.window, offset, offset + SECTOR_BYTES);
        const what = blank ? 'no block found' : 'the block header is corrupt';
        return { sealed: false, position, judgement: { kind: 'invalid', what, torn: blank } };
      }
      const padded = paddedToSector(header.byteLength);
      let judgement = this.#judgeHeader(header, position + padded, segment);
      if (judgement.kind === 'valid') {
        if (!reader.has(position, padded)) await reader.load(position, padded);
        judgement = this.#judgeRecords(header, reader.window, reader.offsetOf(position));
      }
      if (judgement.kind === 'invalid') return { sealed: false, position, judgement };
      this.#takeBlock(header, reader.window, reader.offsetOf(position), segment, position);
      position += padded;
      this.#goodBytes = position;
      if (header.seal) return { sealed: true, position, judgement };
    }
  }

  #judgeHeader(header: BlockHeader, end: number, segment: Segment): Judgement {
    const invalid = (what: string): Judgement => ({ kind: 'invalid', what, torn: NOT_TORN });
    const isFirst = this.#sequence === 0;
    if (header.sequence !== this.#sequence && !(isFirst && header.sequence > 0)) {
      return invalid(`found block ${header.sequence}, expected block ${this.#sequence}`);
    }
    if (header.byteLength < BLOCK_HEADER_BYTES) return invalid('a block is shorter than its header');
    if (end > segment.filledTo) return invalid('the file was truncated: it ends inside a block');
    if (!isFirst && header.sequence > 1 && header.chainBefore !== this.#chain) {
      return invalid(`block ${header.sequence} does not match the checksum chain of the block before it`);
    }
    return VALID;
  }

  #judgeRecords(header: BlockHeader, window: Buffer, start: number): Judgement {
    const end = start + header.byteLength;
    const paddedEnd = start + paddedToSector(header.byteLength);
    const what = this.#faultOfRecords(header, window, start + BLOCK_HEADER_BYTES, end, paddedEnd);
    if (what === null) return VALID;
    const torn = countBlankSectors(window, start, paddedEnd) > header.blankSectors;
    return { kind: 'invalid', what: `block ${header.sequence}: ${what}`, torn };
  }

  #faultOfRecords(header: BlockHeader, window: Buffer, start: number, end: number, paddedEnd: number): string | null {
    let chain = header.chainBefore;
    let offset = start;
    let base = this.#base;
    // If the beginning of the log is unknown, the first entry may have any index. Every other one must follow an entry.
    let lastIndex = base < 0 && this.#locations.isEmpty ? Number.POSITIVE_INFINITY : this.#locations.lastIndex;
    for (let record = 1; record <= header.records; record++) {
      const length = verifyRecord(window, offset, end, chain);
      if (length === 0) return `record ${record} of ${header.records} is corrupt`;
      const type = window.readUInt32LE(offset + 8);
      const index = readUint64(window, offset + 12);
      switch (type) {
        case RECORD_ENTRY:
          if (index < 1 || index <= base || index > lastIndex + 1) return `entry ${index} follows entry ${lastIndex}`;
          lastIndex = index;
          break;
        case RECORD_LOG_RESET:
          if (length !== RECORD_HEADER_BYTES + LOG_RESET_BODY_BYTES) return `record ${record} is not a valid log reset`;
          base = index;
          lastIndex = index;
          break;
        case RECORD_HARD_STATE:
          break;
        default:
          return `record ${record} has unknown type ${type}`;
      }
      chain = window.readUInt32LE(offset);
      offset += length;
    }
    if (offset !== end) return 'the length of its records does not match its header';
    if (!isZero(window, end, paddedEnd)) return 'its padding is not zero';
    return null;
  }

  #takeBlock(header: BlockHeader, window: Buffer, start: number, segment: Segment, position: number): void {
    this.#chain = header.chainBefore;
    let offset = start + BLOCK_HEADER_BYTES;
    for (let record = 0; record < header.records; record++) {
      const length = RECORD_HEADER_BYTES + window.readUInt32LE(offset + 4);
      const body = window.subarray(offset + RECORD_HEADER_BYTES, offset + length);
      const type = window.readUInt32LE(offset + 8);
      const index = readUint64(window, offset + 12);
      const place = position + offset - start;
      if (type === RECORD_ENTRY) {
        this.#locations.put(index, segment.number, place, length, this.#chain);
        this.#entries++;
      } else if (type === RECORD_LOG_RESET) {
        this.#locations.restart(index);
        this.#base = index;
        this.#reset = { segment: segment.number, offset: place };
      } else {
        this.#hardState = Buffer.from(body);
      }
      this.#chain = window.readUInt32LE(offset);
      offset += length;
    }
    this.#hasRead = true;
    this.#sequence = header.sequence + 1;
    this.#blocks++;
    this.#last = { segment: segment.number, position, byteLength: header.byteLength };
  }

  /** Returns null if the beginning of the log is known, and is not after the end of the newest snapshot. */
  #faultOfBeginning(): string | null {
    if (this.#base < 0 && this.#locations.isEmpty)
      return 'the start of the log is unknown: it has no entry and no log reset';
    const { firstIndex } = this.#locations;
    if (firstIndex <= this.#begin.index + 1) return null;
    return `the log begins with entry ${firstIndex}, but the newest snapshot ends at ${this.#begin.index}`;
  }

  /**
   * Checks that the log ends at `position`, truncates a torn block there, and makes everything that was read durable.
   * Returns the number of bytes that were truncated.
   */
  async #truncateTail(
    segment: Segment,
    spares: readonly Segment[],
    position: number,
    judgement: Judgement,
  ): Promise<number> {
    const what = judgement.kind === 'invalid' ? judgement.what : '';
    const remains: { readonly segment: Segment; readonly from: number; readonly to: number }[] = [];
    for (const each of [segment, ...spares]) {
      const from = each === segment ? position : SECTOR_BYTES;
      // A block header at `position` belongs to the block that was judged invalid.
      const scanFrom = each === segment ? position + SECTOR_BYTES : SECTOR_BYTES;
      const { blockAt, nonZeroEnd } = await findRemains(each, this.#readerOf(each), scanFrom);
      if (blockAt >= 0) {
        const proof = `a valid block follows at byte ${blockAt} of ${each.path}`;
        throw walDamaged(segment.path, position, `${what}, but ${proof}, so the damaged data was durable`);
      }
      if (nonZeroEnd > 0) remains.push({ segment: each, from, to: nonZeroEnd });
    }
    if (judgement.kind === 'invalid' && !judgement.torn) throw walDamaged(segment.path, position, what);
    const fault = this.#faultOfBeginning();
    if (fault !== null) throw walDamaged(this.#directory, 0, fault);
    if (!(await this.#isBlankAt(segment, position)) && remains[0]?.segment !== segment) {
      remains.unshift({ segment, from: position, to: position + SECTOR_BYTES });
    }
    let tornBytes = 0;
    for (const { segment: torn, from, to } of remains) {
      await writeZeros(torn.plain, from, to);
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
   * The last block may exist only in the cache of the system: the previous process may have died during its last write,
   * or have stopped after a failed sync. So that block is written once more with the same bytes. All earlier blocks are
   * durable, otherwise the last one would not have been written.
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
