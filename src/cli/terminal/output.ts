import { readFileSync } from 'node:fs';
import { RaftkvError } from '../../base/errors.ts';

/** Exit codes; scripts rely on the numbers. */
export const EXIT_OK = 0;
export const EXIT_FAILURE = 1;
export const EXIT_USAGE = 2;

/** A request on the command line that can't be meant, such as a node that the cluster doesn't have. */
export class UsageError extends Error {}

/** An error for a person: what happened, its code, what to do. A stack only where the fault is ours. */
export function describeError(error: unknown): string {
  if (error instanceof UsageError) return `raftkv: ${error.message}`;
  if (error instanceof RaftkvError) {
    const remedy = error.remedy === '' ? '' : `\n${error.remedy}`;
    return `raftkv: ${error.message}${remedy}\n(${error.code})`;
  }
  if (error instanceof Error) return `raftkv: unexpected error\n${error.stack ?? error.message}`;
  return `raftkv: unexpected error\n${String(error)}`;
}

export function exitCodeOf(error: unknown): number {
  return error instanceof UsageError ? EXIT_USAGE : EXIT_FAILURE;
}

export function printError(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** Rows as columns of equal width, the first row being the head; two spaces between, none at the end of a line. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, i) => {
      widths[i] = Math.max(widths[i] ?? 0, cell.length);
    });
  }
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** The version in package.json, which lies three folders above this file both in `src` and in `dist`. */
export function readVersion(): string {
  const text = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8');
  const version: unknown = JSON.parse(text).version;
  return typeof version === 'string' ? version : 'unknown';
}
