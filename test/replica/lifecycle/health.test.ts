import { describe, expect, it } from 'vitest';
import { configurationOf } from '../../../src/raft/state/configuration.ts';
import { healthProblemOf, lostQuorum } from '../../../src/replica/lifecycle/health.ts';
import { coreOf } from '../cores.ts';

const none = new Set<number>();

describe('what keeps a cluster from serving', () => {
  it('is nothing while somebody leads, or is only about to', () => {
    const core = coreOf(1);
    expect(healthProblemOf(core, none, '')).toBe('');
    core.leader = 2;
    expect(healthProblemOf(core, new Set([2, 3]), '')).toBe('');
  });

  it('is a full disk, of this node or of too many', () => {
    const core = coreOf(1);
    core.clusterFull = true;
    expect(healthProblemOf(core, none, '')).toContain('no quorum of nodes has free disk space');
    core.diskFull = true;
    expect(healthProblemOf(core, none, '')).toContain('the disk of this node is full');
  });

  it('is that this node takes no part in a cluster, whatever else the others miss', () => {
    const core = coreOf(1);
    expect(healthProblemOf(core, new Set([2, 3]), 'another history')).toBe('another history');
    core.diskFull = true;
    expect(healthProblemOf(core, none, 'another history')).toContain('disk');
  });

  it.each([
    [[1, 2, 3], [], ''],
    [[1, 2, 3], [2], ''],
    [[1, 2, 3], [2, 3], 'nodes 2 and 3 lost data'],
    [[1, 2, 3], [1, 2, 3], 'nodes 1, 2 and 3 lost data'],
    [[1, 2], [2], 'node 2 lost data'],
    [[1, 2, 3, 4], [4], ''],
    [[1, 2, 3, 4], [3, 4], 'nodes 3 and 4 lost data'],
    [[1, 2, 3], [7, 8, 9], ''],
    [[], [1], ''],
  ])('of the voters %j, %j lost data: %s', (voters, lost, said) => {
    const core = coreOf(1, { configuration: configurationOf(voters) });
    expect(lostQuorum(core, new Set(lost)).slice(0, said.length || undefined)).toBe(said);
  });

  it('counts both halves of a joint configuration', () => {
    const configuration = { ...configurationOf([1, 2, 3]), votersOutgoing: [3, 4, 5] };
    const core = coreOf(1, { configuration });
    expect(lostQuorum(core, new Set([3]))).toBe('');
    expect(lostQuorum(core, new Set([4, 5]))).toMatch(/nodes 4 and 5 lost data.*among nodes 3, 4 and 5/);
  });
});
