import { RaftkvError } from '../base/errors.ts';
import { readUint64, writeUint64 } from '../base/uint64.ts';
import { casOf, faultOfMetaBlock, META_BLOCK_BYTES } from './meta.ts';
import { type Cas, OP_TRAITS, Op } from './types.ts';

/**
 * A batch: the commands that one node (its *proposer*) received in one turn of the event loop. It is the payload of one
 * log entry. The proposer encodes it once; the same bytes go to every disk and every peer. Little-endian:
 *
 * ```
 *  0  f64 timeMs         cluster time; 0 until the leader stamps it
 *  8  u32 proposer       node id; 0 for a clock batch, which only advances time
 * 12  u32 sessionId      identifies the proposer's incarnation
 * 16  u64 sequence       from 1, one higher with every batch of the session
 * 24  u32 count          number of commands
 * 28  u32 itemBytesMax   the proposer's limits: in the batch, so that every replica applies the same limits
 * 32  f64 storeBytesMax
 * 40  commands, each:
 *      0  u8  op
 *      1  u8  keyLength
 *      2  u16 zero
 *      4  u32 flags
 *      8  f64 exptime    whole seconds, as the client gave them
 *     16  u32 valueLength
 *     20  u32 argHigh    a cas unique, a delta or a delay in seconds, depending on the op
 *     24  u32 argLow
 *     28  key, value; the value of a meta command begins with its block (meta.ts)
 * ```
 */
export const BATCH_HEADER_BYTES = 40;
export const COMMAND_HEADER_BYTES = 28;

/** The length of the longest key: memcached's limit. */
export const KEY_BYTES_MAX = 250;
/** The proposer of batches that only advance time. No node has this id. */
export const CLOCK_PROPOSER = 0;

/**
 * The last time that a `Date` can represent (ECMA-262 §21.4.1.1), in ms since the Unix epoch. No clock shows a later
 * one.
 */
export const TIME_MS_MAX = 8.64e15;
/** The initial size of the builder's buffer. Most batches fit, so it seldom grows. */
const SCRATCH_BYTES_INITIAL = 64 * 1024;
/** If a batch made the buffer grow beyond this size, the buffer is replaced, because batches of that size are rare. */
const SCRATCH_BYTES_KEPT_MAX = 1024 * 1024;
/** Up to this length a loop is faster than `Buffer.copy`, whose call takes about 55 ns on Node 20. */
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
 * A command that is passed to `BatchBuilder.add`, which copies its key and value out of `source`. A caller reuses one
 * object for all requests, so the callee must not keep it after the call.
 */
export class WriteCommand {
  op: Op = Op.set;
  source: Buffer = NO_BYTES;
  keyStart = 0;
  keyEnd = 0;
  /** The item's flags: unsigned 32 bits. */
  flags = 0;
  /** A whole number, as the client gave it. */
  exptimeSeconds = 0;
  valueStart = 0;
  valueEnd = 0;
  /** A cas unique, a delta or a delay in seconds, depending on the op: 64 bits in two halves. */
  argHigh = 0;
  argLow = 0;

  /** Resets the object to a command that has only a key: no value, and all numbers 0. */
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

  /** Adds the fields of a storage command: a value, flags and an expiration time. */
  store(flags: number, exptimeSeconds: number, valueStart: number, valueEnd: number): this {
    this.flags = flags;
    this.exptimeSeconds = exptimeSeconds;
    this.valueStart = valueStart;
    this.valueEnd = valueEnd;
    return this;
  }

  arg(high: number, low: number): this {
    this.argHigh = high;
    this.argLow = low;
    return this;
  }
}

/** Builds batches, one after the other. */
export class BatchBuilder {
  readonly #headroomBytes: number;
  #scratch: Buffer;
  #view: DataView;
  #length: number;
  #count = 0;

  /** @param headroomBytes the number of zero bytes before each batch, for the header of the log entry */
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
   * Appends a command to the batch.
   * @throws RaftkvError INVARIANT_BROKEN if the key is too long, which the parser should have refused
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

  /** Returns the headroom and the batch in a new buffer of exactly that length, and begins an empty batch. */
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

/**
 * Returns a batch without commands. The leader uses it to advance the time of the state machine while there are no
 * writes.
 */
export function clockBatch(headroomBytes: number): Buffer {
  const bytes = Buffer.allocUnsafeSlow(headroomBytes + BATCH_HEADER_BYTES).fill(0);
  writeHeader(bytes, headroomBytes, CLOCK_PROPOSER, 0, 0, 0, 0, 0);
  return bytes;
}

/** Writes the cluster time into the batch at `offset`. */
export function stampBatchTime(bytes: Buffer, offset: number, timeMs: number): void {
  bytes.writeDoubleLE(timeMs, offset);
}

/**
 * Reads the header of the batch that runs from `offset` to the end of `bytes`.
 * @throws RaftkvError MESSAGE_INVALID if the bytes are not a valid header
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
  if (!(timeMs >= 0 && timeMs <= TIME_MS_MAX)) throw invalid('has an impossible time', offset);
  if (!(storeBytesMax >= 0)) throw invalid('has an impossible store limit', offset);
  if (!Number.isSafeInteger(sequence)) throw invalid('has a sequence out of range', offset);
  if (proposer === CLOCK_PROPOSER && count > 0) throw invalid('has commands but no proposer', offset);
  if (proposer !== CLOCK_PROPOSER && sequence === 0) throw invalid('has a proposer but no sequence', offset);
  return { timeMs, proposer, sessionId, sequence, count, itemBytesMax, storeBytesMax };
}

/**
 * Checks the whole structure of the batch that runs from `offset` to the end of `bytes`. A batch that passes can be
 * applied without further checks.
 * @returns the header of the batch
 * @throws RaftkvError MESSAGE_INVALID if the batch is malformed
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
    // `keyLength` includes the 16 reserved bits, so this also refuses a command in which they are not zero.
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

/**
 * Reads the commands of a validated batch in place. Its fields describe the last command read, until the next `read`.
 */
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

  /** The argument as a number, exact below 2^53. A larger one is rounded, but never to a number below 2^53. */
  arg(): number {
    return this.argHigh * 0x1_0000_0000 + this.argLow;
  }

  cas(): Cas {
    return casOf(this.argHigh, this.argLow);
  }
}

/** Replaces the session id of the batch at `offset`. */
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
