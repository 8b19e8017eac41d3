import { existsSync } from 'node:fs';
import { resolve } from 'node:path';

/**
 * Conformance data that others wrote stands beside the repository, not in it (`../shared/conformance`). A clone without
 * it skips the tests that read it, and says so.
 */
const root = resolve(import.meta.dirname, '../../../shared/conformance');

/** The folder's path, or null, with a line that says what is skipped, where this machine has no such data. */
export function conformanceFolder(name: string): string | null {
  const path = resolve(root, name);
  if (existsSync(path)) return path;
  console.warn(`skipped: no conformance data at ../shared/conformance/${name}`);
  return null;
}
