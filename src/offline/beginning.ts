import type { Clock } from '../base/clock.ts';
import type { StateMachine } from '../kv/state-machine.ts';
import { configurationOf, DIRECTORY_UNKNOWN, simple, withDetail } from '../raft/state/configuration.ts';
import { type Configuration, NO_NODE, type NodeId } from '../raft/state/types.ts';
import type { InitialMember } from '../replica/lifecycle/bootstrap.ts';
import { newClusterId, newDirectoryId } from '../replica/lifecycle/identity.ts';
import type { Disk } from '../storage/disk/disk.ts';
import { buildNode } from './build.ts';

/** Makes the data directory of the node with which a new history begins (ADR 0014): by a restore, or by a recovery. */

export interface Beginning {
  /** What the new history begins with. */
  readonly state: StateMachine;
  /** The last entry in it. */
  readonly index: number;
  readonly term: number;
  /** See `BuildNodeOptions`. */
  readonly currentTerm: number;
  /** The number of the node's last start; 0 if it is unknown. */
  readonly incarnation: number;
  /** Gives the chunks of the state, each once the one before was taken. */
  readonly produce: (write: (chunk: Buffer) => Promise<void>) => Promise<unknown>;
}

export interface BeginningNode {
  readonly disk: Disk;
  readonly clock: Clock;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  /** The directory to fill; it must be empty. */
  readonly directory: string;
  readonly clusterName: string;
  readonly nodeId: NodeId;
  /** All nodes that the cluster is to have, this one among them. */
  readonly members: readonly InitialMember[];
  readonly walSegmentBytes: number;
}

/** Returns the first configuration of the new history, with its cluster id. The directory is valid once this has returned. */
export async function beginHistory(beginning: Beginning, node: BeginningNode): Promise<Configuration> {
  const { state, index, term, currentTerm, produce } = beginning;
  const { nodeId, members, clock, random } = node;
  const directoryId = newDirectoryId(random);
  const configuration = beginningAt(nodeId, directoryId, members, random);
  const sessionId = state.session(nodeId)?.sessionId ?? 0;
  const incarnation = Math.max(Math.floor(clock.wallMs() / 1000), beginning.incarnation + 1, sessionId + 1);
  await buildNode({ ...node, index, term, currentTerm, configuration, directoryId, incarnation, produce });
  return configuration;
}

/**
 * The configuration with which one node begins a history of its own. It is the only voter. The other members start empty:
 * the leader brings them in, and promotes each once it has caught up.
 */
function beginningAt(
  nodeId: NodeId,
  directoryId: number,
  members: readonly InitialMember[],
  random: () => number,
): Configuration {
  const others = members.filter(({ id }) => id !== nodeId);
  const address = members.find(({ id }) => id === nodeId)?.address ?? null;
  const self = { id: nodeId, address, directoryId, joins: false, replaces: NO_NODE };
  const alone = configurationOf([nodeId], [self], newClusterId(random));
  return others.reduce(
    (configuration, { id, address: where }) =>
      withDetail(simple(configuration, [{ op: 'learner', id }]), {
        id,
        address: where,
        directoryId: DIRECTORY_UNKNOWN,
        joins: true,
        replaces: NO_NODE,
      }),
    alone,
  );
}
