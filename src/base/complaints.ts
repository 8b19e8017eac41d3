import type { Clock } from './clock.ts';
import { RaftkvError } from './errors.ts';
import type { Logger } from './logger.ts';

/** Logs trouble that may repeat without end: each kind at once, then at most once per interval with a count. */
export interface Complaints {
  /** `kind` must come from a small closed set: one counter is kept for each. */
  warn(kind: string, error: Error, fields: object): void;
}

export function createComplaints(clock: Clock, logger: Logger, intervalMs: number): Complaints {
  const kinds = new Map<string, { lastMs: number; unsaid: number }>();
  return {
    warn(kind, error, fields) {
      const nowMs = clock.monotonicMs();
      const known = kinds.get(kind);
      if (known !== undefined && nowMs - known.lastMs < intervalMs) {
        known.unsaid += 1;
        return;
      }
      kinds.set(kind, { lastMs: nowMs, unsaid: 0 });
      const told = error instanceof RaftkvError ? { code: error.code, remedy: error.remedy } : {};
      logger.warn({ ...fields, ...told, notLogged: known?.unsaid ?? 0 }, error.message);
    },
  };
}
