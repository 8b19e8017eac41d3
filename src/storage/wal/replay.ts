import { readUint64 } from '../../base/uint64.ts';
import type { Disk } from '../disk/disk.ts';
import { type Segment, segmentName, walDamaged } from '../segments/files.ts';
import {
  BLOCK_HEADER_BYTES,
  type BlockHeader,
  paddedToSector,
  RECORD_ENTRY,
  RECORD_HARD_STATE,
  RECORD_HEADER_BYTES,
  readBlockHeader,
  readSegmentHeader,
  SECTOR_BYTES,
  verifyRecord,
} from '../segments/format.ts';
import { SegmentReader } from '../segments/reader.ts';
import type { LogResetPlace, RecoveredLog } from './types.ts';

/**
 * Hands over what a start has found good. It comes from the files as they are after all repair, so that what the sink
 * was told is what the log holds.
 */
export interface RecoverySink {
  /**
   * The log begins behind `index`. Called at most once, before any entry, and only where the log says so itself; else
   * the first entry tells, or the log is empty and begins where `WalOptions.begin` says.
   */
  onLogReset(index: number, term: number): void;
  /**
   * The entries of the log as it is now, each once, their indexes rising by one from `Wal.firstIndex` to
   * `Wal.lastIndex`. The first may be below or at `begin`, and so may the last: then the log still has to be reset
   * to it. `bytes` is a view that is good only until this call returns.
   */
  onEntry(index: number, bytes: Buffer): void;
  /**
   * Every hard state, in its place among the entries; the last call counts. That of a log reset comes late: if a repair
   * reset the log, it speaks of entries that were lost, and that came again behind it. Only where a log has just
   * been repaired may one speak of entries that are not there. `bytes` is a view that is good only until this call
   * returns.
   */
  onHardState(bytes: Buffer): void;
}

/** @throws RaftkvError WAL_DAMAGED where the files read otherwise than when they were judged; what the sink throws. */
export async function replayLog(
  disk: Disk,
  directory: string,
  log: RecoveredLog,
  reset: LogResetPlace | null,
  sink: RecoverySink,
): Promise<void> {
  const replay = new Replay(log, reset, sink);
  for (const { number, bytes } of log.sealed) {
    const path = `${directory}/${segmentName(number)}`;
    const plain = await disk.open(path, { create: false, dataSync: false });
    try {
      // The seal takes the last sector that was written; whatever follows it is not read.
      await replay.segment({ number, path, plain, filledTo: bytes }, null);
    } finally {
      await plain.close();
    }
  }
  await replay.segment(log.active, log.position);
  replay.end();
}

type ReadableSegment = Pick<Segment, 'number' | 'path' | 'plain' | 'filledTo'>;

class Replay {
  readonly #log: RecoveredLog;
  readonly #reset: LogResetPlace | null;
  readonly #sink: RecoverySink;
  /** In the block of the log reset. */
  #isAtReset = false;
  /** The hard state of the log reset, until another comes; segments begin with a copy of it. */
  #heldBack: Buffer | null = null;

  constructor(log: RecoveredLog, reset: LogResetPlace | null, sink: RecoverySink) {
    this.#log = log;
    this.#reset = reset;
    this.#sink = sink;
  }

  /** @param end where its blocks end; null where a seal tells. */
  async segment(segment: ReadableSegment, end: number | null): Promise<void> {
    const reader = new SegmentReader(segment);
    await reader.load(0, SECTOR_BYTES);
    const segmentHeader = readSegmentHeader(reader.window.subarray(0, SECTOR_BYTES));
    if (segmentHeader === null) throw changed(segment, 0);
    for (let position = SECTOR_BYTES; end === null || position < end; ) {
      if (!reader.has(position, SECTOR_BYTES)) await reader.load(position, SECTOR_BYTES);
      const at = reader.offsetOf(position);
      const header = readBlockHeader(reader.window, at, segmentHeader.saltCrc, segment.number, position);
      if (header === null) throw changed(segment, position);
      const padded = paddedToSector(header.byteLength);
      if (!reader.has(position, padded)) await reader.load(position, padded);
      this.#block(header, reader, segment, position);
      if (header.seal) return;
      position += padded;
    }
  }

  #block(header: BlockHeader, reader: SegmentReader, segment: ReadableSegment, position: number): void {
    const { window } = reader;
    const start = reader.offsetOf(position);
    const end = start + header.byteLength;
    let chain = header.chainBefore;
    let offset = start + BLOCK_HEADER_BYTES;
    for (let record = 0; record < header.records; record++) {
      const length = verifyRecord(window, offset, end, chain);
      if (length === 0) throw changed(segment, position);
      this.#record(window, offset, length, segment.number, position + offset - start);
      chain = window.readUInt32LE(offset);
      offset += length;
    }
    this.#isAtReset = false;
  }

  end(): void {
    if (this.#heldBack !== null) this.#sink.onHardState(this.#heldBack);
  }

  #record(window: Buffer, offset: number, length: number, segment: number, place: number): void {
    const type = window.readUInt32LE(offset + 8);
    const index = readUint64(window, offset + 12);
    const body = window.subarray(offset + RECORD_HEADER_BYTES, offset + length);
    if (type === RECORD_HARD_STATE) this.#hardState(body);
    else if (type === RECORD_ENTRY) {
      if (this.#log.locations.isAt(index, segment, place)) this.#sink.onEntry(index, body);
    } else if (this.#reset?.segment === segment && this.#reset.offset === place) {
      this.#isAtReset = true;
      this.#sink.onLogReset(index, readUint64(body, 0));
    }
  }

  #hardState(body: Buffer): void {
    if (this.#isAtReset) {
      this.#heldBack = Buffer.from(body);
      return;
    }
    if (this.#heldBack?.equals(body)) return;
    this.#heldBack = null;
    this.#sink.onHardState(body);
  }
}

function changed({ path }: ReadableSegment, position: number) {
  return walDamaged(path, position, 'a block became corrupt while the log was opened');
}
