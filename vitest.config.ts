import { defineConfig } from 'vitest/config';

/** Tests with real processes: one file at a time, since several clusters at once would only wait for each other. */
const REAL_PROCESSES = ['test/cluster/**/*.test.ts', 'test/clients/**/*.test.ts', 'test/docs/**/*.test.ts'];

const common = { pool: 'forks', testTimeout: 20_000, hookTimeout: 20_000 } as const;

export default defineConfig({
  test: {
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
