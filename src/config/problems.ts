import { z } from 'zod';
import { didYouMean } from './nearest.ts';
import { configSchema, nodeSchema } from './schema.ts';

/** One thing that is wrong with the configuration, and where. */
export interface Problem {
  readonly path: readonly (string | number)[];
  readonly message: string;
}

/** What the schema finds wrong with `raw`, in plain words; empty where it is right. */
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
