import type { Item, ResultCode } from '../../kv/types.ts';
import { NOTHING } from '../../memcached/replies.ts';
import { Command } from '../../memcached/request.ts';
import type { Failure, ReadCompletion, WriteCompletion } from '../../replica/types.ts';

/** The calls of a slot to its connection. */
export interface SlotOwner {
  /** The slot's last answer from the replica is in. */
  slotAnswered(slot: Slot): void;
}

/** An item as it was when its operation was applied. */
export type FoundItem = Item;

/**
 * The place of one request in its connection's row of replies. Slots are used again: one holds its request from the
 * parse to the last byte of its reply. It is what the replica calls back, so that a request costs neither a closure
 * nor a promise.
 */
export class Slot implements WriteCompletion, ReadCompletion {
  /** Null once the connection is gone: the answers still come, and the last one frees the slot. */
  owner: SlotOwner | null = null;
  next: Slot | null = null;
  command: Command = Command.reply;
  noreply = false;
  /** Answers that the replica still owes. */
  awaited = 0;
  /** Whether the read uses the confirmation of the read before it: both had arrived when that was asked for. */
  followsRead = false;
  failure: Failure | null = null;
  code: ResultCode = 'ok';
  /** The number of incr and decr; the subject of stats. */
  text = '';
  /** For Command.reply. */
  reply: Buffer = NOTHING;
  /** The key of a read of one; otherwise `keys` holds them. */
  key = '';
  keys: string[] | null = null;
  /** For meta commands: the flags as they stood in the line. */
  metaFlags = '';
  /** For meta commands: q was among them. */
  quiet = false;
  /** A read that turned out to have to write; `followsRead` is over for it. */
  escalated = false;
  /** Whether the operation counts as a fetch of the item. */
  fetches = false;
  /** The length of the data of an `ms`. */
  valueBytes = 0;
  /** The number of keys that were answered before a long reply had to wait for its reader. */
  keysAnswered = 0;
  /** For gat, gats and meta commands with a block: what each key had; null for a miss. */
  found: (FoundItem | null)[] | null = null;
  listing: Iterator<[string, Item]> | null = null;

  readonly #pool: SlotPool;

  constructor(pool: SlotPool) {
    this.#pool = pool;
  }

  written(code: ResultCode, item: Item | null, text: string): void {
    this.code = code;
    this.text = text;
    if (this.found !== null) {
      this.found.push(item === null ? null : copyOf(item));
      // The time of the fetch comes with the reply; that it was one holds for the commands right behind.
      if (item !== null && this.fetches) item.accessedAtSeconds = Math.abs(item.accessedAtSeconds);
    }
    this.#answered();
  }

  writeFailed(failure: Failure): void {
    this.failure = failure;
    this.#answered();
  }

  readable(): void {
    this.#answered();
  }

  readFailed(failure: Failure): void {
    this.failure = failure;
    this.#answered();
  }

  #answered(): void {
    this.awaited--;
    if (this.awaited > 0) return;
    if (this.owner === null) this.#pool.give(this);
    else this.owner.slotAnswered(this);
  }
}

/** The item may change with the next command. */
function copyOf({ value, flags, expiresAtMs, cas, tokens, accessedAtSeconds }: Item): FoundItem {
  return { value, flags, expiresAtMs, cas, tokens, accessedAtSeconds };
}

/** Slots that wait to be used again. */
export class SlotPool {
  /** The number of slots that are kept for reuse: as many as a busy turn uses. */
  static readonly KEPT_MAX = 4096;
  readonly #free: Slot[] = [];

  take(owner: SlotOwner, command: Command): Slot {
    const slot = this.#free.pop() ?? new Slot(this);
    slot.owner = owner;
    slot.command = command;
    return slot;
  }

  give(slot: Slot): void {
    if (this.#free.length >= SlotPool.KEPT_MAX) return;
    slot.owner = null;
    slot.next = null;
    slot.noreply = false;
    slot.awaited = 0;
    slot.followsRead = false;
    slot.failure = null;
    slot.text = '';
    slot.reply = NOTHING;
    slot.key = '';
    slot.keys = null;
    slot.metaFlags = '';
    slot.quiet = false;
    slot.escalated = false;
    slot.fetches = false;
    slot.valueBytes = 0;
    slot.keysAnswered = 0;
    slot.found = null;
    slot.listing = null;
    this.#free.push(slot);
  }
}

/** The slots of one connection in the order of its requests. */
export class SlotQueue {
  head: Slot | null = null;
  tail: Slot | null = null;
  length = 0;

  push(slot: Slot): void {
    if (this.tail === null) this.head = slot;
    else this.tail.next = slot;
    this.tail = slot;
    this.length++;
  }

  /** Takes the head out of the row. */
  shift(): void {
    const { head } = this;
    if (head === null) return;
    this.head = head.next;
    head.next = null;
    if (this.head === null) this.tail = null;
    this.length--;
  }
}
