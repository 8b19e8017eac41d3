import { members } from '../../raft/state/configuration.ts';
import type { Core } from '../../raft/state/core.ts';
import { NO_NODE, type NodeId } from '../../raft/state/types.ts';

/**
 * Why the cluster, as this node sees it, can't serve or can't take writes; empty where it can. `lost` are the nodes
 * that say of themselves that they have lost data and have no vote; `nodesDiffer` says what is wrong with this node's
 * list of nodes, if anything.
 */
export function healthProblemOf(
  core: Core,
  lost: ReadonlySet<NodeId>,
  linked: (id: NodeId) => boolean,
  nodesDiffer = '',
): string {
  if (core.diskFull) return 'the disk of this node is full: its log cannot grow until space is freed';
  if (core.clusterFull) return 'no quorum of nodes has free disk space: writes are refused, reads are served';
  if (nodesDiffer !== '') return nodesDiffer;
  if (core.rights.lifecycle === 'uninitialized') return waitingForMembers(core, linked);
  return core.leader === NO_NODE ? lostQuorum(core, lost) : '';
}

function waitingForMembers(core: Core, linked: (id: NodeId) => boolean): string {
  const missing = members(core.configurations.current).filter((id) => id !== core.id && !linked(id));
  if (missing.length === 0) return 'the initial members of this new cluster are about to bootstrap it';
  return `a new cluster is bootstrapped once all its initial members are connected; missing: ${listed(missing)}`;
}

/** Names who has lost data, where so many have that the intact directories are no quorum; else empty. */
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
