import { setImmediate as nextTurn } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');

/** Collects all garbage, at once. */
export const collectGarbage: () => void = runInNewContext('gc');

const COLLECTIONS_MAX = 20;

/**
 * The bytes of all buffers in use, as soon as they are at most `bytesMax`. One collection may not suffice: from Node 22
 * on V8 frees buffers in the background and counts them until the next collection.
 */
export async function bufferBytesAtMost(bytesMax: number): Promise<number> {
  for (let collections = 1; ; collections++) {
    collectGarbage();
    const { arrayBuffers } = process.memoryUsage();
    if (arrayBuffers <= bytesMax || collections === COLLECTIONS_MAX) return arrayBuffers;
    await nextTurn();
  }
}
