import { z } from 'zod';
import { nearest } from './problems.ts';
import { configSchema } from './schema.ts';

/**
 * The environment's names for the fields of the configuration. They derive from the schema: `limits.itemBytesMax` is
 * `RAFTKV_LIMITS_ITEM_BYTES_MAX`. The nodes have none: a list belongs into the file.
 */

const PREFIX = 'RAFTKV_';
/** Read by the command line, not by the configuration. */
const COMMAND_LINE_NAMES = ['RAFTKV_CONFIG', 'RAFTKV_ID'];

interface Variable {
  readonly name: string;
  readonly path: readonly string[];
  readonly numeric: boolean;
}

export interface EnvironmentSetting {
  readonly name: string;
  readonly path: readonly string[];
  /** A number where the field wants one and the text is one; else the text, for the schema to judge. */
  readonly value: string | number;
}

export const VARIABLES: readonly Variable[] = variablesOf(configSchema, []);

export function readEnvironment(environment: Readonly<Record<string, string | undefined>>): {
  readonly settings: readonly EnvironmentSetting[];
  readonly warnings: readonly string[];
} {
  const settings: EnvironmentSetting[] = [];
  const warnings: string[] = [];
  const byName = new Map(VARIABLES.map((variable) => [variable.name, variable]));
  for (const [name, value] of Object.entries(environment)) {
    if (!name.startsWith(PREFIX) || value === undefined || COMMAND_LINE_NAMES.includes(name)) continue;
    const variable = byName.get(name);
    if (variable === undefined) {
      warnings.push(`environment: ${name} is unknown and has no effect${suggestion(name)}`);
      continue;
    }
    const asNumber = variable.numeric && /^-?\d+(\.\d+)?$/.test(value);
    settings.push({ name, path: variable.path, value: asNumber ? Number(value) : value });
  }
  return { settings, warnings };
}

/** Compared without the prefix, which would make every name look near. */
function suggestion(name: string): string {
  const known = [...VARIABLES.map((variable) => variable.name), ...COMMAND_LINE_NAMES];
  const near = nearest(
    name.slice(PREFIX.length),
    known.map((knownName) => knownName.slice(PREFIX.length)),
  );
  return near === undefined ? '' : `; did you mean ${PREFIX}${near}?`;
}

function variablesOf(schema: z.ZodObject, path: readonly string[]): Variable[] {
  return Object.entries(schema.shape).flatMap(([key, field]) => {
    const inner = unwrapped(field);
    const fieldPath = [...path, key];
    if (inner instanceof z.ZodObject) return variablesOf(inner, fieldPath);
    if (inner instanceof z.ZodArray) return [];
    return [{ name: variableName(fieldPath), path: fieldPath, numeric: inner instanceof z.ZodNumber }];
  });
}

function unwrapped(field: unknown): unknown {
  const wrapped = field instanceof z.ZodDefault || field instanceof z.ZodPrefault || field instanceof z.ZodOptional;
  return wrapped ? field.unwrap() : field;
}

function variableName(path: readonly string[]): string {
  return PREFIX + path.map((key) => key.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()).join('_');
}
