import { Op } from '../../kv/types.ts';
import { Command } from '../../memcached/commands.ts';
import type { RequestParser } from '../../memcached/parser.ts';
import type { Replica } from '../../replica/types.ts';
import { keepMeta, proposeMeta } from './meta-requests.ts';
import type { Slot } from './slots.ts';

/** What a request is to its connection's order. */
export type RequestKind = 'local' | 'read' | 'write' | 'end';

export function kindOf(command: Command): RequestKind {
  switch (command) {
    case Command.reply:
    case Command.stats:
    case Command.watch:
      return 'local';
    case Command.get:
    case Command.gets:
    case Command.listKeys:
    case Command.metaGet:
    case Command.metaDebug:
      return 'read';
    case Command.quit:
    case Command.hangUp:
      return 'end';
    default:
      return 'write';
  }
}

/** A failed `set` must not leave the old value behind: hence the delete. */
const OPS: ReadonlyMap<Command, Op> = new Map([
  [Command.set, Op.set],
  [Command.add, Op.add],
  [Command.replace, Op.replace],
  [Command.append, Op.append],
  [Command.prepend, Op.prepend],
  [Command.cas, Op.cas],
  [Command.delete, Op.delete],
  [Command.incr, Op.incr],
  [Command.decr, Op.decr],
  [Command.touch, Op.touch],
  [Command.flushAll, Op.flushAll],
  [Command.setTooLarge, Op.delete],
]);

/** Proposes the write that the parser holds, of which `input` has the bytes. */
export function propose(slot: Slot, parser: RequestParser, input: Buffer, replica: Replica): void {
  if (slot.command === Command.gat || slot.command === Command.gats) {
    proposeTouches(slot, parser, input, replica);
    return;
  }
  if (slot.command >= Command.metaTouch) {
    proposeMeta(slot, parser, input, replica);
    return;
  }
  const op = OPS.get(slot.command) ?? Op.delete;
  const keyed = op !== Op.flushAll;
  const valued = op <= Op.cas;
  slot.awaited = 1;
  replica.propose(
    op,
    input,
    keyed ? parser.keyStart : 0,
    keyed ? parser.keyEnd : 0,
    valued ? parser.flags : 0,
    valued || op === Op.touch ? parser.exptimeSeconds : 0,
    valued ? parser.valueStart : 0,
    valued ? parser.valueEnd : 0,
    parser.argHigh,
    parser.argLow,
    slot,
  );
}

/** One operation per key, one reply. */
function proposeTouches(slot: Slot, parser: RequestParser, input: Buffer, replica: Replica): void {
  copyKeys(slot, parser, input);
  slot.found = [];
  slot.fetches = true;
  slot.awaited = parser.keyCount;
  for (let i = 0; i < parser.keyCount; i++) {
    const keyStart = parser.keyStartAt(i);
    const keyEnd = parser.keyEndAt(i);
    replica.propose(Op.getAndTouch, input, keyStart, keyEnd, 0, parser.exptimeSeconds, 0, 0, 0, 0, slot);
  }
}

/** Keeps the keys of a request beyond the life of its bytes. */
export function copyKeys(slot: Slot, parser: RequestParser, input: Buffer): void {
  if (slot.command >= Command.metaGet) {
    keepMeta(slot, parser, input);
    return;
  }
  if (parser.keyCount === 1) {
    slot.key = input.toString('latin1', parser.keyStartAt(0), parser.keyEndAt(0));
    return;
  }
  const keys: string[] = [];
  for (let i = 0; i < parser.keyCount; i++) {
    keys.push(input.toString('latin1', parser.keyStartAt(i), parser.keyEndAt(i)));
  }
  slot.keys = keys;
}
