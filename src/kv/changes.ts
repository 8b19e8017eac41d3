import type { CommandReader } from './batch.ts';
import { META_BLOCK_BYTES, MetaFlag, MetaMode } from './meta.ts';
import type { MetaCommands } from './meta-commands.ts';
import type { StoredItem } from './stored-item.ts';
import { Op, opTraits, type ResultCode } from './types.ts';

/**
 * The outcome of a storage command, incr, decr or delete, for `watch mutations`. A storage command is reported even if
 * it was refused, and `code` says why. The others are reported only if they changed or deleted the item.
 */
export interface Change {
  /** Cluster time of the entry. */
  readonly timeMs: number;
  readonly key: string;
  readonly verb: ChangeVerb;
  readonly code: ResultCode;
  /** When the item expires now, or would have expired if it had been stored, in cluster time. `Infinity` for never. */
  readonly expiresAtMs: number;
  /** The length of the value that is stored now, or of the command's value if nothing was stored. 0 for a delete. */
  readonly valueBytes: number;
}

export type ChangeVerb = 'set' | 'add' | 'replace' | 'append' | 'prepend' | 'cas' | 'incr' | 'decr' | 'delete';

/** Receives each change when it is applied, in the order of the log. Must not throw. */
export interface ChangeObserver {
  changed(change: Change): void;
}

/**
 * Returns the verb of a command whose result was `code`; null if no change is to be reported.
 * @param meta describes the command, if it is a meta command
 * @param isThere whether the store has an item of this key after the command
 */
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

/** Returns `Change.valueBytes`. */
export function changedBytes(command: CommandReader, code: ResultCode, item: StoredItem | undefined): number {
  if (item !== undefined && (code === 'stored' || code === 'number')) return item.value.length;
  if (command.op === Op.metaSet) return command.valueLength - META_BLOCK_BYTES;
  return opTraits(command.op).stores ? command.valueLength : 0;
}
