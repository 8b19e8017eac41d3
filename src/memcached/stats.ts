import type { Output } from './output.ts';
import { END } from './replies.ts';

/** One statistic: its name and its value as memcached prints it. */
export type Stat = readonly [name: string, value: string | number];

/** A `STAT name value` line each, and `END`. */
export function writeStats(output: Output, stats: readonly Stat[]): void {
  for (const [name, value] of stats) output.latin1(`STAT ${name} ${value}\r\n`);
  output.bytes(END);
}
