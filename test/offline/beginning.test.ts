import { expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { BatchBuilder, stampBatchTime } from '../../src/kv/batch.ts';
import { StateMachine } from '../../src/kv/state-machine.ts';
import { Op } from '../../src/kv/types.ts';
import { beginHistory } from '../../src/offline/beginning.ts';
import { ENTRY_HEADER_BYTES } from '../../src/raft/state/entry.ts';
import { readMeta } from '../../src/storage/meta.ts';
import { MemoryDisk } from '../support/memory-disk.ts';
import { commandOf } from '../support/write-command.ts';

const NODE_ID = 2;
const MIB = 1024 * 1024;

/** A state in which this node has proposed under that session id. */
function stateAfter(sessionId: number): StateMachine {
  const builder = new BatchBuilder(ENTRY_HEADER_BYTES);
  builder.add(commandOf(Op.set, 'a', '1'));
  const bytes = builder.seal(NODE_ID, sessionId, 1, MIB, MIB);
  stampBatchTime(bytes, ENTRY_HEADER_BYTES, 1);
  const state = new StateMachine();
  state.apply(bytes, ENTRY_HEADER_BYTES, null);
  return state;
}

it.each([
  ['the clock', 1_000, 7, 5, 1_000],
  ['the last start', 1_000, 5_000, 5, 5_001],
  ['the newest session in the state', 1_000, 7, 9_000, 9_001],
])(
  'no session id of the old history is used again: %s is the furthest',
  async (_, nowS, lastStart, sessionId, expected) => {
    const disk = new MemoryDisk();
    const address = { host: 'localhost', clientPort: 1, peerPort: 2, adminPort: 3 };
    const state = stateAfter(sessionId);
    const produce = async (write: (chunk: Buffer) => Promise<void>) => {
      const iterator = state.beginSnapshot();
      for (let chunk = iterator.next(MIB); chunk !== null; chunk = iterator.next(MIB)) await write(chunk);
    };
    const configuration = await beginHistory(
      { state, index: 10, term: 3, currentTerm: 3, incarnation: lastStart, produce },
      {
        disk,
        clock: { ...systemClock, wallMs: () => nowS * 1000 },
        random: Math.random,
        directory: '/node',
        clusterName: 'demo',
        nodeId: NODE_ID,
        members: [1, NODE_ID, 3].map((id) => ({ id, address })),
        walSegmentBytes: 32 * MIB,
      },
    );
    const { clusterId, voters, learners } = configuration;
    expect([voters, learners]).toEqual([[NODE_ID], [1, 3]]);
    expect(await readMeta(disk, '/node')).toMatchObject({ clusterId, incarnation: expected, onlyVoter: true });
  },
);
