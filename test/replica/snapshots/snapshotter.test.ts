import { expect, it } from 'vitest';
import { silentLogger } from '../../../src/base/logger.ts';
import { StateMachine } from '../../../src/kv/state-machine.ts';
import { configurationOf } from '../../../src/raft/state/configuration.ts';
import { ENTRY_HEADER_BYTES, sealEntry } from '../../../src/raft/state/entry.ts';
import type { NodeLoop, ReplicaInput } from '../../../src/replica/node-loop.ts';
import { SNAPSHOT_LIMITS, Snapshotter } from '../../../src/replica/snapshots/snapshotter.ts';
import type { Applier } from '../../../src/replica/writes/applier.ts';
import { openSnapshots } from '../../../src/storage/snapshots/files.ts';
import type { Wal } from '../../../src/storage/wal/types.ts';
import { MemoryDisk } from '../../support/memory-disk.ts';
import { coreOf } from '../cores.ts';
import { ManualClock, microtasks } from '../support.ts';

const LAST_INDEX = 10;

/** A log file that is behind the state has a short tail, so the first compaction leaves more than is wanted. */
it('compacts further once the log file has caught up, though no other snapshot is taken', async () => {
  const core = coreOf(1, { configuration: configurationOf([1]) });
  for (let index = 1; index <= LAST_INDEX; index++)
    core.log.append(sealEntry(Buffer.alloc(ENTRY_HEADER_BYTES), 'noop', 4, index));
  const compactions: number[] = [];
  const put = (input: ReplicaInput) => {
    if (input.kind === 'snapshotStored') core.snapshot = { index: input.index, term: input.term };
    if (input.kind === 'compact') compactions.push(input.index);
  };
  const loop = { core, put, run: (action: () => void) => action() } as unknown as NodeLoop;
  let tailBegin = 3;
  const disk = new MemoryDisk();
  const store = { disk, directory: '/s', clusterName: 'test', logger: silentLogger, onDamage: null };
  const clock = new ManualClock();
  const options = {
    clock: clock.forProcess(() => true),
    logger: silentLogger,
    observer: null,
    wal: { indexBehind: () => tailBegin } as unknown as Wal,
    snapshots: await openSnapshots(store),
    snapshotLimits: SNAPSHOT_LIMITS,
    recovered: { stateMachine: new StateMachine(), bytesBehindBase: 0 },
  };
  const applier = { appliedIndex: LAST_INDEX, bytesApplied: Number.POSITIVE_INFINITY } as unknown as Applier;
  const snapshotter = new Snapshotter(options, loop, applier);
  snapshotter.consider();
  while (snapshotter.isRunning) {
    await microtasks();
    clock.endTurns();
    clock.moveTo(clock.nowMs + 10);
  }
  expect(compactions.at(-1)).toBe(3);
  tailBegin = 8;
  snapshotter.tick();
  expect(compactions.at(-1)).toBe(8);
  tailBegin = LAST_INDEX + 5;
  snapshotter.tick();
  expect(compactions.at(-1)).toBe(LAST_INDEX);
});
