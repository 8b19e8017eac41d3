import { RaftkvError } from '../base/errors.ts';
import { readUint64, writeUint64 } from '../base/uint64.ts';
import { casOf, faultOfMetaBlock, META_BLOCK_BYTES } from './meta.ts';
import { type Cas, OP_TRAITS, Op } from './types.ts';

/**
 * A batch: the commands that one turn of one node (its *proposer*) gathered, as the payload of one log entry. It is
 * encoded once, by the proposer; the same bytes go to every disk and every peer. Little-endian:
 *
 * ```
 *  0  f64 timeMs         cluster time, stamped by the leader; 0 until then
 *  8  u32 proposer       node id; 0 for a clock batch, which only advances time
 * 12  u32 sessionId      names the proposer's incarnation
 * 16  u64 sequence       from 1, one higher with every batch of the session
 * 24  u32 count          of commands
 * 28  u32 itemBytesMax   the limits travel in the log, so that every replica decides alike
 * 32  f64 storeBytesMax
 * 40  commands, each:
 *      0  u8  op
 *      1  u8  keyLength
 *      2  u16 zero
 *      4  u32 flags
 *      8  f64 exptime    whole seconds, as the client gave them
 *     16  u32 valueLength
 *     20  u32 argHigh    a cas unique, a delta or a delay in seconds, as the op asks
 *     24  u32 argLow
 *     28  key, value; the value of a meta command begins with its block (meta.ts)
 * ```
 */
export const BATCH_HEADER_BYTES = 40;
export const COMMAND_HEADER_BYTES = 28;

/** memcached's limit. */
export const KEY_BYTES_MAX = 250;
/** The proposer of batches that only advance time. No node has this id. */
export const CLOCK_PROPOSER = 0;

/** The last moment that a calendar date can name (ECMA-262 §21.4.1.1): a time above it is garbage, not a clock. */
export const TIME_MS_MAX = 8.64e15;
/** Most batches fit, so the builder's buffer seldom grows. */
const SCRATCH_BYTES_INITIAL = 64 * 1024;
/** A buffer that one huge batch has grown beyond this is freed. */
const SCRATCH_BYTES_KEPT_MAX = 1024 * 1024;
/** Up to here a loop beats a native copy, which costs some 55 ns to start on Node 20. */
const LOOP_COPY_BYTES_MAX = 32;

export interface BatchHeader {
  readonly timeMs: number;
  readonly proposer: number;
  readonly sessionId: number;
  readonly sequence: number;
  readonly count: number;
  readonly itemBytesMax: number;
  readonly storeBytesMax: number;
}

const NO_BYTES = Buffer.alloc(0);

/**
 * One command on its way from a request into a batch: which bytes of `source` are its key and its value, and its numbers.
 * It says where the bytes are instead of holding them, and `BatchBuilder.add` copies them. So a caller keeps one object
 * and fills it again for every request; nothing may keep it beyond the call that it is passed to.
 */
export class WriteCommand {
  op: Op = Op.set;
  source: Buffer = NO_BYTES;
  keyStart = 0;
  keyEnd = 0;
  /** The item's flags: unsigned 32 bits. */
  flags = 0;
  /** Whole seconds, as the client gave them. */
  exptimeSeconds = 0;
  valueStart = 0;
  valueEnd = 0;
  /** A cas unique, a delta or a delay in seconds, as the op asks: 64 bits in two halves. */
  argHigh = 0;
  argLow = 0;

  /** Starts a new command with a key alone: no value, and all numbers 0. */
  begin(op: Op, source: Buffer, keyStart: number, keyEnd: number): this {
    this.op = op;
    this.source = source;
    this.keyStart = keyStart;
    this.keyEnd = keyEnd;
    this.flags = 0;
    this.exptimeSeconds = 0;
    this.valueStart = 0;
    this.valueEnd = 0;
    this.argHigh = 0;
    this.argLow = 0;
    return this;
  }

  /** Adds what a storage command has: a value, with flags and an expiration time. */
  store(flags: number, exptimeSeconds: number, valueStart: number, valueEnd: number): this {
    this.flags = flags;
    this.exptimeSeconds = exptimeSeconds;
    this.valueStart = valueStart;
    this.valueEnd = valueEnd;
    return this;
  }

  /** Adds the argument. */
  arg(high: number, low: number): this {
    this.argHigh = high;
    this.argLow = low;
    return this;
  }
}

/** Gathers commands into a batch. One builder makes any number of batches, one after the other. */
export class BatchBuilder {
  readonly #headroomBytes: number;
  #scratch: Buffer;
  #view: DataView;
  #length: number;
  #count = 0;

  /** `headroomBytes` are left free in front of each batch, for the header of the log entry that will hold it. */
  constructor(headroomBytes: number) {
    this.#headroomBytes = headroomBytes;
    this.#length = headroomBytes + BATCH_HEADER_BYTES;
    this.#scratch = Buffer.allocUnsafeSlow(this.#length + SCRATCH_BYTES_INITIAL);
    this.#view = viewOf(this.#scratch);
  }

  get count(): number {
    return this.#count;
  }

  /** The length of the bytes that `seal` would return now, headroom included. */
  get byteLength(): number {
    return this.#length;
  }

  /**
   * Appends a command, copying its key and value out of their source.
   * @throws RaftkvError INVARIANT_BROKEN for a key that no parser should have let through.
   */
  add(command: WriteCommand): void {
    const { source, keyStart, keyEnd, valueStart, valueEnd } = command;
    const keyLength = keyEnd - keyStart;
    if (keyLength > KEY_BYTES_MAX) {
      throw new RaftkvError('INVARIANT_BROKEN', `a key of ${keyLength} bytes was proposed`);
    }
    const valueLength = valueEnd - valueStart;
    const start = this.#length;
    const keyAt = start + COMMAND_HEADER_BYTES;
    const end = keyAt + keyLength + valueLength;
    if (end > this.#scratch.length) this.#grow(end);
    const view = this.#view;
    view.setUint32(start, command.op | (keyLength << 8), true);
    view.setUint32(start + 4, command.flags, true);
    view.setFloat64(start + 8, command.exptimeSeconds, true);
    view.setUint32(start + 16, valueLength, true);
    view.setUint32(start + 20, command.argHigh, true);
    view.setUint32(start + 24, command.argLow, true);
    copyBytes(source, keyStart, keyEnd, this.#scratch, keyAt);
    copyBytes(source, valueStart, valueEnd, this.#scratch, keyAt + keyLength);
    this.#length = end;
    this.#count++;
  }

  /** The batch, in a buffer of its own and of exactly its size. The builder starts with an empty batch. */
  seal(proposer: number, sessionId: number, sequence: number, itemBytesMax: number, storeBytesMax: number): Buffer {
    const bytes = Buffer.allocUnsafeSlow(this.#length);
    this.#scratch.copy(bytes, 0, 0, this.#length);
    bytes.fill(0, 0, this.#headroomBytes);
    writeHeader(bytes, this.#headroomBytes, proposer, sessionId, sequence, this.#count, itemBytesMax, storeBytesMax);
    this.#length = this.#headroomBytes + BATCH_HEADER_BYTES;
    this.#count = 0;
    if (this.#scratch.length > SCRATCH_BYTES_KEPT_MAX) {
      this.#scratch = Buffer.allocUnsafeSlow(this.#length + SCRATCH_BYTES_INITIAL);
      this.#view = viewOf(this.#scratch);
    }
    return bytes;
  }

  #grow(bytesNeeded: number): void {
    const grown = Buffer.allocUnsafeSlow(Math.max(bytesNeeded, this.#scratch.length * 2));
    this.#scratch.copy(grown, 0, 0, this.#length);
    this.#scratch = grown;
    this.#view = viewOf(grown);
  }
}

/** A batch without commands, by which the leader advances the time of the state machine while there are no writes. */
export function clockBatch(headroomBytes: number): Buffer {
  const bytes = Buffer.allocUnsafeSlow(headroomBytes + BATCH_HEADER_BYTES).fill(0);
  writeHeader(bytes, headroomBytes, CLOCK_PROPOSER, 0, 0, 0, 0, 0);
  return bytes;
}

/** Writes the leader's time into the batch at `offset`. */
export function stampBatchTime(bytes: Buffer, offset: number, timeMs: number): void {
  bytes.writeDoubleLE(timeMs, offset);
}

/**
 * Reads the header of the batch that runs from `offset` to the end of `bytes`.
 * @throws RaftkvError MESSAGE_INVALID where the bytes are no batch header.
 */
export function readBatchHeader(bytes: Buffer, offset: number): BatchHeader {
  if (offset + BATCH_HEADER_BYTES > bytes.length) throw invalid('is truncated', offset);
  const timeMs = bytes.readDoubleLE(offset);
  const proposer = bytes.readUInt32LE(offset + 8);
  const sessionId = bytes.readUInt32LE(offset + 12);
  const sequence = readUint64(bytes, offset + 16);
  const count = bytes.readUInt32LE(offset + 24);
  const itemBytesMax = bytes.readUInt32LE(offset + 28);
  const storeBytesMax = bytes.readDoubleLE(offset + 32);
  if (!(timeMs >= 0 && timeMs <= TIME_MS_MAX)) throw invalid('has no possible time', offset);
  if (!(storeBytesMax >= 0)) throw invalid('has no possible store limit', offset);
  if (!Number.isSafeInteger(sequence)) throw invalid('has a sequence out of range', offset);
  if (proposer === CLOCK_PROPOSER && count > 0) throw invalid('has commands but no proposer', offset);
  if (proposer !== CLOCK_PROPOSER && sequence === 0) throw invalid('has a proposer but no sequence', offset);
  return { timeMs, proposer, sessionId, sequence, count, itemBytesMax, storeBytesMax };
}

/**
 * Checks the whole structure of the batch that runs from `offset` to the end of `bytes`; what passes can be applied.
 * @returns its header
 * @throws RaftkvError MESSAGE_INVALID where anything is wrong with it.
 */
export function validateBatch(bytes: Buffer, offset: number): BatchHeader {
  const header = readBatchHeader(bytes, offset);
  let at = offset + BATCH_HEADER_BYTES;
  for (let left = header.count; left > 0; left--) {
    if (at + COMMAND_HEADER_BYTES > bytes.length) throw invalid('ends within a command', offset);
    const head = bytes.readUInt32LE(at);
    const op = head & 0xff;
    const keyLength = head >>> 8;
    const traits = OP_TRAITS[op];
    if (traits === undefined) throw invalid(`has a command of unknown operation ${op}`, offset);
    // The 16 reserved bits make this large unless they are zero.
    if (keyLength > KEY_BYTES_MAX) throw invalid('has a key that is too long', offset);
    if (keyLength === 0 && traits.hasKey) throw invalid('has a command without a key', offset);
    if (!isWholeNumber(bytes, at + 8)) throw invalid('has an exptime that is not whole seconds', offset);
    if (traits.hasBlock) validateMetaCommand(bytes, at, keyLength, offset);
    at += COMMAND_HEADER_BYTES + keyLength + bytes.readUInt32LE(at + 16);
  }
  if (at > bytes.length) throw invalid('ends within a value', offset);
  if (at < bytes.length) throw invalid('is longer than its commands', offset);
  return header;
}

function validateMetaCommand(bytes: Buffer, at: number, keyLength: number, offset: number): void {
  const valueLength = bytes.readUInt32LE(at + 16);
  const blockStart = at + COMMAND_HEADER_BYTES + keyLength;
  if (valueLength < META_BLOCK_BYTES) throw invalid('has a meta command without its block', offset);
  if (blockStart + META_BLOCK_BYTES > bytes.length) throw invalid('ends within a meta command', offset);
  const fault = faultOfMetaBlock(bytes, blockStart);
  if (fault !== '') throw invalid(`has a meta command that ${fault}`, offset);
}

/** One command of a validated batch, in place. A reader is used over and over, so its fields last until `read`. */
export class CommandReader {
  op: Op = Op.set;
  flags = 0;
  exptimeSeconds = 0;
  valueLength = 0;
  argHigh = 0;
  argLow = 0;
  keyStart = 0;
  valueStart = 0;

  /** Reads the command at `offset` and returns the offset of the next. */
  read(bytes: Buffer, offset: number): number {
    const head = bytes.readUInt32LE(offset);
    const keyLength = (head >>> 8) & 0xff;
    this.op = (head & 0xff) as Op;
    this.flags = bytes.readUInt32LE(offset + 4);
    this.exptimeSeconds = bytes.readDoubleLE(offset + 8);
    this.valueLength = bytes.readUInt32LE(offset + 16);
    this.argHigh = bytes.readUInt32LE(offset + 20);
    this.argLow = bytes.readUInt32LE(offset + 24);
    this.keyStart = offset + COMMAND_HEADER_BYTES;
    this.valueStart = this.keyStart + keyLength;
    return this.valueStart + this.valueLength;
  }

  key(bytes: Buffer): string {
    return bytes.toString('latin1', this.keyStart, this.valueStart);
  }

  value(bytes: Buffer): string {
    return bytes.toString('latin1', this.valueStart, this.valueStart + this.valueLength);
  }

  /** The argument as a number: exact below 2^53; above, rounded, but never to below 2^53. */
  arg(): number {
    return this.argHigh * 0x1_0000_0000 + this.argLow;
  }

  cas(): Cas {
    return casOf(this.argHigh, this.argLow);
  }
}

/** Gives the batch at `offset` another session id. */
export function setSessionId(bytes: Buffer, offset: number, sessionId: number): void {
  bytes.writeUInt32LE(sessionId, offset + 12);
}

function writeHeader(
  bytes: Buffer,
  offset: number,
  proposer: number,
  sessionId: number,
  sequence: number,
  count: number,
  itemBytesMax: number,
  storeBytesMax: number,
): void {
  bytes.writeDoubleLE(0, offset);
  bytes.writeUInt32LE(proposer, offset + 8);
  bytes.writeUInt32LE(sessionId, offset + 12);
  writeUint64(bytes, sequence, offset + 16);
  bytes.writeUInt32LE(count, offset + 24);
  bytes.writeUInt32LE(itemBytesMax, offset + 28);
  bytes.writeDoubleLE(storeBytesMax, offset + 32);
}

function isWholeNumber(bytes: Buffer, offset: number): boolean {
  const isZero = bytes.readUInt32LE(offset) === 0 && bytes.readUInt32LE(offset + 4) === 0;
  return isZero || Number.isInteger(bytes.readDoubleLE(offset));
}

function copyBytes(source: Buffer, start: number, end: number, target: Buffer, targetStart: number): void {
  if (end - start > LOOP_COPY_BYTES_MAX) {
    source.copy(target, targetStart, start, end);
    return;
  }
  for (let from = start, to = targetStart; from < end; from++, to++) target[to] = source[from] ?? 0;
}

function viewOf(buffer: Buffer): DataView {
  return new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
}

function invalid(what: string, offset: number): RaftkvError {
  return new RaftkvError('MESSAGE_INVALID', `the batch at byte ${offset} ${what}`);
}
