/** A range of characters of a file. */
export interface Range {
  readonly from: number;
  readonly to: number;
}

/** A word, or one other character. White space and comments are not tokens. */
interface Token extends Range {
  readonly text: string;
}

const PIECES = /\/\*[\s\S]*?\*\/|(?<![^\s])\/\/.*|\s+|[\w#$]+|[\s\S]/g;

/** Strings are not recognized; their words and quotes are tokens like others. */
function tokensOf(text: string): readonly Token[] {
  const pieces = [...text.matchAll(PIECES)];
  return pieces.flatMap(({ 0: piece, index }) => {
    if (/^\s|^\/[/*]/.test(piece)) return [];
    return [{ text: piece, from: index, to: index + piece.length }];
  });
}

/**
 * Returns where the tokens of `find` occur in `text` within `range`. Line breaks, indentation and comments make no difference,
 * nor does a comma that the formatter adds behind the last of several lines.
 */
export function occurrencesOf(find: string, text: string, range: Range): readonly Range[] {
  const wanted = withoutTrailingCommas(tokensOf(find));
  const all = withoutTrailingCommas(tokensOf(text)).filter(({ from, to }) => from >= range.from && to <= range.to);
  const first = wanted[0];
  if (first === undefined) throw new Error('nothing to find');
  return all.flatMap(({ from }, start) => {
    const last = all[start + wanted.length - 1];
    const isHere = wanted.every((token, i) => token.text === all[start + i]?.text);
    return isHere && last !== undefined ? [{ from, to: last.to }] : [];
  });
}

function withoutTrailingCommas(tokens: readonly Token[]): readonly Token[] {
  return tokens.filter(({ text }, i) => text !== ',' || !/^[)\]}]$/.test(tokens[i + 1]?.text ?? ''));
}

/**
 * Returns where `name` is declared: a function, a method, an accessor, a constructor or a constant, from its first word to the end of
 * its body. It relies on the formatter: what belongs to a declaration is indented more than its first line, or begins with a
 * closing bracket. Throws unless there is exactly one such declaration.
 */
export function declarationOf(name: string, text: string): Range {
  const modifiers = '(?:export |async |static |private |protected |readonly |get |set )*';
  const kinds = `(?:function ${name}\\b|const ${name}\\b|${name} = \\(|(?<method>${name}[(<]))`;
  const found = [...text.matchAll(new RegExp(`^( *)${modifiers}${kinds}`, 'gm'))].flatMap((match) => {
    const indentation = match[1]?.length ?? 0;
    const from = match.index + indentation;
    const lines = new RegExp(`^[^\\n]*\\n(?:(?: {${indentation}}(?: |[)\\]}])[^\\n]*)?\\n)*`);
    const to = from + (lines.exec(text.slice(from))?.[0].trimEnd().length ?? 0);
    // A call, or a member of an interface, begins like a method.
    return match.groups?.['method'] !== undefined && text[to - 1] !== '}' ? [] : [{ from, to }];
  });
  const [only] = found;
  if (only === undefined || found.length > 1) throw new Error(`${name} is declared ${found.length} times`);
  return only;
}

/** Returns what stands between the outer braces of a function. */
export function bodyOf({ from, to }: Range, text: string): Range {
  let depth = 0;
  for (let at = from; at < to; at++) {
    const char = text[at] ?? '';
    if (char === '(') depth++;
    else if (char === ')') depth--;
    else if (char === '{' && depth === 0 && text[at + 1] === '\n')
      return { from: at + 1, to: text.lastIndexOf('}', to - 1) };
  }
  throw new Error(`no body: ${text.slice(from, to)}`);
}
