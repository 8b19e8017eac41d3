import type { AnswerContext } from './answers.ts';
import type { FoundItem } from './slots.ts';

/** Notes when an item was fetched by an operation that has just been answered, unless it was written since. */
export function noteFetch(key: string, found: FoundItem, { replica, nowMs }: AnswerContext): void {
  const item = replica.get(key);
  if (item !== undefined && item.cas === found.cas) item.accessedAtSeconds = Math.trunc(nowMs / 1000);
}
