import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';

/**
 * The architecture, enforced: which room stands on which floor, and what floor 0 may not touch. A file imports from
 * its own folder and from lower floors only (docs/architecture.md).
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
const NOT_SIMULATED = ['offline/backup.ts', 'offline/directory.ts', 'offline/read-only-disk.ts'];
/** The disk itself, and the lock, which is about processes and so cannot be simulated. */
const MAY_USE_FILES = ['storage/disk/file-disk.ts', 'storage/disk/lock.ts'];
const LINES_PER_FILE_MAX = 500;

const root = resolve(import.meta.dirname, '..');
const src = join(root, 'src');

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

describe('tidy', () => {
  for (const path of filesUnder(src).filter((name) => name.endsWith('.ts'))) {
    const name = relative(src, path);
    const room = name.split('/')[0] ?? '';
    const floor = FLOORS[room];
    const text = readFileSync(path, 'utf8');
    const code = withoutComments(text);

    it(`${name} stands on a known floor and imports only from its own folder and lower floors`, () => {
      expect(floor, `src/${room} is on no floor`).toBeDefined();
      for (const specifier of importsOf(code)) {
        if (!specifier.startsWith('.')) continue;
        const target = relative(src, resolve(dirname(path), specifier));
        const targetRoom = target.split('/')[0] ?? '';
        if (targetRoom === room) continue;
        expect(FLOORS[targetRoom], `${name} imports ${specifier}`).toBeLessThan(floor ?? Number.NEGATIVE_INFINITY);
      }
    });

    it(`${name} touches nothing that its floor forbids`, () => {
      if (floor === 0) {
        expect(code).not.toMatch(IMPURE);
        const foreign = importsOf(code).filter((s) => !s.startsWith('.') && !PURE_NODE_MODULES.includes(s));
        expect(foreign).toEqual([]);
      }
      const simulated = SIMULATED_ROOMS.includes(room) && !NOT_SIMULATED.includes(name);
      if (simulated) expect(code).not.toMatch(HIDDEN_TIME);
      if (simulated && !MAY_USE_FILES.includes(name)) {
        expect(importsOf(code).filter((s) => s.startsWith('node:fs'))).toEqual([]);
      }
    });

    it(`${name} is short enough to be one story`, () => {
      expect(text.split('\n').length).toBeLessThanOrEqual(LINES_PER_FILE_MAX);
    });
  }
});
