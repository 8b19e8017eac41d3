import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { committedIndex, jointCommittedIndex, jointVoteResult, voteResult } from '../../src/raft/state/quorum.ts';
import { parseTable, type TableCase } from '../support/datadriven.ts';
import { conformanceFolder } from '../support/shared-conformance.ts';

/**
 * etcd's quorum tables, run verbatim. Values in `idx` and `votes` belong to the ids of `cfg`, then `cfgj`, each id once;
 * `_` is a voter that has not reported. What must not change a result (the halves exchanged, an empty half, the same
 * half twice, a lower index where it is already below the result) is tried too, and shows in the text where it does.
 */
const folder = conformanceFolder('etcd-raft/quorum');

describe.skipIf(folder === null)('etcd quorum tables', () => {
  for (const file of folder === null ? [] : readdirSync(folder).filter((name) => name.endsWith('.txt'))) {
    const cases = parseTable(readFileSync(join(folder ?? '', file), 'utf8'));
    it(`${file} has cases`, () => expect(cases.length).toBeGreaterThan(5));
    for (const tableCase of cases) {
      it(`${file}:${tableCase.line}`, () => expect(run(tableCase)).toBe(tableCase.expected));
    }
  }
});

function run(tableCase: TableCase): string {
  const ids = idsOf(tableCase.args.get('cfg'));
  const outgoing = tableCase.args.get('cfgj');
  const joint = outgoing !== undefined;
  const idsOutgoing = outgoing?.[0] === 'zero' ? [] : idsOf(outgoing);
  const union = [...new Set([...ids, ...idsOutgoing])];
  const values = tableCase.args.get(tableCase.command === 'vote' ? 'votes' : 'idx') ?? [];
  if (values.length !== union.length) throw new Error(`${values.length} values for ${union.length} voters`);
  const reported = new Map(union.map((id, i) => [id, values[i] ?? '_'] as const).filter(([, value]) => value !== '_'));
  switch (tableCase.command) {
    case 'vote':
      return runVote(ids, idsOutgoing, joint, reported);
    case 'committed':
      return runCommitted(ids, idsOutgoing, joint, new Map([...reported].map(([id, value]) => [id, Number(value)])));
    default:
      throw new Error(`unknown command ${tableCase.command}`);
  }
}

const idsOf = (values: readonly string[] = []): number[] => values.map(Number);

function runVote(ids: number[], idsOutgoing: number[], joint: boolean, reported: Map<number, string>): string {
  const votes = new Map([...reported].map(([id, value]) => [id, value === 'y']));
  const result = joint ? jointVoteResult(ids, idsOutgoing, votes) : voteResult(ids, votes);
  expect(jointVoteResult(idsOutgoing, ids, votes), 'by symmetry').toBe(result);
  return { won: 'VoteWon', lost: 'VoteLost', pending: 'VotePending' }[result];
}

function runCommitted(ids: number[], idsOutgoing: number[], joint: boolean, acked: Map<number, number>): string {
  const indexOf = (id: number) => acked.get(id) ?? 0;
  const result = joint ? jointCommittedIndex(ids, idsOutgoing, indexOf) : committedIndex(ids, indexOf);
  expect(jointCommittedIndex(idsOutgoing, ids, indexOf), 'by symmetry').toBe(result);
  if (!joint) {
    expect(jointCommittedIndex(ids, ids, indexOf), 'joint with itself').toBe(result);
    for (const id of ids.filter((candidate) => indexOf(candidate) > 0 && indexOf(candidate) < result)) {
      for (const lower of [0, indexOf(id) - 1]) {
        const lowered = committedIndex(ids, (other) => (other === id ? lower : indexOf(other)));
        expect(lowered, `${id} lowered to ${lower}`).toBe(result);
      }
    }
  }
  return `${chart([...new Set([...ids, ...idsOutgoing])], acked)}${result === Number.POSITIVE_INFINITY ? '∞' : result}`;
}

/** One line per voter: a bar as long as the number of voters strictly behind it, its index, its id. */
function chart(ids: number[], acked: ReadonlyMap<number, number>): string {
  if (ids.length === 0) return '<empty majority quorum>';
  const indexes = ids.map((id) => acked.get(id) ?? 0);
  const rows = [...ids]
    .sort((a, b) => a - b)
    .map((id) => {
      const index = acked.get(id);
      const bar = index === undefined ? '?' : `${'x'.repeat(indexes.filter((other) => other < index).length)}>`;
      return `${bar.padEnd(ids.length + 1)} ${String(index ?? 0).padStart(5)}    (id=${id})\n`;
    });
  return `${' '.repeat(ids.length)}    idx\n${rows.join('')}`;
}
