import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { memberMutants } from './member-mutants.ts';
import type { Change, Mutant } from './mutant.ts';
import { nodeMutants } from './node-mutants.ts';
import { raftMutants } from './raft-mutants.ts';
import { snapshotMutants } from './snapshot-mutants.ts';
import { bodyOf, declarationOf, occurrencesOf, type Range } from './source.ts';
import { storageMutants } from './storage-mutants.ts';

export const allMutants: readonly Mutant[] = [
  ...raftMutants,
  ...memberMutants,
  ...nodeMutants,
  ...snapshotMutants,
  ...storageMutants,
];

/** The repository. */
export const root = fileURLToPath(new URL('../../../', import.meta.url));

/** Returns the files below `src/` that the mutant changes, with their new text. Throws if a change does not match exactly once. */
export function patched(mutant: Mutant): ReadonlyMap<string, string> {
  const files = new Map<string, string>();
  for (const change of mutant.also === undefined ? [mutant] : [mutant, mutant.also]) {
    const { file } = change;
    const text = files.get(file) ?? readFileSync(join(root, 'src', file), 'utf8');
    try {
      const { from, to } = placeOf(change, text);
      const replacement = 'body' in change ? `\n${change.body}\n` : change.replace;
      files.set(file, text.slice(0, from) + replacement + text.slice(to));
    } catch (error) {
      throw new Error(
        `mutant ${mutant.name} does not fit src/${file}: ${error instanceof Error ? error.message : error}`,
      );
    }
  }
  return files;
}

function placeOf(change: Change, text: string): Range {
  const { within } = change;
  const range = within === undefined ? { from: 0, to: text.length } : declarationOf(within, text);
  if ('body' in change) return bodyOf(range, text);
  const [place, ...others] = occurrencesOf(change.find, text, range);
  if (place !== undefined && others.length === 0) return place;
  throw new Error(`${place === undefined ? 0 : 1 + others.length} of: ${change.find}`);
}
