import type { Core } from '../../raft/state/core.ts';
import { NO_NODE, type NodeId } from '../../raft/state/types.ts';

/**
 * Why the cluster, as this node sees it, can't serve or can't take writes; empty where it can. `lost` are the nodes
 * that say of themselves that they have lost data and have no vote; `standsApart` says why this node takes no part in a
 * cluster, if it takes none.
 */
export function healthProblemOf(core: Core, lost: ReadonlySet<NodeId>, standsApart: string): string {
  if (core.diskFull) return 'the disk of this node is full: its log cannot grow until space is freed';
  if (core.clusterFull) return 'no quorum of nodes has free disk space: writes are refused, reads are served';
  if (standsApart !== '') return standsApart;
  return core.leader === NO_NODE ? lostQuorum(core, lost) : '';
}

/** Names the nodes that have lost data if the intact directories are no quorum; else empty. */
export function lostQuorum(core: Core, lost: ReadonlySet<NodeId>): string {
  const { voters, votersOutgoing } = core.configurations.current;
  for (const group of [voters, votersOutgoing]) {
    const without = group.filter((id) => lost.has(id));
    if (group.length === 0 || (group.length - without.length) * 2 > group.length) continue;
    return (
      `${listed(without)} lost data, so no majority of intact directories is left among ${listed(group)}: ` +
      'the cluster stops rather than lose what it acknowledged'
    );
  }
  return '';
}

export function listed(ids: readonly NodeId[]): string {
  const last = ids.at(-1);
  if (ids.length === 1) return `node ${last}`;
  return `nodes ${ids.slice(0, -1).join(', ')} and ${last}`;
}
