import type { Output } from './output.ts';
import { END } from './replies.ts';
import { ITEM_OVERHEAD_BYTES } from './request.ts';

const VALUE = Buffer.from('VALUE ', 'latin1');
const LINE_END = Buffer.from('\r\n', 'latin1');

/** Writes `VALUE <key> <flags> <bytes>[ <cas unique>]\r\n<data>\r\n`. The strings have one character per byte. */
export function writeValue(
  output: Output,
  key: string,
  flags: number,
  value: string,
  cas: number | bigint | null,
): void {
  output.bytes(VALUE);
  output.latin1(key);
  output.spaceAndNumber(flags);
  output.spaceAndNumber(value.length);
  if (cas !== null) output.spaceAndNumber(cas);
  output.bytes(LINE_END);
  output.latin1(value);
  output.bytes(LINE_END);
}

/** One statistic: its name, and its value as memcached prints it. */
export type Stat = readonly [name: string, value: string | number];

/** Writes a `STAT name value` line for each statistic, and `END`. */
export function writeStats(output: Output, stats: readonly Stat[]): void {
  for (const [name, value] of stats) output.latin1(`STAT ${name} ${value}\r\n`);
  output.bytes(END);
}

/** The characters of a key that a listing encodes: all but the unreserved characters of URIs (RFC 3986, 2.3). */
const ENCODED = /[^A-Za-z0-9\-._~]/g;

/** An item as a listing and `me` show it. */
export interface ListedItem {
  readonly value: string;
  readonly expiresAtMs: number;
  readonly cas: number | bigint;
  /**
   * The Unix time of the last fetch at this node. If this node has not fetched the item since its last write, the
   * negated time of that write.
   */
  readonly accessedAtSeconds: number;
}

/** Writes one line of `lru_crawler metadump`. As in memcached, it ends in a bare `\n`. */
export function writeKeyLine(output: Output, key: string, item: ListedItem): void {
  const name = encodeKey(key);
  const { expiresAtMs, accessedAtSeconds, cas } = item;
  const expiry = expiresAtMs === Number.POSITIVE_INFINITY ? -1 : Math.floor(expiresAtMs / 1000);
  const accessed = Math.abs(accessedAtSeconds);
  output.latin1(
    `key=${name} exp=${expiry} la=${accessed} cas=${cas} fetch=${fetched(item)} cls=1 size=${sizeOf(key, item)}\n`,
  );
}

/** Returns a key of latin1 characters as memcached shows it in listings: all but the unreserved ones as %XX. */
export function encodeKey(key: string): string {
  return key.replace(ENCODED, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`);
}

/** Writes the reply to `me`: the same facts about one item as in a listing, with times relative to now. */
export function writeDebugLine(output: Output, key: string, shownKey: string, item: ListedItem, nowMs: number): void {
  const { expiresAtMs, accessedAtSeconds, cas } = item;
  const left = expiresAtMs === Number.POSITIVE_INFINITY ? -1 : secondsLeft(expiresAtMs, nowMs);
  const idle = secondsSinceAccess(accessedAtSeconds, nowMs);
  output.latin1(
    `ME ${shownKey} exp=${left} la=${idle} cas=${cas} fetch=${fetched(item)} cls=1 size=${sizeOf(key, item)}\r\n`,
  );
}

/** Returns whole seconds, rounded up. */
export function secondsLeft(expiresAtMs: number, nowMs: number): number {
  return Math.max(0, Math.ceil((expiresAtMs - nowMs) / 1000));
}

export function secondsSinceAccess(accessedAtSeconds: number, nowMs: number): number {
  return Math.max(0, Math.floor(nowMs / 1000) - Math.abs(accessedAtSeconds));
}

function fetched({ accessedAtSeconds }: ListedItem): string {
  return accessedAtSeconds > 0 ? 'yes' : 'no';
}

function sizeOf(key: string, { value }: ListedItem): number {
  return key.length + value.length + ITEM_OVERHEAD_BYTES;
}
