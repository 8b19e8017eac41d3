import { secondsLeft, secondsSinceAccess } from './items.ts';
import type { Output } from './output.ts';

/** An item as a meta command's reply shows it. */
export interface ShownItem {
  readonly value: string;
  readonly flags: number;
  readonly cas: number | bigint;
  readonly expiresAtMs: number;
  /** Before the command changed it. */
  readonly expiredAtMs: number;
  /** Whether the flag is behind the first of T and N, if both are present. */
  readonly expiredBetweenMs: number;
  readonly accessedAtSeconds: number;
  readonly isStale: boolean;
  /** This command won the token. */
  readonly won: boolean;
  /** Somebody has won it before. */
  readonly isWon: boolean;
}

const LINE_END = Buffer.from('\r\n', 'latin1');

/** Whether the flags, as they stood in the request, have this letter. */
export function asksFor(flags: string, letter: string): boolean {
  for (let at = 0; at < flags.length; at = endOf(flags, at) + 1) if (flags[at] === letter) return true;
  return false;
}

/** `HD` or `VA <size>`, what the flags ask for in their order, the tokens, and the value where it was asked for. */
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

/** A line of a status and what can be echoed without an item: key and opaque. */
export function writeMetaStatus(output: Output, status: string, flags: string, key: string): void {
  output.latin1(status);
  for (let at = 0; at < flags.length; at = endOf(flags, at) + 1) writeEcho(output, flags[at] ?? '', flags, at, key);
  output.bytes(LINE_END);
}

/** The reply to ms, with the cas unique and the size where asked for. */
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

/** The key as the client wrote it: encoded where it came so. */
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

/** t shows what T and N in front of it have made of the time. */
function expiryBehind(setters: number, both: boolean, item: ShownItem): number {
  if (setters === 0) return item.expiredAtMs;
  return both && setters === 1 ? item.expiredBetweenMs : item.expiresAtMs;
}

function writeTimeToLive(output: Output, expiresAtMs: number, nowMs: number): void {
  if (expiresAtMs === Number.POSITIVE_INFINITY) output.latin1(' t-1');
  else output.flagAndNumber('t', secondsLeft(expiresAtMs, nowMs));
}

/** The end of the flag that begins at `at`. Several spaces may follow it. */
function endOf(flags: string, at: number): number {
  const space = flags.indexOf(' ', at);
  return space === -1 ? flags.length : space;
}
