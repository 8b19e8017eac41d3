import { readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import { RaftkvError } from '../base/errors.ts';
import { crossProblems, crossWarnings } from './cross-checks.ts';
import { parseJson } from './json.ts';
import { nearest, type Problem, schemaProblems, showPath } from './problems.ts';
import { type Config, configSchema, type NodeConfig } from './schema.ts';

/**
 * The configuration of a cluster, from four places, the later over the earlier:
 *
 *   defaults → cluster.json → RAFTKV_* → flags ⇒ one Config: validated, absolute, frozen
 *
 * Promises: either every field is right and the same object serves the whole life of the process, or one error lists
 * everything that is wrong, each with the place where it was written.
 */

export interface Flags {
  /** Relative to the working directory. */
  readonly dataDir?: string | undefined;
  readonly logLevel?: string | undefined;
}

export interface LoadOptions {
  /** Relative to the working directory. */
  readonly file: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly flags?: Flags;
}

export interface LoadedConfig {
  readonly config: Config;
  /** The file's absolute path. */
  readonly file: string;
  /** Warnings for the caller to show: settings that are allowed but most likely a mistake. */
  readonly warnings: readonly string[];
}

/** Throws CONFIG_NOT_FOUND, CONFIG_INVALID. */
export function loadConfig({ file, environment, flags = {} }: LoadOptions): LoadedConfig {
  const path = resolve(file);
  const raw = parseJson(readConfigFile(path, file), file);
  const fromEnvironment = readEnvironment(environment);
  /** The source of a field that was not set by the file. */
  const origins = new Map<string, string>();

  const override = (fieldPath: readonly string[], value: string | number, origin: string) => {
    if (!setAt(raw, fieldPath, value)) return;
    origins.set(showPath(fieldPath), origin);
  };
  for (const { name, path: fieldPath, value } of fromEnvironment.settings) override(fieldPath, value, name);
  if (flags.dataDir !== undefined) override(['dataDir'], flags.dataDir, '--data-dir');
  if (flags.logLevel !== undefined) override(['logLevel'], flags.logLevel, '--log-level');

  const problems = [...schemaProblems(raw), ...crossProblems(raw)];
  if (problems.length > 0) throw invalid(file, problems, origins);
  // A path in the file is relative to the file, one from elsewhere to the working directory.
  const located = (field: string, value: string) => resolve(origins.has(field) ? process.cwd() : dirname(path), value);
  const config = deepFreeze(withPaths(configSchema.parse(raw), located));
  return { config, file: path, warnings: [...fromEnvironment.warnings, ...crossWarnings(config)] };
}

const TLS_PATHS = ['ca', 'cert', 'key', 'clientCert', 'clientKey'];

type Parsed = ReturnType<typeof configSchema.parse>;

/** With every path absolute. */
function withPaths(parsed: Parsed, located: (field: string, value: string) => string): Parsed {
  const { authFile, tls } = parsed;
  const files = Object.entries(tls ?? {}).filter(([name]) => TLS_PATHS.includes(name));
  const tlsPaths = Object.fromEntries(files.map(([name, value]) => [name, located(`tls.${name}`, String(value))]));
  return {
    ...parsed,
    dataDir: located('dataDir', parsed.dataDir),
    ...(authFile !== undefined && { authFile: located('authFile', authFile) }),
    ...(tls !== undefined && { tls: { ...tls, ...tlsPaths } }),
  };
}

export function findNode(config: Pick<Config, 'nodes'>, id: number): NodeConfig | undefined {
  return config.nodes.find((node) => node.id === id);
}

function readConfigFile(path: string, shown: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
    if (code === 'ENOENT' || code === 'ENOTDIR') {
      throw new RaftkvError(
        'CONFIG_NOT_FOUND',
        `${shown} does not exist (${path})`,
        'Pass the file with --config or RAFTKV_CONFIG, or run in the folder that contains cluster.json.',
        cause,
      );
    }
    const why = code === 'EISDIR' ? 'it is a folder' : cause instanceof Error ? cause.message : String(cause);
    throw new RaftkvError('CONFIG_INVALID', `${shown} cannot be read: ${why}`, 'Pass a readable file.', cause);
  }
}

function invalid(file: string, problems: readonly Problem[], origins: ReadonlyMap<string, string>): RaftkvError {
  const lines = problems.map(({ path, message }) => {
    const field = showPath(path);
    const origin = origins.get(field);
    if (origin !== undefined) return `  ${origin} (${field}): ${message}`;
    return field === '' ? `  ${message}` : `  ${field}: ${message}`;
  });
  const count = problems.length === 1 ? 'a problem' : `${problems.length} problems`;
  return new RaftkvError(
    'CONFIG_INVALID',
    `${file}: the configuration has ${count}\n${lines.join('\n')}`,
    'Correct these settings and start again.',
  );
}

/** False where the way to the field is blocked by something that is no object, which the schema then reports. */
function setAt(raw: unknown, path: readonly string[], value: unknown): boolean {
  if (!isRecord(raw)) return false;
  const [key, ...rest] = path;
  if (key === undefined) return false;
  if (rest.length === 0) {
    raw[key] = value;
    return true;
  }
  if (raw[key] === undefined) raw[key] = {};
  return setAt(raw[key], rest, value);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function deepFreeze<T extends object>(value: T): T {
  for (const inner of Object.values(value)) if (typeof inner === 'object' && inner !== null) deepFreeze(inner);
  return Object.freeze(value);
}

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

/** The node as a member of the cluster. */
export function memberOf({ id, host, clientPort, peerPort, adminPort }: NodeConfig) {
  return { id, address: { host, clientPort, peerPort, adminPort } };
}

/** The data directory of a node. */
export function nodeDirectory({ dataDir }: Pick<Config, 'dataDir'>, nodeId: number): string {
  return join(dataDir, `node-${nodeId}`);
}
