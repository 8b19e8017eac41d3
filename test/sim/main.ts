import { type ChildProcess, fork } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { failedRun, type RunResult, runSeed } from './run.ts';
import { Summary } from './summary.ts';

/**
 * npm run sim -- --seeds 1000 [--from N] [--minutes M] [--jobs J]     many seeds on all cores
 * npm run sim -- --seed S [--trace]                                   one seed again, with what happened in it
 *
 * With `--stop-early` it ends at the first failure; with `--json` the last line is for programs.
 */
const { values: options } = parseArgs({
  options: {
    seeds: { type: 'string', default: '1000' },
    from: { type: 'string', default: '1' },
    minutes: { type: 'string', default: '0' },
    jobs: { type: 'string', default: `${availableParallelism()}` },
    seed: { type: 'string' },
    trace: { type: 'boolean', default: false },
    'stop-early': { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
});

const PROGRESS_INTERVAL_MS = 5000;
const FAILURES_SHOWN_MAX = 10;
/** A seed takes a fraction of a second; one that takes this long runs in circles. */
const SEED_MS_MAX = 120_000;

if (options.seed === undefined) await runMany();
else setImmediate(() => runOne(Number(options.seed)));

function runOne(seed: number): void {
  const result = runSeed(seed, options.trace ? (line) => process.stdout.write(`${line}\n`) : null);
  const { violation, traceHash, simulatedMs } = result;
  const summary = new Summary();
  summary.add(result);
  console.log(summary.text());
  console.log(`seed ${seed}: ${Math.round(simulatedMs)} ms simulated, trace hash ${traceHash}`);
  console.log(violation === null ? 'every promise was kept' : `VIOLATION ${violation.message}`);
  process.exitCode = violation === null ? 0 : 1;
}

async function runMany(): Promise<void> {
  const first = Number(options.from);
  const end = first + Number(options.seeds);
  const startedMs = performance.now();
  const deadlineMs = Number(options.minutes) > 0 ? startedMs + Number(options.minutes) * 60_000 : Infinity;
  const summary = new Summary();
  let next = first;
  const nextSeed = (): number | null => {
    const stop = options['stop-early'] && summary.failures.length > 0;
    return next < end && performance.now() < deadlineMs && !stop ? next++ : null;
  };
  const progress = setInterval(() => say(summary.progress(performance.now() - startedMs)), PROGRESS_INTERVAL_MS);
  const report = (result: RunResult) => {
    summary.add(result);
    if (result.violation !== null && summary.failures.length <= FAILURES_SHOWN_MAX) showFailure(result);
  };
  await Promise.all(Array.from({ length: Number(options.jobs) }, () => runWorker(nextSeed, report)));
  clearInterval(progress);
  say(summary.progress(performance.now() - startedMs));
  say(`\n${summary.text()}`);
  if (summary.failures.length > 0) say(`failed seeds: ${summary.failures.map(({ seed }) => seed).join(' ')}`);
  const never = summary.neverHappened();
  if (never.length > 0) say(`planned often, but never happened: ${never.join(', ')}`);
  if (options.json) console.log(JSON.stringify(summary.failures.map(({ seed, violation }) => ({ seed, violation }))));
  process.exitCode = summary.failures.length + never.length === 0 ? 0 : 1;
}

/** Gives one worker after the other a seed at a time; resolves when there are no more seeds. */
async function runWorker(nextSeed: () => number | null, report: (result: RunResult) => void): Promise<void> {
  for (let seed = nextSeed(); seed !== null; ) seed = await runUntilItEnds(seed, nextSeed, report);
}

/** A worker that dies, or never comes back from a seed, fails that seed. Resolves to the seed to go on with. */
function runUntilItEnds(
  first: number,
  nextSeed: () => number | null,
  report: (result: RunResult) => void,
): Promise<number | null> {
  return new Promise((resolve, reject) => {
    const worker: ChildProcess = fork(new URL('./worker.ts', import.meta.url));
    let seed: number | null = first;
    let watchdog: NodeJS.Timeout | undefined;
    const give = () => {
      clearTimeout(watchdog);
      if (seed === null) {
        worker.disconnect();
        return;
      }
      watchdog = setTimeout(() => worker.kill('SIGKILL'), SEED_MS_MAX);
      worker.send(seed);
    };
    worker.on('message', (result) => {
      report(result as RunResult);
      seed = nextSeed();
      give();
    });
    worker.on('exit', (code, signal) => {
      clearTimeout(watchdog);
      if (signal === 'SIGTERM' || signal === 'SIGINT') {
        reject(new Error('stopped from outside'));
        return;
      }
      if (seed !== null) report(failedRun(seed, 'progress', `the run ended by ${signal ?? `exit code ${code}`}`));
      resolve(seed === null ? null : nextSeed());
    });
    give();
  });
}

function showFailure({ seed, violation }: RunResult): void {
  say(`seed ${seed} FAILED: ${violation?.message}\n  replay: npm run sim -- --seed ${seed} --trace`);
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}
