import type { CommandReader } from './batch.ts';
import { META_BLOCK_BYTES, MetaFlag, MetaMode } from './meta.ts';
import type { MetaCommands } from './meta-commands.ts';
import type { StoredItem } from './stored-item.ts';
import { Op, opTraits, type ResultCode } from './types.ts';

/** The outcome of a command that stores, counts or deletes. A refused command is reported, too, with the reason. */
export interface Change {
  /** Cluster time of the entry. */
  readonly timeMs: number;
  readonly key: string;
  readonly verb: ChangeVerb;
  readonly code: ResultCode;
  /** `Infinity` for never: of the item as it is now, or where none was stored as the command had it. */
  readonly expiresAtMs: number;
  /** Byte length of the value that is stored now, or of the command's value if nothing was stored. 0 for a delete. */
  readonly valueBytes: number;
}

export type ChangeVerb = 'set' | 'add' | 'replace' | 'append' | 'prepend' | 'cas' | 'incr' | 'decr' | 'delete';

/** Hears of every change as it is applied, in the order of the log. Must not throw. */
export interface ChangeObserver {
  changed(change: Change): void;
}

/** The verb of a command that came to `code`; null where it is of no kind that is told of, or has changed nothing. */
export function verbOf(op: Op, meta: MetaCommands, code: ResultCode, isThere: boolean): ChangeVerb | null {
  switch (op) {
    case Op.set:
      return 'set';
    case Op.add:
      return 'add';
    case Op.replace:
      return 'replace';
    case Op.append:
      return 'append';
    case Op.prepend:
      return 'prepend';
    case Op.cas:
      return 'cas';
    case Op.metaSet:
      return metaSetVerb(meta);
    case Op.incr:
      return code === 'number' ? 'incr' : null;
    case Op.decr:
      return code === 'number' ? 'decr' : null;
    case Op.metaArithmetic:
      if (code !== 'number') return null;
      return meta.asks(MetaFlag.decrement) ? 'decr' : 'incr';
    case Op.delete:
    case Op.metaDelete:
      // A delete that only marks its item as stale, or empties it, leaves the item in the store.
      return code === 'deleted' && !isThere ? 'delete' : null;
    default:
      return null;
  }
}

function metaSetVerb(meta: MetaCommands): ChangeVerb {
  switch (meta.mode) {
    case MetaMode.set:
      return meta.asks(MetaFlag.cas) ? 'cas' : 'set';
    case MetaMode.add:
      return 'add';
    case MetaMode.replace:
      return 'replace';
    case MetaMode.append:
      return 'append';
    case MetaMode.prepend:
      return 'prepend';
    default:
      return meta.mode satisfies never;
  }
}

/** The length of the command's value, or of the stored value if the command computed it. */
export function changedBytes(command: CommandReader, code: ResultCode, item: StoredItem | undefined): number {
  if (item !== undefined && (code === 'stored' || code === 'number')) return item.value.length;
  if (command.op === Op.metaSet) return command.valueLength - META_BLOCK_BYTES;
  return opTraits(command.op).stores ? command.valueLength : 0;
}
