import { readFileSync } from 'node:fs';

/** The version in package.json, which lies three folders above this file both in `src` and in `dist`. */
export function readVersion(): string {
  const text = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8');
  const version: unknown = JSON.parse(text).version;
  return typeof version === 'string' ? version : 'unknown';
}
