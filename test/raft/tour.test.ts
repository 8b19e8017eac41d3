import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { allMutants } from '../sim/mutants/patched.ts';

/** docs/raft-tour.md names files, functions, transcripts and deliberate faults. All of them must exist. */
const root = resolve(import.meta.dirname, '../..');
const tour = readFileSync(join(root, 'docs/raft-tour.md'), 'utf8').replace(/```[\s\S]*?```/g, '');
const named = [...new Set([...tour.matchAll(/`([^`\n]+)`/g)].map(([, text]) => text ?? ''))];
const source = (folder: string): string =>
  readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => readFileSync(join(root, folder, name), 'utf8'))
    .join('\n');

const transcripts = named.filter((text) => /^[\w-]+\.txt$/.test(text));
const paths = named.filter((text) => /^(src|test|docs)\//.test(text));
const faults = named.filter((text) => /^[a-z]+(-[a-z]+)+$/.test(text));
const members = named.filter((text) => /^[A-Z]\w*\.\w+$/.test(text));
const functions = named.filter((text) => /^[a-z]+[A-Z]\w*$/.test(text));

describe('the tour', () => {
  it('names enough to be checked', () => {
    for (const list of [transcripts, paths, faults, members, functions]) expect(list.length).toBeGreaterThan(5);
  });

  it.each(transcripts)('plays a transcript that exists: %s', (name) => {
    expect(existsSync(join(root, 'test/raft/transcripts', name))).toBe(true);
  });

  it.each(paths)('leads to a file that exists: %s', (path) => {
    expect(existsSync(join(root, path))).toBe(true);
  });

  it.each(faults)('names a deliberate fault that exists: %s', (name) => {
    expect(allMutants.map((mutant) => mutant.name)).toContain(name);
  });

  const raft = source('src/raft');
  it.each([...functions, ...members.map((text) => text.split('.')[1] ?? '')])('names what src/raft has: %s', (name) => {
    expect(raft).toMatch(new RegExp(`\\b${name}\\b`));
  });

  it('has the ten transcripts in order', () => {
    const numbered = readdirSync(join(root, 'test/raft/transcripts')).filter((name) => /^\d\d-/.test(name));
    expect(numbered.map((name) => Number(name.slice(0, 2)))).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    for (const name of numbered) expect(transcripts).toContain(name);
  });
});
