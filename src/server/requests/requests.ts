import { WriteCommand } from '../../kv/batch.ts';
import { Op, opTraits } from '../../kv/types.ts';
import type { RequestParser } from '../../memcached/parser.ts';
import { Command } from '../../memcached/request.ts';
import type { Replica } from '../../replica/types.ts';
import { keepMeta, proposeMeta } from './meta-requests.ts';
import type { Slot } from './slots.ts';

/** The place of a request in the order of its connection. */
export type RequestKind = 'local' | 'read' | 'write' | 'end';

interface RequestTraits {
  readonly kind: RequestKind;
  /** A meta command: its flags are kept as well as its keys. */
  readonly isMeta: boolean;
  /** The operation of a write on the store; null if it depends on the request's flags, or for other requests. */
  readonly op: Op | null;
}

const local: RequestTraits = { kind: 'local', isMeta: false, op: null };
const read: RequestTraits = { kind: 'read', isMeta: false, op: null };
const end: RequestTraits = { kind: 'end', isMeta: false, op: null };
const metaRead: RequestTraits = { kind: 'read', isMeta: true, op: null };
const metaWrite: RequestTraits = { kind: 'write', isMeta: true, op: null };
const write = (op: Op): RequestTraits => ({ kind: 'write', isMeta: false, op });

/** One row per command of the protocol. */
const TRAITS: Readonly<Record<Command, RequestTraits>> = {
  [Command.reply]: local,
  [Command.set]: write(Op.set),
  [Command.add]: write(Op.add),
  [Command.replace]: write(Op.replace),
  [Command.append]: write(Op.append),
  [Command.prepend]: write(Op.prepend),
  [Command.cas]: write(Op.cas),
  [Command.delete]: write(Op.delete),
  [Command.incr]: write(Op.incr),
  [Command.decr]: write(Op.decr),
  [Command.touch]: write(Op.touch),
  [Command.gat]: write(Op.getAndTouch),
  [Command.gats]: write(Op.getAndTouch),
  [Command.flushAll]: write(Op.flushAll),
  [Command.get]: read,
  [Command.gets]: read,
  // A `set` that fails must not leave the old value behind.
  [Command.setTooLarge]: write(Op.delete),
  [Command.stats]: local,
  [Command.listKeys]: read,
  [Command.quit]: end,
  [Command.hangUp]: end,
  [Command.metaGet]: metaRead,
  [Command.metaTouch]: metaWrite,
  [Command.metaSet]: metaWrite,
  [Command.metaDelete]: metaWrite,
  [Command.metaArithmetic]: metaWrite,
  [Command.metaDebug]: metaRead,
  [Command.metaSetTooLarge]: metaWrite,
  [Command.watch]: local,
};

export function kindOf(command: Command): RequestKind {
  return TRAITS[command].kind;
}

/** Filled again for every request, so that a request costs no object. */
const command = new WriteCommand();

/** Proposes the write that the parser holds, of which `input` has the bytes. */
export function propose(slot: Slot, parser: RequestParser, input: Buffer, replica: Replica): void {
  if (slot.command === Command.gat || slot.command === Command.gats) {
    proposeTouches(slot, parser, input, replica);
    return;
  }
  const { op } = TRAITS[slot.command];
  if (op === null) {
    proposeMeta(slot, parser, input, replica);
    return;
  }
  const { hasKey, stores, hasExptime } = opTraits(op);
  command.begin(op, input, hasKey ? parser.keyStart : 0, hasKey ? parser.keyEnd : 0);
  if (stores) command.store(parser.flags, parser.exptimeSeconds, parser.valueStart, parser.valueEnd);
  else if (hasExptime) command.exptimeSeconds = parser.exptimeSeconds;
  slot.awaited = 1;
  replica.propose(command.arg(parser.argHigh, parser.argLow), slot);
}

/** One operation per key, one reply. */
function proposeTouches(slot: Slot, parser: RequestParser, input: Buffer, replica: Replica): void {
  copyKeys(slot, parser, input);
  slot.found = [];
  slot.fetches = true;
  slot.awaited = parser.keyCount;
  for (let i = 0; i < parser.keyCount; i++) {
    command.begin(Op.getAndTouch, input, parser.keyStartAt(i), parser.keyEndAt(i));
    command.exptimeSeconds = parser.exptimeSeconds;
    replica.propose(command, slot);
  }
}

/** Keeps the keys of a request beyond the life of its bytes. */
export function copyKeys(slot: Slot, parser: RequestParser, input: Buffer): void {
  if (TRAITS[slot.command].isMeta) {
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
