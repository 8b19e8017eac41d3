import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { memberMutants } from './member-mutants.ts';
import type { Mutant } from './mutant.ts';
import { nodeMutants } from './node-mutants.ts';
import { raftMutants } from './raft-mutants.ts';
import { snapshotMutants } from './snapshot-mutants.ts';
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
  for (const { file, find, replace } of mutant.also === undefined ? [mutant] : [mutant, mutant.also]) {
    const pieces = (files.get(file) ?? readFileSync(join(root, 'src', file), 'utf8')).split(find);
    const found = pieces.length - 1;
    if (found !== 1) throw new Error(`mutant ${mutant.name}: its text occurs ${found} times in src/${file}`);
    files.set(file, pieces.join(replace));
  }
  return files;
}
