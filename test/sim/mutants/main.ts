import { spawn } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { Mutant } from './mutant.ts';
import { allMutants, patched, root } from './patched.ts';

/**
 * npm run sim:mutants [-- --only name,name] [--seeds 5000] [--from N] [--jobs J]
 *
 * Puts each deliberate fault into a copy of the source and lets the simulator find it. A fault that it does not find
 * means that the simulator lacks a fault of its own, or a check. Nothing of this is in the shipped code.
 */
const { values: options } = parseArgs({
  options: {
    only: { type: 'string', default: '' },
    seeds: { type: 'string', default: '5000' },
    from: { type: 'string', default: '1' },
    jobs: { type: 'string', default: `${availableParallelism()}` },
  },
});

interface Finding {
  readonly mutant: Mutant;
  /** How many seeds it took; null where none of them showed it. */
  readonly seeds: number | null;
  readonly check: string;
}

const only = options.only === '' ? null : options.only.split(',');
const mutants = allMutants.filter(({ name }) => only?.includes(name) ?? true);

// Before anything runs: a mutant that no longer fits the source must be mended, not skipped.
for (const mutant of mutants) patched(mutant);
const waiting = [...mutants];
const findings: Finding[] = [];
await Promise.all(Array.from({ length: Number(options.jobs) }, work));
report();

async function work(): Promise<void> {
  for (let mutant = waiting.shift(); mutant !== undefined; mutant = waiting.shift()) {
    const finding = await hunt(mutant);
    findings.push(finding);
    process.stderr.write(`${line(finding)}\n`);
  }
}

async function hunt(mutant: Mutant): Promise<Finding> {
  const folder = mkdtempSync(join(tmpdir(), 'raftkv-mutant-'));
  try {
    for (const part of ['src', 'test/sim', 'test/support', 'package.json', 'tsconfig.json']) {
      cpSync(join(root, part), join(folder, part), { recursive: true });
    }
    symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
    for (const [file, source] of patched(mutant)) writeFileSync(join(folder, 'src', file), source);
    await checkTypes(mutant, folder);
    const found = await firstViolation(folder);
    if (found === null) return { mutant, seeds: null, check: '' };
    return { mutant, seeds: found.seed - Number(options.from) + 1, check: found.violation.check };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Throws if the mutant names what the source no longer has: the simulator would only find that it crashes. */
async function checkTypes({ name }: Mutant, folder: string): Promise<void> {
  // A fault may well leave code behind that nothing reaches or uses.
  const allowed = ['--allowUnreachableCode', 'true', '--noUnusedLocals', 'false', '--noUnusedParameters', 'false'];
  const args = [join(root, 'node_modules/typescript/bin/tsc'), '--noEmit', '-p', 'tsconfig.json', ...allowed];
  const child = spawn(process.execPath, args, { cwd: folder, stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  for await (const bytes of child.stdout) output += bytes;
  if (output !== '') throw new Error(`mutant ${name} is not valid TypeScript:\n${output}`);
}

interface Failure {
  readonly seed: number;
  readonly violation: { readonly check: string };
}

function firstViolation(folder: string): Promise<Failure | null> {
  const range = ['--seeds', options.seeds, '--from', options.from];
  const args = ['--import', 'tsx', 'test/sim/main.ts', ...range, '--jobs', '1', '--stop-early', '--json'];
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    let errors = '';
    child.stdout.on('data', (bytes: Buffer) => {
      output += bytes.toString();
    });
    child.stderr.on('data', (bytes: Buffer) => {
      errors += bytes.toString();
    });
    child.on('error', reject);
    child.on('close', () => {
      const last = output.trim().split('\n').at(-1) ?? '';
      if (!last.startsWith('[')) reject(new Error(`the simulator said nothing to the point:\n${errors}`));
      else resolve((JSON.parse(last) as Failure[])[0] ?? null);
    });
  });
}

function line({ mutant, seeds, check }: Finding): string {
  const result = seeds === null ? 'SURVIVES' : `${String(seeds).padStart(5)} seeds  ${check}`;
  return `${mutant.name.padEnd(32)} ${result}`;
}

function report(): void {
  const caught = findings.flatMap(({ seeds }) => (seeds === null ? [] : [seeds])).sort((a, b) => a - b);
  const inOrder = mutants.map((mutant) => findings.find((finding) => finding.mutant === mutant));
  console.log(inOrder.map((finding) => (finding === undefined ? '' : line(finding))).join('\n'));
  const median = caught[Math.floor((caught.length - 1) / 2)];
  console.log(`caught ${caught.length} of ${mutants.length}, median ${median} seeds, most ${caught.at(-1)} seeds`);
  process.exitCode = caught.length === mutants.length ? 0 : 1;
}
