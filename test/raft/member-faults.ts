import { withoutRights } from '../../src/raft/rights.ts';
import { detailOf, isMember, isVoter, members } from '../../src/raft/state/configuration.ts';
import { isQuorumOf } from '../../src/raft/state/core.ts';
import type { Configuration, MemberChange, NodeId } from '../../src/raft/state/types.ts';
import type { Random } from '../support/random.ts';
import type { CoreCluster } from './core-cluster.ts';

/** What an operator and a bad day do to who is a member: changes asked for at any moment, disks lost. */

const NO_ADDRESS = { host: 'nowhere', clientPort: 1, peerPort: 2, adminPort: 3 };

/** The configurations that may decide something yet: the newest that is known to be committed, and all later ones. */
export function configurationsInForce(cluster: CoreCluster): Configuration[] {
  const nodes = [...cluster.nodes.values()];
  const newest = Math.max(0, ...nodes.map(({ core }) => core?.configurations.committed.index ?? 0));
  return nodes.flatMap(({ core, disk, initial }) =>
    (core?.configurations.entries ?? disk.configurations(initial))
      .filter(({ index, configuration }) => index >= newest && configuration.voters.length > 0)
      .map(({ configuration }) => configuration),
  );
}

/** Whether the nodes that `agrees` names, as far as their directories have a say, decide in all that may be in force. */
export function decide(cluster: CoreCluster, agrees: (id: NodeId) => boolean): boolean {
  return configurationsInForce(cluster).every((configuration) =>
    isQuorumOf(configuration, (id) => agrees(id) && hasSay(cluster, configuration, id)),
  );
}

/**
 * Whether the cluster can do without all but those that `agrees` names: also where a leader that has not noticed yet
 * what is lost is about to make a learner a voter.
 */
export function survives(cluster: CoreCluster, agrees: (id: NodeId) => boolean): boolean {
  const toCome = [...cluster.nodes.values()].flatMap(({ core }) => {
    if (core === null || core.leading === null) return [];
    const { leading } = core;
    const configuration = core.configurations.current;
    const joining = configuration.learners.filter(
      (id) => leading.progress.get(id)?.hasRights === true && detailOf(configuration, id)?.joins === true,
    );
    return joining.map((id) => ({ ...configuration, voters: [...configuration.voters, id] }));
  });
  const isThere = (configuration: Configuration, id: NodeId) => agrees(id) && hasSay(cluster, configuration, id);
  return (
    decide(cluster, agrees) &&
    toCome.every((configuration) => isQuorumOf(configuration, (id) => isThere(configuration, id)))
  );
}

/**
 * Whether the leader may remove `id`: what a voter has just lost its leader can't know yet, and an operator who removes
 * one intact directory while another is being lost has no quorum left.
 */
export function mayRemove(cluster: CoreCluster, leader: NodeId, id: NodeId): boolean {
  const configuration = cluster.node(leader).core?.configurations.current;
  if (configuration === undefined) return false;
  const voters = configuration.voters.filter((voter) => voter !== id);
  return isQuorumOf({ ...configuration, voters }, (voter) => hasSay(cluster, configuration, voter));
}

function hasSay(cluster: CoreCluster, configuration: Configuration, id: NodeId): boolean {
  const node = cluster.nodes.get(id);
  if (node === undefined || detailOf(configuration, id)?.directoryId !== node.disk.directoryId) return false;
  return node.core === null ? node.disk.lifecycle === 'normal' : !withoutRights(node.core);
}

/** A change that somebody might ask of `leader`, sensible or not. */
export function drawChange(cluster: CoreCluster, leader: NodeId, random: Random): MemberChange {
  const configuration = cluster.node(leader).core?.configurations.current;
  const ids = [...cluster.nodes.keys()];
  const present = configuration === undefined ? [] : members(configuration);
  const absent = ids.filter((id) => !present.includes(id));
  const what = random.below(10);
  if (what < 5 && absent.length > 0) {
    const replaces = random.chance(0.4) ? random.pick(ids) : 0;
    return { op: 'add', id: random.pick(absent), address: NO_ADDRESS, joins: random.chance(0.8), replaces };
  }
  if (what < 9) return { op: 'remove', id: random.pick(random.chance(0.2) ? ids : present) };
  return { op: 'promote', id: random.pick(random.chance(0.2) ? ids : present) };
}

/**
 * Why the members of a cluster without faults are not yet what they should be, or null: every directory that runs has earned
 * its rights, changes are finished, and learners that are to be voters are, unless that would cost the quorum.
 */
export function unrest(cluster: CoreCluster, isAlive: (id: NodeId) => boolean): string | null {
  const leader = cluster.leader();
  if (leader === undefined) return 'no leader';
  const configuration = leader.configurations.current;
  if (!leader.configurations.isCommitted) return 'a change is not committed';
  if (!isVoter(configuration, leader.id)) return `node ${leader.id} leads and is no voter`;
  if (configuration.autoLeave) return 'a joint configuration is not left';
  for (const id of members(configuration)) {
    const { core } = cluster.node(id);
    if (!isAlive(id) || core === null) continue;
    if (withoutRights(core)) return `node ${id} is ${core.rights.lifecycle} and has no vote`;
    const detail = detailOf(configuration, id);
    if (detail?.directoryId !== core.rights.directoryId)
      return `the directory of node ${id} is not the one that has its rights`;
    if (detail?.joins !== true || isVoter(configuration, id)) continue;
    const voters = [...configuration.voters, id].filter((voter) => voter !== detail.replaces);
    const next = { ...configuration, voters, votersOutgoing: configuration.voters };
    if (isQuorumOf(next, isAlive)) return `learner ${id} is not promoted`;
  }
  return null;
}

/** The alive nodes that the newest leader counts among the members. */
export function activeOf(cluster: CoreCluster, alive: readonly NodeId[]): NodeId[] {
  const configuration = cluster.leader()?.configurations.current;
  return alive.filter((id) => configuration === undefined || isMember(configuration, id));
}
