import { z } from 'zod';
import { configSchema, nodeSchema } from './schema.ts';

/** One mistake in the configuration, and its path. */
export interface Problem {
  readonly path: readonly (string | number)[];
  readonly message: string;
}

/** The mistakes that the schema finds in `raw`, in plain words; empty if there are none. */
export function schemaProblems(raw: unknown): Problem[] {
  const result = configSchema.safeParse(raw);
  if (result.success) return [];
  return result.error.issues.flatMap((issue): Problem[] => {
    const path = issue.path.map((key) => (typeof key === 'number' ? key : String(key)));
    if (issue.code === 'unrecognized_keys') {
      const known = fieldsAt(path);
      return issue.keys.map((key) => ({ path: [...path, key], message: `is unknown${didYouMean(key, known)}` }));
    }
    const value = valueAt(raw, path);
    if (value === undefined) return [{ path, message: `is missing; it ${issue.message}` }];
    return [{ path, message: `${issue.message}, not ${show(value)}` }];
  });
}

/** `nodes[1].clientPort` */
export function showPath(path: readonly (string | number)[]): string {
  return path.map((key, i) => (typeof key === 'number' ? `[${key}]` : i === 0 ? key : `.${key}`)).join('');
}

function fieldsAt(path: readonly (string | number)[]): string[] {
  if (path.length === 0) return Object.keys(configSchema.shape);
  if (path[0] === 'nodes') return Object.keys(nodeSchema.shape);
  const { limits, tls } = configSchema.shape;
  const object = path[0] === 'tls' ? tls.unwrap() : limits.unwrap();
  return object instanceof z.ZodObject ? Object.keys(object.shape) : [];
}

function valueAt(raw: unknown, path: readonly (string | number)[]): unknown {
  let value = raw;
  for (const key of path) {
    if (typeof value !== 'object' || value === null) return undefined;
    value = Reflect.get(value, key);
  }
  return value;
}

/** A value as the user wrote it, truncated to a readable length. */
function show(value: unknown): string {
  const SHOWN_CHARACTERS_MAX = 60;
  const text = JSON.stringify(value) ?? String(value);
  return text.length <= SHOWN_CHARACTERS_MAX ? text : `${text.slice(0, SHOWN_CHARACTERS_MAX)}…`;
}

/** A name is taken for a typing error if at most this share of its letters differs. */
const DISTANCE_SHARE_MAX = 0.4;

/** The member of `known` nearest to `name` in typing errors (Levenshtein), or undefined where none is near. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Number.POSITIVE_INFINITY;
  for (const candidate of known) {
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase());
    const allowed = Math.max(name.length, candidate.length) * DISTANCE_SHARE_MAX;
    if (distance < bestDistance && distance <= allowed) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** "; did you mean x?", or nothing. */
function didYouMean(name: string, known: readonly string[]): string {
  const near = nearest(name, known);
  return near === undefined ? '' : `; did you mean ${near}?`;
}

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const substitution = (previous[column - 1] ?? 0) + (a[row - 1] === b[column - 1] ? 0 : 1);
      current.push(Math.min(substitution, (previous[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1));
    }
    previous = current;
  }
  return previous[b.length] ?? 0;
}
