import { WriteCommand } from '../../kv/batch.ts';
import { META_BLOCK_BYTES, MetaBlock, MetaFlag, MetaMode } from '../../kv/meta.ts';
import { Op } from '../../kv/types.ts';
import { MetaFlags } from '../../memcached/meta-flags.ts';
import type { RequestParser } from '../../memcached/parser.ts';
import { Command } from '../../memcached/request.ts';
import { Tokens } from '../../memcached/tokens.ts';
import type { Replica } from '../../replica/types.ts';
import type { Slot } from './slots.ts';

/** Proposals that need a block are put together here: the block, the value, the key. */
const SCRATCH_BYTES_INITIAL = 4096;
/** A scratch buffer that one large value has grown beyond this is freed. */
const SCRATCH_BYTES_KEPT_MAX = 1024 * 1024;
let scratch = Buffer.allocUnsafeSlow(SCRATCH_BYTES_INITIAL);
const block = new MetaBlock();
const NO_BYTES = Buffer.alloc(0);
/** Filled again for every request. */
const write = new WriteCommand();

const MODES: Readonly<Record<string, MetaMode>> = {
  S: MetaMode.set,
  E: MetaMode.add,
  R: MetaMode.replace,
  A: MetaMode.append,
  P: MetaMode.prepend,
};
const CLASSIC_OPS: Readonly<Record<MetaMode, Op>> = [Op.set, Op.add, Op.replace, Op.append, Op.prepend];

/** Keeps key and flags of a meta command beyond the life of their bytes. */
export function keepMeta(slot: Slot, parser: RequestParser, input: Buffer): void {
  slot.key = (parser.decodedKey ?? input).toString('latin1', parser.keyStart, parser.keyEnd);
  slot.metaFlags = parser.command === Command.metaDebug ? '' : parser.meta.text(input);
  if (parser.command === Command.metaDebug && parser.decodedKey !== null) slot.metaFlags = 'b';
  slot.quiet = parser.command !== Command.metaDebug && parser.meta.has('q');
}

/** Proposes the meta write that the parser holds. */
export function proposeMeta(slot: Slot, parser: RequestParser, input: Buffer, replica: Replica): void {
  keepMeta(slot, parser, input);
  slot.awaited = 1;
  const { meta, command } = parser;
  const keySource = parser.decodedKey ?? input;
  if (command === Command.metaSetTooLarge) {
    replica.propose(write.begin(Op.delete, keySource, parser.keyStart, parser.keyEnd), slot);
    return;
  }
  if (command === Command.metaSet) slot.valueBytes = parser.valueEnd - parser.valueStart;
  if (isClassic(parser)) {
    proposeClassic(slot, parser, input, replica);
    return;
  }
  slot.found = [];
  slot.fetches = command === Command.metaTouch && !meta.has('u');
  fillBlock(meta, command);
  const isSet = command === Command.metaSet;
  proposeWithBlock(
    slot,
    metaOpOf(command),
    meta,
    keySource,
    parser.keyStart,
    parser.keyEnd,
    isSet ? input : NO_BYTES,
    isSet ? parser.valueStart : 0,
    isSet ? parser.valueEnd : 0,
    replica,
  );
}

const rereadFlags = new MetaFlags();
const rereadTokens = new Tokens();

/** The flags of a read that was kept: its bytes are gone. */
export function reread(slot: Slot): MetaFlags {
  const bytes = Buffer.from(`${slot.metaFlags}\n`, 'latin1');
  rereadTokens.split(bytes, 0, bytes.length);
  rereadFlags.read(rereadTokens, bytes, 0);
  return rereadFlags;
}

/** For mg that was begun as a read and has found that it has to write. */
export function proposeRead(slot: Slot, replica: Replica): void {
  const meta = reread(slot);
  slot.awaited = 1;
  slot.found = [];
  slot.fetches = !meta.has('u');
  fillBlock(meta, Command.metaGet);
  const key = Buffer.from(slot.key, 'latin1');
  proposeWithBlock(slot, Op.metaGet, meta, key, 0, key.length, NO_BYTES, 0, 0, replica);
}

/** Without arguments of its own a meta command is one of the old operations, and costs no more. */
function isClassic({ command, meta }: RequestParser): boolean {
  if (parserNeedsBlock(meta)) return false;
  if (command === Command.metaDelete) return !meta.has('x') && !meta.has('I');
  if (command === Command.metaArithmetic) return !meta.has('c') && !meta.has('t') && !meta.has('T');
  return command === Command.metaSet && !meta.has('c') && !meta.has('s');
}

function parserNeedsBlock(meta: MetaFlags): boolean {
  return meta.has('C') || meta.has('E') || meta.has('N');
}

function proposeClassic(slot: Slot, parser: RequestParser, input: Buffer, replica: Replica): void {
  const { meta, command } = parser;
  const { decodedKey, keyStart, keyEnd } = parser;
  if (command !== Command.metaSet) {
    const isDelete = command === Command.metaDelete;
    const op = isDelete ? Op.delete : isDecrement(meta) ? Op.decr : Op.incr;
    write.begin(op, decodedKey ?? input, keyStart, keyEnd);
    if (!isDelete) write.arg(meta.delta.high, meta.delta.low);
    replica.propose(write, slot);
    return;
  }
  const op = CLASSIC_OPS[modeOf(meta)];
  const { clientFlags, exptimeSeconds } = meta;
  const { valueStart, valueEnd } = parser;
  if (decodedKey === null) {
    write.begin(op, input, keyStart, keyEnd).store(clientFlags, exptimeSeconds, valueStart, valueEnd);
    replica.propose(write, slot);
    return;
  }
  const length = valueEnd - valueStart;
  reserve(length + decodedKey.length);
  input.copy(scratch, 0, valueStart, valueEnd);
  decodedKey.copy(scratch, length);
  write.begin(op, scratch, length, length + decodedKey.length).store(clientFlags, exptimeSeconds, 0, length);
  replica.propose(write, slot);
  release();
}

function proposeWithBlock(
  slot: Slot,
  op: Op,
  meta: MetaFlags,
  keySource: Buffer,
  keyStart: number,
  keyEnd: number,
  valueSource: Buffer,
  valueStart: number,
  valueEnd: number,
  replica: Replica,
): void {
  const valueBytes = META_BLOCK_BYTES + valueEnd - valueStart;
  const end = valueBytes + keyEnd - keyStart;
  reserve(end);
  block.write(scratch, 0);
  valueSource.copy(scratch, META_BLOCK_BYTES, valueStart, valueEnd);
  keySource.copy(scratch, valueBytes, keyStart, keyEnd);
  const { clientFlags, exptimeSeconds, cas } = meta;
  write.begin(op, scratch, valueBytes, end).store(clientFlags, exptimeSeconds, 0, valueBytes);
  if (meta.has('C')) write.arg(cas.high, cas.low);
  replica.propose(write, slot);
  release();
}

function fillBlock(meta: MetaFlags, command: Command): void {
  block.asked =
    (meta.has('T') ? MetaFlag.exptime : 0) |
    (meta.has('N') ? MetaFlag.vivify : 0) |
    (meta.has('R') ? MetaFlag.recache : 0) |
    (meta.has('C') ? MetaFlag.cas : 0) |
    (meta.has('E') ? MetaFlag.newCas : 0) |
    (meta.has('I') ? MetaFlag.invalidate : 0) |
    (meta.has('x') ? MetaFlag.removeValue : 0) |
    (isDecrement(meta) ? MetaFlag.decrement : 0) |
    (meta.recacheFirst ? MetaFlag.recacheFirst : 0) |
    (meta.vivifyLast ? MetaFlag.vivifyLast : 0);
  block.mode = command === Command.metaSet ? modeOf(meta) : MetaMode.set;
  block.vivifySeconds = meta.vivifySeconds;
  block.recacheSeconds = meta.recacheSeconds;
  block.newCasHigh = meta.has('E') ? meta.newCas.high : 0;
  block.newCasLow = meta.has('E') ? meta.newCas.low : 0;
  block.initialHigh = meta.initial.high;
  block.initialLow = meta.initial.low;
  block.deltaHigh = meta.delta.high;
  block.deltaLow = meta.delta.low;
}

function metaOpOf(command: Command): Op {
  if (command === Command.metaSet) return Op.metaSet;
  if (command === Command.metaDelete) return Op.metaDelete;
  return command === Command.metaArithmetic ? Op.metaArithmetic : Op.metaGet;
}

function modeOf(meta: MetaFlags): MetaMode {
  return MODES[meta.mode] ?? MetaMode.set;
}

function isDecrement({ mode }: MetaFlags): boolean {
  return mode === 'D' || mode === '-';
}

function reserve(bytes: number): void {
  if (scratch.length < bytes) scratch = Buffer.allocUnsafeSlow(bytes);
}

/** The receiver of the bytes has copied them. */
function release(): void {
  if (scratch.length > SCRATCH_BYTES_KEPT_MAX) scratch = Buffer.allocUnsafeSlow(SCRATCH_BYTES_INITIAL);
}
