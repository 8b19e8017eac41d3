import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';

/**
 * What the documents name exists: relative links lead to files and headings, paths in backticks to files and folders.
 * Decision records have the form that docs/adr/README.md describes.
 */
const root = resolve(import.meta.dirname, '..');
const ADR_FOLDER = 'docs/adr';

const readText = (path: string) => readFileSync(join(root, path), 'utf8');

function markdownUnder(folder: string): string[] {
  return readdirSync(join(root, folder)).flatMap((name) => {
    const path = join(folder, name);
    if (statSync(join(root, path)).isDirectory()) return markdownUnder(path);
    return name.endsWith('.md') ? [path] : [];
  });
}

const foldersIn = (folder: string) =>
  readdirSync(join(root, folder)).filter((name) => statSync(join(root, folder, name)).isDirectory());

const withoutFences = (text: string) => text.replace(/^( *)(```+)[\s\S]*?^\1\2 *$/gm, '');
const withoutCode = (text: string) => withoutFences(text).replace(/`[^`\n]*`/g, '');

/** The anchors that GitHub gives to the headings of a Markdown text. */
function anchorsOf(text: string): Set<string> {
  const anchors = new Set<string>();
  const seen = new Map<string, number>();
  for (const [, heading = ''] of withoutFences(text).matchAll(/^#{1,6} +(.*?) *#*$/gm)) {
    const plain = heading.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').replace(/[`*]/g, '');
    const slug = plain
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-');
    const count = seen.get(slug) ?? 0;
    seen.set(slug, count + 1);
    anchors.add(count === 0 ? slug : `${slug}-${count}`);
  }
  return anchors;
}

/** Targets of inline links, of images and of link definitions, without those to other sites. */
function relativeLinks(text: string): string[] {
  const plain = withoutCode(text);
  const inline = [...plain.matchAll(/\]\(<?([^)\s>]+)>?(?: +"[^"]*")?\)/g)];
  const definitions = [...plain.matchAll(/^ {0,3}\[[^\]]+\]: *<?(\S+?)>?(?: |$)/gm)];
  return [...inline, ...definitions].map(([, target = '']) => target).filter((target) => !/^[a-z]+:/i.test(target));
}

/** Null if the link leads somewhere, else what is missing. */
function missingTarget(from: string, target: string): string | null {
  const [path = '', anchor] = target.split('#');
  const file = path === '' ? from : join(dirname(from), decodeURIComponent(path));
  if (file.startsWith('..') || !existsSync(join(root, file))) return `${target}: there is no ${file}`;
  if (anchor === undefined) return null;
  return anchorsOf(readText(file)).has(anchor) ? null : `${target}: there is no such heading in ${file}`;
}

const TOP_FOLDERS = ['src', 'test', 'docs', 'bin', 'examples'];
const SOURCE_FOLDERS = foldersIn('src');

/** Where a word in backticks would be if it is a path below a folder of the repository or of `src`; else null. */
function placeOf(word: string): string | null {
  const [, first = '', rest = ''] = /^([\w.-]+)\/([\w./*{},-]*)$/.exec(word) ?? [];
  // Of a pattern, the folder before it.
  const path = join(first, rest.replace(/(^|\/)[^/]*[*{].*$/, ''));
  if (TOP_FOLDERS.includes(first)) return path;
  return SOURCE_FOLDERS.includes(first) ? join('src', path) : null;
}

function missingPaths(text: string): string[] {
  const words = [...withoutFences(text).matchAll(/`([^`\n]+)`/g)].flatMap(([, code = '']) => code.split(/\s+/));
  return words.filter((word) => {
    const place = placeOf(word);
    return place !== null && !existsSync(join(root, place));
  });
}

const documents = ['README.md', 'CHANGELOG.md', ...markdownUnder('docs')];

describe('documents', () => {
  it.each(documents)('%s has no broken link', (path) => {
    const missing = relativeLinks(readText(path)).map((target) => missingTarget(path, target));
    expect(missing.filter((one) => one !== null)).toEqual([]);
  });

  it.each(documents)('%s names only files and folders that exist', (path) => {
    expect(missingPaths(readText(path))).toEqual([]);
  });

  it('are searched for links, headings and paths', () => {
    const text =
      '# A `b`: c\n## A b c\n```\n# no\n[no](no.md)\n```\n[x](y.md#z) `[no](no)` [w](https://w)\n[d]: e.md\n' +
      '`src/no.ts` `npx vitest run raft/no.ts` `raft/*.ts` `no/no.ts` `test/tidy.test.ts`\n';
    expect([...anchorsOf(text)]).toEqual(['a-b-c', 'a-b-c-1']);
    expect(relativeLinks(text)).toEqual(['y.md#z', 'e.md']);
    expect(missingPaths(text)).toEqual(['src/no.ts', 'raft/no.ts']);
    expect(missingTarget('docs/security.md', '../README.md#raftkv')).toBeNull();
    expect(missingTarget('docs/security.md', '../README.md#no')).not.toBeNull();
    expect(missingTarget('docs/security.md', 'README.md')).not.toBeNull();
  });
});

const records = readdirSync(join(root, ADR_FOLDER)).filter((name) => /^\d/.test(name));

describe('decision records', () => {
  const index = relativeLinks(readText(join(ADR_FOLDER, 'README.md')));

  it('are all in the index, in order', () => {
    expect(records.length).toBeGreaterThan(0);
    expect(index.filter((target) => /^\d/.test(target))).toEqual(records);
    // A number may be missing: a record gets its number when it is proposed, and some are accepted later than others.
    expect(new Set(records.map((name) => Number(name.slice(0, 4)))).size).toBe(records.length);
  });

  it.each(records)('%s has the form that the index describes', (name) => {
    const text = readText(join(ADR_FOLDER, name));
    const [, number = '', title = ''] = /^# (\d+)\. (.+)\n/.exec(text) ?? [];
    const slug = [...anchorsOf(`# ${title}`)][0];
    expect(name).toBe(`${number.padStart(4, '0')}-${slug}.md`);
    expect(text).toMatch(/^\n- Date: \d{4}-\d{2}-\d{2}\b/m);
    expect(text).toMatch(/^- Status: (accepted|superseded by \[\d+\]\(\d{4}-[\w-]+\.md\))$/m);
    const headings = [...text.matchAll(/^## (.+)$/gm)].map(([, heading]) => heading);
    expect(headings).toEqual(['Context', 'Decision', 'Alternatives rejected', 'Consequences']);
  });
});
