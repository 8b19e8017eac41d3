/**
 * Runs the tests again and again on a machine that is kept busy, to find the ones that depend on its speed:
 *
 *   npm run test:busy -- --loops 2 --runs 10 [vitest filters and options]
 *
 * Builds once, then starts the busy loops, each a process at normal priority, and runs what `npm test` runs. Prints the
 * seconds and the failed tests of each run, and ends with exit code 1 unless every run passed. The busy loops end with
 * this process, however it ends.
 */
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative, resolve } from 'node:path';
import type { JsonTestResults } from 'vitest/node';

const ROOT = resolve(import.meta.dirname, '..');
const VITEST = join(ROOT, 'node_modules/vitest/vitest.mjs');
const PROJECTS = ['--project', 'unit', '--project', 'processes'];
/** Ends once its parent is another process, which is how a killed parent shows. */
const BUSY_LOOP = `
  const parent = process.ppid;
  for (;;) {
    const end = Date.now() + 500;
    while (Date.now() < end);
    if (process.ppid !== parent) process.exit();
  }`;

/** What this script does not know is meant for vitest, in its order. */
const passedOn = process.argv.slice(2);
const loops = takeOption('--loops', 2);
const runs = takeOption('--runs', 10);

const folder = mkdtempSync(join(tmpdir(), 'raftkv-busy-test-'));
const children = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(130));

function takeOption(name: string, otherwise: number): number {
  const at = passedOn.indexOf(name);
  if (at === -1) return otherwise;
  const [, text = ''] = passedOn.splice(at, 2);
  if (/^\d+$/.test(text)) return Number(text);
  console.error(`${name} is followed by a whole number`);
  process.exit(2);
}

function start(args: readonly string[], stdio: StdioOptions): ChildProcess {
  const child = spawn(process.execPath, args, { cwd: ROOT, stdio });
  children.add(child);
  child.once('exit', () => children.delete(child));
  return child;
}

function run(args: readonly string[]): Promise<{ code: number | null; output: string }> {
  const child = start(args, ['ignore', 'pipe', 'pipe']);
  const output: Buffer[] = [];
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (bytes: Buffer) => output.push(bytes));
  return new Promise((done) => {
    child.once('close', (code) => done({ code, output: Buffer.concat(output).toString() }));
  });
}

/** The names of the tests that failed, and of the files that failed without one. */
function failures(report: string): string[] {
  const names: string[] = [];
  const { testResults }: JsonTestResults = JSON.parse(readFileSync(report, 'utf8'));
  for (const { name, status, message, assertionResults } of testResults) {
    const failed = assertionResults.filter((test) => test.status === 'failed');
    for (const { fullName } of failed) names.push(`${relative(ROOT, name)}: ${fullName}`);
    if (status === 'failed' && failed.length === 0) names.push(`${relative(ROOT, name)}: ${message}`);
  }
  return names;
}

async function testOnce(number: number): Promise<boolean> {
  const report = join(folder, 'report.json');
  rmSync(report, { force: true });
  const startMs = performance.now();
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
  const { code, output } = await run([VITEST, 'run', ...PROJECTS, ...reporters, ...passedOn]);
  const seconds = Math.round((performance.now() - startMs) / 1000);
  const passed = code === 0;
  console.log(`run ${number} of ${runs}: ${passed ? 'passed' : 'FAILED'} in ${seconds} s`);
  if (passed) return true;
  const log = join(tmpdir(), `raftkv-busy-test-${process.pid}-${number}.log`);
  writeFileSync(log, output);
  try {
    for (const name of failures(report)) console.log(`  ${name}`);
  } catch {
    console.log('  no report was written');
  }
  console.log(`  output: ${log}`);
  return false;
}

const built = await run([join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.build.json']);
if (built.code !== 0) {
  console.error(built.output);
  process.exit(1);
}
for (let i = 0; i < loops; i++) start(['-e', BUSY_LOOP], 'ignore');
console.log(`${loops} busy loops; tests: ${passedOn.join(' ') || 'all'}`);
let green = 0;
for (let number = 1; number <= runs; number++) if (await testOnce(number)) green++;
console.log(`${green} of ${runs} green`);
process.exit(green === runs ? 0 : 1);
