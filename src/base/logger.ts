import type { Clock } from './clock.ts';
import { RaftkvError } from './errors.ts';

/** What the floors need of a logger; pino satisfies it, and so does a test's recorder. */
export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** For tests and tools that want silence. */
export const silentLogger: Logger = { debug() {}, info() {}, warn() {}, error() {} };

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

/** In the order of their weight. Apart from the schema, so that `--help` need not load it. */
export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const;
