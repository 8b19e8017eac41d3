import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { allMutants, patched, root } from './patched.ts';

/** `npm run sim:mutants` takes hours; this test shows within a second that a change of `src` needs a change of a mutant. */
describe('mutants', () => {
  it('have names of their own', () => {
    const names = allMutants.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
  });

  it.each(allMutants.map((mutant) => [mutant.name, mutant] as const))('%s changes the source', (_, mutant) => {
    for (const [file, text] of patched(mutant)) expect(text).not.toBe(readFileSync(join(root, 'src', file), 'utf8'));
  });
});
