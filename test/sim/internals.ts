import type { NodeReplicaOptions } from '../../src/replica/loop/node-options.ts';
import type { NodeReplica } from '../../src/replica/loop/node-replica.ts';
import type { Proposer } from '../../src/replica/writes/proposer.ts';
import type { Wal } from '../../src/storage/wal/types.ts';

/** Private parts of a replica. Only the simulator may look at them. */

/** What the node has accepted from its clients, and under which session: its status does not say all of it. */
export function proposerOf(replica: NodeReplica): Proposer {
  return Reflect.get(replica, 'proposer') as Proposer;
}

export function walOf(replica: NodeReplica): Wal {
  return (Reflect.get(replica, 'options') as NodeReplicaOptions).wal;
}
