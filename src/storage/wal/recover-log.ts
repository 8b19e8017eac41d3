import { join } from 'node:path';
import { RaftkvError } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import { readUint64 } from '../../base/uint64.ts';
import type { Disk } from '../disk/disk.ts';
import {
  closeSegment,
  isTemporary,
  repairName,
  repairNumber,
  type Segment,
  segmentName,
  segmentNumbers,
  walDamaged,
} from '../segments/files.ts';
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
import { LogScan } from './recovery.ts';
import { completeRepair, prepareRepair, type RepairPlace } from './salvage.ts';
import type { LogBase, LogResetPlace, RecoveredLog } from './types.ts';

export interface RecoverLogOptions extends RepairPlace {
  readonly mustExist: boolean;
  readonly begin: LogBase;
  readonly onDamage: ((error: RaftkvError) => Promise<string>) | null;
  readonly sink: RecoverySink;
  readonly logger: Logger;
}

/**
 * The number of repairs at one start. One repairs any damage; if the log is damaged again and again, the disk is
 * failing.
 */
const REPAIRS_MAX = 3;

/**
 * Opens the files of a log for appending: examines all of them, repairs damage if `onDamage` allows it, and then passes
 * the content to the sink.
 * @returns `log`: null if the folder contains no log. `damage`: null if there was none. If the log is missing although
 * the node had one, `log` is null and `damage` is not.
 * @throws RaftkvError WAL_DAMAGED, FORMAT_UNSUPPORTED, DATA_DIR_FOREIGN; errors of the disk
 */
export async function recoverLog(
  options: RecoverLogOptions,
): Promise<{ readonly log: RecoveredLog | null; readonly damage: string | null }> {
  const { disk, directory, clusterName, begin } = options;
  let damage: string | null = null;
  for (let repairs = 0; ; repairs++) {
    const names = await disk.list(directory);
    const numbers = segmentNumbers(names);
    const scan = new LogScan(disk, directory, clusterName, numbers, begin);
    const found = await judge(options, scan, names, numbers);
    if (found.error === null) {
      // Only now, so that a log that is damaged and not repaired stays as it was.
      await removeTemporaries(options, names);
      if (found.log === null) return { log: null, damage };
      await replayOrClose(options, found.log, scan);
      return { log: { ...found.log, report: { ...found.log.report, damage } }, damage };
    }
    if (options.onDamage === null || repairs === REPAIRS_MAX) throw found.error;
    damage ??= found.error.message;
    options.logger.error({ directory, error: found.error.message }, 'the log is damaged; keeping its intact part');
    const folder = await options.onDamage(found.error);
    await removeTemporaries(options, names);
    const interrupted = repairNumber(names);
    if (interrupted === null && numbers.length === 0) return { log: null, damage };
    if (interrupted === null) await prepareRepair(options, numbers, scan.goodPart, begin);
    const number = interrupted ?? repairNumber(await disk.list(directory));
    if (number !== null) await completeRepair(options, number, folder);
  }
}

type Judged = { readonly error: null; readonly log: RecoveredLog | null } | { readonly error: RaftkvError };

/** Examines the log, and returns damage as an error instead of throwing it. If there is damage, no file was changed. */
async function judge(
  { directory, mustExist }: RecoverLogOptions,
  scan: LogScan,
  names: readonly string[],
  numbers: readonly number[],
): Promise<Judged> {
  const interrupted = repairNumber(names);
  if (interrupted !== null) {
    const path = join(directory, repairName(interrupted));
    return { error: walDamaged(path, 0, 'a repair of the log was interrupted and must be completed') };
  }
  if (numbers.length === 0) {
    if (!mustExist) return { error: null, log: null };
    return { error: walDamaged(directory, 0, 'the log is missing: this node had one before') };
  }
  try {
    return { error: null, log: await scan.run() };
  } catch (error) {
    if (error instanceof RaftkvError && error.code === 'WAL_DAMAGED') return { error };
    throw error;
  }
}

async function replayOrClose({ disk, directory, sink }: RecoverLogOptions, log: RecoveredLog, scan: LogScan) {
  try {
    await replayLog(disk, directory, log, scan.reset, sink);
  } catch (error) {
    for (const segment of [log.active, ...log.spares]) await closeSegment(segment);
    throw error;
  }
}

async function removeTemporaries({ disk, directory }: RecoverLogOptions, names: readonly string[]): Promise<void> {
  for (const name of names.filter(isTemporary)) await disk.remove(join(directory, name));
}

/**
 * Receives the content of a recovered log. It is read again after any repair, so it is exactly what the log contains.
 */
export interface RecoverySink {
  /**
   * The log begins after `index`. Called at most once, before any entry, and only if the log contains a log reset.
   * Otherwise the log begins with its first entry or, if it is empty, at `WalOptions.begin`.
   */
  onLogReset(index: number, term: number): void;
  /**
   * Receives each entry of the log once, from `Wal.firstIndex` to `Wal.lastIndex`. Entries may be at or below `begin`.
   * If the log ends before `begin`, the caller must reset it (`WalOptions.begin`). `bytes` is only valid until this
   * call returns.
   */
  onEntry(index: number, bytes: Buffer): void;
  /**
   * Receives every hard state, in its order among the entries; the last one is the current one. That of a log reset is
   * passed on only when another hard state or the end of the log follows: if a repair wrote the log reset, the hard
   * state refers to lost entries, which were received again later in the log. Only directly after a repair may the last
   * one refer to entries that are missing. `bytes` is only valid until this call returns.
   */
  onHardState(bytes: Buffer): void;
}

/** @throws RaftkvError WAL_DAMAGED if a file has changed since it was examined; errors of the sink */
async function replayLog(
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
      // The blocks end with the seal, so no end is passed.
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
  /** Whether the present block contains the log reset. */
  #isAtReset = false;
  /** The hard state of the log reset, until a different one follows. A segment may begin with a copy of it. */
  #heldBack: Buffer | null = null;

  constructor(log: RecoveredLog, reset: LogResetPlace | null, sink: RecoverySink) {
    this.#log = log;
    this.#reset = reset;
    this.#sink = sink;
  }

  /** @param end where the blocks of the segment end; null if they end with a seal */
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
