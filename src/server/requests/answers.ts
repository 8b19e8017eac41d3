import type { ResultCode } from '../../kv/types.ts';
import { writeKeyLine, writeValue } from '../../memcached/items.ts';
import type { Output } from '../../memcached/output.ts';
import {
  DELETED,
  END,
  EXISTS,
  NON_NUMERIC,
  NOT_FOUND,
  NOT_STORED,
  OBJECT_TOO_LARGE,
  OK,
  OUT_OF_MEMORY,
  READ_STOPPED,
  READ_TIMED_OUT,
  STORED,
  TOUCHED,
  WRITE_OVERTAKEN,
  WRITE_REFUSED_DISK_FULL,
  WRITE_STOPPED,
  WRITE_TIMED_OUT,
} from '../../memcached/replies.ts';
import { Command } from '../../memcached/request.ts';
import type { Failure } from '../../replica/types.ts';
import type { Counters } from '../counters.ts';
import { type AnswerContext, recordFetch } from './answer-context.ts';
import { writeMetaAnswer } from './meta-answers.ts';
import type { Slot } from './slots.ts';

const LINE_END = Buffer.from('\r\n', 'latin1');

/** Writes the reply of an answered slot and counts it. False where it has stopped in the middle of it. */
export function writeAnswer(slot: Slot, context: AnswerContext): boolean {
  switch (slot.command) {
    case Command.reply:
    case Command.watch:
      if (slot.reply === OBJECT_TOO_LARGE) context.counters.store_too_large++;
      context.output.bytes(slot.reply);
      return true;
    case Command.stats:
      context.writeStats(slot.text);
      return true;
    case Command.get:
    case Command.gets:
      return writeRead(slot, context);
    case Command.listKeys:
      return writeListing(slot, context);
    case Command.gat:
    case Command.gats:
      return writeTouchedItems(slot, context);
    case Command.metaGet:
    case Command.metaDebug:
      if (slot.failure === null) return writeMetaAnswer(slot, context);
      return slot.escalated
        ? writeWriteFailure(context.output, slot.failure)
        : writeFailure(context.output, slot.failure);
    case Command.metaTouch:
    case Command.metaSet:
    case Command.metaDelete:
    case Command.metaArithmetic:
    case Command.metaSetTooLarge:
      if (slot.failure === null) return writeMetaAnswer(slot, context);
      return writeWriteFailure(context.output, slot.failure);
    default:
      count(slot, context.counters);
      if (!slot.noreply) writeResult(slot, context.output);
      return true;
  }
}

function writeRead(slot: Slot, context: AnswerContext): boolean {
  const { output, replica, counters } = context;
  if (slot.failure !== null) return writeFailure(output, slot.failure);
  const withCas = slot.command === Command.gets;
  const { keys } = slot;
  const keyCount = keys === null ? 1 : keys.length;
  const accessedAtSeconds = Math.trunc(context.nowMs / 1000);
  while (slot.keysAnswered < keyCount) {
    const key = keys === null ? slot.key : (keys[slot.keysAnswered] ?? '');
    const item = replica.get(key);
    slot.keysAnswered++;
    counters.cmd_get++;
    if (item === undefined) {
      counters.get_misses++;
    } else {
      counters.get_hits++;
      writeValue(output, key, item.flags, item.value, withCas ? item.cas : null);
      item.accessedAtSeconds = accessedAtSeconds;
    }
    if (slot.keysAnswered < keyCount && !context.mayWriteMore()) return false;
  }
  output.bytes(END);
  return true;
}

function writeTouchedItems(slot: Slot, context: AnswerContext): boolean {
  const { output, counters } = context;
  if (slot.failure !== null) return writeWriteFailure(output, slot.failure);
  const { found } = slot;
  const withCas = slot.command === Command.gats;
  const keyCount = found === null ? 0 : found.length;
  while (slot.keysAnswered < keyCount) {
    const item = found?.[slot.keysAnswered] ?? null;
    const key = slot.keys?.[slot.keysAnswered] ?? slot.key;
    slot.keysAnswered++;
    counters.cmd_get++;
    counters.cmd_touch++;
    if (item === null) {
      counters.get_misses++;
      counters.touch_misses++;
    } else {
      counters.get_hits++;
      counters.touch_hits++;
      writeValue(output, key, item.flags, item.value, withCas ? item.cas : null);
      recordFetch(key, item, context);
    }
    if (slot.keysAnswered < keyCount && !context.mayWriteMore()) return false;
  }
  output.bytes(END);
  return true;
}

/** The iterator stays valid while the store changes. Items that are deleted meanwhile are left out. */
function writeListing(slot: Slot, context: AnswerContext): boolean {
  if (slot.failure !== null) return writeFailure(context.output, slot.failure);
  slot.listing ??= context.replica.entries();
  for (;;) {
    const next = slot.listing.next();
    if (next.done) break;
    const [key, item] = next.value;
    writeKeyLine(context.output, key, item);
    if (!context.mayWriteMore()) return false;
  }
  context.output.bytes(END);
  return true;
}

function writeFailure(output: Output, failure: Failure): true {
  output.bytes(failure === 'timeout' ? READ_TIMED_OUT : READ_STOPPED);
  return true;
}

const WRITE_FAILURES: Record<Failure, Buffer> = {
  timeout: WRITE_TIMED_OUT,
  stopping: WRITE_STOPPED,
  overtaken: WRITE_OVERTAKEN,
  diskFull: WRITE_REFUSED_DISK_FULL,
};

function writeWriteFailure(output: Output, failure: Failure): true {
  output.bytes(WRITE_FAILURES[failure]);
  return true;
}

function writeResult(slot: Slot, output: Output): void {
  if (slot.failure !== null) {
    writeWriteFailure(output, slot.failure);
  } else if (slot.command === Command.setTooLarge) {
    output.bytes(OBJECT_TOO_LARGE);
  } else if (slot.code === 'number') {
    output.latin1(slot.text);
    output.bytes(LINE_END);
  } else {
    output.bytes(replyTo(slot.code));
  }
}

function replyTo(code: Exclude<ResultCode, 'number'>): Buffer {
  switch (code) {
    case 'stored':
      return STORED;
    case 'notStored':
      return NOT_STORED;
    case 'exists':
      return EXISTS;
    case 'notFound':
      return NOT_FOUND;
    case 'deleted':
      return DELETED;
    case 'touched':
      return TOUCHED;
    case 'ok':
      return OK;
    case 'nonNumeric':
      return NON_NUMERIC;
    case 'value':
      return END;
    case 'tooLarge':
      return OBJECT_TOO_LARGE;
    case 'outOfMemory':
      return OUT_OF_MEMORY;
  }
}

function count(slot: Slot, counters: Counters): void {
  if (slot.failure !== null) return;
  const hit = slot.code !== 'notFound';
  if (slot.code === 'tooLarge' || slot.command === Command.setTooLarge) counters.store_too_large++;
  if (slot.code === 'outOfMemory') counters.store_no_memory++;
  switch (slot.command) {
    case Command.delete:
      if (hit) counters.delete_hits++;
      else counters.delete_misses++;
      return;
    case Command.incr:
      if (hit) counters.incr_hits++;
      else counters.incr_misses++;
      return;
    case Command.decr:
      if (hit) counters.decr_hits++;
      else counters.decr_misses++;
      return;
    case Command.touch:
      counters.cmd_touch++;
      if (hit) counters.touch_hits++;
      else counters.touch_misses++;
      return;
    case Command.flushAll:
      counters.cmd_flush++;
      return;
    case Command.cas:
      counters.cmd_set++;
      if (slot.code === 'stored') counters.cas_hits++;
      else if (slot.code === 'exists') counters.cas_badval++;
      else if (!hit) counters.cas_misses++;
      return;
    default:
      counters.cmd_set++;
  }
}
