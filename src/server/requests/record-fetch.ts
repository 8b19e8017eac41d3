import type { AnswerContext } from './answers.ts';
import type { FoundItem } from './slots.ts';

/** Records when an item was fetched by an operation that was just answered, unless the item was written since. */
export function recordFetch(key: string, found: FoundItem, { replica, nowMs }: AnswerContext): void {
  const item = replica.get(key);
  if (item !== undefined && item.cas === found.cas) item.accessedAtSeconds = Math.trunc(nowMs / 1000);
}
