import type { Output } from './output.ts';
import { END } from './replies.ts';

const VALUE = Buffer.from('VALUE ', 'latin1');
const LINE_END = Buffer.from('\r\n', 'latin1');

/** `VALUE <key> <flags> <bytes>[ <cas unique>]\r\n<data>\r\n`. Strings hold one byte per character. */
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

/** One statistic: its name and its value as memcached prints it. */
export type Stat = readonly [name: string, value: string | number];

/** A `STAT name value` line each, and `END`. */
export function writeStats(output: Output, stats: readonly Stat[]): void {
  for (const [name, value] of stats) output.latin1(`STAT ${name} ${value}\r\n`);
  output.bytes(END);
}
