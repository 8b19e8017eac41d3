import { readFileSync } from 'node:fs';
import { getHeapStatistics } from 'node:v8';
import type { Config } from '../../config/schema.ts';

/** Whether this process may use what its configuration allows it to: better said at the start than found at the limit. */

const MIB = 1024 * 1024;
/** The map's own memory and the garbage collector's need for slack, over the bytes that storeBytesMax counts. */
const HEAP_BYTES_PER_STORE_BYTE = 1.5;
/** The rest of the program, its buffers and the log's tail. */
const HEAP_BYTES_BESIDE_STORE = 256 * MIB;
/** Files of the log, links to peers, the listening ports, and Node's own. */
const DESCRIPTORS_BESIDE_CLIENTS = 256;

export interface ProcessLimits {
  readonly heapBytesMax: number;
  /** Infinity where unknown or unlimited. */
  readonly openFilesMax: number;
}

/** The heap that a full store needs. */
export function heapMibNeeded(config: Config): number {
  return Math.ceil((config.limits.storeBytesMax * HEAP_BYTES_PER_STORE_BYTE + HEAP_BYTES_BESIDE_STORE) / MIB);
}

export function processLimits(): ProcessLimits {
  return { heapBytesMax: getHeapStatistics().heap_size_limit, openFilesMax: openFilesMax() };
}

export function resourceWarnings(config: Config, { heapBytesMax, openFilesMax }: ProcessLimits): string[] {
  const warnings: string[] = [];
  const heapMib = heapMibNeeded(config);
  if (heapMib * MIB > heapBytesMax) {
    warnings.push(
      `limits.storeBytesMax: a full store needs a heap of ${heapMib} MiB, but the heap limit of Node is ` +
        `${Math.floor(heapBytesMax / MIB)}: start with NODE_OPTIONS=--max-old-space-size=${heapMib}, or lower the limit`,
    );
  }
  const descriptors = config.limits.connectionsMax + DESCRIPTORS_BESIDE_CLIENTS;
  if (descriptors > openFilesMax) {
    warnings.push(
      `limits.connectionsMax: needs ${descriptors} open files, but the limit of this process is ${openFilesMax}: ` +
        'raise ulimit -n, or lower the limit',
    );
  }
  return warnings;
}

/** Node has raised the soft limit to the hard one when it started. */
function openFilesMax(): number {
  try {
    const soft = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
    return soft === undefined ? Number.POSITIVE_INFINITY : Number(soft);
  } catch {
    // Not Linux: nothing to compare with.
    return Number.POSITIVE_INFINITY;
  }
}
