import type { Output } from './output.ts';
import { ITEM_OVERHEAD_BYTES } from './parser.ts';

/** What a key may show unencoded: the unreserved characters of URIs (RFC 3986, 2.3). */
const ENCODED = /[^A-Za-z0-9\-._~]/g;

/**
 * One line of `lru_crawler metadump`, in memcached's form, which ends in a bare newline. No node keeps track of
 * accesses: the time of the last one reads 0 and `fetch` no.
 */
export function writeKeyLine(output: Output, key: string, valueBytes: number, expiresAtMs: number, cas: number): void {
  const name = key.replace(
    ENCODED,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
  );
  const expiry = expiresAtMs === Number.POSITIVE_INFINITY ? -1 : Math.floor(expiresAtMs / 1000);
  const size = key.length + valueBytes + ITEM_OVERHEAD_BYTES;
  output.latin1(`key=${name} exp=${expiry} la=0 cas=${cas} fetch=no cls=1 size=${size}\n`);
}
