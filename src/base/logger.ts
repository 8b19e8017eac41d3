import type { Clock } from './clock.ts';
import { RaftkvError } from './errors.ts';

/** The part of a logger that raftkv uses. pino implements it, and so do the recorders of tests. */
export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** Discards every line. For tests and tools. */
export const silentLogger: Logger = { debug() {}, info() {}, warn() {}, error() {} };

/**
 * Logs warnings that may repeat without end. The first warning of a kind is logged at once; later ones at most once per
 * interval, with the number of those that were suppressed since.
 */
export interface RateLimitedLog {
  /** The number of kinds must be bounded, because each kind keeps a counter forever. */
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
      const codeAndRemedy = error instanceof RaftkvError ? { code: error.code, remedy: error.remedy } : {};
      logger.warn({ ...fields, ...codeAndRemedy, suppressed: known?.suppressed ?? 0 }, error.message);
    },
  };
}

/**
 * The log levels, least severe first. They are not in the configuration schema, because `--help` needs them and must
 * not load the schema.
 */
export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const;
