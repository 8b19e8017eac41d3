import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';
import type { TestModule, Vite } from 'vitest/node';

/** Tests that take minutes: `npm run test:long`. */
const LONG = ['test/**/*.long.test.ts'];

/** Tests that start nodes or other programs as processes. */
const PROCESSES = [
  'test/cluster/**/*.test.ts',
  'test/clients/**/*.test.ts',
  'test/docs/**/*.test.ts',
  'test/cli/main.test.ts',
  'test/cli/commands/node.test.ts',
  'test/cli/spawner/spawner.test.ts',
  'test/fuzz/differential.test.ts',
];

/**
 * Files of one project share their worker processes: starting a process and loading the source again for each of 130
 * files took a quarter of the CPU time of `npm test`. So a test file must not leave anything behind in its modules, and
 * what it replaced with a mock is put back before the next test.
 */
const common = {
  pool: 'forks',
  isolate: false,
  restoreMocks: true,
  testTimeout: 120_000,
  hookTimeout: 120_000,
} as const;

/** One core stays free, which is vitest's default; but of two cores both work, which saves a third of the time. */
const WORKERS = Math.max(2, availableParallelism() - 1);

/**
 * Skips the process tests if a unit test failed. This is one run of vitest and not two, so that reporters and filters
 * given to `npm test` apply to all tests and one report covers them. `bail` can't do it: it counts over all projects
 * and would also hide which other unit tests fail.
 */
function unitTestsFirst(): Vite.Plugin {
  return {
    name: 'unit-tests-first',
    configureVitest({ vitest }) {
      let unitFailed = false;
      vitest.config.reporters.push({
        onTestModuleEnd(module: TestModule) {
          if (module.project.name === 'unit' && !module.ok()) unitFailed = true;
        },
        onTestModuleQueued(module: TestModule) {
          if (module.project.name !== 'processes' || !unitFailed) return;
          unitFailed = false;
          vitest.logger.error('A unit test failed: the process tests are skipped.');
          void vitest.cancelCurrentRun('test-failure');
        },
      });
    },
  };
}

/** Projects run one after the other, in the order of `groupOrder`. */
export default defineConfig({
  test: {
    maxWorkers: WORKERS,
    projects: [
      {
        test: {
          ...common,
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: [...PROCESSES, ...LONG],
        },
      },
      {
        plugins: [unitTestsFirst()],
        test: {
          ...common,
          name: 'processes',
          include: PROCESSES,
          exclude: LONG,
          // Process tests wait a lot: for elections, for items to expire, for processes to end.
          maxWorkers: WORKERS + 1,
          // Above the sum of what a test waits for, so that a test that fails says what it has waited for.
          testTimeout: 300_000,
          hookTimeout: 180_000,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          ...common,
          name: 'long',
          include: LONG,
          isolate: true,
          testTimeout: 900_000,
          hookTimeout: 180_000,
          fileParallelism: false,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});
