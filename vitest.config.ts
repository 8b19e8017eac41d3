import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

/** Tests with real processes: one file at a time, since several clusters at once would only wait for each other. */
const REAL_PROCESSES = ['test/cluster/**/*.test.ts', 'test/clients/**/*.test.ts', 'test/docs/**/*.test.ts'];

const common = { pool: 'forks', testTimeout: 20_000, hookTimeout: 20_000 } as const;

/** One core stays free, as vitest would have it; but of two cores both work, which takes a third of the time away. */
const WORKERS = Math.max(2, availableParallelism() - 1);

export default defineConfig({
  test: {
    maxWorkers: WORKERS,
    projects: [
      { test: { ...common, name: 'unit', include: ['test/**/*.test.ts'], exclude: REAL_PROCESSES } },
      {
        test: {
          ...common,
          name: 'processes',
          include: REAL_PROCESSES,
          fileParallelism: false,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
