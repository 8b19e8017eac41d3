import { type RunResult, runSeed } from './run.ts';

/** A process that runs the seeds it is sent, one after the other. */

const send = (result: RunResult) => process.send?.(result);

process.on('message', (seed: number) => {
  // Not from inside a promise: the world drains microtasks itself.
  setImmediate(() => send(runSeed(seed)));
});
process.on('disconnect', () => process.exit(0));
