import type { Output } from '../../memcached/output.ts';
import type { Replica } from '../../replica/types.ts';
import type { Counters } from '../counters.ts';
import type { FoundItem } from './slots.ts';

/** The context for writing a reply, and the signal to stop in the middle of a long one. */
export interface AnswerContext {
  readonly output: Output;
  readonly replica: Replica;
  readonly counters: Counters;
  /** This node's Unix time as of when it began to write replies. */
  readonly nowMs: number;
  writeStats(subject: string): void;
  /** Called after each key of a read. False: the reply goes on later, from where it stopped. */
  mayWriteMore(): boolean;
}

/** Records when an item was fetched by an operation that was just answered, unless the item was written since. */
export function recordFetch(key: string, found: FoundItem, { replica, nowMs }: AnswerContext): void {
  const item = replica.get(key);
  if (item !== undefined && item.cas === found.cas) item.accessedAtSeconds = Math.trunc(nowMs / 1000);
}
