import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';

/**
 * The architecture, enforced: which room stands on which floor, and what floor 0 may not touch. A file imports from
 * its own folder and from lower floors only (docs/architecture.md). Files do not import each other in a circle, and
 * neither do the rooms of one folder, so that both can be read from the bottom up.
 */
const FLOORS: Record<string, number> = {
  base: -1,
  raft: 0,
  kv: 0,
  memcached: 0,
  storage: 1,
  transport: 1,
  replica: 2,
  server: 3,
  config: 3,
  offline: 3,
  cli: 4,
};

/** Pure rooms may import nothing of Node's but these, which neither do I/O nor read a clock. */
const PURE_NODE_MODULES = ['node:buffer', 'node:zlib'];
const IMPURE = /\b(Date\.|new Date|performance\.|setTimeout|setInterval|setImmediate|Math\.random|process\.|console\.)/;
/** Above floor 0 time comes from `Clock`, so that the simulator can own it. The real clock and the entry points are exempt. */
const HIDDEN_TIME = /\b(Date\.now|performance\.now|setTimeout|setInterval|setImmediate|Math\.random)\b/;
const SIMULATED_ROOMS = ['storage', 'transport', 'replica', 'server', 'offline'];
/** What only commands run, on the files of a stopped node. */
const NOT_SIMULATED = ['offline/directory.ts'];
/** The disk itself, and the lock, which is about processes and so is not part of the simulator. */
const MAY_USE_FILES = ['storage/disk/file-disk.ts', 'storage/lock/system.ts'];

const LINES_PER_FILE_MAX = 400;
/** Longer than that. */
const LONG_FILES: string[] = [];

const FILES_PER_FOLDER_MAX = 16;
/** With more files than that. */
const LARGE_FOLDERS: string[] = [];

const root = resolve(import.meta.dirname, '..');
const src = join(root, 'src');

interface SourceFile {
  /** From `src`, as in `kv/store.ts`. */
  readonly name: string;
  readonly text: string;
  readonly code: string;
  /** As they stand in the file. */
  readonly imports: readonly string[];
  /** The files of `src` among the imports. */
  readonly uses: readonly string[];
}

function filesUnder(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    return statSync(path).isDirectory() ? filesUnder(path) : [path];
  });
}

function importsOf(text: string): string[] {
  const statements = /(?:^|\n)\s*(?:import|export)\s(?:[^;'"]*?\sfrom\s)?\s*'([^']+)'|\bimport\s*\(\s*'([^']+)'/g;
  return [...text.matchAll(statements)].map((match) => match[1] ?? match[2] ?? '');
}

const withoutComments = (text: string) => text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|\s)\/\/.*$/gm, '');

function readSource(path: string): SourceFile {
  const text = readFileSync(path, 'utf8');
  const code = withoutComments(text);
  const imports = importsOf(code);
  const uses = imports.filter((s) => s.startsWith('.')).map((s) => relative(src, resolve(dirname(path), s)));
  return { name: relative(src, path), text, code, imports, uses };
}

const files = filesUnder(src)
  .filter((path) => path.endsWith('.ts'))
  .map(readSource);

/** The top folder of a file, which has a floor. */
const topOf = (name: string) => name.split('/')[0] ?? '';

/** Who reaches whom and is reached by them, over any number of steps: sets of at least two. */
function circlesOf(uses: ReadonlyMap<string, Iterable<string>>): string[][] {
  const reach = new Map([...uses.keys()].map((from) => [from, reachedFrom(from, uses)]));
  const circles = [...reach].map(([from, reached]) => [...reached].filter((to) => reach.get(to)?.has(from)).sort());
  const distinct = new Map(circles.filter((circle) => circle.length > 1).map((circle) => [circle.join(), circle]));
  return [...distinct.values()];
}

function reachedFrom(from: string, uses: ReadonlyMap<string, Iterable<string>>): Set<string> {
  const reached = new Set<string>();
  const open = [from];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    for (const to of uses.get(next) ?? []) {
      if (reached.has(to)) continue;
      reached.add(to);
      open.push(to);
    }
  }
  return reached;
}

/** Which rooms of a top folder use which; the files beside the rooms count as one. */
function roomsOf(top: string): Map<string, Set<string>> {
  const rooms = new Map<string, Set<string>>();
  for (const { name, uses } of files.filter((file) => topOf(file.name) === top)) {
    const used = rooms.get(dirname(name)) ?? new Set();
    rooms.set(dirname(name), used);
    for (const target of uses)
      if (topOf(target) === top && dirname(target) !== dirname(name)) used.add(dirname(target));
  }
  return rooms;
}

describe('tidy', () => {
  for (const { name, text, code, imports, uses } of files) {
    const room = topOf(name);
    const floor = FLOORS[room];

    it(`${name} stands on a known floor and imports only from its own folder and lower floors`, () => {
      expect(floor, `src/${room} is on no floor`).toBeDefined();
      for (const target of uses) {
        if (topOf(target) === room) continue;
        expect(FLOORS[topOf(target)], `${name} imports ${target}`).toBeLessThan(floor ?? Number.NEGATIVE_INFINITY);
      }
    });

    it(`${name} touches nothing that its floor forbids`, () => {
      if (floor === 0) {
        expect(code).not.toMatch(IMPURE);
        const foreign = imports.filter((s) => !s.startsWith('.') && !PURE_NODE_MODULES.includes(s));
        expect(foreign).toEqual([]);
      }
      const simulated = SIMULATED_ROOMS.includes(room) && !NOT_SIMULATED.includes(name);
      if (simulated) expect(code).not.toMatch(HIDDEN_TIME);
      if (simulated && !MAY_USE_FILES.includes(name)) {
        expect(imports.filter((s) => s.startsWith('node:fs'))).toEqual([]);
      }
    });

    it(`${name} is short enough to be one story`, () => {
      const lines = text.split('\n').length - 1;
      if (LONG_FILES.includes(name)) {
        expect(lines, `${name} is short: take it off the list`).toBeGreaterThan(LINES_PER_FILE_MAX);
      } else {
        expect(lines).toBeLessThanOrEqual(LINES_PER_FILE_MAX);
      }
    });
  }

  it('has no file that is used by a file that it uses', () => {
    expect(
      circlesOf(
        new Map([
          ['a', ['b']],
          ['b', ['c']],
          ['c', ['b']],
        ]),
      ),
    ).toEqual([['b', 'c']]);
    const circles = circlesOf(new Map(files.map(({ name, uses }) => [name, uses])));
    expect(circles.flat().sort()).toEqual([]);
  });

  it('lists no exception for a file that is gone', () => {
    const names = files.map(({ name }) => name);
    for (const listed of [...LONG_FILES, ...NOT_SIMULATED, ...MAY_USE_FILES]) expect(names).toContain(listed);
  });

  it('has no room that is used by a room of the same folder that it uses', () => {
    for (const top of Object.keys(FLOORS)) expect(circlesOf(roomsOf(top)), top).toEqual([]);
  });

  it('has no folder with too many files', () => {
    const counts = new Map<string, number>();
    for (const { name } of files) counts.set(dirname(name), (counts.get(dirname(name)) ?? 0) + 1);
    const large = [...counts.keys()].filter((folder) => (counts.get(folder) ?? 0) > FILES_PER_FOLDER_MAX);
    expect(large).toEqual(LARGE_FOLDERS);
  });

  // Test files share their workers, which load a module once: such a hook would run for the first file only.
  it('has no module for tests that registers hooks when it is loaded', () => {
    const modules = filesUnder(join(root, 'test')).filter((path) => path.endsWith('.ts') && !path.endsWith('.test.ts'));
    const texts = modules.map((path) => [relative(root, path), readFileSync(path, 'utf8')] as const);
    expect(texts.filter(([, text]) => /^(before|after)(Each|All)\(/m.test(text)).map(([path]) => path)).toEqual([]);
  });
});
