import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { allMutants } from '../sim/mutants/patched.ts';

/**
 * docs/raft-tour.md names files, functions in files, transcripts and deliberate faults. All of them must exist. What it
 * names by a path from the root of the repository is checked by test/documents.test.ts.
 */
const root = resolve(import.meta.dirname, '../..');
const TRANSCRIPTS = 'test/raft/transcripts';
const RAFT = 'src/raft';
const text = readFileSync(join(root, 'docs/raft-tour.md'), 'utf8').replace(/```[\s\S]*?```/g, '');
const codes = [...new Set([...text.matchAll(/`([^`\n]+)`/g)].map(([, code = '']) => code))];

const matching = (pattern: RegExp): string[] => codes.filter((code) => pattern.test(code));

const transcripts = matching(/^[\w-]+\.txt$/);
const faults = matching(/^[a-z]+(-[a-z]+)+$/);
const files = matching(/^[\w-]+(\/[\w-]+)*\.ts$/).filter((code) => !/^(src|test)\//.test(code));
/** `election.ts: handleVote, tally` and `state/core.ts: Core.term`: pairs of a file and one name in it. */
const inFiles = matching(/^[\w/-]+\.ts: \w/).flatMap((code) => {
  const [file = '', names = ''] = code.split(': ');
  return names.split(', ').map((name) => [file, name] as const);
});
/** Names without a file: `mayVoteFor`, `Core.vote`. */
const alone = matching(/^([A-Z]\w*\.)?[a-z]+[A-Z]\w*$|^[A-Z]\w*\.\w+$/);

const read = (path: string): string => readFileSync(join(root, path), 'utf8');
const everything = readdirSync(join(root, RAFT), { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .map((name) => read(join(RAFT, name)))
  .join('\n');

/** Whether the source declares the name: as a function, type or constant, or as a member of a class or interface. */
function declares(source: string, name: string): boolean {
  const [first = '', member] = name.split('.');
  const declared = (word: string) => new RegExp(`^(export )?(function|const|class|interface|type) ${word}\\b`, 'm');
  // A field with its type or value, or a method: a call of the same name ends with a semicolon.
  const hasMember = (word: string) => new RegExp(`^ {2}(readonly |get )*${word}(\\??: | = |\\(([^;]* {)?$)`, 'm');
  if (member === undefined) return declared(first).test(source) || hasMember(first).test(source);
  const start = source.search(declared(first));
  if (start < 0) return false;
  const body = source.slice(start);
  return hasMember(member).test(body.slice(0, body.search(/^}/m)));
}

describe('the tour', () => {
  it('names enough to be checked', () => {
    for (const list of [transcripts, faults, files, alone]) expect(list.length).toBeGreaterThan(9);
    expect(inFiles.length).toBeGreaterThan(40);
  });

  it.each(transcripts)('plays a transcript that exists: %s', (name) => {
    expect(existsSync(join(root, TRANSCRIPTS, name))).toBe(true);
  });

  it.each(faults)('names a deliberate fault that exists: %s', (name) => {
    expect(allMutants.map((mutant) => mutant.name)).toContain(name);
  });

  it.each(files)('leads to a file of src/raft that exists: %s', (path) => {
    expect(existsSync(join(root, RAFT, path))).toBe(true);
  });

  it.each(inFiles)('finds in %s: %s', (file, name) => {
    expect(declares(read(join(RAFT, file)), name)).toBe(true);
  });

  it.each(alone)('names what src/raft declares: %s', (name) => {
    expect(declares(everything, name)).toBe(true);
  });

  it('breaks no line within backticks, where a name would not be found', () => {
    expect(text.split('\n').filter((line) => line.split('`').length % 2 === 0)).toEqual([]);
  });

  it('says of each fault how many seeds found it', () => {
    const without = faults.filter((name) => !new RegExp(`\`${name}\`(,\\s+|\\s+\\()\\d+`).test(text));
    expect(without).toEqual([]);
  });

  it('has the ten transcripts in order', () => {
    const numbered = readdirSync(join(root, TRANSCRIPTS)).filter((name) => /^\d\d-/.test(name));
    expect(numbered.map((name) => Number(name.slice(0, 2)))).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    for (const name of numbered) expect(transcripts).toContain(name);
  });

  it('knows a declaration from a mention', () => {
    const source = 'class A {\n  readonly b = 0;\n  c(): void {\n    d();\n  }\n}\nfunction e(): void {\n  f();\n}\n';
    expect(['A', 'A.b', 'A.c', 'e'].filter((name) => declares(source, name))).toEqual(['A', 'A.b', 'A.c', 'e']);
    expect(['d', 'f', 'A.e', 'B.b'].filter((name) => declares(source, name))).toEqual([]);
  });
});
