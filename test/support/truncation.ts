import type { CoreSummary } from '../../src/raft/invariants.ts';
import type { Effects } from '../../src/raft/state/types.ts';

/** The index from which a step truncated the log to append other entries there; 0 if it truncated nothing. */
export function truncatedFrom(before: Pick<CoreSummary, 'lastIndex'>, { append }: Pick<Effects, 'append'>): number {
  const first = append[0]?.index ?? 0;
  return first <= before.lastIndex ? first : 0;
}
