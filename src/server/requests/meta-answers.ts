import { STALE, WON } from '../../kv/meta.ts';
import type { Item, ResultCode } from '../../kv/types.ts';
import { secondsLeft, writeDebugLine } from '../../memcached/items.ts';
import {
  asksFor,
  encodedKey,
  type ShownItem,
  writeMetaHit,
  writeMetaStatus,
  writeMetaStored,
} from '../../memcached/meta-replies.ts';
import { NON_NUMERIC, OBJECT_TOO_LARGE, OUT_OF_MEMORY } from '../../memcached/replies.ts';
import { Command } from '../../memcached/request.ts';
import { type AnswerContext, recordFetch } from './answer-context.ts';
import { proposeRead, reread } from './meta-requests.ts';
import type { FoundItem, Slot } from './slots.ts';

/** Writes the reply of a meta command that has not failed. False where it has to wait for a write of its own. */
export function writeMetaAnswer(slot: Slot, context: AnswerContext): boolean {
  switch (slot.command) {
    case Command.metaGet:
      return slot.found === null ? writeRead(slot, context) : writeFetched(slot, context);
    case Command.metaTouch:
      return writeFetched(slot, context);
    case Command.metaDebug:
      return writeDebug(slot, context);
    case Command.metaSet:
      writeStored(slot, context);
      return true;
    case Command.metaArithmetic:
      writeCounted(slot, context);
      return true;
    case Command.metaSetTooLarge:
      context.counters.store_too_large++;
      context.output.bytes(OBJECT_TOO_LARGE);
      return true;
    default:
      writeDeleted(slot, context);
      return true;
  }
}

/** An item with a free token to win, or a miss that makes one, goes through the log; everything else is a plain read. */
function writeRead(slot: Slot, context: AnswerContext): boolean {
  const { replica } = context;
  const item = replica.get(slot.key);
  if (item === undefined ? asksFor(slot.metaFlags, 'N') : mayWin(slot, item, context)) {
    slot.followsRead = false;
    slot.escalated = true;
    proposeRead(slot, replica);
    return false;
  }
  if (item === undefined) {
    writeMiss(slot, context);
    return true;
  }
  context.counters.cmd_get++;
  context.counters.get_hits++;
  const { metaFlags, key } = slot;
  const shown = shownOf(item, '', item.expiresAtMs, item.expiresAtMs);
  writeMetaHit(context.output, metaFlags, key, shown, asksFor(metaFlags, 't') ? freshNowMs(context) : context.nowMs);
  if (!asksFor(metaFlags, 'u')) item.accessedAtSeconds = Math.trunc(context.nowMs / 1000);
  return true;
}

function mayWin(slot: Slot, item: Item, context: AnswerContext): boolean {
  if ((item.tokens & WON) !== 0) return false;
  if ((item.tokens & STALE) !== 0) return true;
  if (item.expiresAtMs === Number.POSITIVE_INFINITY || !asksFor(slot.metaFlags, 'R')) return false;
  const { recacheSeconds } = reread(slot);
  return recacheSeconds > 0 && secondsLeft(item.expiresAtMs, freshNowMs(context)) <= recacheSeconds;
}

/** mg after its write: what it found when that was applied. */
function writeFetched(slot: Slot, context: AnswerContext): boolean {
  const { counters, output } = context;
  const found = slot.found?.[0] ?? null;
  if (found === null) {
    if (writeRefusal(slot.code, context)) return true;
    writeMiss(slot, context);
    return true;
  }
  const [, won = '', before = '', between = ''] = slot.text.split(',');
  if (slot.command === Command.metaTouch) {
    counters.cmd_touch++;
    counters.touch_hits++;
  } else {
    counters.cmd_get++;
    counters.get_hits++;
  }
  writeMetaHit(
    output,
    slot.metaFlags,
    slot.key,
    shownOf(found, won, Number(before), Number(between)),
    freshNowMs(context),
  );
  if (slot.fetches) recordFetch(slot.key, found, context);
  return true;
}

function writeMiss(slot: Slot, { counters, output }: AnswerContext): void {
  if (slot.command === Command.metaTouch) {
    counters.cmd_touch++;
    counters.touch_misses++;
  } else {
    counters.cmd_get++;
    counters.get_misses++;
  }
  if (!slot.quiet) writeMetaStatus(output, 'EN', slot.metaFlags, slot.key);
}

function writeDebug(slot: Slot, { replica, output, nowMs }: AnswerContext): boolean {
  const item = replica.get(slot.key);
  const encoded = slot.metaFlags === 'b';
  if (item === undefined) output.latin1('EN\r\n');
  else writeDebugLine(output, slot.key, encoded ? `${encodedKey(slot.key)} b` : slot.key, item, nowMs);
  return true;
}

function writeStored(slot: Slot, context: AnswerContext): void {
  const { counters } = context;
  const { code, metaFlags, key } = slot;
  counters.cmd_set++;
  if (asksFor(metaFlags, 'C')) {
    if (code === 'stored') counters.cas_hits++;
    else if (code === 'exists') counters.cas_badval++;
    else if (code === 'notFound') counters.cas_misses++;
  }
  if (writeRefusal(code, context) || (code === 'stored' && slot.quiet)) return;
  const item = slot.found?.[0] ?? null;
  const valueBytes = item === null ? slot.valueBytes : item.value.length;
  writeMetaStored(context.output, statusOf(code), metaFlags, key, item === null ? 0 : item.cas, valueBytes);
}

function writeDeleted(slot: Slot, { counters, output }: AnswerContext): void {
  const { code, metaFlags, key } = slot;
  if (code === 'deleted') counters.delete_hits++;
  else counters.delete_misses++;
  if (code === 'deleted' && slot.quiet) return;
  writeMetaStatus(output, statusOf(code), metaFlags, key);
}

function writeCounted(slot: Slot, context: AnswerContext): void {
  const { counters, output } = context;
  const { code, metaFlags, key, quiet } = slot;
  const isDown = asksFor(metaFlags, 'M') && 'D-'.includes(reread(slot).mode);
  const isMiss = code === 'notFound';
  if (isDown && isMiss) counters.decr_misses++;
  else if (isDown) counters.decr_hits++;
  else if (isMiss) counters.incr_misses++;
  else counters.incr_hits++;
  if (writeRefusal(code, context)) return;
  if (code !== 'number') {
    writeMetaStatus(output, statusOf(code), metaFlags, key);
    return;
  }
  const found = slot.found?.[0] ?? null;
  const [number = '', made = '', before = '', between = ''] = slot.text.split(',');
  // As in memcached, q hides the reply of a count, but not of a new item.
  if (quiet && made === '') return;
  const item = found === null ? NUMBER_ALONE : shownOf(found, '', Number(before), Number(between));
  const shown = { ...item, value: number, isStale: false, isWon: false };
  writeMetaHit(output, withoutReadFlags(metaFlags), key, shown, freshNowMs(context));
}

/** For replies that show nothing but the number. */
const NUMBER_ALONE: ShownItem = {
  value: '',
  flags: 0,
  cas: 0,
  expiresAtMs: Number.POSITIVE_INFINITY,
  expiredAtMs: Number.POSITIVE_INFINITY,
  expiredBetweenMs: Number.POSITIVE_INFINITY,
  accessedAtSeconds: 0,
  isStale: false,
  isWon: false,
  won: false,
};

/** ma takes the flags of mg that it has no answer to, and leaves them out. */
function withoutReadFlags(flags: string): string {
  const kept = flags.split(' ').filter((flag) => !'sfhl'.includes(flag[0] ?? 's'));
  return kept.join(' ');
}

/** Writes the reply of a command that was refused for its size or was no number. Returns true if it did. */
function writeRefusal(code: ResultCode, { counters, output }: AnswerContext): boolean {
  if (code === 'tooLarge') {
    counters.store_too_large++;
    output.bytes(OBJECT_TOO_LARGE);
  } else if (code === 'outOfMemory') {
    counters.store_no_memory++;
    output.bytes(OUT_OF_MEMORY);
  } else if (code === 'nonNumeric') {
    output.bytes(NON_NUMERIC);
  } else {
    return false;
  }
  return true;
}

function statusOf(code: ResultCode): string {
  if (code === 'notStored') return 'NS';
  if (code === 'exists') return 'EX';
  return code === 'notFound' ? 'NF' : 'HD';
}

function shownOf(item: FoundItem, won: string, expiredAtMs: number, expiredBetweenMs: number): ShownItem {
  const { value, flags, cas, expiresAtMs, accessedAtSeconds, tokens } = item;
  const wonNow = won !== '';
  const isStale = (tokens & STALE) !== 0;
  const isWon = (tokens & WON) !== 0 && !wonNow;
  const times = { expiresAtMs, expiredAtMs, expiredBetweenMs, accessedAtSeconds };
  return { value, flags, cas, ...times, isStale, isWon, won: wonNow };
}

/** Cluster time stands still while there are no writes, and this node's clock may be behind: the later of the two. */
function freshNowMs({ replica, nowMs }: AnswerContext): number {
  return Math.max(replica.status().clusterTimeMs, nowMs);
}
