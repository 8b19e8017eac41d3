import { fuzzCores } from './core-fuzz.ts';

/** By hand with other seeds: `RAFT_FUZZ_FROM=50000 RAFT_FUZZ_SEEDS=9000 npx vitest run test/raft/core-fuzz.long.test.ts`. */
fuzzCores(Number(process.env['RAFT_FUZZ_FROM'] ?? 101), Number(process.env['RAFT_FUZZ_SEEDS'] ?? 2000));
