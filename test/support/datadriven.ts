/**
 * Reads etcd's data-driven test tables: a command line with arguments, an optional body, `----`, the expected text up
 * to the next blank line. Lines that begin with # are comments.
 *
 * ```
 * committed cfg=(1,2) idx=(12,_)
 * ----
 * expected text
 * ```
 */
export interface TableCase {
  /** Line of the command, from 1. */
  readonly line: number;
  readonly command: string;
  readonly args: ReadonlyMap<string, readonly string[]>;
  readonly body: string;
  /** As written, without the last newline. */
  readonly expected: string;
}

const SEPARATOR = '----';

export function parseTable(text: string): TableCase[] {
  const lines = text.split('\n');
  const cases: TableCase[] = [];
  let at = 0;
  const takeUntil = (isEnd: (line: string) => boolean): string => {
    const start = at;
    while (at < lines.length && !isEnd(lines[at] ?? '')) at++;
    return lines.slice(start, at).join('\n');
  };
  while (at < lines.length) {
    const head = (lines[at++] ?? '').trim();
    if (head === '' || head.startsWith('#')) continue;
    const line = at;
    const body = takeUntil((text) => text === SEPARATOR);
    if (at++ >= lines.length) throw new Error(`line ${line}: no ${SEPARATOR} after "${head}"`);
    const expected = takeUntil((text) => text.trim() === '');
    cases.push({ line, command: head.split(/\s/, 1)[0] ?? '', args: parseArgs(head), body, expected });
  }
  return cases;
}

/** `name=(a, b)`, `name=a` and a bare `name`. */
function parseArgs(head: string): Map<string, string[]> {
  const args = new Map<string, string[]>();
  const rest = head.replace(/^\S+/, '');
  for (const [, name = '', list, single] of rest.matchAll(/([^\s=]+)(?:=(?:\(([^)]*)\)|(\S+)))?/g)) {
    const values = list?.split(',') ?? (single === undefined ? [] : [single]);
    args.set(
      name,
      values.map((value) => value.trim()),
    );
  }
  return args;
}
