import { RaftkvError } from '../base/errors.ts';

/** Deeper than any configuration; keeps the scanner's recursion bounded. */
const DEPTH_MAX = 64;

/** Parses JSON; throws CONFIG_INVALID with line and column, which `JSON.parse` doesn't reliably give. */
export function parseJson(source: string, name: string): unknown {
  const text = source.startsWith('\uFEFF') ? source.slice(1) : source;
  try {
    return JSON.parse(text);
  } catch (cause) {
    const fault = findFault(text);
    const { line, column } = positionOf(text, fault.offset);
    throw new RaftkvError(
      'CONFIG_INVALID',
      `${name} is not valid JSON: line ${line}, column ${column}: ${fault.what}`,
      'JSON needs double quotes around names and strings, no comma after the last element, and no comments.',
      cause,
    );
  }
}

interface Fault {
  readonly offset: number;
  readonly what: string;
}

function positionOf(text: string, offset: number): { line: number; column: number } {
  const before = text.slice(0, offset).split('\n');
  return { line: before.length, column: (before.at(-1)?.length ?? 0) + 1 };
}

/** The position of the first error in a text that `JSON.parse` refused. */
function findFault(text: string): Fault {
  const after = scanValue(text, skipBlanks(text, 0), 0);
  if (typeof after !== 'number') return after;
  return expected(text, skipBlanks(text, after), 'the end of the file');
}

/** Each scanner returns the offset behind the text that it read, or the fault. */
type Scanned = number | Fault;

function scanValue(text: string, at: number, depth: number): Scanned {
  if (depth > DEPTH_MAX) return { offset: at, what: `nested more than ${DEPTH_MAX} deep` };
  const first = text[at];
  if (first === '{') return scanList(text, at, depth, '}', scanMember);
  if (first === '[') return scanList(text, at, depth, ']', scanValue);
  if (first === '"') return scanString(text, at);
  return scanPattern(text, at, /(?:true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.])/y, 'a value');
}

function scanMember(text: string, at: number, depth: number): Scanned {
  if (text[at] !== '"') return expected(text, at, 'a name in double quotes');
  const afterName = scanString(text, at);
  if (typeof afterName !== 'number') return afterName;
  const colon = skipBlanks(text, afterName);
  if (text[colon] !== ':') return expected(text, colon, 'a colon');
  return scanValue(text, skipBlanks(text, colon + 1), depth);
}

type ScanElement = (text: string, at: number, depth: number) => Scanned;

function scanList(text: string, start: number, depth: number, close: string, element: ScanElement): Scanned {
  let at = skipBlanks(text, start + 1);
  if (text[at] === close) return at + 1;
  for (;;) {
    const after = element(text, at, depth + 1);
    if (typeof after !== 'number') return after;
    at = skipBlanks(text, after);
    if (text[at] === close) return at + 1;
    if (text[at] !== ',') return expected(text, at, `a comma or ${close}`);
    at = skipBlanks(text, at + 1);
  }
}

function scanString(text: string, at: number): Scanned {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: JSON forbids exactly these inside a text.
  const pattern = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
  return scanPattern(text, at, pattern, 'a string that ends with a double quote on the same line');
}

function scanPattern(text: string, at: number, pattern: RegExp, what: string): Scanned {
  pattern.lastIndex = at;
  return pattern.test(text) ? pattern.lastIndex : expected(text, at, what);
}

function expected(text: string, offset: number, what: string): Fault {
  const found = offset >= text.length ? 'the end of the file' : JSON.stringify(text[offset]);
  return { offset, what: `expected ${what}, found ${found}` };
}

function skipBlanks(text: string, at: number): number {
  let end = at;
  while (end < text.length && ' \t\r\n'.includes(text.charAt(end))) end++;
  return end;
}
