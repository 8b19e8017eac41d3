import { secondsLeft, secondsSinceAccess } from './items.ts';
import type { Output } from './output.ts';

/** An item as the reply to a meta command shows it. */
export interface ShownItem {
  readonly value: string;
  readonly flags: number;
  readonly cas: number | bigint;
  readonly expiresAtMs: number;
  /** When the item would have expired, before the command changed that. */
  readonly expiredAtMs: number;
  /** When the item would have expired after the first of the flags T and N, if the command has both. */
  readonly expiredBetweenMs: number;
  readonly accessedAtSeconds: number;
  readonly isStale: boolean;
  /** True if this command won the token. */
  readonly won: boolean;
  /** True if an earlier command won the token. */
  readonly isWon: boolean;
}

const LINE_END = Buffer.from('\r\n', 'latin1');

/** @param flags the flags as they were in the request */
export function asksFor(flags: string, letter: string): boolean {
  for (let at = 0; at < flags.length; at = endOf(flags, at) + 1) if (flags[at] === letter) return true;
  return false;
}

/**
 * Writes `HD` or `VA <size>`, what the flags ask for, in their order, the tokens W, X and Z, and the value if it was
 * requested.
 */
export function writeMetaHit(output: Output, flags: string, key: string, item: ShownItem, nowMs: number): void {
  const withValue = asksFor(flags, 'v');
  output.latin1(withValue ? 'VA' : 'HD');
  if (withValue) output.spaceAndNumber(item.value.length);
  let setters = 0;
  const both = asksFor(flags, 'T') && asksFor(flags, 'N');
  for (let at = 0; at < flags.length; at = endOf(flags, at) + 1) {
    const letter = flags[at] ?? '';
    if (letter === 'T' || letter === 'N') setters++;
    if (letter === 't') writeTimeToLive(output, expiryBehind(setters, both, item), nowMs);
    else if (letter === 'h') output.flagAndNumber('h', item.accessedAtSeconds > 0 ? 1 : 0);
    else if (letter === 'l') output.flagAndNumber('l', secondsSinceAccess(item.accessedAtSeconds, nowMs));
    else if (letter === 'f') output.flagAndNumber('f', item.flags);
    else if (letter === 's') output.flagAndNumber('s', item.value.length);
    else if (letter === 'c') output.flagAndNumber('c', item.cas);
    else writeEcho(output, letter, flags, at, key);
  }
  if (item.isWon) output.latin1(' Z');
  if (item.isStale) output.latin1(' X');
  if (item.won) output.latin1(' W');
  output.bytes(LINE_END);
  if (!withValue) return;
  output.latin1(item.value);
  output.bytes(LINE_END);
}

/** Writes a status line with the flags that need no item: key and opaque token. */
export function writeMetaStatus(output: Output, status: string, flags: string, key: string): void {
  output.latin1(status);
  for (let at = 0; at < flags.length; at = endOf(flags, at) + 1) writeEcho(output, flags[at] ?? '', flags, at, key);
  output.bytes(LINE_END);
}

/** Writes the reply to ms, with the cas unique and the size if they were requested. */
export function writeMetaStored(
  output: Output,
  status: string,
  flags: string,
  key: string,
  cas: number | bigint,
  valueBytes: number,
): void {
  output.latin1(status);
  for (let at = 0; at < flags.length; at = endOf(flags, at) + 1) {
    const letter = flags[at] ?? '';
    if (letter === 'c') output.flagAndNumber('c', cas);
    else if (letter === 's') output.flagAndNumber('s', valueBytes);
    else writeEcho(output, letter, flags, at, key);
  }
  output.bytes(LINE_END);
}

/** Returns the key in base64, as the client wrote it if the request has flag b. */
export function encodedKey(key: string): string {
  return Buffer.from(key, 'latin1').toString('base64');
}

function writeEcho(output: Output, letter: string, flags: string, at: number, key: string): void {
  if (letter === 'O') {
    output.latin1(' ');
    output.latin1(flags.slice(at, endOf(flags, at)));
  } else if (letter === 'k') {
    const encoded = asksFor(flags, 'b');
    output.latin1(' k');
    output.latin1(encoded ? encodedKey(key) : key);
    if (encoded) output.latin1(' b');
  }
}

/**
 * When the item would have expired after the flags before a flag t.
 * @param setters the number of flags T and N before it
 * @param both whether the request has both
 */
function expiryBehind(setters: number, both: boolean, item: ShownItem): number {
  if (setters === 0) return item.expiredAtMs;
  return both && setters === 1 ? item.expiredBetweenMs : item.expiresAtMs;
}

function writeTimeToLive(output: Output, expiresAtMs: number, nowMs: number): void {
  if (expiresAtMs === Number.POSITIVE_INFINITY) output.latin1(' t-1');
  else output.flagAndNumber('t', secondsLeft(expiresAtMs, nowMs));
}

/** Returns where the flag that begins at `at` ends. Several spaces may follow it. */
function endOf(flags: string, at: number): number {
  const space = flags.indexOf(' ', at);
  return space === -1 ? flags.length : space;
}
