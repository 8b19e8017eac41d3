import { readFileSync, statSync } from 'node:fs';
import { RaftkvError } from '../base/errors.ts';
import { PASSWORD_BYTES_MAX, USER_BYTES_MAX } from '../memcached/login.ts';

/**
 * The file of names and passwords: `user:password` lines, as memcached's -Y. As there, a line that is anything else is
 * a mistake, an empty line and a comment too. No message repeats what a line says.
 */

/** Each attempt is compared with every entry. */
const ENTRIES_MAX = 256;
const READABLE_BY_OTHERS = 0o004;

export interface AuthFile {
  /** One character per byte, because credentials from the network are compared byte by byte. */
  readonly credentials: readonly { readonly user: string; readonly password: string }[];
  readonly warnings: readonly string[];
}

/** Throws AUTH_FILE_INVALID. */
export function readAuthFile(path: string): AuthFile {
  const lines = readLines(path);
  if (lines.at(-1) === '') lines.pop();
  if (lines.length === 0) throw invalid(path, 'is empty: no client could log in');
  if (lines.length > ENTRIES_MAX)
    throw invalid(path, `has ${lines.length} entries; at most ${ENTRIES_MAX} are allowed`);
  const credentials = lines.map((line, i) => {
    const fault = faultOf(line);
    if (fault !== '') throw invalid(path, `line ${i + 1} ${fault}`);
    const colon = line.indexOf(':');
    return { user: line.slice(0, colon), password: line.slice(colon + 1) };
  });
  return { credentials, warnings: warningsOf(path) };
}

function readLines(path: string): string[] {
  try {
    return readFileSync(path, 'latin1').split('\n');
  } catch (cause) {
    throw invalid(path, `cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`, cause);
  }
}

/** Why the line is no entry, in words that do not betray it; empty where it is one. */
function faultOf(line: string): string {
  const colon = line.indexOf(':');
  if (line === '') return 'is empty';
  if (line.endsWith('\r')) return 'ends in a carriage return';
  if (colon === -1) return 'has no colon';
  if (colon === 0) return 'has no user before the colon';
  if (colon === line.length - 1) return 'has no password after the colon';
  if (line.includes(' ') || line.includes('\0')) return 'contains a space or a NUL, which clients cannot send';
  if (colon > USER_BYTES_MAX) return `has a user of more than ${USER_BYTES_MAX} bytes`;
  if (line.length - colon - 1 > PASSWORD_BYTES_MAX) return `has a password of more than ${PASSWORD_BYTES_MAX} bytes`;
  return '';
}

function warningsOf(path: string): string[] {
  const readable = (statSync(path).mode & READABLE_BY_OTHERS) !== 0;
  return readable ? [`authFile: ${path} can be read by every user of this machine; chmod 600 it`] : [];
}

function invalid(path: string, what: string, cause?: unknown): RaftkvError {
  return new RaftkvError(
    'AUTH_FILE_INVALID',
    `the authFile ${path} ${what}`,
    'Write one user:password per line, without empty lines or comments.',
    cause,
  );
}
