import type { Clock } from './clock.ts';
import { RaftkvError } from './errors.ts';
import type { Logger } from './logger.ts';

/** A log for warnings that may repeat without end: each kind at once, then at most once per interval with a count. */
export interface RateLimitedLog {
  /** `kind` must come from a small closed set: one counter is kept for each. */
  warn(kind: string, error: Error, fields: object): void;
}

export function createRateLimitedLog(clock: Clock, logger: Logger, intervalMs: number): RateLimitedLog {
  const kinds = new Map<string, { lastMs: number; suppressed: number }>();
  return {
    warn(kind, error, fields) {
      const nowMs = clock.monotonicMs();
      const known = kinds.get(kind);
      if (known !== undefined && nowMs - known.lastMs < intervalMs) {
        known.suppressed += 1;
        return;
      }
      kinds.set(kind, { lastMs: nowMs, suppressed: 0 });
      const told = error instanceof RaftkvError ? { code: error.code, remedy: error.remedy } : {};
      logger.warn({ ...fields, ...told, suppressed: known?.suppressed ?? 0 }, error.message);
    },
  };
}
